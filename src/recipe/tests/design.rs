//! The recipe of the design page, read in full.

use insta::assert_snapshot;

use super::spec;
use crate::recipe::{Format, Strip};

const SHARED: &str = r#"
schema = 1

[[unpack]]
artifact = "jdk-{{ versions.jdk }}_linux-x64_bin.tar.gz"
into     = "jdk"

[vars]
heap = "2g"
zone = { awareness = true }

[service]
kind  = "elasticsearch"
user  = "elastic"
start = ["elasticsearch/bin/elasticsearch"]
env   = { ES_JAVA_HOME = "{{ release }}/jdk", ES_PATH_CONF = "{{ release }}/elasticsearch/config" }
"#;

const HOT: &str = r#"
schema  = 1
extends = "_elasticsearch"
version = "{{ versions.elasticsearch }}-{{ build }}"

[[unpack]]
artifact = "elasticsearch-{{ versions.elasticsearch }}.tar.gz"
into     = "elasticsearch"
strip    = "auto"
exclude  = ["modules/x-pack-ml/**"]

[[unpack]]
artifact = "elasticsearch-analysis-ik-{{ versions["analysis-ik"] }}.zip"
into     = "elasticsearch/plugins/analysis-ik"
strip    = 0
format   = "zip"

[[conf]]
from   = "elasticsearch"
into   = "elasticsearch/config"
render = ["elasticsearch.yml", "jvm.options"]

[[persist]]
name = "data"
at   = "elasticsearch/data"

[[scratch]]
at = "elasticsearch/tmp"

[vars]
heap = "1g"

[service]
start  = ["-p", "{{ shared }}/pid"]
stop   = { signal = "SIGTERM", timeout = "60s" }
limits = { nofile = 65535, nproc = "{{ vars.nproc }}", memlock = "unlimited" }
env    = { HEAP = "{{ vars.heap }}", NODES = "{{ nodes_with(role) | length }}", N = 3 }

[service.ready]
http = { port = "{{ node.vars.port | default(9200) }}" }
within = "120s"
"#;

#[test]
fn reads_every_key() {
    let hot = HOT.replace(r#"versions["analysis-ik"]"#, "versions['analysis-ik']");
    let spec = spec(&[("_elasticsearch.toml", SHARED), ("elasticsearch-hot.toml", &hot)]);
    assert_eq!(spec.role.as_str(), "elasticsearch-hot");
    let artifacts: Vec<&str> = spec.unpack.iter().map(|unpack| unpack.artifact.as_str()).collect();
    assert_eq!(
        artifacts,
        [
            "jdk-11.0.1_linux-x64_bin.tar.gz",
            "elasticsearch-6.7.0.tar.gz",
            "elasticsearch-analysis-ik-6.7.0.zip"
        ]
    );
    assert_eq!(spec.unpack[0].place.to_string(), "recipes/_elasticsearch.toml:5:12");
    assert_eq!(spec.unpack[1].strip, Strip::Auto);
    assert_eq!(spec.unpack[2].strip, Strip::Levels(0));
    assert_eq!(spec.unpack[2].format, Format::Zip);
    assert_eq!(spec.conf[0].render, ["elasticsearch.yml", "jvm.options"]);
    assert_eq!(spec.persist[0].at.as_ref().unwrap().as_str(), "elasticsearch/data");
    assert_eq!(spec.vars["heap"], "1g");
    assert_eq!(spec.vars["zone"]["awareness"], true);
    let used: Vec<&str> = spec.versions_used.keys().map(String::as_str).collect();
    assert_eq!(used, ["analysis-ik", "elasticsearch", "jdk"]);
    assert_eq!(spec.version.render(Some(7)).unwrap().as_str(), "6.7.0-7");
}

#[test]
fn a_service_is_a_format() {
    let hot = HOT.replace(r#"versions["analysis-ik"]"#, "versions['analysis-ik']");
    let spec = spec(&[("_elasticsearch.toml", SHARED), ("elasticsearch-hot.toml", &hot)]);
    let service = spec.service.unwrap();
    let text = serde_json::to_string_pretty(&service).unwrap();
    assert_snapshot!(text, @r#"
    {
      "kind": "elasticsearch",
      "user": "elastic",
      "start": [
        "elasticsearch/bin/elasticsearch",
        "-p",
        "{{ shared }}/pid"
      ],
      "env": {
        "ES_JAVA_HOME": "{{ release }}/jdk",
        "ES_PATH_CONF": "{{ release }}/elasticsearch/config",
        "HEAP": "{{ vars.heap }}",
        "N": "3",
        "NODES": "{{ nodes_with(role) | length }}"
      },
      "stop": {
        "signal": "TERM",
        "timeout": "1m"
      },
      "limits": {
        "memlock": "unlimited",
        "nofile": 65535,
        "nproc": "{{ vars.nproc }}"
      },
      "ready": {
        "http": {
          "port": "{{ node.vars.port | default(9200) }}",
          "path": "/",
          "status": 200
        },
        "within": "2m"
      }
    }
    "#);
    assert_eq!(serde_json::from_str::<crate::recipe::Service>(&text).unwrap(), service);
}

#[test]
fn build_numbers_are_found_again() {
    let spec = spec(&[("x.toml", "schema = 1\nversion = '{{ versions.jdk }}-{{ build }}'")]);
    assert!(spec.version.uses_build());
    let made = spec.version.render(Some(11)).unwrap();
    assert_eq!(made.as_str(), "11.0.1-11");
    assert_eq!(spec.version.build_of(&made), Some(11));
    let glued = super::spec(&[("x.toml", "schema = 1\nversion = 'v1{{ build }}0'")]);
    assert_eq!(glued.version.build_of(&"v1230".parse().unwrap()), Some(23));
    let padded = super::spec(&[("x.toml", "schema = 1\nversion = \"{{ '%03d' | format(build) }}\"")]);
    assert_eq!(padded.version.build_of(&"007".parse().unwrap()), Some(7));
    assert_eq!(spec.version.build_of(&"11.0.2-11".parse().unwrap()), None);
    assert_eq!(spec.version.build_of(&"99999999999999999999999".parse().unwrap()), None);
    assert!(spec.version.render(None).unwrap_err().to_string().contains("needs a build number"));
}
