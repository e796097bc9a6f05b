//! What tests with a real Redis have in common: its programs, a connection, and a client whose writes are confirmed
//! by WAIT.

use std::fs;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::support::worker::{Pace, Worker};

/// A program that is installed here.
pub(crate) fn program(name: &str) -> Vec<u8> {
    let path = std::env::var("PATH").unwrap();
    let found = std::env::split_paths(&path).map(|dir| dir.join(name)).find(|path| path.is_file());
    fs::read(found.unwrap()).unwrap()
}

/// A connection to a server.
pub(crate) struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    /// Connects, with the password if there is one.
    pub(crate) fn connect(address: SocketAddr, password: Option<&str>) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_mins(1)))?;
        let mut client = Self { stream: BufReader::new(stream) };
        if let Some(password) = password {
            client.ask(&["AUTH", password])?;
        }
        Ok(client)
    }

    /// The answer's first line, or a string's content; errors of the server are errors.
    pub(crate) fn ask(&mut self, words: &[&str]) -> io::Result<String> {
        let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            bytes.extend(format!("${}\r\n{word}\r\n", word.len()).into_bytes());
        }
        self.stream.get_mut().write_all(&bytes)?;
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let line = line.trim_end();
        match line.split_at(1) {
            ("-", text) => Err(io::Error::other(text.to_owned())),
            ("$", "-1") => Ok(String::new()),
            ("$", length) => {
                let mut bytes = vec![0; length.parse::<usize>().unwrap() + 2];
                self.stream.read_exact(&mut bytes)?;
                Ok(String::from_utf8_lossy(&bytes[..bytes.len() - 2]).into_owned())
            }
            (_, text) => Ok(text.to_owned()),
        }
    }
}

/// A field of what a server says of itself; empty if it says nothing.
pub(crate) fn field(address: SocketAddr, password: Option<&str>, name: &str) -> String {
    let info =
        Client::connect(address, password).and_then(|mut client| client.ask(&["INFO"])).unwrap_or_default();
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap_or_default().to_owned()
}

/// A client whose writes are confirmed by WAIT.
pub(crate) type Writer = Worker<Confirmed>;

/// What a writer saw.
#[derive(Debug)]
pub(crate) struct Confirmed {
    /// The keys that a replica confirmed.
    pub(crate) keys: Vec<String>,
    /// The longest time between two confirmed writes.
    pub(crate) gap: Duration,
}

/// Starts a client that writes to the master among `servers`, with a pause after each write.
pub(crate) fn writer(servers: Vec<SocketAddr>, password: Option<&'static str>, pause: Duration) -> Writer {
    Worker::start("confirmed writes", move |pace| write(&servers, password, pause, pace))
}

fn write(servers: &[SocketAddr], password: Option<&str>, pause: Duration, pace: &Pace) -> Confirmed {
    let (mut keys, mut gap, mut last) = (Vec::new(), Duration::ZERO, Instant::now());
    let mut client: Option<Client> = None;
    let mut number = 0;
    while !pace.is_over() {
        if client.is_none() {
            let found = servers.iter().copied().find(|at| field(*at, password, "role") == "master");
            client = found.and_then(|at| Client::connect(at, password).ok());
        }
        number += 1;
        let key = format!("k{number}");
        let outcome = client.as_mut().map(|client| {
            client.ask(&["SET", &key, "x"])?;
            client.ask(&["WAIT", "1", "500"])
        });
        match outcome {
            Some(Ok(count)) if count != "0" => {
                gap = gap.max(last.elapsed());
                last = Instant::now();
                keys.push(key);
                pace.count();
                std::thread::sleep(pause);
            }
            Some(Ok(_)) => {}
            Some(Err(_)) | None => {
                client = None;
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
    Confirmed { keys, gap }
}
