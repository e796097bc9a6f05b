//! Redis's protocol (RESP 2): commands as arrays of strings, and the five kinds of answers.
//!
//! Written here rather than taken from a crate: five kinds of lines are all that is used, over a stream that is
//! already there; a client brings connection pools, clusters and a TLS of its own.
//!
//! # Invariants
//!
//! * What is read of an answer has limits: its lines, its strings, its arrays and their depth.
//! * No credential is part of an error.

use std::time::Duration;

use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::time::timeout;

use super::adapter::AdapterError;
use super::view::Instance;

/// How long a conversation may take.
const ANSWER: Duration = Duration::from_secs(8);
const MAX_LINE: u64 = 64 << 10;
const MAX_STRING: usize = 4 << 20;
const MAX_ARRAY: usize = 4096;
const MAX_DEPTH: usize = 4;

/// What Redis answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// A string of either kind.
    Text(String),
    /// It refused; with its code word: `READONLY You can't write against a read only replica.`
    Error(String),
    /// A number.
    Number(i64),
    /// There is no such thing.
    Nothing,
    /// Several.
    Many(Vec<Reply>),
}

impl Instance<'_> {
    /// Says who asks, then each command after the other; an answer for each.
    pub(super) async fn redis(&self, commands: &[&[&str]]) -> Result<Vec<Reply>, AdapterError> {
        let stream = self.open().await?;
        let said = |what: String| {
            AdapterError::new(format!(
                "{} of {}: Redis on port {}: {what}",
                self.role,
                self.node,
                self.port()
            ))
        };
        let work = async {
            let mut stream = BufReader::new(stream);
            if let Some((user, password)) = &self.credentials.basic {
                // Before 6.0 there is one user, and AUTH takes no name.
                let words: Vec<&str> =
                    if user == "default" { vec!["AUTH", password] } else { vec!["AUTH", user, password] };
                stream.write_all(&encode(&words)).await?;
                if let Reply::Error(text) = read(&mut stream).await? {
                    let code = text.split_whitespace().next().unwrap_or_default();
                    return Err(wrong(&format!("it refuses the user `{user}` of [service.api]: {code}")));
                }
            }
            let mut replies = Vec::with_capacity(commands.len());
            for command in commands {
                stream.write_all(&encode(command)).await?;
                replies.push(read(&mut stream).await?);
            }
            Ok::<_, std::io::Error>(replies)
        };
        match timeout(ANSWER, work).await {
            Ok(Ok(replies)) => {
                if let Some(Reply::Error(text)) = replies.first()
                    && text.starts_with("NOAUTH")
                {
                    return Err(said("it wants a password".to_owned())
                        .help("give user and password in the recipe's [service.api]; user = \"default\" is the one of `requirepass`"));
                }
                Ok(replies)
            }
            Ok(Err(error)) => Err(said(error.to_string())),
            Err(_) => Err(said("no answer in time".to_owned())),
        }
    }
}

fn encode(words: &[&str]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend(format!("${}\r\n", word.len()).into_bytes());
        bytes.extend(word.as_bytes());
        bytes.extend(b"\r\n");
    }
    bytes
}

fn wrong(what: &str) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::InvalidData, what.to_owned())
}

async fn read(stream: &mut (impl AsyncBufRead + Unpin)) -> std::io::Result<Reply> {
    read_at(stream, MAX_DEPTH).await
}

async fn read_at(stream: &mut (impl AsyncBufRead + Unpin), depth: usize) -> std::io::Result<Reply> {
    let line = line(stream).await?;
    let (kind, rest) = line.split_at_checked(1).ok_or_else(|| wrong("an empty line"))?;
    let length = || rest.parse::<i64>().map_err(|_| wrong("a length that is no number"));
    Ok(match kind {
        "+" => Reply::Text(rest.to_owned()),
        "-" => Reply::Error(rest.chars().filter(|c| !c.is_control()).take(200).collect()),
        ":" => Reply::Number(rest.parse().map_err(|_| wrong("a number that is none"))?),
        "$" => match usize::try_from(length()?) {
            Ok(length) if length <= MAX_STRING => {
                let mut bytes = vec![0; length + 2];
                stream.read_exact(&mut bytes).await?;
                bytes.truncate(length);
                Reply::Text(String::from_utf8_lossy(&bytes).into_owned())
            }
            Ok(_) => return Err(wrong("a string that is too long")),
            Err(_) => Reply::Nothing,
        },
        "*" => match usize::try_from(length()?) {
            Ok(length) if length <= MAX_ARRAY && depth > 0 => {
                let mut many = Vec::new();
                for _ in 0..length {
                    many.push(Box::pin(read_at(stream, depth - 1)).await?);
                }
                Reply::Many(many)
            }
            Ok(_) => return Err(wrong("an array that is too long or too deep")),
            Err(_) => Reply::Nothing,
        },
        _ => return Err(wrong("an answer that is not RESP")),
    })
}

async fn line(stream: &mut (impl AsyncBufRead + Unpin)) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    stream.take(MAX_LINE).read_until(b'\n', &mut bytes).await?;
    match bytes.strip_suffix(b"\r\n") {
        Some(text) => Ok(String::from_utf8_lossy(text).into_owned()),
        None if bytes.is_empty() => Err(std::io::ErrorKind::UnexpectedEof.into()),
        None => Err(wrong("a line that does not end")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn decoded(bytes: &[u8]) -> std::io::Result<Reply> {
        read(&mut BufReader::new(bytes)).await
    }

    #[tokio::test]
    async fn answers_are_read() {
        assert_eq!(decoded(b"+OK\r\n").await.unwrap(), Reply::Text("OK".to_owned()));
        assert_eq!(decoded(b"$4\r\na\r\nb\r\n").await.unwrap(), Reply::Text("a\r\nb".to_owned()));
        assert_eq!(decoded(b"$-1\r\n").await.unwrap(), Reply::Nothing);
        let many = decoded(b"*2\r\n:-7\r\n*1\r\n-ERR no\r\n").await.unwrap();
        let inner = Reply::Many(vec![Reply::Error("ERR no".to_owned())]);
        assert_eq!(many, Reply::Many(vec![Reply::Number(-7), inner]));
        assert_eq!(encode(&["GET", "a b"]), b"*2\r\n$3\r\nGET\r\n$3\r\na b\r\n");
    }

    #[tokio::test]
    async fn hostile_answers_are_errors() {
        for bytes in [
            &b""[..],
            b"\r\n",
            b"+no end",
            b"$99999999999\r\n",
            b"$5\r\nabc",
            b"*99999\r\n",
            b"*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n:1\r\n",
            b":x\r\n",
            b"HTTP/1.1 400 Bad Request\r\n",
            b"$\xff\r\n",
        ] {
            assert!(decoded(bytes).await.is_err(), "{bytes:?}");
        }
    }
}
