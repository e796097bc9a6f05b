//! A client that asks all the time, as a balancer in front of the nodes would: the next node if one fails.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long a node may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a client saw.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    /// Requests.
    pub(super) requests: u64,
    /// Requests that no node answered.
    pub(super) failed: u64,
    /// Times that a node did not answer and the next one was asked.
    pub(super) retried: u64,
}

/// A client at work.
pub(super) struct Client {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Seen>,
}

impl Client {
    /// Starts to ask the services at these ports of this machine.
    pub(super) fn start(ports: &[u16]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, ports) = (Arc::clone(&stop), ports.to_vec());
        let thread = std::thread::spawn(move || {
            let mut seen = Seen::default();
            for first in (0..ports.len()).cycle() {
                let mut order = ports.iter().cycle().skip(first).take(ports.len());
                let tried = order.position(|port| ask(*port));
                seen.requests += 1;
                seen.retried += u64::try_from(tried.unwrap_or(0)).unwrap_or(0);
                seen.failed += u64::from(tried.is_none());
                if stopped.load(Ordering::SeqCst) {
                    break;
                }
                std::thread::sleep(Duration::from_millis(2));
            }
            seen
        });
        Self { stop, thread }
    }

    /// Stops the client after the request at hand; it has made at least one.
    pub(super) fn finish(self) -> Seen {
        self.stop.store(true, Ordering::SeqCst);
        // It panics nowhere; if it did, it saw nothing.
        self.thread.join().unwrap_or_default()
    }
}

/// Whether the service at `port` answers with 200.
fn ask(port: u16) -> bool {
    let answer = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&SocketAddr::from(([127, 0, 0, 1], port)), PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: hello\r\nConnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    };
    answer().is_ok_and(|text| text.starts_with("HTTP/1.1 200 "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_fails_only_if_no_node_answers() {
        let service = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = service.local_addr().unwrap().port();
        let (answered, answers) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for mut stream in service.incoming().flatten() {
                let _asked = stream.read(&mut [0; 512]);
                let _answered = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
                let _over = answered.send(());
            }
        });
        // A port that no server has and the kernel gives to no client.
        let nobody = 1;
        let client = Client::start(&[nobody, port]);
        for _ in 0..6 {
            answers.recv_timeout(Duration::from_mins(2)).unwrap();
        }
        let seen = client.finish();
        assert!(seen.requests > 5 && seen.failed == 0 && seen.retried > 0, "{seen:?}");
        let client = Client::start(&[nobody]);
        let seen = client.finish();
        assert!(seen.failed > 0 && seen.failed == seen.requests, "{seen:?}");
    }
}
