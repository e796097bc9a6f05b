//! 201 to 217, and 120.

use std::collections::BTreeMap;

use super::{codes_of, es, instance, the, three, topology};
use crate::agent::{DirFact, LimitFact, LimitFrom, PortFact, Preflight, RolePreflight};
use crate::check::{ConfFile, Instance, Level, NodeFacts, Problem, dirs, preflight};
use crate::model::ProductVersion;
use crate::recipe::{Limit, ServiceKind};

fn limit(value: Limit) -> LimitFact {
    LimitFact { soft: value, hard: value, from: LimitFrom::Recipe, refused: None }
}

/// A node on which everything is as it should be.
fn role() -> RolePreflight {
    let named = [
        ("nofile", Limit::Number(65_535)),
        ("nproc", Limit::Number(4096)),
        ("as", Limit::Unlimited),
        ("fsize", Limit::Unlimited),
        ("memlock", Limit::Unlimited),
    ];
    let limits: BTreeMap<String, LimitFact> =
        named.into_iter().map(|(name, value)| (name.to_owned(), limit(value))).collect();
    RolePreflight { user: "elastic".to_owned(), limits, dirs: vec![dir()], ..RolePreflight::default() }
}

fn dir() -> DirFact {
    DirFact {
        path: "/w/roles/es/shared/data".into(),
        exists: true,
        made: false,
        owner: "elastic".to_owned(),
        owned: true,
        obstacle: None,
        free_bytes: 50 << 30,
        total_bytes: 100 << 30,
        free_inodes: Some(500),
        total_inodes: Some(1000),
    }
}

fn facts(node: &str, role_name: &str, role: RolePreflight) -> NodeFacts {
    let facts = Preflight {
        came_us: 1_000_000,
        went_us: 1_200_000,
        system: "Linux".to_owned(),
        machine: "x86_64".to_owned(),
        agent_user: "deploy".to_owned(),
        max_map_count: Some(262_144),
        swap: Some(0),
        memory: Some(8 << 30),
        root_bytes: Some(10 << 30),
        root_inodes: Some(100_000),
        roles: [(role_name.parse().unwrap(), role)].into(),
    };
    // 10 ms there, 200 ms at the node, 10 ms back: clocks agree.
    NodeFacts { node: node.to_owned(), facts, sent_us: 990_000, back_us: 1_210_000 }
}

/// What is found on one Elasticsearch node after a change to what it says.
fn after(change: impl FnOnce(&mut NodeFacts)) -> Vec<Problem> {
    judged(es("7.17.0", 1, ""), change)
}

fn judged(one: Instance, change: impl FnOnce(&mut NodeFacts)) -> Vec<Problem> {
    let mut node = facts("n1", &one.role.clone(), role());
    change(&mut node);
    preflight(&topology(vec![one]), &[node])
}

fn es_role(node: &mut NodeFacts) -> &mut RolePreflight {
    node.facts.roles.values_mut().next().unwrap()
}

#[test]
fn a_good_node_has_no_problem() {
    assert_eq!(after(|_| ()), []);
}

#[test]
fn limits_are_judged_by_what_the_service_gets() {
    for (name, value, code) in [
        ("nofile", Limit::Number(1024), "P201"),
        ("nproc", Limit::Number(1024), "P202"),
        ("as", Limit::Number(1 << 30), "P203"),
        ("fsize", Limit::Number(1 << 30), "P203"),
    ] {
        let problems = after(|node| _ = es_role(node).limits.insert(name.to_owned(), limit(value)));
        let problem = the(&problems, code);
        assert_eq!(problem.level, Level::Error);
        assert!(problem.place.contains("service.limits") && problem.message.contains(name), "{problem:?}");
    }
    let of_process = |node: &mut NodeFacts| {
        let fact = LimitFact { from: LimitFrom::Process, ..limit(Limit::Number(4096)) };
        let role = es_role(node);
        role.limits.insert("nofile".to_owned(), fact);
        role.pid = Some(77);
    };
    assert_eq!(the(&after(of_process), "P201").place, "/proc/77/limits");
    // A JVM raises its own.
    let raises = |node: &mut NodeFacts| {
        let fact = LimitFact { soft: Limit::Number(1024), ..limit(Limit::Number(65_535)) };
        es_role(node).limits.insert("nofile".to_owned(), fact);
    };
    assert_eq!(after(raises), []);
    let locks = es("7.17.0", 1, "bootstrap.memory_lock: true");
    let small = |node: &mut NodeFacts| {
        es_role(node).limits.insert("memlock".to_owned(), limit(Limit::Number(65_536)));
    };
    assert_eq!(codes_of(&judged(locks.clone(), small)), ["P205"]);
    assert_eq!(judged(locks, |_| ()), []);
    assert_eq!(after(small), []);
    let refused = |node: &mut NodeFacts| {
        let fact = LimitFact { refused: Some(Limit::Number(4096)), ..limit(Limit::Number(65_535)) };
        es_role(node).limits.insert("nofile".to_owned(), fact);
    };
    assert!(the(&after(refused), "P216").message.contains("deploy, as whom the agent runs, may give 4096"));
}

#[test]
fn what_nobody_else_can_reach_is_warned_of() {
    let local = es("7.17.0", 1, "network.host: 127.0.0.1");
    let low = |node: &mut NodeFacts| node.facts.max_map_count = Some(65_530);
    assert_eq!(the(&judged(local, low), "P204").level, Level::Warn);
    assert_eq!(the(&after(low), "P204").level, Level::Error);
    let single = es("7.17.0", 1, "discovery.type: single-node");
    assert_eq!(the(&judged(single, low), "P204").level, Level::Warn);
}

#[test]
fn swap_matters_where_the_heap_is_not_locked() {
    let swaps = |node: &mut NodeFacts| node.facts.swap = Some(1 << 30);
    assert_eq!(codes_of(&after(swaps)), ["P208"]);
    assert_eq!(judged(es("7.17.0", 1, "bootstrap.memory_lock: true"), swaps), []);
}

#[test]
fn heap_collector_and_client_are_read_from_what_java_is_told() {
    let told = |text: &str, opts: &str| {
        let mut one = es("6.7.0", 1, "");
        let path = "es/config/jvm.options".to_owned();
        one.files.push(ConfFile { path, text: text.to_owned(), rendered: true });
        one.env.insert("ES_JAVA_OPTS".to_owned(), opts.to_owned());
        judged(one, |_| ())
    };
    assert_eq!(told("-Xms1g\n-Xmx1024m\n", ""), []);
    let problems = told("-Xms1g\n-Xmx2g\n", "");
    assert_eq!(the(&problems, "P206").place, "es/config/jvm.options:2");
    assert_eq!(told("-Xms1g\n-Xmx2g\n", "-Xms2g"), []);
    assert_eq!(codes_of(&told("-XX:+UseSerialGC\n-client\n", "")), ["P207"]);
    assert_eq!(told("14-:-XX:+UseSerialGC\n", "-XX:-UseSerialGC"), []);
    let mut kafka = instance("n1", "kafka", ServiceKind::Kafka, "server.properties", "");
    kafka.env.insert("KAFKA_HEAP_OPTS".to_owned(), "-Xms1g -Xmx2g".to_owned());
    assert_eq!(codes_of(&judged(kafka, |_| ())), ["P206"]);
}

#[test]
fn java_and_plugins_fit_the_product() {
    let with = |product: &str, java: &str, plugin: &str| {
        let mut one = es(product, 1, "");
        let mut add = |path: &str, text: String| {
            one.files.push(ConfFile { path: path.to_owned(), text, rendered: false });
        };
        add("jdk/release", format!("JAVA_VERSION=\"{java}\"\n"));
        add(
            "es/plugins/ik/plugin-descriptor.properties",
            format!("name=ik\nelasticsearch.version={plugin}\n"),
        );
        one.env.insert("JAVA_HOME".to_owned(), "/w/roles/es/releases/1-1/jdk".to_owned());
        codes_of(&judged(one, |_| ()))
    };
    assert_eq!(with("6.7.0", "11.0.1", "6.7.0"), Vec::<&str>::new());
    assert_eq!(with("6.7.0", "1.8.0_202", "6.7.0"), Vec::<&str>::new());
    assert_eq!(with("6.7.0", "17.0.1", "6.7.0"), ["P209"]);
    assert_eq!(with("8.15.0", "11.0.1", "8.15.0"), ["P209"]);
    assert_eq!(with("7.17.0", "17.0.1", "7.16.0"), ["P210"]);
}

#[test]
fn ports_are_this_roles_own_or_nobodys() {
    let port = |own| {
        move |node: &mut NodeFacts| {
            let program = Some("java".to_owned());
            es_role(node).ports.push(PortFact { port: 9200, pid: Some(5), program, own });
        }
    };
    let problems = after(port(Some(false)));
    let problem = the(&problems, "P211");
    assert!(
        problem.message.contains("taken by java, process 5")
            && problem.place.ends_with("elasticsearch.yml:6")
    );
    assert_eq!(after(port(Some(true))), []);
    // Who it is cannot be told, and the role runs.
    assert_eq!(after(port(None)), []);
}

#[test]
fn directories_are_the_services_own() {
    let with = |change: fn(&mut DirFact)| after(move |node| change(&mut es_role(node).dirs[0]));
    assert_eq!(codes_of(&with(|dir| dir.exists = false)), ["P212"]);
    assert_eq!(with(|dir| (dir.exists, dir.made) = (false, true)), []);
    assert!(the(&with(|dir| dir.owned = false), "P212").help.starts_with("chown -R elastic"));
    assert_eq!(codes_of(&with(|dir| dir.obstacle = Some("x".to_owned()))), ["P212"]);
    assert_eq!(codes_of(&with(|dir| dir.free_bytes = 1 << 30)), ["P213"]);
    assert_eq!(codes_of(&with(|dir| dir.free_inodes = Some(9))), ["P213"]);
    let nobody = after(|node| es_role(node).no_user = Some("there is no user `elastic`".to_owned()));
    assert_eq!(codes_of(&nobody), ["P217"]);
}

#[test]
fn new_releases_have_to_fit_beside_the_old() {
    let mut one = es("7.17.0", 1, "");
    one.needs = (20 << 30, 10);
    assert_eq!(codes_of(&judged(one.clone(), |_| ())), ["E120"]);
    one.needs = (1 << 30, 200_000);
    assert_eq!(codes_of(&judged(one.clone(), |_| ())), ["E120"]);
    one.needs = (1 << 30, 10);
    assert_eq!(judged(one, |_| ()), []);
}

#[test]
fn clocks_are_compared_without_the_way_between() {
    let all = |ahead: i64, there: i64| {
        let mut nodes: Vec<NodeFacts> = (1..=3).map(|n| facts(&format!("n{n}"), "es", role())).collect();
        nodes[2].facts.came_us += ahead;
        nodes[2].facts.went_us += ahead;
        nodes[1].sent_us -= there;
        nodes[1].back_us += there;
        preflight(&topology(three("7.17.0")), &nodes)
    };
    assert_eq!(all(0, 0), []);
    // A slow way is no slow clock.
    assert_eq!(all(900_000, 3_000_000), []);
    assert!(the(&all(1_500_000, 0), "P214").message.contains("n3 is 1.5 s ahead of that of n"));
}

#[test]
fn nodes_of_a_role_are_alike() {
    let mut nodes: Vec<NodeFacts> = (1..=3).map(|n| facts(&format!("n{n}"), "es", role())).collect();
    nodes[1].facts.machine = "aarch64".to_owned();
    let problems = preflight(&topology(three("7.17.0")), &nodes);
    assert!(the(&problems, "P215").message.contains("n2 is Linux aarch64"));
}

#[test]
fn a_plain_process_is_asked_for_little() {
    let one = instance("n1", "web", ServiceKind::Process, "web.conf", "");
    let bad = |node: &mut NodeFacts| {
        node.facts.max_map_count = Some(1);
        node.facts.swap = Some(1 << 30);
        es_role(node).limits.insert("nofile".to_owned(), limit(Limit::Number(64)));
    };
    assert_eq!(judged(one, bad), []);
}

#[test]
fn directories_come_from_conf_and_recipe() {
    let mut one = es("7.17.0", 1, "path.data: [/data/a, /data/b]");
    one.persist.push((None, "/w/roles/es/shared/secrets".into()));
    let shown: Vec<String> = dirs(&one).into_iter().map(camino::Utf8PathBuf::into_string).collect();
    assert_eq!(shown, ["/data/a", "/data/b", "/w/roles/es/shared/logs", "/w/roles/es/shared/secrets"]);
    let kafka = instance("n1", "kafka", ServiceKind::Kafka, "server.properties", "log.dirs=/a,/b\n");
    assert_eq!(dirs(&kafka).len(), 2);
    assert_eq!(one.version, ProductVersion::leading("7.17"));
}
