//! PAX extended headers: `<length> <key>=<value>\n`, over and over.
//!
//! Not the `tar` crate's iterator: that splits at newlines, which a value may hold.

use super::Refusal;
use super::sparse::Segment;

/// What a PAX header says of the next entry, as far as it matters here.
#[derive(Debug, Default)]
pub(super) struct Pax {
    pub(super) path: Option<Vec<u8>>,
    pub(super) linkpath: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) sparse: PaxSparse,
}

/// The `GNU.sparse.*` records.
#[derive(Debug, Default)]
pub(super) struct PaxSparse {
    pub(super) major: Option<u64>,
    pub(super) minor: Option<u64>,
    pub(super) name: Option<Vec<u8>>,
    /// Of the file with its holes: `size` in formats 0.0 and 0.1, `realsize` in 1.0.
    pub(super) real_size: Option<u64>,
    pub(super) count: Option<u64>,
    pub(super) segments: Option<Vec<Segment>>,
    offset: Option<u64>,
}

impl Pax {
    /// Reads a header's records. Later ones win; an empty value takes a record back.
    pub(super) fn parse(mut records: &[u8]) -> Result<Self, &'static str> {
        let mut pax = Self::default();
        while !records.is_empty() {
            // Some writers pad with NULs.
            if records.iter().all(|byte| *byte == 0) {
                break;
            }
            let (key, value, rest) = record(records).ok_or("a PAX record is malformed")?;
            pax.take(key, value)?;
            records = rest;
        }
        if pax.sparse.offset.is_some() {
            return Err("a PAX sparse map is malformed");
        }
        Ok(pax)
    }

    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
        match key {
            b"path" => self.path = given(value),
            b"linkpath" => self.linkpath = given(value),
            b"size" => self.size = number_if_given(value)?,
            _ => {
                if let Some(key) = key.strip_prefix(b"GNU.sparse.") {
                    self.sparse.take(key, value)?;
                }
            }
        }
        Ok(())
    }
}

impl PaxSparse {
    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
        match key {
            b"major" => self.major = number_if_given(value)?,
            b"minor" => self.minor = number_if_given(value)?,
            b"name" => self.name = given(value),
            b"size" | b"realsize" => self.real_size = number_if_given(value)?,
            b"numblocks" => {
                self.count = number_if_given(value)?;
                self.segments.get_or_insert_default();
            }
            b"map" => {
                self.segments = Some(map(value)?);
            }
            b"offset" if self.offset.is_none() => self.offset = Some(number(value)?),
            b"numbytes" => {
                let offset = self.offset.take().ok_or("a PAX sparse map is malformed")?;
                self.segments.get_or_insert_default().push(Segment { offset, length: number(value)? });
            }
            b"offset" => return Err("a PAX sparse map is malformed"),
            _ => {}
        }
        Ok(())
    }

    /// Which of the three formats this is; `None` for a file without holes.
    pub(super) fn format(&self) -> Result<Option<SparseFormat>, Refusal> {
        match (self.major, self.minor) {
            (Some(1), Some(0)) => Ok(Some(SparseFormat::MapInData)),
            (None | Some(0), _) if self.segments.is_some() => Ok(Some(SparseFormat::MapInHeader)),
            (None, None) if self.real_size.is_none() => Ok(None),
            (major, minor) => Err(Refusal::Unsupported {
                what: format!(
                    "sparse files of PAX format {}.{}",
                    major.unwrap_or_default(),
                    minor.unwrap_or_default()
                ),
            }),
        }
    }
}

/// Where a PAX sparse file keeps its map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SparseFormat {
    /// 0.0 and 0.1.
    MapInHeader,
    /// 1.0.
    MapInData,
}

/// The first record's key and value, and what follows it.
fn record(records: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = records.iter().position(|byte| *byte == b' ')?;
    let length = usize::try_from(number(records.get(..space)?).ok()?).ok()?;
    let (record, rest) = records.split_at_checked(length)?;
    let text = record.get(space + 1..)?.strip_suffix(b"\n")?;
    let equals = text.iter().position(|byte| *byte == b'=')?;
    Some((&text[..equals], &text[equals + 1..], rest))
}

fn given(value: &[u8]) -> Option<Vec<u8>> {
    (!value.is_empty()).then(|| value.to_vec())
}

fn number_if_given(value: &[u8]) -> Result<Option<u64>, &'static str> {
    if value.is_empty() { Ok(None) } else { number(value).map(Some) }
}

/// A decimal number, of digits only: `+5` and ` 5` mean different things to different readers.
pub(super) fn number(text: &[u8]) -> Result<u64, &'static str> {
    const WRONG: &str = "a PAX record that should be a number is none";
    if !text.iter().all(u8::is_ascii_digit) {
        return Err(WRONG);
    }
    std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).ok_or(WRONG)
}

/// `offset,length,offset,length,...`
fn map(value: &[u8]) -> Result<Vec<Segment>, &'static str> {
    let mut numbers = value.split(|byte| *byte == b',').filter(|text| !text.is_empty()).map(number);
    let mut segments = Vec::new();
    while let Some(offset) = numbers.next() {
        let length = numbers.next().ok_or("a PAX sparse map is malformed")??;
        segments.push(Segment { offset: offset?, length });
    }
    Ok(segments)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_may_hold_newlines_and_be_taken_back() {
        let pax =
            Pax::parse(b"12 path=a\nb\n22 linkpath=something\n13 mtime=1.5\n13 linkpath=\n11 size=42\n")
                .unwrap();
        assert_eq!(pax.path.as_deref(), Some(&b"a\nb"[..]));
        assert_eq!((pax.linkpath, pax.size), (None, Some(42)));
    }

    #[test]
    fn malformed_records_are_errors() {
        for records in [
            &b"11 path=a\nb\n"[..],
            b"99 path=a\n",
            b"path=a\n",
            b"8 path=a\n",
            b"12 size=-42\n",
            b"0 path=a\n",
            b"3 \n",
            b"25 GNU.sparse.numbytes=1\n",
            b"23 GNU.sparse.offset=1\n",
            b"24 GNU.sparse.map=1,2,3\n",
        ] {
            assert!(Pax::parse(records).is_err(), "{}", String::from_utf8_lossy(records));
        }
        assert!(Pax::parse(b"9 path=a\n\0\0").is_ok(), "padding");
    }
}
