//! `windlass init`: a project made of the archives in install/, which locks, builds and checks.

use crate::support::project;
use crate::support::vendor;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use project::{Project, file};

/// A folder with install/ in it and nothing else.
fn empty() -> Project {
    let project = Project::empty();
    for name in ["recipes", "conf"] {
        fs::remove_dir(project.path(name)).unwrap();
    }
    project
}

#[test]
fn what_is_in_install_becomes_a_project_that_builds() {
    let project = empty();
    let nginx = |version: &str| {
        let top = format!("nginx-{version}");
        let members = [
            file(&format!("{top}/sbin/nginx"), 0o755, "#!/bin/sh\n"),
            file(&format!("{top}/conf/nginx.conf"), 0o644, "events {}\n"),
        ];
        project.artifact(&format!("{top}-linux-x86_64.tar.gz"), &members);
    };
    nginx("1.24.0");
    nginx("1.9.9");
    let redis = [file("redis-7.0.15/bin/redis-server", 0o755, "#!/bin/sh\n")];
    project.artifact("redis-7.0.15-linux-x86_64.tar.gz", &redis);
    // A JDK is called otherwise elsewhere, and without ZooKeeper's own archive there is no ZooKeeper.
    let jdk = [file("jdk-11/release", 0o644, "JAVA_VERSION=\"11.0.22\"\n")];
    project.artifact("OpenJDK11U-jdk_x64_linux_hotspot_11.0.22_7.tar.gz", &jdk);

    let run = project.run(&["init", "--name", "small"]).ok();
    assert!(run.stdout.contains("2 roles: nginx, redis"), "{}", run.stdout);
    assert!(
        run.stderr.contains("zookeeper is left out: install/ has no zookeeper-<zookeeper>.tar.gz"),
        "{}",
        run.stderr
    );
    let windlass = project.read("windlass.toml");
    assert!(windlass.ends_with("[versions]\nnginx = \"1.24.0\"\nredis = \"7.0.15\"\n"), "{windlass}");
    assert!(!project.path("recipes/_jdk.toml").exists() && project.path("recipes/_cluster.toml").exists());
    project.run(&["lock"]).ok();
    let built = project.run(&["build", "--format", "json"]).ok().bundles();
    assert_eq!(built.keys().collect::<Vec<_>>(), ["nginx", "redis"]);
    project.run(&["check", "--offline"]).ok();

    // Nothing is overwritten.
    project.write("windlass.toml", "mine");
    let again = project.run(&["init", "--yes"]).exits(2);
    assert!(
        again.stderr.contains("windlass.toml") && again.stderr.contains("nothing is overwritten"),
        "{}",
        again.stderr
    );
    assert_eq!(project.read("windlass.toml"), "mine");
}

#[test]
fn archives_of_all_products_make_all_stock_roles() {
    let project = empty();
    let stock: toml::Table = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("windlass.toml"))
        .unwrap()
        .parse()
        .unwrap();
    let versions = stock["versions"].as_table().unwrap();
    let versions: BTreeMap<String, String> = versions
        .iter()
        .map(|(product, version)| (product.clone(), version.as_str().unwrap().to_owned()))
        .collect();
    vendor::generate(&project.path("install"), &versions);
    let report = project.json(&["init", "--yes"]).ok().json();
    assert_eq!(report["versions"], serde_json::json!(versions));
    assert_eq!(report["roles"].as_array().unwrap().len(), 15);
    for recipe in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes")).unwrap() {
        let path = recipe.unwrap().path();
        let name = format!("recipes/{}", path.file_name().unwrap().to_str().unwrap());
        assert_eq!(project.read(&name), fs::read_to_string(&path).unwrap(), "{name}");
    }
    project.run(&["lock"]).ok();
    project.run(&["build"]).ok();
    project.run(&["check", "--offline"]).ok();

    // The same under names that vendors gave later, and without plugins.
    let project = empty();
    vendor::generate(&project.path("install"), &versions);
    let install = project.path("install");
    let rename = |from: &str, to: &str| fs::rename(install.join(from), install.join(to)).unwrap();
    rename("elasticsearch-6.7.0.tar.gz", "elasticsearch-6.7.0-linux-x86_64.tar.gz");
    rename("zookeeper-3.4.13.tar.gz", "apache-zookeeper-3.4.13-bin.tar.gz");
    fs::remove_file(install.join("elasticsearch-analysis-ik-6.7.0.zip")).unwrap();
    project.run(&["init"]).ok();
    let recipe = project.read("recipes/_elasticsearch.toml");
    assert!(
        recipe.contains("artifact = \"elasticsearch-{{ versions.elasticsearch }}-linux-x86_64.tar.gz\""),
        "{recipe}"
    );
    assert!(recipe.contains("\n# artifact = \"elasticsearch-analysis-ik"), "{recipe}");
    project.run(&["build"]).ok();
}

#[test]
fn an_install_folder_without_anything_known_is_told_what_is() {
    let project = empty();
    project.artifact("unknown-1.0.tar.gz", &[file("x/y", 0o644, "z")]);
    let run = project.run(&["init", "--yes"]).exits(2);
    assert!(run.stderr.contains("nothing that a stock recipe could be made of"), "{}", run.stderr);
    assert!(run.stderr.contains("nginx-<nginx>-linux-x86_64.tar.gz"), "{}", run.stderr);
    assert!(!project.path("windlass.toml").exists());
}
