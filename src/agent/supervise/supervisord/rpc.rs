//! supervisord's XML-RPC, over its unix socket or its port on this machine.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use data_encoding::BASE64;
use serde_json::Value;

use super::config::Config;
use super::xml;
use crate::agent::supervise::SuperviseError;

/// Codes of supervisord's faults.
pub(super) const BAD_NAME: i64 = 10;
pub(super) const NOT_RUNNING: i64 = 70;
pub(super) const STILL_RUNNING: i64 = 91;

/// How long an answer may take: reading a large configuration again takes the most.
const ANSWER: Duration = Duration::from_secs(30);

/// The longest answer.
const MAX_ANSWER: u64 = 4 << 20;

/// What supervisord said no with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub code: i64,
    pub text: String,
}

/// Why a call failed.
#[derive(Clone, Debug)]
pub(super) enum RpcError {
    /// It was answered by a fault.
    Fault(Fault),
    /// There was no answer, or none that can be understood.
    Unreachable { what: String, help: String },
}

#[derive(Clone, Debug)]
enum Address {
    Unix(String),
    Tcp(String),
}

/// A supervisord that can be asked.
#[derive(Clone, Debug)]
pub(super) struct Server {
    address: Address,
    /// As HTTP has it.
    authorization: Option<String>,
    config: String,
}

impl Server {
    pub(super) fn new(config: &Config) -> Result<Self, SuperviseError> {
        let path = config.path();
        let (section, address) = if let Some(file) = config.value("unix_http_server", "file")? {
            ("unix_http_server", Address::Unix(path.parent().unwrap_or(path).join(file).into_string()))
        } else if let Some(port) = config.value("inet_http_server", "port")? {
            let address = match port.split_once(':') {
                None => format!("127.0.0.1:{port}"),
                Some(("" | "*" | "0.0.0.0", port)) => format!("127.0.0.1:{port}"),
                Some(_) => port,
            };
            ("inet_http_server", Address::Tcp(address))
        } else {
            return Err(SuperviseError::supervisor(
                format!(
                    "{path} has neither [unix_http_server] nor [inet_http_server]: nobody can ask this supervisord"
                ),
                "add [unix_http_server] with file=/run/supervisor.sock and chmod=0700, and [rpcinterface:supervisor]",
            ));
        };
        let user = config.value(section, "username")?;
        let password = config.value(section, "password")?.unwrap_or_default();
        let encode =
            |user: String| format!("Basic {}", BASE64.encode(format!("{user}:{password}").as_bytes()));
        Ok(Self { address, authorization: user.map(encode), config: path.to_string() })
    }

    /// Calls a method of the namespace `supervisor`.
    pub(super) fn call(&self, method: &str, parameters: &[Value]) -> Result<Value, RpcError> {
        let body = xml::request(&format!("supervisor.{method}"), parameters);
        let mut head = format!(
            "POST /RPC2 HTTP/1.0\r\nHost: localhost\r\nContent-Type: text/xml\r\nContent-Length: {}\r\n",
            body.len()
        );
        if let Some(authorization) = &self.authorization {
            head.extend(["Authorization: ", authorization, "\r\n"]);
        }
        head.push_str("\r\n");
        let answer =
            self.ask(&[head.as_bytes(), body.as_bytes()].concat()).map_err(|error| self.gone(&error))?;
        let wrong = |what: &str| RpcError::Unreachable {
            what: format!("supervisord's answer is not understood: {what}"),
            help: format!("is what {} names really supervisord's?", self.config),
        };
        let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| wrong("it is no HTTP"))?;
        match head.split_ascii_whitespace().nth(1) {
            Some("200") => {}
            Some("401") => {
                return Err(RpcError::Unreachable {
                    what: "supervisord does not take the user and password of its own configuration"
                        .to_owned(),
                    help: format!("restart it if {} was changed since it was started", self.config),
                });
            }
            other => return Err(wrong(&format!("HTTP {}", other.unwrap_or("without a status")))),
        }
        match xml::response(body).map_err(|what| wrong(&what))? {
            Ok(value) => Ok(value),
            Err((code, text)) => Err(RpcError::Fault(Fault { code, text })),
        }
    }

    fn ask(&self, request: &[u8]) -> std::io::Result<String> {
        match &self.address {
            Address::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(Some(ANSWER))?;
                stream.set_write_timeout(Some(ANSWER))?;
                exchange(stream, request)
            }
            Address::Tcp(address) => {
                let address = address.to_socket_addrs()?.next().ok_or(std::io::ErrorKind::NotFound)?;
                let stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
                stream.set_read_timeout(Some(ANSWER))?;
                stream.set_write_timeout(Some(ANSWER))?;
                exchange(stream, request)
            }
        }
    }

    fn gone(&self, error: &std::io::Error) -> RpcError {
        let at = match &self.address {
            Address::Unix(path) | Address::Tcp(path) => path,
        };
        let help = match error.kind() {
            std::io::ErrorKind::PermissionDenied => {
                format!(
                    "let the agent's user at the socket: chmod and chown in [unix_http_server] of {}",
                    self.config
                )
            }
            _ => format!("start it: `systemctl start supervisor`, or `supervisord -c {}`", self.config),
        };
        RpcError::Unreachable { what: format!("supervisord does not answer at {at}: {error}"), help }
    }
}

fn exchange(mut stream: impl Read + Write, request: &[u8]) -> std::io::Result<String> {
    stream.write_all(request)?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer)?;
    String::from_utf8(answer).map_err(|_| std::io::ErrorKind::InvalidData.into())
}
