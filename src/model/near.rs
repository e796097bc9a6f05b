//! Names near to a mistyped one.

/// Up to three of `candidates` that resemble `wanted`, the nearest first.
pub fn nearest<'a>(wanted: &str, candidates: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let mut scored: Vec<(f64, &str)> = candidates
        .into_iter()
        .map(|name| (strsim::jaro_winkler(wanted, name), name))
        .filter(|(score, _)| *score > 0.75)
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    scored.dedup_by(|a, b| a.1 == b.1);
    scored.into_iter().take(3).map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_typo() {
        assert_eq!(nearest("kafak", ["kafka", "nginx"]), ["kafka"]);
        assert!(nearest("zzz", ["kafka", "nginx"]).is_empty());
    }
}
