//! Artifacts' names as recipes write them, found again in a folder: `kafka_{{ versions.scala }}-{{ versions.kafka }}.tgz`.

use std::collections::BTreeMap;

/// Versions by product, as one file's name has them.
pub(super) type Versions = BTreeMap<String, String>;

/// Other names that vendors give to the same thing.
const ALIASES: [(&str, &[&str]); 3] = [
    (
        "elasticsearch-{{ versions.elasticsearch }}.tar.gz",
        &[
            "elasticsearch-{{ versions.elasticsearch }}-linux-x86_64.tar.gz",
            "elasticsearch-oss-{{ versions.elasticsearch }}.tar.gz",
        ],
    ),
    ("zookeeper-{{ versions.zookeeper }}.tar.gz", &["apache-zookeeper-{{ versions.zookeeper }}-bin.tar.gz"]),
    (
        "jdk-{{ versions.jdk }}_linux-x64_bin.tar.gz",
        &[
            "openjdk-{{ versions.jdk }}_linux-x64_bin.tar.gz",
            "OpenJDK8U-jdk_x64_linux_hotspot_{{ versions.jdk }}.tar.gz",
            "OpenJDK11U-jdk_x64_linux_hotspot_{{ versions.jdk }}.tar.gz",
            "OpenJDK17U-jdk_x64_linux_hotspot_{{ versions.jdk }}.tar.gz",
            "OpenJDK21U-jdk_x64_linux_hotspot_{{ versions.jdk }}.tar.gz",
        ],
    ),
];

/// A name as a recipe has it, and those that stand for it, the recipe's own first.
pub(super) fn names(pattern: &str) -> impl Iterator<Item = &str> {
    let others = ALIASES.iter().find(|(name, _)| *name == pattern).map_or(&[][..], |(_, others)| others);
    std::iter::once(pattern).chain(others.iter().copied())
}

/// The versions that make a pattern this name; `None` if none do.
pub(super) fn versions(pattern: &str, name: &str) -> Option<Versions> {
    let mut found = Versions::new();
    fits(pattern, name, &mut found).then_some(found)
}

/// What a pattern stands for with these versions; `None` if one is missing.
pub(super) fn fill(pattern: &str, versions: &Versions) -> Option<String> {
    let mut out = String::new();
    let mut rest = pattern;
    while let Some((before, product, after)) = first(rest) {
        out.push_str(before);
        out.push_str(versions.get(product)?);
        rest = after;
    }
    Some(out + rest)
}

/// The products that a pattern names.
pub(super) fn products(pattern: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = pattern;
    while let Some((_, product, after)) = first(rest) {
        found.push(product);
        rest = after;
    }
    found
}

/// The first `{{ versions.x }}`: what stands before it, the product, what stands after it.
fn first(pattern: &str) -> Option<(&str, &str, &str)> {
    let (before, rest) = pattern.split_once("{{ versions.")?;
    let (product, after) = rest.split_once(" }}")?;
    Some((before, product, after))
}

fn fits(pattern: &str, name: &str, found: &mut Versions) -> bool {
    let Some((before, product, after)) = first(pattern) else { return pattern == name };
    let Some(rest) = name.strip_prefix(before) else { return false };
    // A version starts with a digit and has no dash: `-linux-x86_64` is no part of one.
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '+');
    let most = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
    if !rest.starts_with(|c: char| c.is_ascii_digit()) {
        return false;
    }
    (1..=most).rev().any(|end| {
        let version = &rest[..end];
        if !version.ends_with(|c: char| c.is_ascii_alphanumeric())
            || found.get(product).is_some_and(|known| known != version)
        {
            return false;
        }
        let mut more = found.clone();
        more.insert(product.to_owned(), version.to_owned());
        let fits = fits(after, &rest[end..], &mut more);
        if fits {
            *found = more;
        }
        fits
    })
}

/// Orders versions as people do: 6.10 comes after 6.9.
pub(super) fn newer(one: &str, other: &str) -> std::cmp::Ordering {
    let parts = |text: &str| -> Vec<(u64, String)> {
        text.split(['.', '_', '+', 'u'])
            .map(|part| {
                let digits = part.len() - part.trim_start_matches(|c: char| c.is_ascii_digit()).len();
                (part[..digits].parse().unwrap_or(0), part[digits..].to_owned())
            })
            .collect()
    };
    parts(one).cmp(&parts(other))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_give_versions_and_versions_give_names() {
        for (pattern, name, wanted) in [
            (
                "nginx-{{ versions.nginx }}-linux-x86_64.tar.gz",
                "nginx-1.24.0-linux-x86_64.tar.gz",
                Some("1.24.0"),
            ),
            (
                "jdk-{{ versions.nginx }}_linux-x64_bin.tar.gz",
                "jdk-11.0.1_linux-x64_bin.tar.gz",
                Some("11.0.1"),
            ),
            ("jdk-{{ versions.nginx }}-linux-x64.tar.gz", "jdk-8u202-linux-x64.tar.gz", Some("8u202")),
            ("elasticsearch-{{ versions.nginx }}.tar.gz", "elasticsearch-7.17.0-linux-x86_64.tar.gz", None),
            ("nginx-{{ versions.nginx }}.tar.gz", "nginx-oss.tar.gz", None),
            ("nginx-{{ versions.nginx }}.tar.gz", "nginx-1.tar.gz.asc", None),
        ] {
            let found = versions(pattern, name);
            assert_eq!(
                found.as_ref().and_then(|found| found.get("nginx")).map(String::as_str),
                wanted,
                "{name}"
            );
            if let Some(found) = found {
                assert_eq!(fill(pattern, &found).as_deref(), Some(name));
            }
        }
        let pattern = "kafka_{{ versions.scala }}-{{ versions.kafka }}.tgz";
        let found = versions(pattern, "kafka_2.12-2.1.1.tgz").unwrap();
        assert_eq!((found["scala"].as_str(), found["kafka"].as_str()), ("2.12", "2.1.1"));
        assert_eq!(products(pattern), ["scala", "kafka"]);
        assert!(
            newer("6.10.0", "6.9.2").is_gt()
                && newer("8u202", "8u181").is_gt()
                && newer("1.0", "1.0").is_eq()
        );
    }
}
