//! windlass.lock: round trips, and what is said when it is wrong.

use insta::assert_snapshot;
use proptest::prelude::*;

use crate::model::Digest;
use crate::recipe::Lock;

#[test]
fn is_sorted_and_stable() {
    let mut lock = Lock::new();
    lock.insert("kafka.tgz", Digest::of(b"k"), 7);
    lock.insert("es.tar.gz", Digest::of(b"e"), 0);
    assert_snapshot!(lock.to_text(), @r#"
    # Written by `windlass lock`; commit it.
    schema = 1

    [[artifact]]
    name = "es.tar.gz"
    sha256 = "3f79bb7b435b05321651daefd374cdc681dc06faa65e374e38337b88ca046dea"
    size = 0

    [[artifact]]
    name = "kafka.tgz"
    sha256 = "8254c329a92850f6d539dd376f4816ee2764517da5e0235514af433164480d7a"
    size = 7
    "#);
    assert_eq!(Lock::parse(&lock.to_text()).unwrap(), lock);
    assert_eq!(lock.get("kafka.tgz").unwrap().size, 7);
    assert!(lock.get("nginx").is_none());
}

#[test]
fn newer() {
    assert_snapshot!(Lock::parse("schema = 2\nx = 1").unwrap_err(), @"
    error: windlass.lock has schema 2; this windlass reads up to 1
     --> windlass.lock:1:10
      |
    1 | schema = 2
      |          ^
      |
      = help: it was written for a newer windlass: upgrade this one
    ");
}

#[test]
fn merge_conflict() {
    assert_snapshot!(Lock::parse("schema = 1\n<<<<<<< HEAD\n[[artifact]]\n=======\n").unwrap_err(), @"
    error: windlass.lock holds a merge conflict
     --> windlass.lock:2:1
      |
    2 | <<<<<<< HEAD
      | ^^^^^^^
      |
      = help: keep the entries of both sides and remove the markers
      = help: then run `windlass lock`
    ");
}

#[test]
fn wrong_entries() {
    let digest = Digest::of(b"").hex();
    let text = format!(
        "schema = 1\n[[artifact]]\nname = \"a\"\nsha256 = \"12\"\nsize = -1\n\n[[artifact]]\nname = \"a\"\n\
         [[artifact]]\nname = \"b\"\nsha256 = \"{digest}\"\nsize = 1\n\
         [[artifact]]\nname = \"b\"\nsha256 = \"sha256:{digest}\"\nsize = 1\nurl = \"x\"\n"
    );
    assert_snapshot!(Lock::parse(&text).unwrap_err(), @r#"
    error: `sha256` must be 64 lower-case hex digits
     --> windlass.lock:4:10
      |
    4 | sha256 = "12"
      |          ^^^^

    error: `size` must be from 0 to 18446744073709551615, not -1
     --> windlass.lock:5:8
      |
    5 | size = -1
      |        ^^

    error: [[artifact]] has no `sha256`
     --> windlass.lock:7:1
      |
    7 | [[artifact]]
      | ^^^^^^^^^^^^
      |
      = help: add: sha256 = "<64 hex digits>"

    error: [[artifact]] has no `size`
     --> windlass.lock:7:1
      |
    7 | [[artifact]]
      | ^^^^^^^^^^^^
      |
      = help: add: size = <bytes>

    error: there are two entries for `b`
      --> windlass.lock:14:8
       |
    14 | name = "b"
       |        ^^^
       |
       = help: the first is at windlass.lock:10:8

    error: unknown key `url` in [[artifact]]
      --> windlass.lock:17:1
       |
    17 | url = "x"
       | ^^^
       |
       = help: valid keys: name, sha256, size
    "#);
}

proptest! {
    #[test]
    fn round_trip(entries in prop::collection::btree_map(any::<String>(), any::<(u64, [u8; 32])>(), 0..8)) {
        let mut lock = Lock::new();
        for (name, (size, digest)) in &entries {
            lock.insert(name, Digest::from_bytes(*digest), *size);
        }
        let text = lock.to_text();
        let read = Lock::parse(&text).unwrap();
        prop_assert_eq!(&read, &lock);
        prop_assert_eq!(read.to_text(), text);
    }
}
