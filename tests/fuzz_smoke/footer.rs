//! Footers: any bytes are a place or refused, and a place that is read is the one that was written.

use windlass::bundle::TocPlace;

pub(crate) fn run(input: &[u8]) {
    if let Ok(place) = TocPlace::from_footer(input) {
        let map = place.annotations();
        assert_eq!(TocPlace::from_annotations(|key| map.get(key).map(String::as_str)), Ok(place));
    }
    let text = String::from_utf8_lossy(input);
    let mut lines = text.lines();
    let lines = [lines.next(), lines.next(), lines.next()];
    let _ = TocPlace::from_annotations(|key| match key {
        key if key.ends_with("offset") => lines[0],
        key if key.ends_with("size") => lines[1],
        _ => lines[2],
    });
    let (trailer, place) = TocPlace::trailer(input, input.len() as u64 * 3);
    assert_eq!(TocPlace::from_footer(&trailer[trailer.len() - 72..]), Ok(place));
}
