//! The stock recipes: they name artifacts that exist in vendors' layouts, all of them build, and raising one
//! product changes the bundles that hold it and no other.

use crate::support::project::copy_tree;
use crate::support::vendor;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

type Versions = BTreeMap<String, String>;

/// The set before the one in windlass.toml; docs/stock-recipes.md has the same table.
const ERA_6_4_2: [(&str, &str); 14] = [
    ("elasticsearch", "6.4.2"),
    ("kibana", "6.4.2"),
    ("beats", "6.4.2"),
    ("jdk", "10.0.2"),
    ("jdk8", "8u181"),
    ("kafka", "1.1.0"),
    ("scala", "2.11"),
    ("zookeeper", "3.4.12"),
    ("sdc", "3.1.0.0"),
    ("redis", "4.0.11"),
    ("nginx", "1.14.0"),
    ("curator", "5.5.4"),
    ("elastalert", "0.1.36"),
    ("elastalert_plugin", "1.0.1"),
];

const ELASTICSEARCH: [&str; 3] = ["elasticsearch-hot", "elasticsearch-master", "elasticsearch-warm"];

/// Products that are raised together, because one file name holds both, and the roles that hold them.
const PRODUCTS: [(&[&str], &[&str]); 12] = [
    (&["elasticsearch"], &ELASTICSEARCH),
    (&["kibana", "elastalert_plugin"], &["kibana"]),
    (&["beats"], &["filebeat", "heartbeat", "metricbeat", "packetbeat"]),
    (&["jdk"], &["elasticsearch-hot", "elasticsearch-master", "elasticsearch-warm", "kafka", "zookeeper"]),
    (&["jdk8"], &["streamsets-datacollector"]),
    (&["kafka", "scala"], &["kafka"]),
    (&["zookeeper"], &["zookeeper"]),
    (&["sdc"], &["streamsets-datacollector"]),
    (&["redis"], &["redis"]),
    (&["nginx"], &["nginx"]),
    (&["curator"], &["curator"]),
    (&["elastalert"], &["elastalert"]),
];

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read_toml(path: &Path) -> toml::Table {
    fs::read_to_string(path).unwrap().parse().unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn era_6_7_0() -> Versions {
    let project = read_toml(&repository().join("windlass.toml"));
    let versions = project["versions"].as_table().unwrap();
    versions
        .iter()
        .map(|(product, version)| (product.clone(), version.as_str().unwrap().to_owned()))
        .collect()
}

fn era_6_4_2() -> Versions {
    ERA_6_4_2.into_iter().map(|(product, version)| (product.to_owned(), version.to_owned())).collect()
}

/// The roles: one per recipe that is no shared part.
fn stock_roles() -> BTreeSet<String> {
    let names = fs::read_dir(repository().join("recipes")).unwrap().map(|entry| entry.unwrap().file_name());
    names
        .filter_map(|name| name.to_str()?.strip_suffix(".toml").map(str::to_owned))
        .filter(|name| !name.starts_with('_'))
        .collect()
}

/// The file names that all recipes together ask for.
fn artifacts(versions: &Versions) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(repository().join("recipes")).unwrap() {
        let recipe = read_toml(&entry.unwrap().path());
        let Some(unpacks) = recipe.get("unpack").and_then(|unpacks| unpacks.as_array()) else { continue };
        for unpack in unpacks {
            let mut name = unpack["artifact"].as_str().unwrap().to_owned();
            for (product, version) in versions {
                name = name.replace(&format!("{{{{ versions.{product} }}}}"), version);
            }
            assert!(!name.contains("{{"), "a version that no era has: {name}");
            names.insert(name);
        }
    }
    names
}

#[test]
fn vendors_archives_are_what_the_recipes_name_and_always_the_same() {
    assert_eq!(era_6_4_2().into_keys().collect::<Vec<_>>(), era_6_7_0().into_keys().collect::<Vec<_>>());
    for versions in [era_6_4_2(), era_6_7_0()] {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let paths = vendor::generate(one.path(), &versions);
        let names: BTreeSet<String> =
            paths.iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect();
        assert_eq!(names, artifacts(&versions));

        vendor::generate(two.path(), &versions);
        for name in names {
            assert!(
                fs::read(one.path().join(&name)).unwrap() == fs::read(two.path().join(&name)).unwrap(),
                "{name} differs from one time to the next"
            );
        }
    }
}

#[test]
fn every_role_that_a_product_touches_is_a_stock_role() {
    let roles = stock_roles();
    assert!(roles.len() >= 15, "{roles:?}");
    let touched: BTreeSet<String> =
        PRODUCTS.iter().flat_map(|(_, roles)| roles.iter()).map(|role| (*role).to_owned()).collect();
    assert_eq!(touched, roles);
    let products: BTreeSet<String> =
        PRODUCTS.iter().flat_map(|(names, _)| names.iter()).map(|name| (*name).to_owned()).collect();
    assert_eq!(products, era_6_7_0().into_keys().collect());
}

/// What `build --format json` says of one bundle, as far as it matters here.
#[derive(Debug, PartialEq)]
struct Bundle {
    version: String,
    digest: String,
    layers: Vec<String>,
}

struct Project {
    folder: tempfile::TempDir,
}

impl Project {
    /// A copy of the project's recipes and conf beside the artifacts of both eras.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::copy(repository().join("windlass.toml"), folder.path().join("windlass.toml")).unwrap();
        for name in ["recipes", "conf"] {
            copy_tree(&repository().join(name), &folder.path().join(name));
        }
        for versions in [era_6_4_2(), era_6_7_0()] {
            vendor::generate(&folder.path().join("install"), &versions);
        }
        Self { folder }
    }

    /// Runs windlass in the folder, and returns its standard output.
    fn windlass(&self, arguments: &[&str]) -> String {
        let output = Command::new(env!("CARGO_BIN_EXE_windlass"))
            .args(arguments)
            .current_dir(self.folder.path())
            .env("NO_COLOR", "1")
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "windlass {arguments:?}: {}\n{}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    fn set(&self, versions: &Versions, products: &[&str]) {
        for product in products {
            self.windlass(&["set", product, &versions[*product]]);
        }
    }

    /// Builds every role.
    fn build(&self) -> BTreeMap<String, Bundle> {
        let report: serde_json::Value =
            serde_json::from_str(&self.windlass(&["build", "--format", "json"])).unwrap();
        let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        let bundles = report["bundles"].as_array().unwrap();
        bundles
            .iter()
            .map(|bundle| {
                let layers = bundle["layers"].as_array().unwrap();
                let layers = layers.iter().map(|layer| text(&layer["digest"])).collect();
                let bundle_of =
                    Bundle { version: text(&bundle["version"]), digest: text(&bundle["digest"]), layers };
                (text(&bundle["role"]), bundle_of)
            })
            .collect()
    }
}

/// The roles whose bundle is another one.
fn changed(before: &BTreeMap<String, Bundle>, after: &BTreeMap<String, Bundle>) -> BTreeSet<String> {
    assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>());
    after
        .iter()
        .filter(|(role, bundle)| before[*role].digest != bundle.digest)
        .map(|(role, _)| role.clone())
        .collect()
}

#[test]
fn all_stock_roles_build_and_share_what_they_have_in_common() {
    let project = Project::new();
    project.windlass(&["lock"]);
    let bundles = project.build();
    assert_eq!(bundles.keys().cloned().collect::<BTreeSet<_>>(), stock_roles());

    // The last layer says which role it is; all before it are the same.
    let [hot, master, warm] = ELASTICSEARCH.map(|role| &bundles[role]);
    assert_eq!(hot.layers[..hot.layers.len() - 1], warm.layers[..warm.layers.len() - 1]);
    assert_eq!(hot.layers[..hot.layers.len() - 1], master.layers[..master.layers.len() - 1]);
    assert_ne!(hot.digest, warm.digest);
    // The JDK is unpacked first.
    assert_eq!(hot.layers[0], bundles["kafka"].layers[0]);
    assert_eq!(hot.layers[0], bundles["zookeeper"].layers[0]);

    // Nothing changed: nothing is new, not even a number.
    assert_eq!(project.build(), bundles);
}

#[test]
fn raising_a_product_changes_the_roles_that_hold_it_and_no_other() {
    let project = Project::new();
    let newest = project.build();
    let mut before = newest;
    for (products, roles) in PRODUCTS {
        project.set(&era_6_4_2(), products);
        let after = project.build();
        let expected: BTreeSet<String> = roles.iter().map(|role| (*role).to_owned()).collect();
        assert_eq!(changed(&before, &after), expected, "after setting {products:?}");
        before = after;
    }

    // And back: the same content has the same digest, however it was come to.
    for (products, _) in PRODUCTS {
        project.set(&era_6_7_0(), products);
    }
    let again = project.build();
    let fresh = Project::new().build();
    assert_eq!(changed(&again, &fresh), BTreeSet::new());
}

/// The four nodes of docs/examples, checked without any of them.
#[test]
fn the_example_cluster_passes_check() {
    let project = Project::new();
    for versions in [era_6_4_2(), era_6_7_0()] {
        let products: Vec<&str> = versions.keys().map(String::as_str).collect();
        project.set(&versions, &products);
        project.build();
        let example = repository().join("docs/examples/cluster.toml");
        fs::copy(&example, project.folder.path().join("cluster.toml")).unwrap();
        let said = project.windlass(&["check", "--offline", "--format", "json"]);
        let report: serde_json::Value = serde_json::from_str(&said).unwrap();
        let problems = report["problems"].as_array().unwrap();
        let mut codes: Vec<&str> = problems.iter().map(|one| one["code"].as_str().unwrap()).collect();
        codes.dedup();
        // Two racks cannot both be lost, and one nginx and one Redis pair are what four machines give.
        assert_eq!(codes, ["W111", "W115"], "{said}");
    }
}
