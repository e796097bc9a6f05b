//! A TCP stream whose peer need not wait for acknowledgements while the connection is set up.
//!
//! sshd turns Nagle's algorithm off only when a command is run: until then a second small packet waits for the
//! acknowledgement of the first, which the kernel here holds back for 40 ms in the hope of an answer to send with it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;

/// So many reads are acknowledged at once: more than a handshake, a login and the first command take.
const READS: u32 = 64;

/// `stream`, which was just connected; it acknowledges its first reads at once.
pub(super) fn prompt_acks(stream: TcpStream) -> impl AsyncRead + AsyncWrite + Unpin + Send {
    let (stream, write) = stream.into_split();
    tokio::io::join(PromptAcks { stream, left: READS }, write)
}

struct PromptAcks {
    stream: OwnedReadHalf,
    left: u32,
}

impl AsyncRead for PromptAcks {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let outcome = Pin::new(&mut self.stream).poll_read(cx, buf);
        if self.left > 0 && buf.filled().len() > before {
            self.left -= 1;
            // The kernel forgets it with the next answer. Where it fails, setting up takes longer.
            let _slower = self.stream.as_ref().set_quickack(true);
        }
        outcome
    }
}
