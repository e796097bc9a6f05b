//! What holds for every plan.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::fake::{bundle, release};
use crate::inventory::{By, MaxUnavailable, Rollout};
use crate::model::{Role, Timestamp};
use crate::rollout::{Candidate, Goal, Kind, NodePlan, Plan, Scope, StepKind};

fn candidate(node: &str, role: &str) -> Candidate {
    Candidate {
        from: Some(release("1-v1")),
        to: Some("v2".parse().unwrap()),
        up: true,
        healthy: true,
        service: true,
        ..Candidate::of(node.parse().unwrap(), role.parse().unwrap(), Goal::Bundle(bundle("v2")))
    }
}

fn plan(rollout: &Rollout, forming: &[&str], candidates: Vec<Candidate>) -> Plan {
    let mut totals: BTreeMap<Role, usize> = BTreeMap::new();
    for one in &candidates {
        *totals.entry(one.role.clone()).or_default() += 1;
    }
    let scope = Scope {
        kind: Kind::Promote,
        cluster: "test",
        rollout,
        totals,
        forming: forming.iter().map(|role| role.parse().unwrap()).collect(),
        leftovers: Vec::new(),
        time: Timestamp::now(),
    };
    crate::rollout::plan(&scope, candidates)
}

fn shown(plan: &Plan) -> Vec<String> {
    let node = |node: &crate::rollout::NodePlan| format!("{}/{}", node.node, node.role);
    plan.waves.iter().map(|wave| wave.nodes.iter().map(node).collect::<Vec<_>>().join(" ")).collect()
}

#[test]
fn roles_go_in_their_order_and_the_others_by_name() {
    let rollout = Rollout { order: vec!["zoo".parse().unwrap()], ..Rollout::default() };
    let all = ["b", "a", "zoo"].map(|role| candidate("n1", role)).to_vec();
    assert_eq!(shown(&plan(&rollout, &[], all)), ["n1/zoo", "n1/a", "n1/b"]);
}

#[test]
fn by_node_takes_all_its_roles_together() {
    let rollout = Rollout { by: By::Node, order: vec!["zoo".parse().unwrap()], ..Rollout::default() };
    let all = [("n2", "zoo"), ("n1", "a"), ("n1", "zoo")].map(|(node, role)| candidate(node, role)).to_vec();
    assert_eq!(shown(&plan(&rollout, &[], all)), ["n1/zoo n1/a", "n2/zoo"]);
}

#[test]
fn what_is_wrong_goes_first_and_zones_do_not_mix() {
    let rollout = Rollout { max_unavailable: MaxUnavailable::Count(3), ..Rollout::default() };
    let zoned = |node: &str, zone: &str, healthy| Candidate {
        zone: Some(zone.to_owned()),
        healthy,
        ..candidate(node, "web")
    };
    let all = vec![
        zoned("n1", "a", true),
        zoned("n2", "a", true),
        zoned("n3", "b", true),
        zoned("n4", "b", false),
        zoned("n5", "a", true),
    ];
    let plan = plan(&rollout, &[], all);
    assert_eq!(shown(&plan), ["n4/web", "n1/web n2/web n5/web", "n3/web"]);
    assert_eq!(plan.waves.iter().map(|wave| wave.canary).collect::<Vec<_>>(), [true, false, false]);
}

#[test]
fn a_role_that_is_down_comes_before_one_that_is_up_wherever_it_is() {
    let rollout = Rollout { by: By::Node, ..Rollout::default() };
    let down = |node: &str, role: &str| Candidate { up: false, healthy: false, ..candidate(node, role) };
    // All three have something that is down; only n3 lacks what n1 and n2 would take down.
    let all = vec![
        candidate("n1", "master"),
        down("n1", "kibana"),
        candidate("n2", "master"),
        down("n2", "nginx"),
        down("n3", "master"),
    ];
    assert_eq!(shown(&plan(&rollout, &[], all)), ["n3/master", "n1/kibana n1/master", "n2/master n2/nginx"]);
    // Of two that wait for each other the first is brought up where it is down, and is changed last.
    let all = vec![candidate("n1", "a"), down("n1", "b"), down("n2", "a"), candidate("n2", "b")];
    assert_eq!(shown(&plan(&rollout, &[], all)), ["n1/b", "n2/a n2/b", "n1/a"]);
}

#[test]
fn a_rollback_leaves_stopping_and_starting_to_the_node() {
    use StepKind::{Activate, Confirm, Forget, Gone, Lock, Preflight, Ready, Settle, Stage, Start, Stop};
    let steps = |kind| -> Vec<StepKind> {
        let policy = (&Rollout::default()).into();
        crate::rollout::planner::steps(kind, &policy, true, false, false)
            .iter()
            .map(|step| step.step)
            .collect()
    };
    let promote = [Lock, Preflight, Stage, Activate, Stop, Start, Ready, Settle, Confirm];
    assert_eq!(steps(Kind::Promote), promote);
    assert_eq!(steps(Kind::Rollback), [Lock, Preflight, Activate, Ready, Settle, Confirm]);
    assert_eq!(steps(Kind::Restart), [Lock, Preflight, Stop, Start, Ready, Settle]);
    assert_eq!(steps(Kind::Leave), [Lock, Preflight, Stop, Gone, Forget]);
}

#[test]
fn roles_of_one_cluster_form_it_together_and_a_leader_goes_last() {
    let joint = |node: &str, role: &str| Candidate { joint: true, from: None, ..candidate(node, role) };
    let all = vec![joint("n1", "hot"), joint("n1", "master"), candidate("n3", "kibana"), joint("n2", "warm")];
    let made = plan(&Rollout::default(), &["hot", "master", "warm"], all);
    assert_eq!(shown(&made), ["n1/hot n1/master n2/warm", "n3/kibana"]);
    assert!(made.waves[0].forming && !made.waves[1].forming);
    let ranked = |node: &str, role: &str, rank| Candidate { rank, ..candidate(node, role) };
    let all = vec![ranked("n1", "hot", 13), ranked("n2", "warm", 22), ranked("n3", "master", 15)];
    assert_eq!(shown(&plan(&Rollout::default(), &[], all)), ["n1/hot", "n3/master", "n2/warm"]);
}

#[test]
fn where_two_versions_must_not_run_at_once_the_role_is_one_wave() {
    let together = |node: &str| Candidate { together: true, ..candidate(node, "kibana") };
    let all = vec![together("n2"), candidate("n1", "es"), together("n1"), candidate("n2", "es")];
    for by in [By::Role, By::Node] {
        let made = plan(&Rollout { by, ..Rollout::default() }, &[], all.clone());
        assert_eq!(shown(&made), ["n1/es", "n2/es", "n1/kibana n2/kibana"]);
        assert_eq!(made.waves.iter().map(|wave| wave.together).collect::<Vec<_>>(), [false, false, true]);
    }
}

fn some_candidates() -> impl Strategy<Value = Vec<Candidate>> {
    let one = (0..30u8, 0..3u8, any::<bool>(), prop::bool::weighted(0.8), prop::bool::weighted(0.8));
    prop::collection::vec(one, 0..60).prop_map(|all| {
        let mut seen = BTreeSet::new();
        let mut made = Vec::new();
        for (node, role, on_target, up, healthy) in all {
            // A node is in one zone, whatever its roles.
            if seen.insert((node, role)) {
                let zone = Some(format!("z{}", node % 3)).filter(|_| node % 5 != 0);
                let one = candidate(&format!("n{node}"), &format!("r{role}"));
                made.push(Candidate { zone, on_target, up, healthy: up && healthy, ..one });
            }
        }
        made
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn every_plan_keeps_to_the_policy(
        candidates in some_candidates(),
        by_node in any::<bool>(),
        canary in 0..4u32,
        max in prop_oneof![
            (1..5u32).prop_map(MaxUnavailable::Count),
            (1..101u32).prop_map(MaxUnavailable::Percent),
        ],
        forming in any::<bool>(),
    ) {
        let by = if by_node { By::Node } else { By::Role };
        let rollout = Rollout { by, canary, max_unavailable: max, ..Rollout::default() };
        let forming: &[&str] = if forming { &["r1"] } else { &[] };
        let plan = plan(&rollout, forming, candidates.clone());
        let total = |role: &Role| candidates.iter().filter(|one| one.role == *role).count();
        // Everything that has something to do is in one wave, once; the rest is skipped.
        let wanted: BTreeSet<_> = candidates.iter().filter(|one| !(one.on_target && one.healthy))
            .map(|one| (one.node.clone(), one.role.clone())).collect();
        let planned: Vec<_> = plan.nodes().map(|one| (one.node.clone(), one.role.clone())).collect();
        prop_assert_eq!(planned.len(), wanted.len());
        prop_assert_eq!(planned.into_iter().collect::<BTreeSet<_>>(), wanted.clone());
        prop_assert_eq!(plan.skipped.len(), candidates.len() - wanted.len());
        for wave in &plan.waves {
            let roles: BTreeSet<&Role> = wave.nodes.iter().map(|one| &one.role).collect();
            if wave.forming {
                prop_assert_eq!(roles.len(), 1);
                continue;
            }
            for role in &roles {
                let count = wave.nodes.iter().filter(|one| one.role == **role).count();
                prop_assert!(count <= max.of(total(role)));
            }
            let zones: BTreeSet<_> = wave.nodes.iter().map(|one| &one.zone).collect();
            prop_assert_eq!(zones.len(), 1);
            let nodes: BTreeSet<_> = wave.nodes.iter().map(|one| &one.node).collect();
            prop_assert!(!wave.canary || nodes.len() <= canary as usize);
            if !by_node {
                prop_assert_eq!(roles.len(), 1);
            }
        }
        // A forming role is one wave, and with by = "role" no healthy node goes before a sick one.
        let forming_waves = plan.waves.iter().filter(|wave| wave.forming).count();
        prop_assert!(forming_waves <= forming.len());
        if !by_node {
            for role in ["r0", "r1", "r2"] {
                let health: Vec<bool> = plan.waves.iter().filter(|wave| !wave.forming)
                    .flat_map(|wave| &wave.nodes).filter(|one| one.role.as_str() == role)
                    .map(|one| one.healthy).collect();
                prop_assert!(health.is_sorted());
            }
        }
        // No wave takes a role down on a node while a later one still has to bring it up on another.
        for role in ["r0", "r1", "r2"] {
            let waves = |up: bool| {
                let is = move |one: &Candidate, node: &NodePlan| {
                    one.up == up && one.role.as_str() == role && one.role == node.role && one.node == node.node
                };
                let candidates = &candidates;
                let has = move |node: &NodePlan| candidates.iter().any(|one| is(one, node));
                plan.waves.iter().enumerate().filter(|(_, wave)| !wave.forming)
                    .filter(move |(_, wave)| wave.nodes.iter().any(&has)).map(|(index, _)| index)
            };
            let (down, up) = (waves(false).max(), waves(true).min());
            prop_assert!(down.zip(up).is_none_or(|(down, up)| down <= up), "{role}: {:?}", shown(&plan));
        }
        // What is written reads back.
        let text = serde_json::to_string(&plan).unwrap();
        prop_assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), plan);
    }
}
