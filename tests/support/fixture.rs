//! Files that many tests need alike: made once per content, below the target directory, and copied from there.
//!
//! Copied rather than linked: a link changes the inode's time, and a build that reads it notices that it changed.

use std::fs;
use std::path::{Path, PathBuf};

use windlass::model::Digest;

/// Copies the file that `make` writes for these inputs to `to`, which may exist.
pub(crate) fn place(inputs: Digest, to: &Path, make: impl FnOnce(&Path)) {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("fixtures");
    let kept = dir.join(inputs.hex());
    if !kept.exists() {
        fs::create_dir_all(&dir).unwrap();
        // Other tests may be making the same one: each makes its own, and the last to be named stays.
        let new = tempfile::Builder::new().prefix("new-").tempdir_in(&dir).unwrap();
        let made = new.path().join("made");
        make(&made);
        fs::rename(&made, &kept).unwrap();
    }
    fs::copy(&kept, to).unwrap();
}

#[test]
fn a_fixture_is_made_once_and_copied_over_what_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("to");
    let inputs = Digest::of(b"a fixture for its own test");
    for text in ["first", "second"] {
        fs::write(&to, text).unwrap();
        place(inputs, &to, |path| fs::write(path, "made").unwrap());
        assert_eq!(fs::read_to_string(&to).unwrap(), "made");
    }
    place(inputs, &dir.path().join("more"), |_| panic!("it was made already"));
}
