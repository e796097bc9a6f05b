//! Which versions a product may go to, from which there is no way back, and which may not be mixed.

use crate::model::ProductVersion;
use crate::recipe::ServiceKind;

/// What going from one version to another means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upgrade {
    /// There is a way back.
    Reversible,
    /// Once the newer version has opened the data, the older one cannot read it.
    PointOfNoReturn,
}

/// Why a product cannot go from one version to another.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct UpgradeError {
    message: String,
    /// What to do instead.
    pub help: String,
}

/// What it means to bring a service's data from a version to another; an error where its vendor does not support
/// it. Versions that nobody can compare say nothing.
pub fn upgrade(kind: ServiceKind, from: Option<&str>, to: Option<&str>) -> Result<Upgrade, UpgradeError> {
    let versions = from.zip(to).and_then(|(from, to)| Some((from.parse().ok()?, to.parse().ok()?)));
    let (Some((from, to)), ServiceKind::Elasticsearch | ServiceKind::Opensearch) = (versions, kind) else {
        return Ok(Upgrade::Reversible);
    };
    let (from, to): (ProductVersion, ProductVersion) = (from, to);
    if from == to {
        return Ok(Upgrade::Reversible);
    }
    let refused = |why: &str, help: String| {
        let message = format!("{} cannot go from {from} to {to}: {why}", kind.name());
        Err(UpgradeError { message, help })
    };
    if to < from {
        let help = "roll forward to a newer version; or restore a snapshot into an empty data folder, and then \
                    `windlass rollback --force`";
        return refused(
            "data that a newer version has opened cannot be read by an older one",
            help.to_owned(),
        );
    }
    if to.major > from.major + 1 {
        let help = format!("go to the last {}.x first", from.major + 1);
        return refused("it may skip no major version", help);
    }
    // The last minor version of a major one knows how to speak with the next.
    let last: Option<(u64, u64)> = match (kind, from.major, to.major) {
        (ServiceKind::Elasticsearch, 5, 6) => Some((5, 6)),
        (ServiceKind::Elasticsearch, 6, 7) => Some((6, 8)),
        (ServiceKind::Elasticsearch, 7, 8) => Some((7, 17)),
        (ServiceKind::Elasticsearch, 8, 9) => Some((8, 18)),
        (ServiceKind::Opensearch, 2, 3) => Some((2, 19)),
        _ => None,
    };
    match last {
        Some((major, minor)) if from.line() < (major, minor) => {
            let why = format!("{}.x comes only after {major}.{minor}", to.major);
            refused(&why, format!("go to the last {major}.{minor} first"))
        }
        _ => Ok(Upgrade::PointOfNoReturn),
    }
}

/// Whether a product's vendor wants no two versions at the same time: all instances stop before the first one
/// starts.
pub fn together(kind: ServiceKind, from: Option<&str>, to: Option<&str>) -> bool {
    kind == ServiceKind::Kibana && from.is_some() && to.is_some() && from != to
}

#[cfg(test)]
mod tests {
    use super::*;

    fn elasticsearch(from: &str, to: &str) -> Result<Upgrade, String> {
        let outcome = upgrade(ServiceKind::Elasticsearch, Some(from), Some(to));
        outcome.map_err(|error| error.to_string())
    }

    #[test]
    fn versions_go_up_one_major_at_a_time() {
        for (from, to) in [
            ("6.4.2", "6.7.0"),
            ("6.8.23", "7.17.0"),
            ("7.17.0", "7.17.28"),
            ("7.17.28", "8.0.0"),
            ("8.18.0", "9.0.0"),
        ] {
            assert_eq!(elasticsearch(from, to), Ok(Upgrade::PointOfNoReturn), "{from} {to}");
        }
        assert_eq!(elasticsearch("6.4.2", "6.4.2"), Ok(Upgrade::Reversible));
        for (from, to, why) in [
            ("6.7.0", "6.4.2", "cannot be read by an older one"),
            ("6.8.23", "8.0.0", "skip no major"),
            ("7.10.2", "8.0.0", "8.x comes only after 7.17"),
            ("8.0.0", "9.0.0", "9.x comes only after 8.18"),
            ("6.4.2", "7.17.0", "7.x comes only after 6.8"),
        ] {
            assert!(elasticsearch(from, to).unwrap_err().contains(why), "{from} {to}");
        }
        let opensearch = |from, to| upgrade(ServiceKind::Opensearch, Some(from), Some(to));
        assert!(opensearch("2.11.0", "3.0.0").is_err() && opensearch("2.19.0", "3.0.0").is_ok());
    }

    #[test]
    fn what_cannot_be_compared_says_nothing() {
        assert_eq!(elasticsearch("custom", "6.7.0"), Ok(Upgrade::Reversible));
        assert_eq!(upgrade(ServiceKind::Elasticsearch, None, Some("1.0.0")), Ok(Upgrade::Reversible));
        assert_eq!(upgrade(ServiceKind::Redis, Some("7.2.0"), Some("6.0.0")), Ok(Upgrade::Reversible));
    }

    #[test]
    fn only_kibana_goes_all_together() {
        assert!(together(ServiceKind::Kibana, Some("7.17.0"), Some("7.17.1")));
        assert!(!together(ServiceKind::Kibana, Some("7.17.0"), Some("7.17.0")));
        assert!(!together(ServiceKind::Elasticsearch, Some("7.17.0"), Some("7.17.1")));
    }
}
