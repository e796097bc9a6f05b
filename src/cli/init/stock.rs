//! The stock recipes and their conf, as they were when this program was built.

/// A file: its path in a project, and its text.
pub(super) type File = (&'static str, &'static str);

macro_rules! files {
    ($($path:literal,)*) => {
        &[$(($path, include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/", $path)))),*]
    };
}

/// All of them, by path. A test compares the list with the folders.
pub(super) const FILES: &[File] = files![
    "conf/beats/beats.yml",
    "conf/curator/actions/10-warm.yml",
    "conf/curator/actions/20-close.yml",
    "conf/curator/actions/30-delete.yml",
    "conf/curator/check",
    "conf/curator/curator.yml",
    "conf/curator/start",
    "conf/elastalert/check",
    "conf/elastalert/config.yaml",
    "conf/elastalert/rules/no-logs.yaml",
    "conf/elastalert/start",
    "conf/elasticsearch/elasticsearch.yml",
    "conf/elasticsearch/jvm.options",
    "conf/elasticsearch/log4j2.properties",
    "conf/elasticsearch/start",
    "conf/filebeat/filebeat.yml",
    "conf/heartbeat/heartbeat.yml",
    "conf/kafka/log4j.properties",
    "conf/kafka/server.properties",
    "conf/kibana/kibana.yml",
    "conf/metricbeat/metricbeat.yml",
    "conf/nginx/mime.types",
    "conf/nginx/nginx.conf",
    "conf/nginx/sites/kibana.conf",
    "conf/packetbeat/packetbeat.yml",
    "conf/redis/peers",
    "conf/redis/redis.conf",
    "conf/redis/start",
    "conf/streamsets-datacollector/site.properties",
    "conf/streamsets-datacollector/start",
    "conf/zookeeper/log4j.properties",
    "conf/zookeeper/myid",
    "conf/zookeeper/start",
    "conf/zookeeper/zoo.cfg",
    "recipes/_beat.toml",
    "recipes/_cluster.toml",
    "recipes/_elasticsearch.toml",
    "recipes/_jdk.toml",
    "recipes/curator.toml",
    "recipes/elastalert.toml",
    "recipes/elasticsearch-hot.toml",
    "recipes/elasticsearch-master.toml",
    "recipes/elasticsearch-warm.toml",
    "recipes/filebeat.toml",
    "recipes/heartbeat.toml",
    "recipes/kafka.toml",
    "recipes/kibana.toml",
    "recipes/metricbeat.toml",
    "recipes/nginx.toml",
    "recipes/packetbeat.toml",
    "recipes/redis.toml",
    "recipes/streamsets-datacollector.toml",
    "recipes/zookeeper.toml",
];

/// The text of a recipe, or of a part of one: `nginx`, `_jdk`.
pub(super) fn recipe(name: &str) -> Option<&'static str> {
    let path = format!("recipes/{name}.toml");
    FILES.iter().find(|(at, _)| *at == path).map(|(_, text)| *text)
}

/// The names of the recipes, without their parts.
pub(super) fn roles() -> impl Iterator<Item = &'static str> {
    FILES.iter().filter_map(|(path, _)| {
        let name = path.strip_prefix("recipes/")?.strip_suffix(".toml")?;
        (!name.starts_with('_')).then_some(name)
    })
}

/// The files below `conf/<from>/`.
pub(super) fn conf(from: &str) -> impl Iterator<Item = &'static File> {
    FILES.iter().filter(move |(path, _)| {
        path.strip_prefix("conf/")
            .and_then(|path| path.strip_prefix(from))
            .is_some_and(|rest| rest.starts_with('/'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;

    #[test]
    fn every_stock_file_is_here() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut there = Vec::new();
        for dir in ["recipes", "conf"] {
            for entry in walkdir::WalkDir::new(root.join(dir)).sort_by_file_name() {
                let entry = entry.unwrap();
                if entry.file_type().is_file() {
                    there.push(entry.path().strip_prefix(root).unwrap().to_str().unwrap().to_owned());
                }
            }
        }
        there.sort();
        let mut here: Vec<&str> = FILES.iter().map(|(path, _)| *path).collect();
        here.sort_unstable();
        assert_eq!(here, there);
        // A script is told by its first line.
        for (path, text) in FILES {
            let mode = std::fs::metadata(root.join(path)).unwrap().permissions().mode();
            assert_eq!(mode & 0o100 != 0, text.starts_with("#!"), "{path}");
        }
    }
}
