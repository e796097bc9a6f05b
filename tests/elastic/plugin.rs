//! `OpenSearch` with its security plugin.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Instant;

use crate::elastic::lab::{HTTP, JVM_OPTIONS, RECIPE, SECRETS, lone, of};
use crate::elastic::opensearch;
use crate::elastic::secured::{API, HASH, PASSWORD, Stop, certificates, send};
use crate::support::elastic::{artifacts_of, finished, jre};
use crate::support::fetch::maven;
use crate::support::net::Net;
use crate::support::project::{Project, have};

/// What the security plugin reads when it first starts: one user, whose password it knows by its hash.
fn security(project: &Project) {
    let meta = |kind: &str, rest: &str| format!("_meta: {{ type: {kind}, config_version: 2 }}\n{rest}");
    let write = |name: &str, text: &str| {
        project.write(&format!("conf/opensearch/opensearch-security/{name}.yml"), text);
    };
    for (name, kind) in [
        ("action_groups", "actiongroups"),
        ("roles", "roles"),
        ("tenants", "tenants"),
        ("nodes_dn", "nodesdn"),
    ] {
        write(name, &meta(kind, ""));
    }
    write("audit", &meta("audit", "config: { enabled: false }\n"));
    write("allowlist", &meta("allowlist", "config: { enabled: false, requests: {} }\n"));
    write(
        "roles_mapping",
        &meta("rolesmapping", "all_access: { reserved: false, backend_roles: [admin] }\n"),
    );
    let user = format!("windlass: {{ hash: \"{HASH}\", reserved: false, backend_roles: [admin] }}\n");
    write("internal_users", &meta("internalusers", &user));
    let basic = "config:\n  dynamic:\n    http: { anonymous_auth_enabled: false }\n    authc:\n      basic:\n\
                 \u{20}       { http_enabled: true, transport_enabled: true, order: 1,\n\
                 \u{20}         http_authenticator: { type: basic, challenge: true },\n\
                 \u{20}         authentication_backend: { type: intern } }\n";
    write("config", &meta("config", basic));
}

/// `OpenSearch` as people run it: its own security plugin, TLS everywhere, a user and a password.
#[test]
#[ignore = "long: one node of OpenSearch started twice, about 3 min"]
fn long_opensearch_with_its_security_plugin() {
    if !have("openssl") || !have("curl") {
        return;
    }
    let (project, version) = (Project::empty(), "2.19.1");
    let plugin = format!("org.opensearch.plugin:opensearch-security:{version}.0:zip");
    let (Some(()), Some(plugin)) = (artifacts_of(&project, "opensearch", version), maven(&plugin)) else {
        return;
    };
    fs::copy(plugin, project.path("install/opensearch-security.zip")).unwrap();
    fs::set_permissions(&project.dir, fs::Permissions::from_mode(0o755)).unwrap();
    certificates(&project.path("certs"));
    let net = Net::claim();
    let unpack = "\n[[unpack]]\nartifact = \"opensearch-security.zip\"\ninto = \"opensearch/plugins/opensearch-security\"\n\n[[conf]]";
    let recipe = of("opensearch", RECIPE)
        .replacen("\n[[conf]]", unpack, 1)
        .replace("\"jvm.options\"", "\"jvm.options\", \"http.key\"");
    project.write("recipes/opensearch.toml", &format!("{recipe}{API}"));
    project.write(
        "windlass.toml",
        &format!(
            "schema = 1\nname = \"x\"\n[versions]\nopensearch = \"{version}\"\njre = \"{}\"\n",
            jre(version)
        ),
    );
    let options = opensearch::jvm_options(version);
    project.write("conf/opensearch/jvm.options", &format!("{JVM_OPTIONS}{options}"));
    project.write("conf/opensearch/http.key", "{{ secret('http_key') }}\n");
    for name in ["http.pem", "ca.pem"] {
        fs::copy(project.path("certs").join(name), project.path("conf/opensearch").join(name)).unwrap();
    }
    security(&project);
    let mut yml = "cluster.name: secured\nnode.name: {{ node.name }}\npath.data: {{ shared }}/data\n\
                   path.logs: {{ shared }}/logs\nnetwork.host: {{ node.address }}\nhttp.port: {{ vars.http_port }}\n\
                   transport.port: {{ vars.transport_port }}\ndiscovery.type: single-node\n\
                   cluster.routing.allocation.disk.threshold_enabled: false\n\
                   plugins.security.ssl.transport.enforce_hostname_verification: false\n\
                   plugins.security.ssl.http.enabled: true\n\
                   plugins.security.allow_default_init_securityindex: true\n\
                   plugins.security.nodes_dn: [\"CN=es.test\"]\nplugins.security.authcz.admin_dn: [\"CN=admin\"]\n"
        .to_owned();
    for layer in ["transport", "http"] {
        for (what, name) in [("pemcert", "http.pem"), ("pemkey", "http.key"), ("pemtrustedcas", "ca.pem")] {
            let _ = writeln!(yml, "plugins.security.ssl.{layer}.{what}_filepath: {name}");
        }
    }
    project.write("conf/opensearch/opensearch.yml", &yml);
    let cluster = |password: &str| {
        project.write("password", password);
        lone(&project, &net, "opensearch", SECRETS, "3m", ", heap = \"512m\"");
    };
    let _stop = Stop(&project);
    cluster(PASSWORD);
    project.build();
    let begun = Instant::now();
    let done = project.json(&["promote"]);
    if done.code != Some(0) {
        eprintln!("{}", project.read("n1/roles/opensearch/shared/logs/secured.log"));
    }
    let done = done.ok();
    println!("OpenSearch with its security plugin: ready after {:.1} s", begun.elapsed().as_secs_f64());
    assert_eq!(finished(&done)["outcome"], "succeeded");
    // What it is asked before it is stopped, and after it has started, needs the password.
    let restart = project.json(&["restart"]).ok();
    assert_eq!(finished(&restart)["outcome"], "succeeded");
    assert!(restart.stdout.contains("settings-back"), "{}", restart.stdout);
    assert!(!(done.stdout + &restart.stdout).contains(PASSWORD));
    let settings = send(&project, net.at(1, HTTP), "GET", "/_cluster/settings", "");
    assert_eq!(settings, serde_json::json!({"persistent": {}, "transient": {}}));
    cluster("wrong");
    let status = project.json(&["status"]).ok();
    assert_eq!(status.json()["nodes"][0]["roles"][0]["ready"], false, "{}", status.stdout);
    let text = project.read("cluster.toml");
    project.write("cluster.toml", &text.replace("\"3m\"", "\"2s\""));
    let refused = project.json(&["restart"]).exits(1);
    assert!(refused.stdout.contains("does not know who asks"), "{}", refused.stdout);
    cluster(PASSWORD);
    let status = project.json(&["status"]).ok();
    assert_eq!(status.json()["nodes"][0]["roles"][0]["ready"], true, "{}", status.stdout);
}
