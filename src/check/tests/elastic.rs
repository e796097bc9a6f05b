//! 101 to 124.

use super::{es, found, found_in, instance, the, three, topology};
use crate::check::{Instance, Live, LiveIndex, LiveNode, Topology, Unread, lint};
use crate::recipe::ServiceKind;

fn with(version: &str, more: [&str; 3]) -> Vec<Instance> {
    (1..=3).zip(more).map(|(n, more)| es(version, n, more)).collect()
}

const NO_MASTER: &str = "node.master: false";

#[test]
fn three_good_nodes_have_no_problem() {
    for version in ["6.7.0", "7.17.0", "8.15.0"] {
        assert_eq!(found_in(three(version)), Vec::<&str>::new(), "{version}");
    }
    // Nested keys and lists are the same as flat ones.
    let mut nodes = three("7.17.0");
    for (n, node) in nodes.iter_mut().enumerate() {
        let n = n + 1;
        node.files[0].text = format!(
            "cluster:\n  name: prod\n  routing.allocation.awareness:\n    attributes: [zone]\nnode:\n  name: ${{NAME}}\n  \
             attr: {{ zone: z{n} }}\npath: {{ data: /w/d, logs: /w/l }}\ndiscovery:\n  seed_hosts:\n    - 10.0.0.1:9300\n    \
             - 10.0.0.2\n    - 10.0.0.3\ntransport.port: 9300\n"
        );
        node.env.insert("NAME".to_owned(), format!("n{n}"));
    }
    assert_eq!(found_in(nodes), Vec::<&str>::new());
}

#[test]
fn masters_are_counted() {
    let nobody = with("6.7.0", [NO_MASTER; 3]);
    assert!(found_in(nobody).contains(&"E101"));
    let one = with("7.17.0", ["", NO_MASTER, NO_MASTER]);
    assert!(found_in(one).contains(&"W103"));
    let two = with("7.17.0", ["", "", NO_MASTER]);
    let found_of_two = found_in(two);
    assert!(found_of_two.contains(&"W102") && !found_of_two.contains(&"W103"), "{found_of_two:?}");
    let four: Vec<_> = (1..=4)
        .map(|n| es("7.17.0", n, "discovery.seed_hosts: [10.0.0.1, 10.0.0.2, 10.0.0.3, 10.0.0.4]"))
        .collect();
    assert!(found_in(four).contains(&"W104"));
    let five: Vec<_> = (1..=5)
        .map(|n| es("7.17.0", n, "discovery.seed_hosts: [10.0.0.1, 10.0.0.2, 10.0.0.3, 10.0.0.4, 10.0.0.5]"))
        .collect();
    assert!(found_in(five).contains(&"W104"));
    // A cluster of one node is what it is.
    assert_eq!(found_in(vec![es("7.17.0", 1, "discovery.type: single-node")]), Vec::<&str>::new());
}

#[test]
fn some_masters_must_be_electable() {
    let voting = "node.roles: [master, voting_only, data]";
    let roles = "node.roles: [master, data, ingest]";
    let two_voting = found_in(with("7.17.0", [roles, voting, voting]));
    assert!(two_voting.contains(&"E105") && two_voting.contains(&"W106"), "{two_voting:?}");
    let fine = found_in(with("7.17.0", [roles, roles, voting]));
    assert!(!fine.contains(&"E105") && !fine.contains(&"W106") && !fine.contains(&"E106"), "{fine:?}");
    let lone = found_in(with("7.17.0", [roles, roles, "node.roles: [voting_only, data]"]));
    assert!(lone.contains(&"E106"), "{lone:?}");
}

#[test]
fn before_7_a_majority_is_written_down() {
    const KEY: &str = "discovery.zen.minimum_master_nodes";
    let problems = lint(&topology(with("6.7.0", ["discovery.zen.minimum_master_nodes: 1", "", ""])));
    let problem = the(&problems, "E107");
    assert!(problem.message.contains("majority is 2") && problem.message.contains("elect a master each"));
    assert_eq!(
        (problem.node.as_deref(), problem.place.as_str()),
        (Some("n1"), "es/config/elasticsearch.yml:11")
    );
    assert_eq!(problem.help, format!("{KEY}: 2"));
    let unset = "discovery.zen.minimum_master_nodes: -";
    assert!(found_in(with("6.7.0", [unset; 3])).contains(&"E107"));
    // What was set while it ran is what holds.
    let mut live = topology(three("6.7.0"));
    live.live = Some(Live { settings: [(KEY.to_owned(), "1".to_owned())].into(), ..Live::default() });
    assert!(the(&lint(&live), "E107").place.starts_with("_cluster/settings"));
    let old = format!("{KEY}: 2");
    assert_eq!(found_in(with("7.17.0", [&old, "", ""])), ["W107"]);
    assert_eq!(found_in(with("8.15.0", [&old, "", ""])), ["E107"]);
}

fn forming(mut nodes: Vec<Instance>, forming: bool) -> Vec<Instance> {
    for node in &mut nodes {
        node.forming = Some(forming);
    }
    nodes
}

#[test]
fn the_first_election_needs_names() {
    assert_eq!(found_in(forming(three("7.17.0"), true)), ["E108"]);
    // Whether it is to form is not known without the nodes.
    assert_eq!(found_in(three("7.17.0")), Vec::<&str>::new());
    assert_eq!(found_in(forming(three("6.7.0"), true)), Vec::<&str>::new());
    let good = "cluster.initial_master_nodes: [n1, n2, n3]";
    assert_eq!(found_in(forming(with("7.17.0", [good; 3]), true)), Vec::<&str>::new());
    let by_address = "cluster.initial_master_nodes: [\"10.0.0.1:9300\", 10.0.0.2, n3]";
    assert_eq!(found_in(forming(with("7.17.0", [by_address; 3]), true)), Vec::<&str>::new());
    let problems =
        lint(&topology(forming(with("7.17.0", ["cluster.initial_master_nodes: [n1, n9]"; 3]), true)));
    assert!(problems.iter().all(|one| one.code == "E108" && one.message.contains("n9")), "{problems:?}");
    let other = "cluster.initial_master_nodes: [n1]";
    let problems = lint(&topology(forming(with("7.17.0", [good, good, other]), true)));
    assert!(the(&problems, "E108").message.contains("name other nodes"));
}

#[test]
fn and_later_it_must_not_have_them() {
    let good = "cluster.initial_master_nodes: [n1, n2, n3]";
    assert_eq!(found_in(forming(with("7.17.0", [good; 3]), false)), ["E109"]);
    assert_eq!(found_in(with("7.17.0", [good; 3])), Vec::<&str>::new());
    let mut live = topology(with("7.17.0", [good, "", ""]));
    live.live = Some(Live::default());
    assert_eq!(found(&live), ["E109"]);
}

#[test]
fn nodes_know_where_masters_are() {
    let none = found_in(with("7.17.0", ["discovery.seed_hosts: -", "", ""]));
    assert_eq!(none, ["E110"]);
    assert_eq!(
        found_in(with("7.17.0", ["discovery.seed_hosts: -\ndiscovery.seed_providers: file", "", ""])),
        Vec::<&str>::new()
    );
    let problems =
        lint(&topology(with("7.17.0", ["discovery.seed_hosts: [\"10.0.0.1:9300\", 10.0.0.2]", "", ""])));
    assert!(the(&problems, "W110").message.contains("misses n3"));
    // The port of another service is not it.
    let problems = lint(&topology(with(
        "6.7.0",
        ["discovery.zen.ping.unicast.hosts: [\"10.0.0.1:9300\", 10.0.0.2, \"10.0.0.3:9301\"]", "", ""],
    )));
    assert!(the(&problems, "W110").message.contains("misses n3"));
    // A name may stand for all of them.
    assert_eq!(
        found_in(with("7.17.0", ["discovery.seed_hosts: [masters.example.net]", "", ""])),
        Vec::<&str>::new()
    );
}

fn zoned(mut nodes: Vec<Instance>, zones: &[&str]) -> Vec<Instance> {
    for (node, zone) in nodes.iter_mut().zip(zones) {
        node.zone = Some((*zone).to_owned());
    }
    nodes
}

#[test]
fn zones_are_lost_one_at_a_time() {
    let seeds = "discovery.seed_hosts: [10.0.0.1, 10.0.0.2, 10.0.0.3, 10.0.0.4]";
    let four = || (1..=4).map(|n| es("7.17.0", n, seeds)).collect::<Vec<_>>();
    assert_eq!(found_in(zoned(four(), &["a", "a", "b", "b"])), ["E111", "W104"]);
    let problems = lint(&topology(zoned(three("7.17.0"), &["a", "a", "b"])));
    assert!(the(&problems, "W111").message.contains("the loss of a"), "{problems:?}");
    assert_eq!(found_in(zoned(three("7.17.0"), &["a", "b", "c"])), Vec::<&str>::new());
    let mut more = zoned(three("7.17.0"), &["a", "a", "b"]);
    more.push(es("7.17.0", 4, NO_MASTER));
    assert_eq!(found_in(more), ["W112"]);
    // Without zones nothing is known of them.
    let mut none = three("7.17.0");
    for node in &mut none {
        node.zone = None;
    }
    assert_eq!(found_in(none), Vec::<&str>::new());
}

#[test]
fn copies_are_kept_in_several_zones() {
    let no_awareness = "cluster.routing.allocation.awareness.attributes: -";
    assert_eq!(found_in(with("7.17.0", [no_awareness; 3])), ["W113"]);
    let problems = lint(&topology(with("7.17.0", ["node.attr.zone: -", "", ""])));
    assert!(the(&problems, "W113").message.contains("n1 has no node.attr.zone"));
    let mut live = topology(with("7.17.0", [no_awareness; 3]));
    let setting = ("cluster.routing.allocation.awareness.attributes".to_owned(), "zone".to_owned());
    live.live = Some(Live { settings: [setting].into(), ..Live::default() });
    assert_eq!(found(&live), Vec::<&str>::new());
}

#[test]
fn data_and_roles_are_not_in_one_place_only() {
    let no_data = "node.data: false";
    let one = lint(&topology(with("7.17.0", ["", no_data, no_data])));
    assert!(the(&one, "W114").message.contains("10.0.0.1") && the(&one, "W115").message.contains("has data"));
    let in_one_zone = zoned(with("7.17.0", ["", "", no_data]), &["a", "a", "b"]);
    assert!(the(&lint(&topology(in_one_zone)), "W114").message.contains("zone a"));
    let ingest = with("7.17.0", ["", "node.ingest: false", "node.ingest: false"]);
    assert!(the(&lint(&topology(ingest)), "W115").message.contains("ingest"));
    let tiers = ["node.attr.box_type: hot", "node.attr.box_type: hot", "node.attr.box_type: warm"];
    let tiers = lint(&topology(with("7.17.0", tiers)));
    let warm = the(&tiers, "W115");
    assert!(warm.message.contains("tier warm") && warm.place == "cluster.toml:3", "{warm:?}");
    let mut all = three("7.17.0");
    all.push(instance("n1", "nginx", ServiceKind::Nginx, "nginx.conf", ""));
    all.push(instance("n1", "curator", ServiceKind::Process, "curator.yml", ""));
    assert!(the(&lint(&topology(all)), "W115").message.contains("only n1 runs nginx"));
}

/// An index: its name, primaries, replicas and settings.
type Index<'a> = (&'a str, u64, u64, &'a [(&'a str, &'a str)]);

fn live(indices: &[Index<'_>]) -> Topology {
    let index = |(name, primaries, replicas, settings): &Index<'_>| LiveIndex {
        name: (*name).to_owned(),
        primaries: *primaries,
        replicas: *replicas,
        settings: settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
    };
    let mut topology = topology(three("7.17.0"));
    topology.live = Some(Live { indices: indices.iter().map(index).collect(), ..Live::default() });
    topology
}

#[test]
fn indices_have_as_many_copies_as_fit() {
    assert_eq!(found(&live(&[("logs", 3, 1, &[]), ("more", 1, 2, &[])])), Vec::<&str>::new());
    let problems = lint(&live(&[("bare", 3, 0, &[]), ("many", 1, 3, &[])]));
    assert!(
        the(&problems, "E116").message.contains("bare") && the(&problems, "W116").message.contains("many")
    );
    let other = [
        ("mounted", 1, 0, &[("store.type", "snapshot")][..]),
        ("grows", 1, 3, &[("auto_expand_replicas", "0-all")]),
    ];
    assert_eq!(found(&live(&other)), Vec::<&str>::new());
    // Only nodes of its tier count.
    let tiered = [("cold", 1, 1, &[("routing.allocation.require.zone", "z1")][..])];
    assert_eq!(found(&live(&tiered)), ["W116"]);
}

#[test]
fn shards_find_room_after_a_failure() {
    let limit = "routing.allocation.total_shards_per_node";
    // Three primaries with a replica each: six on two nodes.
    assert_eq!(found(&live(&[("logs", 3, 1, &[(limit, "2")])])), ["E121"]);
    assert_eq!(found(&live(&[("logs", 3, 1, &[(limit, "3")])])), Vec::<&str>::new());
    assert_eq!(found(&live(&[("logs", 3, 1, &[(limit, "-1")])])), Vec::<&str>::new());
    let mut all = live(&[("logs", 3, 1, &[])]);
    all.live.as_mut().unwrap().settings.insert(format!("cluster.{limit}"), "2".to_owned());
    assert_eq!(found(&all), ["E121"]);
}

#[test]
fn two_data_nodes_on_a_host_share_no_shard() {
    let second = |more: &str| {
        let mut node = es(
            "7.17.0",
            1,
            &format!(
                "{more}\nnode.name: other\nhttp.port: 9201\ntransport.tcp.port: 9301\npath.data: /x\npath.logs: /y"
            ),
        );
        node.role = "warm".to_owned();
        node
    };
    let mut nodes = three("7.17.0");
    nodes.push(second("node.master: false"));
    assert_eq!(found_in(nodes), ["E117"]);
    let same = "cluster.routing.allocation.same_shard.host: true";
    let mut nodes = with("7.17.0", [same; 3]);
    nodes.push(second(&format!("node.master: false\n{same}")));
    assert_eq!(found_in(nodes), Vec::<&str>::new());
}

#[test]
fn data_lasts_and_is_nobody_elses() {
    let inside = lint(&topology(with("7.17.0", ["path.data: -", "", ""])));
    let problem = the(&inside, "E118");
    assert!(
        problem.message.contains("/w/roles/es/releases/1-1/es/data, inside the release, where it is"),
        "{problem:?}"
    );
    assert_eq!(found_in(with("7.17.0", ["path.data: /w/roles/es/current/es/data", "", ""])), ["E118"]);
    // A link to what lasts is what the recipe says it is.
    let mut linked = with("7.17.0", ["path.data: -", "", ""]);
    linked[0].persist.push((Some("es/data".into()), "/w/roles/es/shared/data".into()));
    assert_eq!(found_in(linked), Vec::<&str>::new());
    let mut shared = three("7.17.0");
    shared[1].host = shared[0].host.clone();
    let found_of_shared = found_in(shared);
    assert!(found_of_shared.contains(&"E118") && found_of_shared.contains(&"E119"), "{found_of_shared:?}");
}

#[test]
fn names_ports_and_clusters_are_told_apart() {
    let same_name = lint(&topology(with("7.17.0", ["node.name: n2", "", ""])));
    assert!(the(&same_name, "E119").message.contains("both called n2"));
    let other = lint(&topology(with("7.17.0", ["", "cluster.name: test", ""])));
    assert!(the(&other, "E119").message.contains("cluster.name is test here and prod"));
    let mut ports = three("7.17.0");
    let mut kibana = instance("n1", "kibana", ServiceKind::Process, "kibana.yml", "");
    kibana.ready_port = Some(9200);
    ports.push(kibana);
    let problems = lint(&topology(ports));
    assert!(the(&problems, "E119").message.contains("port 9200"), "{problems:?}");
}

#[test]
fn watermarks_are_in_order_and_not_reached() {
    let low = |text: &str| format!("cluster.routing.allocation.disk.watermark.low: {text}");
    for (text, fires) in [("90%", true), ("85%", false), ("0.95", true), ("\"80%\"", false)] {
        let found = found_in(with("7.17.0", [&low(text), "", ""]));
        assert_eq!(found, if fires { vec!["W120"] } else { Vec::new() }, "{text}");
    }
    let bytes = format!("{}\ncluster.routing.allocation.disk.watermark.high: 50gb", low("10gb"));
    assert_eq!(found_in(with("7.17.0", [&bytes, "", ""])), ["W120"]);
    let node = |used| LiveNode { name: "n1".to_owned(), disk_used: Some(used), ..LiveNode::default() };
    let mut full = topology(three("7.17.0"));
    full.live = Some(Live { nodes: vec![node(86.0)], ..Live::default() });
    assert_eq!(found(&full), ["W120"]);
    full.live = Some(Live { nodes: vec![node(80.0)], ..Live::default() });
    assert_eq!(found(&full), Vec::<&str>::new());
}

#[test]
fn filters_name_nodes_that_there_are() {
    let filter = |text: &str| format!("cluster.routing.allocation.{text}");
    for (text, fires) in [
        ("exclude._name: n9", true),
        ("exclude._name: n1", false),
        ("exclude._ip: 10.0.0.*", false),
        ("exclude._ip: \"10.0.0.1,10.9.9.9\"", true),
        ("require.zone: z1", false),
        ("require.zone: nowhere", true),
        ("include._tier_preference: data_hot", false),
        ("exclude._name: \"\"", false),
    ] {
        let found = found_in(with("7.17.0", [&filter(text), "", ""]));
        assert_eq!(found, if fires { vec!["W122"] } else { Vec::new() }, "{text}");
    }
    let mut left = topology(three("7.17.0"));
    let setting = ("cluster.routing.allocation.exclude._name".to_owned(), "gone".to_owned());
    left.live = Some(Live { settings: [setting].into(), ..Live::default() });
    assert!(the(&lint(&left), "W122").message.contains("left over"));
    assert_eq!(found(&live(&[("a", 1, 1, &[("routing.allocation.require.box_type", "hot")])])), ["W122"]);
}

#[test]
fn roles_are_said_in_one_way() {
    let both = "node.roles: [master, data, ingest]\nnode.data: true";
    assert_eq!(found_in(with("7.17.0", [both, "", ""])), ["E123"]);
    assert_eq!(found_in(with("7.17.0", ["node.roles: [master, data, ingest]", "", ""])), Vec::<&str>::new());
}

#[test]
fn clients_ask_no_dedicated_master() {
    let dedicated = "node.roles: [master]";
    let with_kibana = |url: &str| {
        let mut nodes = with("7.17.0", [dedicated, "", ""]);
        let text = format!(
            "server.port: 5601\n# elasticsearch.hosts: http://10.0.0.1:9200\nelasticsearch.hosts: [\"{url}\"]\n"
        );
        nodes.push(instance("n2", "kibana", ServiceKind::Kibana, "kibana/config/kibana.yml", &text));
        nodes.push(instance("n3", "kibana", ServiceKind::Kibana, "kibana/config/kibana.yml", ""));
        lint(&topology(nodes))
    };
    let asks = with_kibana("http://10.0.0.1:9200");
    assert_eq!(the(&asks, "W124").place, "kibana/config/kibana.yml:3");
    let mut nodes = with("7.17.0", [dedicated, "", ""]);
    let watches = "metricbeat.modules:\n  - module: elasticsearch\n    hosts: [\"http://10.0.0.1:9200\"]\n";
    nodes.push(instance("n2", "beat", ServiceKind::Process, "metricbeat.yml", watches));
    assert_eq!(found_in(nodes), Vec::<&str>::new());
    for other in ["http://10.0.0.2:9200", "http://10.0.0.1:92001", "http://110.0.0.1:9200"] {
        assert_eq!(with_kibana(other), [], "{other}");
    }
}

#[test]
fn what_is_not_known_is_not_counted() {
    let mut part = topology(with("7.17.0", [NO_MASTER; 3]));
    part.unread.push(Unread { role: "es-master".to_owned(), kind: None });
    assert_eq!(found(&part), ["W100"]);
    // One that is known to be something else changes nothing.
    part.unread[0].kind = Some(ServiceKind::Redis);
    assert!(found(&part).contains(&"E101"));
    let mut broken = three("7.17.0");
    broken[0].files[0].text.push_str("node.name: again\n");
    let problems = lint(&topology(broken));
    assert_eq!(the(&problems, "E100").place, "es/config/elasticsearch.yml:11");
    let mut broken = three("7.17.0");
    broken[0].files[0].text = "a: [1\nb".to_owned();
    assert!(found_in(broken).contains(&"E100"));
}

#[test]
fn opensearch_speaks_of_cluster_managers() {
    let mut nodes = three("7.17.0");
    for node in &mut nodes {
        node.kind = ServiceKind::Opensearch;
        node.files[0].path = "opensearch/config/opensearch.yml".to_owned();
        node.files[0].text.push_str("node.roles: [cluster_manager, data, ingest]\n");
        node.forming = Some(true);
    }
    assert_eq!(found_in(nodes.clone()), ["E108"]);
    nodes[0].files[0].text.push_str("cluster.initial_cluster_manager_nodes: [n1, n2, n3]\n");
    assert_eq!(found_in(nodes), Vec::<&str>::new());
}
