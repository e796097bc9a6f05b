//! A client of `ZooKeeper` that writes all the time, over one session, to any server that it can connect to.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::support::worker::{Pace, Worker};

const CREATE: i32 = 1;
const CHILDREN: i32 = 8;
const SYNC: i32 = 9;
const NODE_EXISTS: i32 = -110;
/// Longer than a busy machine takes to elect a leader; conf has to allow it.
pub(crate) const SESSION_MS: i32 = 60_000;

/// One session; its connections come and go.
struct Session {
    servers: Vec<SocketAddr>,
    next: usize,
    id: i64,
    password: Vec<u8>,
    stream: Option<TcpStream>,
    xid: i32,
}

/// What the writer saw.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Names of nodes whose creation was acknowledged.
    pub(crate) written: Vec<String>,
    /// Connections that were lost.
    pub(crate) reconnects: usize,
    /// Sessions that a server did not know any more.
    pub(crate) expired: usize,
    /// The longest time between two acknowledged writes.
    pub(crate) gap: Duration,
}

/// Starts a client that writes to one of these servers.
pub(crate) fn writer(servers: Vec<SocketAddr>) -> Worker<Seen> {
    Worker::start("acknowledged writes", move |pace| write(Session::new(servers), pace))
}

fn write(mut session: Session, pace: &Pace) -> Seen {
    let mut seen = Seen::default();
    let mut last = Instant::now();
    while !pace.is_over() {
        let name = format!("w{}", seen.written.len());
        match session.create(&format!("/{name}")) {
            Ok(0 | NODE_EXISTS) => {
                seen.gap = seen.gap.max(last.elapsed());
                last = Instant::now();
                seen.written.push(name);
                pace.count();
                sleep(Duration::from_millis(5));
            }
            Ok(code) => panic!("ZooKeeper answers a write with {code}"),
            Err(error) => {
                seen.reconnects += usize::from(session.stream.take().is_some());
                seen.expired += usize::from(error.kind() == io::ErrorKind::NotFound);
                sleep(Duration::from_millis(30));
            }
        }
    }
    seen
}

/// The names that a server knows once it has everything that its leader has.
pub(crate) fn children(server: SocketAddr) -> Vec<String> {
    let mut session = Session::new(vec![server]);
    let mut body = string("/");
    session.ask(SYNC, &body).unwrap();
    body.push(0);
    let answer = session.ask(CHILDREN, &body).unwrap();
    let mut rest = &answer[16..];
    let count = int(&mut rest);
    (0..count)
        .map(|_| {
            let length = usize::try_from(int(&mut rest)).unwrap();
            let (name, after) = rest.split_at(length);
            rest = after;
            String::from_utf8(name.to_vec()).unwrap()
        })
        .collect()
}

fn int(rest: &mut &[u8]) -> i32 {
    let (head, after) = rest.split_at(4);
    *rest = after;
    i32::from_be_bytes(head.try_into().unwrap())
}

fn string(text: &str) -> Vec<u8> {
    let length = i32::try_from(text.len()).unwrap();
    [&length.to_be_bytes(), text.as_bytes()].concat()
}

impl Session {
    fn new(servers: Vec<SocketAddr>) -> Self {
        Self { servers, next: 0, id: 0, password: vec![0; 16], stream: None, xid: 0 }
    }

    fn connect(&mut self) -> io::Result<()> {
        let server = self.servers[self.next % self.servers.len()];
        self.next += 1;
        let stream = TcpStream::connect(server)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        self.stream = Some(stream);
        let mut body = Vec::new();
        body.extend(0_i32.to_be_bytes());
        body.extend(0_i64.to_be_bytes());
        body.extend(SESSION_MS.to_be_bytes());
        body.extend(self.id.to_be_bytes());
        body.extend(16_i32.to_be_bytes());
        body.extend(&self.password);
        body.push(0);
        self.send(&body)?;
        let answer = self.receive()?;
        let timeout = i32::from_be_bytes(answer[4..8].try_into().unwrap());
        if timeout <= 0 {
            (self.id, self.password) = (0, vec![0; 16]);
            return Err(io::Error::from(io::ErrorKind::NotFound));
        }
        self.id = i64::from_be_bytes(answer[8..16].try_into().unwrap());
        self.password = answer[20..36].to_vec();
        Ok(())
    }

    fn send(&mut self, body: &[u8]) -> io::Result<()> {
        let length = i32::try_from(body.len()).unwrap();
        let stream = self.stream.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        stream.write_all(&[&length.to_be_bytes(), body].concat())
    }

    fn receive(&mut self) -> io::Result<Vec<u8>> {
        let stream = self.stream.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        let mut length = [0; 4];
        stream.read_exact(&mut length)?;
        let mut answer = vec![0; usize::try_from(i32::from_be_bytes(length)).unwrap()];
        stream.read_exact(&mut answer)?;
        Ok(answer)
    }

    fn ask(&mut self, kind: i32, body: &[u8]) -> io::Result<Vec<u8>> {
        if self.stream.is_none()
            && let Err(error) = self.connect()
        {
            self.stream = None;
            return Err(error);
        }
        self.xid += 1;
        self.send(&[&self.xid.to_be_bytes()[..], &kind.to_be_bytes(), body].concat())?;
        self.receive()
    }

    /// The answer's code.
    fn create(&mut self, path: &str) -> io::Result<i32> {
        let mut body = string(path);
        body.extend(string("x"));
        body.extend(1_i32.to_be_bytes());
        body.extend(31_i32.to_be_bytes());
        body.extend(string("world"));
        body.extend(string("anyone"));
        body.extend(0_i32.to_be_bytes());
        let answer = self.ask(CREATE, &body)?;
        Ok(i32::from_be_bytes(answer[12..16].try_into().unwrap()))
    }
}
