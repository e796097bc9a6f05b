//! The adapter against servers that answer what real ones were seen to answer: `OpenSearch` 2.19 and 1.3, and a
//! server that does not know who asks.

use serde_json::{Value, json};

use super::super::tests::{Answers, Fake, why};
use super::super::{Adapter as _, View, known};
use crate::recipe::ServiceKind;
use crate::rollout::Held;

fn http(status: u16, body: &Value) -> String {
    let body = body.to_string();
    format!(
        "HTTP/1.1 {status} It\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Of two nodes, of which the second is the elected cluster manager, what the one on `port` answers. What
/// `OpenSearch` does not have is refused as it refuses it.
fn opensearch(port: u16, version: &str, root: &Value) -> Answers {
    let (ok, name) = (|body: Value| http(200, &body), format!("n{port}"));
    let unknown = || http(400, &json!({"error": "no handler found for uri", "status": 400}));
    let node = |n: u16| {
        let manager = if version.starts_with("1.") { "master" } else { "cluster_manager" };
        json!({"name": format!("n{n}"), "version": version, "roles": [manager, "data", "ingest"],
            "attributes": {"shard_indexing_pressure_enabled": "true"},
            "http": {"publish_address": format!("127.0.0.1:{n}")}})
    };
    let health = json!({"status": "green", "timed_out": false, "number_of_nodes": 2, "initializing_shards": 0,
        "relocating_shards": 0, "unassigned_shards": 0, "number_of_in_flight_fetch": 0});
    let copies = json!([{"index": "i", "shard": "0", "prirep": "p", "state": "STARTED", "node": "n1"},
        {"index": "i", "shard": "0", "prirep": "r", "state": "STARTED", "node": "n2"}]);
    let mut root = root.clone();
    root["name"] = name.clone().into();
    vec![
        ("GET / HTTP", ok(root)),
        ("GET /_nodes/_local", ok(json!({"cluster_name": "c", "nodes": {name.clone(): node(port)}}))),
        ("GET /_nodes/http", ok(json!({"nodes": {"n1": node(1), "n2": node(2)}}))),
        ("GET /_nodes/shutdown", unknown()),
        (
            "GET /_cluster/state/master_node",
            ok(json!({"cluster_name": "c", "cluster_uuid": "u", "master_node": "n2"})),
        ),
        ("GET /_cluster/health", ok(health)),
        ("GET /_cat/shards", ok(copies)),
        ("GET /_cluster/settings", ok(json!({"persistent": {}, "transient": {}}))),
        ("PUT /_cluster/settings", ok(json!({"acknowledged": true}))),
        ("/_ml/", unknown()),
        ("POST /_flush HTTP", ok(json!({"_shards": {"total": 2, "successful": 2, "failed": 0}}))),
        ("POST /_flush/synced", unknown()),
    ]
}

fn cluster(version: &str, root: &Value) -> Fake {
    Fake::new(ServiceKind::Opensearch, [1, 2].map(|port| (port, opensearch(port, version, root))))
}

fn of<'a>(fake: &'a Fake, port: u16, product: &str, target: &str) -> View<'a> {
    let mut view = fake.view(port, &[1, 2], &[]);
    view.this.product = Some(product.to_owned());
    view.target = Some(target.to_owned());
    view
}

fn own_word(version: &str) -> Value {
    json!({"cluster_name": "c", "cluster_uuid": "u", "tagline": "The OpenSearch Project: https://opensearch.org/",
        "version": {"distribution": "opensearch", "number": version}})
}

#[tokio::test]
async fn opensearch_is_asked_what_it_has() {
    let adapter = known(ServiceKind::Opensearch);
    let fake = cluster("2.19.1", &own_word("2.19.1"));
    let (one, manager) = (of(&fake, 1, "2.19.1", "2.19.1"), of(&fake, 2, "2.19.1", "2.19.1"));
    assert!(adapter.rank(&one).await.unwrap() < adapter.rank(&manager).await.unwrap());
    assert_eq!(adapter.may_leave(&one).await, Ok(Held::Yes));
    let settings = adapter.settings(&one).await.unwrap();
    let names: Vec<&str> = settings.iter().map(|setting| setting.name.as_str()).collect();
    assert_eq!(names, ["persistent.cluster.routing.allocation.enable"]);
    // There is no synced flush.
    assert_eq!(adapter.drain(&one, &settings).await, Ok(Held::Yes));
    assert_eq!(adapter.ready(&one).await, Ok(Held::Yes));
    assert_eq!(adapter.settled(&one).await, Ok(Held::Yes));
    let held = adapter.ready(&of(&fake, 1, "3.0.0", "3.0.0")).await.unwrap();
    assert!(why(&held).contains("it answers as 2.19.1, not 3.0.0"), "{held:?}");
}

/// `compatibility.override_main_response_version`: it says that it is Elasticsearch 7.10.2, for old clients.
fn disguise() -> Value {
    json!({"cluster_name": "c", "cluster_uuid": "u", "tagline": "The OpenSearch Project: https://opensearch.org/",
        "version": {"number": "7.10.2", "build_type": "zip", "build_flavor": "oss"}})
}

#[tokio::test]
async fn opensearch_1_is_known_in_its_disguise() {
    let adapter = known(ServiceKind::Opensearch);
    let fake = cluster("1.3.20", &disguise());
    let view = of(&fake, 1, "1.3.20", "2.19.1");
    assert_eq!(adapter.ready(&view).await, Ok(Held::Yes));
    assert_eq!(adapter.may_leave(&view).await, Ok(Held::Yes));
    // 7.10.2 would be newer than what it becomes, and flushed in another way.
    let settings = adapter.settings(&view).await.unwrap();
    assert_eq!(adapter.drain(&view, &settings).await, Ok(Held::Yes));
    // Taken for an Elasticsearch it is what it says.
    let servers = [1, 2].map(|port| (port, opensearch(port, "1.3.20", &disguise())));
    let fake = Fake::new(ServiceKind::Elasticsearch, servers);
    let held = known(ServiceKind::Elasticsearch).ready(&of(&fake, 1, "1.3.20", "1.3.20")).await.unwrap();
    assert!(why(&held).contains("it answers as 7.10.2, not 1.3.20"), "{held:?}");
}

#[tokio::test]
async fn a_lone_server_that_does_not_know_who_asks_is_not_stopped() {
    let adapter = known(ServiceKind::Elasticsearch);
    let refuses = vec![("", http(401, &json!({"error": {"reason": "missing credentials"}, "status": 401})))];
    let fake = Fake::new(ServiceKind::Elasticsearch, [(1, refuses)]);
    let error = adapter.may_leave(&fake.view(1, &[1], &[])).await.unwrap_err();
    assert!(
        error.message.starts_with("cluster-answers: ") && error.message.contains("does not know who asks"),
        "{error}"
    );
    assert!(error.help.concat().contains("`api_key`"), "{:?}", error.help);
    let off = ["cluster-answers".to_owned()];
    assert_eq!(adapter.may_leave(&fake.view(1, &[1], &off)).await, Ok(Held::Yes));
    // One that answers nothing has nothing that could be taken from anybody.
    let silent = Fake::new(ServiceKind::Elasticsearch, []);
    assert_eq!(adapter.may_leave(&silent.view(1, &[1], &[])).await, Ok(Held::Yes));
}

#[tokio::test]
async fn what_is_asked_of_a_node_that_leaves_for_good_is_turned_off_by_name() {
    let adapter = known(ServiceKind::Opensearch);
    // Yellow, as many nodes with data as copies, and of two others that may be elected one is not there.
    let yellow = |port| {
        let mut answers = opensearch(port, "2.19.1", &own_word("2.19.1"));
        for (asked, answer) in &mut answers {
            if asked.contains("health") {
                *answer = http(200, &json!({"status": "yellow", "timed_out": false, "unassigned_shards": 1}));
            }
        }
        answers
    };
    let fake = Fake::new(ServiceKind::Opensearch, [1, 2].map(|port| (port, yellow(port))));
    let all = ["leave-green", "leave-masters", "leave-room"];
    let asked = async |off: &[&str]| {
        let off: Vec<String> = off.iter().map(|name| (*name).to_owned()).collect();
        adapter.may_part(&fake.view(1, &[1, 2, 3], &off)).await.unwrap()
    };
    let held = asked(&[]).await;
    for name in all {
        assert!(why(&held).contains(&format!("{name}: ")), "{held:?}");
        let without = asked(&[name]).await;
        assert!(!why(&without).contains(name) && why(&without).matches("leave-").count() == 2, "{without:?}");
    }
    assert_eq!(asked(&all).await, Held::Yes);
}
