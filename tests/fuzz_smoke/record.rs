//! A bundle's own record.

use windlass::bundle::Record;

pub(crate) fn run(input: &[u8]) {
    let Ok(record) = Record::parse(input) else { return };
    let bytes = record.to_bytes().expect("what was read can be written");
    assert_eq!(Record::parse(&bytes).expect("and read").to_bytes().expect("again"), bytes);
}
