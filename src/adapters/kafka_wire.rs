//! Kafka's binary protocol: bytes in and out, and requests over a connection.
//!
//! Written here rather than taken from a crate: five requests are all that is used, and those that exist bring every
//! request of every version, thousands of lines that are made by a generator and compiled for nothing.
//!
//! # Invariants
//!
//! * An answer is no longer than [`MAX_ANSWER`], and no array has more elements than bytes are left for it.
//! * Reading never goes beyond what there is: a foreign answer is an error, never a panic.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use super::adapter::AdapterError;
use super::view::Instance;
use super::wire::Stream;

/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(8);
/// The most that is read of an answer.
const MAX_ANSWER: usize = 64 << 20;
const CLIENT: &str = "windlass";

/// An answer that is not what it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// Bytes of a request.
#[derive(Debug, Default)]
pub(super) struct Out(pub(super) Vec<u8>);

impl Out {
    pub(super) fn byte(&mut self, value: i8) -> &mut Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    pub(super) fn short(&mut self, value: i16) -> &mut Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    pub(super) fn int(&mut self, value: i32) -> &mut Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    /// How many elements follow.
    pub(super) fn count(&mut self, count: usize) -> &mut Self {
        self.int(i32::try_from(count).unwrap_or(i32::MAX))
    }

    pub(super) fn text(&mut self, text: &str) -> &mut Self {
        // Names in Kafka have at most 249 letters; a longer one is cut and names nothing.
        let bytes = &text.as_bytes()[..text.len().min(32_000)];
        self.short(i16::try_from(bytes.len()).unwrap_or(0));
        self.0.extend(bytes);
        self
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.count(bytes.len());
        self.0.extend(bytes);
        self
    }

    /// A length as flexible versions have it: one more than it is, seven bits a byte.
    pub(super) fn compact(&mut self, length: usize) -> &mut Self {
        let mut rest = length + 1;
        while rest >= 0x80 {
            self.0.push(u8::try_from(rest & 0x7f).unwrap_or(0) | 0x80);
            rest >>= 7;
        }
        self.0.push(u8::try_from(rest).unwrap_or(0));
        self
    }

    pub(super) fn compact_text(&mut self, text: &str) -> &mut Self {
        self.compact(text.len());
        self.0.extend(text.as_bytes());
        self
    }

    /// No tagged fields.
    pub(super) fn no_tags(&mut self) -> &mut Self {
        self.0.push(0);
        self
    }
}

/// Bytes of an answer that were not read yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct In<'b>(pub(super) &'b [u8]);

impl<'b> In<'b> {
    pub(super) fn take(&mut self, length: usize) -> Result<&'b [u8], Malformed> {
        let (head, rest) = self.0.split_at_checked(length).ok_or(Malformed)?;
        self.0 = rest;
        Ok(head)
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.take(N)?.try_into().map_err(|_| Malformed)
    }

    pub(super) fn byte(&mut self) -> Result<i8, Malformed> {
        self.fixed().map(i8::from_be_bytes)
    }

    pub(super) fn short(&mut self) -> Result<i16, Malformed> {
        self.fixed().map(i16::from_be_bytes)
    }

    pub(super) fn int(&mut self) -> Result<i32, Malformed> {
        self.fixed().map(i32::from_be_bytes)
    }

    pub(super) fn long(&mut self) -> Result<i64, Malformed> {
        self.fixed().map(i64::from_be_bytes)
    }

    pub(super) fn maybe_text(&mut self) -> Result<Option<String>, Malformed> {
        match usize::try_from(self.short()?) {
            Ok(length) => Ok(Some(String::from_utf8_lossy(self.take(length)?).into_owned())),
            Err(_) => Ok(None),
        }
    }

    pub(super) fn text(&mut self) -> Result<String, Malformed> {
        self.maybe_text()?.ok_or(Malformed)
    }

    /// An array, each element read by `one`; a null one is empty.
    pub(super) fn array<T>(
        &mut self,
        mut one: impl FnMut(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Vec<T>, Malformed> {
        let count = usize::try_from(self.int()?).unwrap_or(0);
        self.many(count, &mut one)
    }

    /// Ids.
    pub(super) fn ints(&mut self) -> Result<Vec<i32>, Malformed> {
        self.array(Self::int)
    }

    fn many<T>(
        &mut self,
        count: usize,
        one: &mut impl FnMut(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Vec<T>, Malformed> {
        // Each takes a byte at least.
        if count > self.0.len() {
            return Err(Malformed);
        }
        (0..count).map(|_| one(self)).collect()
    }

    fn varint(&mut self) -> Result<usize, Malformed> {
        let mut value = 0;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.fixed::<1>()?;
            value |= usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Malformed)
    }

    pub(super) fn compact_array<T>(
        &mut self,
        mut one: impl FnMut(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Vec<T>, Malformed> {
        let count = self.varint()?.saturating_sub(1);
        self.many(count, &mut one)
    }

    pub(super) fn compact_text(&mut self) -> Result<String, Malformed> {
        let length = self.varint()?.saturating_sub(1);
        Ok(String::from_utf8_lossy(self.take(length)?).into_owned())
    }

    pub(super) fn skip_tags(&mut self) -> Result<(), Malformed> {
        for _ in 0..self.varint()? {
            self.varint()?;
            let length = self.varint()?;
            self.take(length)?;
        }
        Ok(())
    }
}

/// Which request, in which version.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) name: &'static str,
    pub(super) key: i16,
    pub(super) version: i16,
    /// Its version is a flexible one, with tagged fields in the headers too.
    pub(super) flexible: bool,
}

/// A connection to a broker or a controller.
pub(super) struct Wire<'i, 'a> {
    pub(super) server: &'i Instance<'a>,
    stream: Box<dyn Stream>,
    number: i32,
}

impl<'i, 'a> Wire<'i, 'a> {
    pub(super) async fn open(server: &'i Instance<'a>) -> Result<Self, AdapterError> {
        Ok(Self { server, stream: server.open().await?, number: 0 })
    }

    /// What went wrong, with where.
    pub(super) fn error(&self, what: &str) -> AdapterError {
        let Instance { role, node, .. } = self.server;
        AdapterError::new(format!("{role} of {node}: Kafka on port {}: {what}", self.server.port()))
    }

    /// Sends a request and gives the answer's body.
    pub(super) async fn ask(&mut self, asked: Asked, body: &Out) -> Result<Vec<u8>, AdapterError> {
        let said = |what: &str| self.error(&format!("{}: {what}", asked.name));
        let (error, late) = (said("no Kafka answers there"), said("no answer in time"));
        match timeout(ANSWER, self.exchange(asked, body)).await {
            Ok(Ok(Some(answer))) => Ok(answer),
            Ok(Ok(None)) => Err(error),
            Ok(Err(failure)) => Err(self.error(&format!("{}: {failure}", asked.name))),
            Err(_) => Err(late),
        }
    }

    async fn exchange(&mut self, asked: Asked, body: &Out) -> std::io::Result<Option<Vec<u8>>> {
        self.number += 1;
        let mut head = Out::default();
        head.short(asked.key).short(asked.version).int(self.number).text(CLIENT);
        if asked.flexible {
            head.no_tags();
        }
        let mut request = Out::default();
        request.count(head.0.len() + body.0.len());
        request.0.extend(head.0);
        request.0.extend(&body.0);
        self.stream.write_all(&request.0).await?;
        self.stream.flush().await?;
        let length = usize::try_from(self.stream.read_i32().await?).unwrap_or(usize::MAX);
        if !(4..=MAX_ANSWER).contains(&length) {
            return Ok(None);
        }
        let mut answer = Vec::new();
        (&mut self.stream).take(length as u64).read_to_end(&mut answer).await?;
        let mut rest = In(&answer);
        let tags = |rest: &mut In<'_>| if asked.flexible { rest.skip_tags() } else { Ok(()) };
        if answer.len() < length || rest.int() != Ok(self.number) || tags(&mut rest).is_err() {
            return Ok(None);
        }
        Ok(Some(rest.0.to_vec()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut out = Out::default();
        out.byte(-1).short(7).int(-9).text("abc").compact(300).compact_text("de").no_tags();
        let mut rest = In(&out.0);
        assert_eq!((rest.byte(), rest.short(), rest.int()), (Ok(-1), Ok(7), Ok(-9)));
        assert_eq!((rest.text(), rest.varint()), (Ok("abc".to_owned()), Ok(301)));
        assert_eq!((rest.compact_text(), rest.skip_tags()), (Ok("de".to_owned()), Ok(())));
        assert!(rest.0.is_empty());
    }

    #[test]
    fn hostile_answers_are_errors() {
        assert_eq!(In(&[0x7f, 0xff, 0xff, 0xff, 1]).array(In::byte), Err(Malformed));
        assert_eq!(In(&[0x7f, 0xff, b'a']).maybe_text(), Err(Malformed));
        assert_eq!(In(&[0x80; 9]).varint(), Err(Malformed));
        assert_eq!(In(&[0xff, 0xff, 0xff, 0xff, 0x0f]).compact_array(In::byte), Err(Malformed));
        assert_eq!(In(&[1, 0, 0x7f]).skip_tags(), Err(Malformed));
        assert_eq!(In(&[]).long(), Err(Malformed));
        assert_eq!(In(&[0xff, 0xff, 0xff, 0xff]).array(In::byte), Ok(Vec::new()));
    }
}
