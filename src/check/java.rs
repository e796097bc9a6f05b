//! What a role's Java is told, and which Java it is.

use camino::Utf8Path;

use super::elastic::KINDS;
use super::topology::{ConfFile, Instance};
use crate::model::ProductVersion;
use crate::recipe::ServiceKind;

/// Options of a JVM that matter here, each with its place.
#[derive(Clone, Debug, Default)]
pub(super) struct Options {
    pub least: Option<(u64, String)>,
    pub most: Option<(u64, String)>,
    pub serial: Option<String>,
    pub client: Option<String>,
}

/// The major version of the JDK in the bundle, and the file that says so.
pub(super) fn jdk(one: &Instance) -> Option<(u64, String)> {
    let version = |file: &ConfFile| {
        let line = file.text.lines().find_map(|line| line.trim().strip_prefix("JAVA_VERSION="))?;
        let text = line.trim().trim_matches('"');
        let text = text.strip_prefix("1.").unwrap_or(text);
        Some((ProductVersion::leading(text)?.major, file.path.clone()))
    };
    let files = || one.files.iter().filter(|file| file.path.rsplit('/').next() == Some("release"));
    let named = ["ES_JAVA_HOME", "OPENSEARCH_JAVA_HOME", "JAVA_HOME"];
    let home = named.iter().find_map(|name| one.env.get(*name));
    match home {
        // One outside the bundle is not known here.
        Some(home) => {
            let path = Utf8Path::new(home).join("release");
            files().find(|file| one.release.join(&file.path) == path).and_then(version)
        }
        None => files().find_map(version),
    }
}

/// The first and the last JDK that a product runs on; the last only where one is known to fail.
pub(super) fn range(kind: ServiceKind, version: &ProductVersion) -> Option<(u64, Option<u64>)> {
    match (kind, version.major) {
        (ServiceKind::Elasticsearch, 6) => Some((8, Some(13))),
        (ServiceKind::Elasticsearch, 7) => Some((8, None)),
        (ServiceKind::Elasticsearch, 8) | (ServiceKind::Kafka, 4..) => Some((17, None)),
        (ServiceKind::Elasticsearch, 9..) | (ServiceKind::Opensearch, 3..) => Some((21, None)),
        (ServiceKind::Opensearch, 1) => Some((8, Some(21))),
        (ServiceKind::Opensearch, 2) => Some((11, Some(21))),
        _ => None,
    }
}

/// The options of a role's JVM: its files first, then its environment, which wins.
pub(super) fn options(one: &Instance) -> Options {
    let mut options = Options::default();
    let java = jdk(one).map(|(major, _)| major);
    if KINDS.contains(&one.kind) {
        let in_parts = |file: &&ConfFile| file.path.contains("/jvm.options.d/");
        for file in one.conf("jvm.options").into_iter().chain(one.files.iter().filter(in_parts)) {
            for (index, line) in file.text.lines().enumerate() {
                if let Some(word) = applies(line.trim(), java) {
                    options.take(word, format!("{}:{}", file.path, index + 1));
                }
            }
        }
    }
    let names: &[&str] = match one.kind {
        ServiceKind::Elasticsearch => &["ES_JAVA_OPTS"],
        ServiceKind::Opensearch => &["OPENSEARCH_JAVA_OPTS"],
        ServiceKind::Kafka => &["KAFKA_HEAP_OPTS", "KAFKA_OPTS"],
        ServiceKind::Zookeeper => &["JVMFLAGS", "SERVER_JVMFLAGS"],
        _ => &[],
    };
    for name in names {
        for word in one.env.get(*name).map(String::as_str).unwrap_or_default().split_ascii_whitespace() {
            options.take(word, format!("recipes/{}.toml service.env.{name}", one.role));
        }
    }
    options
}

/// The option of a line, if it is for this Java: `8-13:-Xmx1g`, `9-:...`, `8:...`.
fn applies(line: &str, java: Option<u64>) -> Option<&str> {
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    if line.starts_with('-') {
        return Some(line);
    }
    let (versions, option) = line.split_once(':')?;
    let (first, last) = match versions.split_once('-') {
        Some((first, "")) => (first.parse().ok()?, u64::MAX),
        Some((first, last)) => (first.parse().ok()?, last.parse().ok()?),
        None => (versions.parse().ok()?, versions.parse().ok()?),
    };
    java.is_none_or(|java| (first..=last).contains(&java)).then_some(option)
}

impl Options {
    /// A later one wins, as it does for Java.
    fn take(&mut self, word: &str, place: String) {
        if let Some(size) = word.strip_prefix("-Xms").or_else(|| word.strip_prefix("-XX:InitialHeapSize=")) {
            self.least = bytes(size).map(|size| (size, place));
        } else if let Some(size) = word.strip_prefix("-Xmx").or_else(|| word.strip_prefix("-XX:MaxHeapSize="))
        {
            self.most = bytes(size).map(|size| (size, place));
        } else {
            match word {
                "-XX:+UseSerialGC" => self.serial = Some(place),
                "-XX:-UseSerialGC" => self.serial = None,
                "-client" => self.client = Some(place),
                "-server" => self.client = None,
                _ => {}
            }
        }
    }
}

/// `512m`, `4g`, in bytes.
fn bytes(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let power = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(1024u64.pow(power))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_versions_of_options() {
        assert_eq!((bytes("1g"), bytes("512M"), bytes("x")), (Some(1 << 30), Some(512 << 20), None));
        for (line, java, wanted) in [
            ("-Xmx1g", Some(8), Some("-Xmx1g")),
            ("8-13:-XX:+UseConcMarkSweepGC", Some(11), Some("-XX:+UseConcMarkSweepGC")),
            ("8-13:-XX:+UseConcMarkSweepGC", Some(17), None),
            ("14-:-XX:+UseG1GC", Some(17), Some("-XX:+UseG1GC")),
            ("8:-XX:+PrintGCDetails", Some(11), None),
            ("# -Xmx1g", None, None),
            ("not an option", None, None),
        ] {
            assert_eq!(applies(line, java), wanted, "{line}");
        }
    }
}
