//! `OpenSearch`: minor and major versions, conf, rollback, a killed controller, and nodes that leave.

use std::time::Instant;

use serde_json::{Value, json};

use crate::elastic::lab::Lab;
use crate::support::elastic::tell;
use crate::support::elastic_client::Client;

/// What its own jvm.options has: to 2 a security manager, from 3 on an agent.
pub(crate) fn jvm_options(version: &str) -> &'static str {
    if version.starts_with("3.") {
        "-javaagent:agent/opensearch-agent.jar\n"
    } else {
        "18-:-Djava.security.manager=allow\n\
         -Djava.util.concurrent.ForkJoinPool.common.threadFactory=\
         org.opensearch.secure_sm.SecuredForkJoinWorkerThreadFactory\n"
    }
}

/// Lines of opensearch.yml that are its own: from 2 on a master is a cluster manager.
pub(crate) fn yml(version: &str, seeds: &str) -> String {
    let name = if version.starts_with("1.") { "master" } else { "cluster_manager" };
    format!(
        "transport.port: {{{{ vars.transport_port }}}}\n\
         node.roles: [{name}{{% if vars.data %}}, data, ingest{{% endif %}}]\n\
         discovery.seed_hosts: [{seeds}]\n\
         {{% if cluster.forming %}}cluster.initial_{name}_nodes: [n1, n2, n3]\n{{% endif %}}"
    )
}

/// A cluster that has formed, with an index and a setting of the operator's.
fn formed(versions: &[&str], more: &str) -> Option<Lab> {
    let lab = Lab::of("opensearch", versions)?;
    let begun = Instant::now();
    lab.build(versions[0], more);
    tell(&format!("{} forms", versions[0]), &lab.rolls(0, &["promote"]), begun.elapsed());
    lab.index();
    let mine = json!({"persistent": {"cluster.routing.allocation.node_concurrent_recoveries": "3"},
        "transient": {"cluster.routing.allocation.enable": "all"}});
    lab.send("PUT", "/_cluster/settings", &mine);
    Some(lab)
}

/// Promotes while a client writes, and looks whether everything is as it should be after.
fn promoted(lab: &Lab, what: &str, version: &str, first: u64) {
    let before = lab.settings();
    let (client, begun) = (Client::start(&lab.nodes(), first), Instant::now());
    let done = lab.rolls(0, &["promote"]);
    tell(what, &done, begun.elapsed());
    client.done(&lab.nodes(), what);
    assert_eq!(done["outcome"], "succeeded", "{done}");
    assert_eq!(lab.versions(), [version; 3]);
    assert_eq!(lab.settings(), before, "every setting is as it was");
}

/// The nodes of a plan in their order, and whether there is a way back from each.
fn planned(lab: &Lab) -> Vec<(String, bool)> {
    let plan = lab.project.json(&["plan"]).ok().json();
    let nodes = plan["waves"].as_array().unwrap().iter().flat_map(|wave| wave["nodes"].as_array().unwrap());
    nodes
        .map(|node| (node["node"].as_str().unwrap().to_owned(), node["point_of_no_return"] == true))
        .collect()
}

fn elected(lab: &Lab) -> String {
    let found = lab.get("/_cat/cluster_manager?format=json&h=node");
    found[0]["node"].as_str().unwrap().to_owned()
}

#[test]
#[ignore = "long: three nodes of OpenSearch upgraded, about 3 min"]
fn long_opensearch_goes_on_while_a_client_writes_and_its_cluster_manager_goes_last() {
    let Some(lab) = formed(&["2.17.1", "2.19.1"], "") else { return };
    lab.build("2.19.1", "");
    let order = planned(&lab);
    assert!(order.iter().all(|(_, no_way_back)| *no_way_back), "{order:?}");
    assert_eq!(order.last().unwrap().0, elected(&lab), "{order:?}");
    promoted(&lab, "OpenSearch 2.17.1 to 2.19.1", "2.19.1", 0);
    let refused = lab.project.json(&["rollback"]).exits(1);
    assert!(refused.stdout.contains("cannot be read by an older one"), "{}", refused.stdout);
}

/// What OpenSearch 1 has for clients of Elasticsearch: it says that it is 7.10.2.
const DISGUISED: &str = "compatibility.override_main_response_version: true\n";

#[test]
#[ignore = "long: three nodes of OpenSearch in five rollouts, about 6 min"]
fn long_opensearch_1_that_says_it_is_elasticsearch_becomes_2_and_takes_another_conf_and_the_old_one_again() {
    let Some(lab) = formed(&["1.3.20", "2.19.1"], DISGUISED) else { return };
    assert_eq!(lab.get("/")["version"]["number"], "7.10.2");
    lab.build("2.19.1", "");
    promoted(&lab, "OpenSearch 1.3.20 to 2.19.1", "2.19.1", 0);

    lab.build("2.19.1", "http.max_content_length: 90mb\n");
    assert!(planned(&lab).iter().all(|(_, no_way_back)| !no_way_back));
    promoted(&lab, "OpenSearch, conf alone", "2.19.1", 1_000_000);
    let (before, client) = (lab.settings(), Client::start(&lab.nodes(), 2_000_000));
    let begun = Instant::now();
    tell("OpenSearch, conf alone, back", &lab.rolls(0, &["rollback"]), begun.elapsed());
    client.done(&lab.nodes(), "OpenSearch, conf alone, back");
    assert_eq!(lab.settings(), before);

    // Killed while a setting is changed: `resume` restores it.
    lab.build("2.19.1", "http.max_content_length: 80mb\n");
    let client = Client::start(&lab.nodes(), 3_000_000);
    lab.kill_in_the_middle(&["promote"]);
    assert_ne!(lab.settings(), before);
    lab.rolls(0, &["resume"]);
    client.done(&lab.nodes(), "OpenSearch, a killed controller");
    assert_eq!(lab.settings(), before);
}

#[test]
#[ignore = "long: three nodes of OpenSearch upgraded, and two that leave, about 4 min"]
fn long_opensearch_2_becomes_3_and_two_nodes_leave() {
    let Some(mut lab) = formed(&["2.19.1", "3.0.0"], "") else { return };
    lab.build("3.0.0", "");
    promoted(&lab, "OpenSearch 2.19.1 to 3.0.0", "3.0.0", 0);

    lab.rollout("predicates_off = [\"last-of-role\"]\n");
    let before = lab.settings();
    // The elected one may be among those that go.
    for (node, replicas) in [("n3", 1), ("n2", 0)] {
        lab.send("PUT", "/docs/_settings", &json!({"index.number_of_replicas": replicas}));
        lab.get("/_cluster/health?wait_for_status=green&wait_for_no_relocating_shards=true&timeout=25s");
        let (client, begun) = (Client::start(&lab.nodes(), 1_000_000), Instant::now());
        let what = format!("OpenSearch: {node} leaves");
        tell(&what, &lab.rolls(0, &["leave", node]), begun.elapsed());
        client.done(&lab.nodes(), &what);
        assert_eq!(lab.settings(), before);
        let state = lab.get("/_cluster/state/metadata?filter_path=metadata.cluster_coordination");
        let votes = &state["metadata"]["cluster_coordination"];
        assert_eq!(votes["voting_config_exclusions"], Value::Array(Vec::new()), "{votes}");
        assert_eq!(votes["last_committed_config"].as_array().map(Vec::len), Some(1), "{votes}");
    }
}
