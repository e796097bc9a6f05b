//! Files that only grow, a line at a time, each on the disk before the next thing happens.

use std::fs::File;
use std::io::Write as _;

use camino::{Utf8Path, Utf8PathBuf};
use rustix::fs::{Mode, OFlags};

use super::{IoError, IoResultExt, calls, sync_dir};

/// An open log. One process writes to it at a time; a lock that is not here sees to that.
#[derive(Debug)]
pub struct AppendLog {
    file: File,
    path: Utf8PathBuf,
    length: u64,
}

impl AppendLog {
    /// Opens the log, making it if it is not there; a torn last line is cut off.
    pub fn open(path: &Utf8Path) -> Result<Self, IoError> {
        let flags = OFlags::RDWR | OFlags::APPEND | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let new = !path.exists();
        let fd = calls::open(path.as_std_path(), flags, Mode::from_raw_mode(0o600)).at("open", path)?;
        let file = File::from(fd);
        if new && let Some(dir) = path.parent() {
            sync_dir(dir)?;
        }
        let length = cut_torn_line(&file, path)?;
        Ok(Self { file, path: path.to_owned(), length })
    }

    /// Appends `lines`, the last of which is ended, and waits until they are on the disk if `sync` says so.
    ///
    /// What could not be written whole is taken back, so that the next line starts at a line's start.
    pub fn append_lines(&mut self, lines: &[u8], sync: bool) -> Result<(), IoError> {
        let mut written = (&self.file).write_all(lines);
        if sync {
            written = written.and_then(|()| self.file.sync_data());
        }
        match written {
            Ok(()) => {
                self.length += lines.len() as u64;
                Ok(())
            }
            Err(error) => {
                // If this fails too, the next opening cuts the line.
                let _ = self.file.set_len(self.length);
                Err(error).at("append to", &self.path)
            }
        }
    }

    /// The open file.
    pub fn file(&self) -> &File {
        &self.file
    }
}

/// Cuts what stands after the last newline: a line that a crash tore. Gives the length that is left.
pub fn cut_torn_line(file: &File, path: &Utf8Path) -> Result<u64, IoError> {
    use std::os::unix::fs::FileExt as _;
    const BLOCK: u64 = 4096;
    let length = file.metadata().at("read", path)?.len();
    let mut end = length;
    let mut keep = 0;
    while end > 0 {
        let start = end.saturating_sub(BLOCK);
        let mut block = vec![0; usize::try_from(end - start).unwrap_or(0)];
        file.read_exact_at(&mut block, start).at("read", path)?;
        if let Some(at) = block.iter().rposition(|byte| *byte == b'\n') {
            keep = start + at as u64 + 1;
            break;
        }
        end = start;
    }
    if keep < length {
        file.set_len(keep).and_then(|()| file.sync_all()).at("cut the torn end of", path)?;
    }
    Ok(keep)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_stay_and_a_torn_one_goes() {
        let dir = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::from_path_buf(dir.path().join("log")).unwrap();
        let mut log = AppendLog::open(&path).unwrap();
        log.append_lines(b"one\n", true).unwrap();
        log.append_lines(&[&[b'x'; 9000][..], b"\n"].concat(), false).unwrap();
        drop(log);
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, [&whole[..], &[b'y'; 5000]].concat()).unwrap();
        AppendLog::open(&path).unwrap().append_lines(b"two\n", true).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().map(str::len).collect::<Vec<_>>(), [3, 9000, 3]);
    }
}
