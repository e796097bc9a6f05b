//! One hostile tar per refusal, and what the error says.

use insta::assert_snapshot;
use windlass::archive::Selection;

use crate::archive::support::{Entry, Tar, all, path, read, refusal, without};

fn tar(tar: Tar) -> String {
    refusal("x.tar", &tar.end(), &all())
}

#[test]
fn names() {
    assert_snapshot!(tar(Tar::new().file("/etc/passwd", "")), @"x.tar: `/etc/passwd`: the path is absolute");
    assert_snapshot!(tar(Tar::new().file("a/../../b", "")), @"x.tar: `a/../../b`: the path has a `..` component");
    assert_snapshot!(tar(Tar::new().file("..", "")), @"x.tar: `..`: the path has a `..` component");
    assert_snapshot!(tar(Tar::new().file(b"a\xff", "")), @"x.tar: `a�`: the name is not UTF-8");
    assert_snapshot!(tar(Tar::new().file("", "")), @"x.tar: ``: the path is empty");
    assert_snapshot!(tar(Tar::new().file(".", "")), @"x.tar: `.`: the path is empty");
    assert_snapshot!(tar(Tar::new().dir("")), @"x.tar: ``: the path is empty");
    let long = Entry { content: b"a\0b\0".to_vec(), ..Entry::new(b'L', "././@LongLink") };
    assert_snapshot!(tar(Tar::new().entry(&long).file("a", "")), @r"x.tar: `a\u{0}b`: the path holds a NUL byte");
    assert_snapshot!(
        tar(Tar::new().pax(b'x', &[("path", &"x".repeat(256))]).file("a", "")).replace(&"x".repeat(256), "xx.."),
        @"x.tar: `xx..`: the path is longer than 4095 bytes, or a component is longer than 255"
    );
    assert_snapshot!(
        tar(Tar::new().file("a\x1b[2Jb/..", "")),
        @r"x.tar: `a\u{1b}[2Jb/..`: the path has a `..` component"
    );
}

#[test]
fn the_bundle_path_counts_too() {
    let deep = vec!["x"; 1000].join("/");
    let selection = Selection { into: Some(path(&vec!["y"; 1100].join("/"))), ..all() };
    let error = refusal("x.tar", &Tar::new().pax(b'x', &[("path", &deep)]).file("a", "").end(), &selection);
    assert!(
        error.ends_with("the path is longer than 4095 bytes, or a component is longer than 255"),
        "{error}"
    );
}

#[test]
fn whiteouts() {
    for name in [".wh.a", "a/.wh..wh..opq", "a/.wh.b/c"] {
        let error = tar(Tar::new().file(name, ""));
        assert_eq!(
            error,
            format!("x.tar: `{name}`: a name that starts with `.wh.` means a deletion in an OCI layer")
        );
    }
}

#[test]
fn conflicts() {
    let two = "x.tar: `a`: two entries for one path";
    assert_eq!(tar(Tar::new().file("a", "").file("a", "")), two);
    assert_eq!(tar(Tar::new().file("a", "").dir("a")), two);
    assert_eq!(tar(Tar::new().dir("a").file("a", "")), two);
    assert_eq!(tar(Tar::new().dir("a").symlink("a", "b")), two);
    assert_eq!(tar(Tar::new().symlink("a", "b").symlink("a", "b")), two);
    assert_eq!(tar(Tar::new().symlink("a", "b").dir("a")), two);
    assert_eq!(tar(Tar::new().file("a/b", "").file("a", "")), two);
    assert_eq!(tar(Tar::new().file("b", "").file("a", "").hard_link("a", "b")), two);
    assert_snapshot!(
        tar(Tar::new().file("a", "").file("./a", "")),
        @"x.tar: `./a`: two entries for one path"
    );
    assert_snapshot!(
        tar(Tar::new().file("a", "").file("a/b/c", "")),
        @"x.tar: `a/b/c`: it lies below `a`, which is not a directory in this archive"
    );
    assert_snapshot!(
        tar(Tar::new().symlink("a", "b").file("a/b", "")),
        @"x.tar: `a/b`: it lies below `a`, which is a symlink in this archive"
    );
    assert_snapshot!(
        tar(Tar::new().file("a/b", "").symlink("a", "b")),
        @"x.tar: `a`: it is a symlink, but other members lie below it"
    );
}

#[test]
fn a_directory_may_come_again() {
    let bytes = Tar::new().dir("./").dir("a/").file("a/b", "").dir("a").dir("c/d").dir("c").end();
    let (seen, summary) = read("x.tar", &bytes, &all()).unwrap();
    assert_eq!(seen.listing(), "a/\na/b 644 \"\"\nc/\nc/d/");
    assert_eq!(summary.members, 6);
}

#[test]
fn special_entries() {
    for (flag, what) in [
        (b'3', "it is a character device; only files, directories and links are taken"),
        (b'4', "it is a block device; only files, directories and links are taken"),
        (b'6', "it is a FIFO; only files, directories and links are taken"),
        (
            b'M',
            "it is the rest of a file that another volume starts; only files, directories and links are taken",
        ),
        (b'A', "its tar entry type `A` is not known"),
        (b'\n', r"its tar entry type `\n` is not known"),
    ] {
        let hostile = Tar::new().file("b", "").entry(&Entry::new(flag, "a"));
        assert_eq!(tar(hostile), format!("x.tar: `a`: {what}"));
        let hostile = Tar::new().file("b", "").entry(&Entry::new(flag, "a")).end();
        read("x.tar", &hostile, &without(&["a"])).unwrap();
    }
    for (flag, what) in [(b'5', "a directory"), (b'2', "a symlink")] {
        let entry = Entry { content: b"x".to_vec(), link: b"b".to_vec(), ..Entry::new(flag, "a") };
        let expected = format!("x.tar: `a`: it is {what} that declares 1 bytes of content");
        assert_eq!(tar(Tar::new().entry(&entry)), expected);
    }
}

#[test]
fn symlinks() {
    let link = |target: &str| Tar::new().symlink("a/b", target);
    assert_snapshot!(tar(link("")), @"x.tar: `a/b`: the symlink has no target");
    assert_snapshot!(tar(link("/etc")), @"x.tar: `a/b`: the symlink leads to the absolute path `/etc`");
    assert_snapshot!(tar(link("../../x")), @"x.tar: `a/b`: the symlink leads out of the bundle: `../../x`");
    assert_snapshot!(tar(link("c/../../../x")), @"x.tar: `a/b`: the symlink leads out of the bundle: `c/../../../x`");
    assert_snapshot!(
        tar(Tar::new().pax(b'x', &[("linkpath", "x\0y")]).symlink("a", "b")),
        @"x.tar: `a`: the symlink's target is not UTF-8 or holds a NUL byte"
    );
    assert_snapshot!(
        tar(Tar::new().pax(b'x', &[("linkpath", &"x".repeat(4096))]).symlink("a", "b")),
        @"x.tar: `a`: the symlink's target is longer than 4095 bytes"
    );
    // `..` itself may be reached from within `into`.
    let selection = Selection { into: Some(path("x/y")), ..all() };
    read("x.tar", &link("../../../z").end(), &selection).unwrap();
    let error = refusal("x.tar", &link("../../../../z").end(), &selection);
    assert_snapshot!(error, @"x.tar: `a/b`: the symlink leads out of the bundle: `../../../../z`");
    read("x.tar", &link("../x").end(), &all()).unwrap();
}

#[test]
fn symlinks_through_symlinks() {
    // Each is fine by itself; together they leave.
    let chain = Tar::new().symlink("a/b", "c/../../x").symlink("a/c", "../d").dir("d");
    assert_snapshot!(tar(chain), @"x.tar: `a/b`: the symlink leads out of the bundle: `c/../../x`");
    let through = Tar::new().symlink("deep/er/up", "../..").symlink("a", "deep/er/up/..");
    assert_snapshot!(tar(through), @"x.tar: `a`: the symlink leads out of the bundle: `deep/er/up/..`");
    assert_snapshot!(
        tar(Tar::new().symlink("a", "b").symlink("b", "a")),
        @"x.tar: `a`: the symlink leads through more than 40 symlinks: `b`"
    );
    let mut long = Tar::new();
    for n in 0..41 {
        long = long.symlink(&format!("l{n:02}"), &format!("l{:02}", n + 1));
    }
    assert_snapshot!(tar(long), @"x.tar: `l00`: the symlink leads through more than 40 symlinks: `l01`");
    // Few links, but each is followed twice by the one above it.
    let doubling = (0..10).fold(Tar::new().symlink("l10", "."), |tar, n| {
        tar.symlink(&format!("l{n:02}"), &format!("l{0:02}/l{0:02}", n + 1))
    });
    assert!(self::tar(doubling).contains("more than 40 symlinks"));
    let selection = Selection { into: Some(path("into")), ..all() };
    let chain = Tar::new().symlink("a/b", "c/../../x").symlink("a/c", "../d").dir("d").end();
    read("x.tar", &chain, &selection).unwrap();
}

#[test]
fn hard_links() {
    let link = |target: &str| Tar::new().dir("d").hard_link("a", target).file("b", "");
    let nothing = |target: &str| {
        format!("x.tar: `a`: it is a hard link to `{target}`, which is no earlier file of this archive")
    };
    for target in ["c", "b", "/b", "../b", "", "d/x"] {
        assert_eq!(tar(link(target)), nothing(target));
    }
    assert_snapshot!(tar(link("d")), @"x.tar: `a`: it is a hard link to `d`, which is a directory");
    assert_snapshot!(tar(link("./a")), @"x.tar: `a`: it is a hard link to itself");
    assert_snapshot!(
        tar(Tar::new().file("a", "").symlink("s", "a").hard_link("a/b", "s")),
        @"x.tar: `a/b`: it lies below `a`, which is not a directory in this archive"
    );
    // The link's own place decides where the symlink leads.
    assert_snapshot!(
        tar(Tar::new().symlink("d/s", "../x").hard_link("a", "d/s")),
        @"x.tar: `a`: the symlink leads out of the bundle: `../x`"
    );
}

#[test]
fn sizes() {
    let huge = Entry { size: Some(1 << 40), ..Entry::new(b'0', "a") };
    assert_snapshot!(tar(Tar::new().entry(&huge)), @"x.tar: `a`: it unpacks to more than max_unpacked, which is 1.0 GiB");
    let max = Entry { size: Some(u64::MAX), ..Entry::new(b'0', "a") };
    assert_snapshot!(tar(Tar::new().entry(&max)), @"x.tar: `a`: it unpacks to more than max_unpacked, which is 1.0 GiB");
    let zeros = Entry { content: vec![0; 3 << 20], ..Entry::new(b'0', "a") };
    let bomb = zstd::encode_all(&*Tar::new().entry(&zeros).end(), 3).unwrap();
    assert_snapshot!(
        refusal("x.tar.zst", &bomb, &all()).replace(&format!("{} B", bomb.len()), "N B"),
        @"x.tar.zst: `a`: it unpacks to more than 1000 times its own size of N B"
    );
    let pax = Tar::new().pax(b'x', &[("size", "99999999999999999999")]).file("a", "");
    assert_snapshot!(tar(pax), @"x.tar: it is corrupt at byte 0 of its tar: a PAX record that should be a number is none");
}

#[test]
fn archives_that_hold_nothing_but_overhead() {
    let headers = Tar::new().pax(b'g', &[("comment", &"x".repeat(900 << 10))]).bytes().repeat(80);
    let bomb = zstd::encode_all(&*headers, 1).unwrap();
    assert_snapshot!(
        refusal("x.tar.zst", &bomb, &all()),
        @"x.tar.zst: it holds 64.2 MiB that belong to no file, which is more than its members can need"
    );
    let mut padded = Tar::new().file("a", "").end();
    padded.resize(80 << 20, 0);
    let error = refusal("x.tar.zst", &zstd::encode_all(&*padded, 1).unwrap(), &all());
    assert!(error.contains("that belong to no file"), "{error}");
    let long = Entry { size: Some(2 << 20), ..Entry::new(b'L', "././@LongLink") };
    assert_snapshot!(
        tar(Tar::new().entry(&long)),
        @"x.tar: it is corrupt at byte 512 of its tar: an extended header is longer than 1 MiB"
    );
}

#[test]
fn deep_paths_cost_their_memory() {
    let deep = |n: usize| format!("{n}/{}", vec!["x"; 2000].join("/"));
    let bomb = (0..80).fold(Tar::new(), |tar, n| tar.pax(b'x', &[("path", &deep(n))]).file("a", ""));
    let error = refusal("x.tar", &bomb.end(), &all());
    assert!(error.contains("it holds 128 MiB that belong to no file"), "{error}");
}

#[test]
fn broken_headers() {
    let good = Tar::new().file("a", "x").file("b", "").end();
    let mut bad = good.clone();
    bad[1024] ^= 1;
    assert_snapshot!(refusal("x.tar", &bad, &all()), @"x.tar: it is corrupt at byte 1024 of its tar: a header's checksum is wrong");
    let lone = [Tar::new().file("a", "").bytes(), vec![0; 512], good].concat();
    assert_snapshot!(refusal("x.tar", &lone, &all()), @"x.tar: it is corrupt at byte 512 of its tar: a lone block of zeros is followed by more");
    let two = Tar::new().pax(b'x', &[("path", "a")]).pax(b'x', &[("path", "b")]).file("c", "");
    assert_snapshot!(tar(two), @"x.tar: it is corrupt at byte 1024 of its tar: two extended headers of one type describe the same member");
    assert_snapshot!(
        tar(Tar::new().pax(b'x', &[("path", "a")])),
        @"x.tar: it is corrupt at byte 1024 of its tar: an extended header describes a member that does not follow"
    );
    let records = Entry { content: b"9999 path=a\n".to_vec(), ..Entry::new(b'x', "pax") };
    assert_snapshot!(
        tar(Tar::new().entry(&records).file("a", "")),
        @"x.tar: it is corrupt at byte 0 of its tar: a PAX record is malformed"
    );
}

#[test]
fn an_empty_selection_says_what_there_is() {
    assert_snapshot!(tar(Tar::new()), @"x.tar: nothing of it is selected; it holds nothing");
    let bytes = Tar::new().file("top/a", "").file("b", "").end();
    assert_snapshot!(
        refusal("x.tar", &bytes, &without(&["top", "b"])),
        @"x.tar: nothing of it is selected; at its top it holds `top`, `b`"
    );
    let many = (0..7).fold(Tar::new(), |tar, n| tar.file(format!("f{n}"), "")).end();
    assert_snapshot!(
        refusal("x.tar", &many, &without(&["**"])),
        @"x.tar: nothing of it is selected; at its top it holds `f0`, `f1`, `f2`, `f3`, `f4`, ..."
    );
}
