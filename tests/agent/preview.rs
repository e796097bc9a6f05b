//! What would be staged, told without staging it; and what counts as staged already.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde_json::{Value, json};

use crate::support::node::{Lab, SECRET, activation, service};

/// Everything below a folder with its time of change, to see that nothing was touched.
fn everything(dir: &Path) -> BTreeMap<PathBuf, SystemTime> {
    walkdir::WalkDir::new(dir)
        .into_iter()
        .map(Result::unwrap)
        .map(|entry| (entry.path().to_owned(), entry.path().symlink_metadata().unwrap().modified().unwrap()))
        .collect()
}

fn preview(lab: &Lab, request: &Value) -> Value {
    let before = lab.root.exists().then(|| everything(&lab.root));
    let answer = lab.done(request);
    assert_eq!(lab.root.exists().then(|| everything(&lab.root)), before, "nothing was written");
    assert!(!answer.to_string().contains(SECRET), "{answer}");
    answer
}

#[test]
fn a_node_without_a_root_tells_what_it_would_become() {
    let lab = Lab::new();
    let built = lab.build("1.0", &service("1.0"));
    let found = preview(&lab, &lab.preview_request(&built));
    let port = lab.address().port();
    let site = format!("format = json\nlisten = {}\nnode = n1\npeers = 1\nport = {port}\n", lab.address());
    assert_eq!(
        found,
        json!({
            "release": null, "prior": null, "same": false, "staged": null, "service_changed": true, "bundles": [],
            "files": [
                { "path": "web/conf/secret.conf", "what": "added", "old": null, "new": "password = ***\n" },
                { "path": "web/conf/site.conf", "what": "added", "old": null, "new": site },
            ],
        })
    );
    let mut request = lab.preview_request(&built);
    request["templates"].as_object_mut().unwrap().remove("web/conf/site.conf");
    assert_eq!(lab.call(&request)["error"]["kind"], "request");
}

#[test]
fn a_preview_says_what_staging_then_does() {
    let lab = Lab::new();
    let one = lab.build("1.0", &service("1.0"));
    let first = lab.promote(&one);
    let found = preview(&lab, &lab.preview_request(&one));
    assert_eq!(
        found,
        json!({ "release": first, "prior": null, "same": true, "staged": first, "files": [],
            "service_changed": false, "bundles": [one.digest] })
    );

    // Another value: one file differs, and the service, which is given it.
    let mut request = lab.preview_request(&one);
    request["context"]["vars"]["port"] = json!(99);
    let found = preview(&lab, &request);
    let file = &found["files"].as_array().unwrap()[..];
    let [file] = file else { panic!("{found}") };
    assert_eq!((&file["path"], &file["what"]), (&json!("web/conf/site.conf"), &json!("changed")));
    assert!(file["old"].as_str().unwrap().ends_with(&format!("port = {}\n", lab.address().port())), "{file}");
    assert!(file["new"].as_str().unwrap().ends_with("port = 99\n"), "{file}");
    assert_eq!((&found["same"], &found["service_changed"]), (&json!(false), &json!(true)));

    // Another secret is a difference whose texts show none of it.
    let mut request = lab.preview_request(&one);
    request["secrets"]["pw"] = json!("another");
    let found = preview(&lab, &request);
    let masked = "password = ***\n";
    let file = json!({ "path": "web/conf/secret.conf", "what": "changed", "old": masked, "new": masked });
    assert_eq!(found["files"], json!([file]), "{found}");
    assert!(!found.to_string().contains("another"));

    // A bundle that is not here yet; its own path is in no file's difference. A template is gone, one is new.
    let recipe = std::fs::read_to_string(lab.dir.join("recipes/web.toml")).unwrap();
    let recipe = recipe.replace(r#""secret.conf"]"#, r#""where.conf"]"#);
    std::fs::write(lab.dir.join("recipes/web.toml"), recipe).unwrap();
    std::fs::write(lab.dir.join("conf/web/where.conf"), "{{ release }}\n{{ shared }}\n").unwrap();
    let two = lab.build("2.0", &service("2.0"));
    let found = preview(&lab, &lab.preview_request(&two));
    let whats: Vec<(&str, &str)> = found["files"]
        .as_array()
        .unwrap()
        .iter()
        .map(|file| (file["path"].as_str().unwrap(), file["what"].as_str().unwrap()))
        .collect();
    assert_eq!(whats, [("web/conf/secret.conf", "removed"), ("web/conf/where.conf", "added")]);
    assert_eq!((&found["files"][0]["old"], &found["files"][0]["new"]), (&json!(masked), &Value::Null));
    assert_eq!((&found["staged"], &found["bundles"]), (&Value::Null, &json!([one.digest])));
    let second = lab.stage(&two);
    let found = preview(&lab, &lab.preview_request(&two));
    assert_eq!((&found["staged"], &found["same"]), (&json!(second), &json!(false)));
    assert_eq!(found["service_changed"], json!(false), "{found}");
}

#[test]
fn what_a_person_wrote_and_what_older_records_lack_is_not_shown() {
    let lab = Lab::new();
    let one = lab.build("1.0", &service("1.0"));
    let first = lab.promote(&one);
    // As a windlass wrote it that kept no masked texts.
    let path = lab.release(&format!("{first}.json"));
    let mut record: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!(
        record.as_object_mut().unwrap().remove("masked").unwrap(),
        json!({ "web/conf/secret.conf": "password = ***\n" })
    );
    std::fs::write(&path, record.to_string()).unwrap();
    let site = lab.release(&first).join("web/conf/site.conf");
    std::fs::remove_file(&site).unwrap_or_else(|_| {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(site.parent().unwrap(), std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::remove_file(&site).unwrap();
    });
    std::fs::write(&site, SECRET).unwrap();
    let mut request = lab.preview_request(&one);
    request["secrets"]["pw"] = json!("another");
    request["context"]["vars"]["port"] = json!(99);
    let found = preview(&lab, &request);
    assert_eq!(found["files"].as_array().unwrap().len(), 2);
    for file in found["files"].as_array().unwrap() {
        assert_eq!((&file["what"], &file["old"]), (&json!("changed"), &Value::Null), "{file}");
        assert!(file["new"].is_string());
    }
    assert_eq!(preview(&lab, &lab.preview_request(&one))["same"], json!(true));
}

#[test]
fn that_a_cluster_has_formed_is_no_reason_to_restart_it() {
    let lab = Lab::new();
    std::fs::write(
        lab.dir.join("conf/web/site.conf"),
        r#"{ {% if cluster.forming %}"masters": ["n1"], {% endif %}"node": "{{ node.name }}"}"#,
    )
    .unwrap();
    let one = lab.build("1.0", &service("1.0"));
    lab.push(&one, None).unwrap();
    let (later, later_stage) = (lab.preview_request(&one), lab.stage_request(&one));
    let mut forming = later_stage.clone();
    forming["context"]["cluster"]["forming"] = json!(true);
    let first = lab.done(&forming)["release"].as_str().unwrap().to_owned();
    let text =
        |release: &str| std::fs::read_to_string(lab.release(release).join("web/conf/site.conf")).unwrap();
    assert_eq!(text(&first), r#"{ "masters": ["n1"], "node": "n1"}"#);

    // It is not current: who starts now is not to form a cluster that exists.
    assert_eq!(preview(&lab, &later)["staged"], Value::Null);
    lab.done(&activation(None, &first, None));
    for request in [&later, &later] {
        let found = preview(&lab, request);
        assert_eq!((&found["same"], &found["files"]), (&json!(true), &json!([])), "{found}");
        lab.done(&json!({ "op": "confirm", "role": "web", "release": first }));
    }
    let again = lab.done(&later_stage);
    assert_eq!((&again["existing"], &again["release"]), (&json!(true), &json!(first)));

    // The next real change drops it, and what was formed with is never taken again.
    let mut changed = later_stage.clone();
    changed["context"]["node"]["name"] = json!("n2");
    let second = lab.done(&changed)["release"].as_str().unwrap().to_owned();
    assert_eq!(text(&second), r#"{ "node": "n2"}"#);
    lab.done(&activation(Some(&first), &second, None));
    let third = lab.done(&later_stage);
    assert_eq!(
        (&third["existing"], text(third["release"].as_str().unwrap())),
        (&json!(false), r#"{ "node": "n1"}"#.to_owned())
    );
    // A node that is told to form does not take a release that does not.
    assert_eq!(lab.done(&forming)["release"], json!(first));
}
