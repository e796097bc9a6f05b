//! What is taken, where it goes, and when an archive is read twice.

use windlass::archive::{Selection, Strip};

use crate::archive::support::{Entry, Tar, all, globs, read, refusal, without};

fn auto() -> Selection {
    Selection::default()
}

fn listing(tar: &[u8], selection: &Selection) -> String {
    read("x.tar", tar, selection).unwrap().0.listing()
}

#[test]
fn auto_strips_a_single_top_directory() {
    let tar = Tar::new().dir("./").dir("es-6/").file("es-6/bin/es", "x").symlink("es-6/l", "bin/es").end();
    assert_eq!(listing(&tar, &auto()), "bin/es 644 \"x\"\nl -> bin/es");
    assert_eq!(listing(&Tar::new().file("es-6/a", "").end(), &auto()), "a 644 \"\"");
}

#[test]
fn auto_reads_again_when_the_top_directory_is_not_alone() {
    let tar = Tar::new().file("es-6/a", "1").file("README", "2").end();
    let (seen, _) = read("x.tar", &tar, &auto()).unwrap();
    assert_eq!((seen.listing().as_str(), seen.restarts), ("README 644 \"2\"\nes-6/a 644 \"1\"", 1));
    let (seen, _) = read("x.tar", &Tar::new().file("a", "1").end(), &auto()).unwrap();
    assert_eq!(seen.listing(), "a 644 \"1\"");
    let (seen, _) = read("x.tar", &Tar::new().file("a", "1").file("b", "").end(), &auto()).unwrap();
    assert_eq!(seen.listing(), "a 644 \"1\"\nb 644 \"\"");
}

#[test]
fn count_lets_short_paths_vanish() {
    let tar = Tar::new().dir("a").file("a/x", "1").file("a/b/y", "2").end();
    let strip = |count| Selection { strip: Strip::Count(count), ..all() };
    assert_eq!(listing(&tar, &strip(1)), "b/y 644 \"2\"\nx 644 \"1\"");
    assert_eq!(listing(&tar, &strip(2)), "y 644 \"2\"");
    let error = refusal("x.tar", &tar, &strip(3));
    assert_eq!(error, "x.tar: nothing of it is selected; at its top it holds `a`");
    // What strip brings together may not meet.
    let tar = Tar::new().file("a/x", "").file("b/x", "").end();
    assert_eq!(refusal("x.tar", &tar, &strip(1)), "x.tar: `b/x`: two entries for one path");
}

#[test]
fn globs_take_and_leave() {
    let tar = Tar::new()
        .dir("top/modules/ml")
        .file("top/modules/ml/a.so", "1")
        .file("top/modules/x/b.so", "2")
        .file("top/bin/es", "3")
        .end();
    let selection = Selection { include: globs(&["modules", "nothing/*"]), ..auto() };
    let selection = Selection { exclude: globs(&["modules/ml/**", "never"]), ..selection };
    let (seen, summary) = read("x.tar", &tar, &selection).unwrap();
    assert_eq!(seen.listing(), "modules/x/b.so 644 \"2\"");
    assert_eq!(summary.unmatched, ["nothing/*", "never"]);
    assert_eq!((summary.members, summary.unpacked), (4, 3));
}

#[test]
fn what_is_left_out_conflicts_with_nothing() {
    let tar = Tar::new().file("a", "").file("a", "").symlink("l", "/x").file("l/y", "").file("b", "").end();
    assert_eq!(listing(&tar, &without(&["a", "l"])), "b 644 \"\"");
}

#[test]
fn modes() {
    let file = |name: &str, mode| Entry { mode, ..Entry::new(b'0', name) };
    let tar = Tar::new()
        .entry(&file("x", 0o6_711))
        .entry(&file("plain", 0o666))
        .entry(&file("group", 0o071))
        .entry(&Entry { mode: 0o1_777, ..Entry::new(b'5', "d") })
        .end();
    assert_eq!(listing(&tar, &all()), "d/\ngroup 644 \"\"\nplain 644 \"\"\nx 755 \"\"");
    let keep = Selection { keep_setuid: true, ..all() };
    assert_eq!(listing(&tar, &keep), "d/\ngroup 644 \"\"\nplain 644 \"\"\nx 6755 \"\"");
}

#[test]
fn hard_links_follow_their_file() {
    let tar = Tar::new()
        .file("top/a", "1")
        .hard_link("top/b", "./top/a")
        .hard_link("top/c", "top/b")
        .symlink("top/s", "a")
        .hard_link("top/t", "top/s")
        .end();
    assert_eq!(listing(&tar, &auto()), "a 644 \"1\"\nb == a\nc == a\ns -> a\nt -> a");
}

#[test]
fn a_hard_link_becomes_the_file_that_was_left_out() {
    let tar = Tar::new()
        .entry(&Entry { mode: 0o755, content: b"1".to_vec(), ..Entry::new(b'0', "out/a") })
        .file("out/z", "2")
        .hard_link("out/b", "out/a")
        .file("in/x", "3")
        .hard_link("in/b", "out/b")
        .hard_link("in/c", "out/a")
        .hard_link("in/z", "out/z")
        .end();
    let (seen, _) = read("x.tar", &tar, &without(&["out"])).unwrap();
    assert_eq!(seen.listing(), "in/b 755 \"1\"\nin/c == in/b\nin/x 644 \"3\"\nin/z 644 \"2\"");
    assert_eq!(seen.restarts, 1);
    // Stripped away, and with a single top directory assumed wrongly, too.
    let strip = Selection { strip: Strip::Count(1), ..all() };
    let tar = Tar::new().file("a", "1").hard_link("d/b", "a").end();
    assert_eq!(listing(&tar, &strip), "b 644 \"1\"");
    let tar = Tar::new().file("d/a", "1").hard_link("d/b", "d/a").file("e", "").end();
    let (seen, _) = read("x.tar", &tar, &Selection { exclude: globs(&["a", "d/a"]), ..auto() }).unwrap();
    assert_eq!((seen.listing().as_str(), seen.restarts), ("d/b 644 \"1\"\ne 644 \"\"", 2));
}

#[test]
fn a_retained_link_still_conflicts() {
    let tar = Tar::new().file("a", "1").hard_link("d/b", "a").hard_link("d/b", "a").end();
    let error = refusal("x.tar", &tar, &without(&["a"]));
    assert_eq!(error, "x.tar: `d/b`: two entries for one path");
}
