//! Members' names, from bytes in an archive to checked paths.

use super::Refusal;
use super::error::printable;
use crate::model::BundlePath;

/// How many top names an error may show; one more is kept to know that there are more.
pub(super) const TOPS_SHOWN: usize = 5;

/// The path that a name in an archive stands for.
pub(super) fn entry_path(name: &[u8]) -> Result<BundlePath, Refusal> {
    let text = std::str::from_utf8(name).map_err(|_| Refusal::NotUtf8)?;
    BundlePath::new(text).map_err(Refusal::Path)
}

/// `name` without its first `strip` components; `None` if nothing is left.
pub(super) fn stripped(name: &BundlePath, strip: u32) -> Option<BundlePath> {
    let mut rest = name.as_str();
    for _ in 0..strip {
        rest = rest.split_once('/')?.1;
    }
    BundlePath::new(rest).ok()
}

/// What an archive holds, in a few words.
pub(super) fn tops_in_words(tops: &[String]) -> String {
    if tops.is_empty() {
        return "it holds nothing".to_owned();
    }
    let shown: Vec<String> =
        tops.iter().take(TOPS_SHOWN).map(|top| format!("`{}`", printable(top.as_bytes()))).collect();
    let more = if tops.len() > TOPS_SHOWN { ", ..." } else { "" };
    format!("at its top it holds {}{more}", shown.join(", "))
}
