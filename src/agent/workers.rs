//! The threads that share an operation's work.

use std::io;
use std::sync::OnceLock;

/// Starts them, once: where they cannot be had, work that was spread over them would end the process.
pub(super) fn start() -> io::Result<()> {
    static STARTED: OnceLock<Result<(), i32>> = OnceLock::new();
    let started = STARTED.get_or_init(|| {
        let started = rayon::ThreadPoolBuilder::new().build_global();
        // Without a source, somebody was faster, which is as good.
        match started.as_ref().err().and_then(std::error::Error::source) {
            None => Ok(()),
            Some(source) => {
                let source = source.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error);
                Err(source.unwrap_or(rustix::io::Errno::AGAIN.raw_os_error()))
            }
        }
    });
    started.map_err(io::Error::from_raw_os_error)
}
