//! Whether a cluster has settled after a node came back.

use super::super::adapter::AdapterError;
use super::super::view::View;
use super::ask::get;
use super::cluster::{Cluster, Color};
use super::settings::{ALLOCATION, scopes};
use crate::rollout::Held;

/// Whether it has settled; what does not hold is told with its place in the order in which things come right.
pub(super) fn settled(cluster: &Cluster) -> Held {
    let health = &cluster.health;
    let not_yet = |number: u8, what: String| Held::NotYet(format!("{number} of 4: {what}"));
    if health.busy {
        return not_yet(1, "the cluster has tasks that it has not done".to_owned());
    }
    if health.fetching > 0 {
        return not_yet(2, format!("shard copies being looked for: {}", health.fetching));
    }
    if health.initializing > 0 {
        return not_yet(3, format!("shard copies initialising: {}", health.initializing));
    }
    if health.relocating > 0 {
        return not_yet(3, format!("shard copies relocating: {}", health.relocating));
    }
    match health.color {
        Color::Green => Held::Yes,
        Color::Red => not_yet(4, format!("red: shard copies assigned to no node: {}", health.unassigned)),
        Color::Yellow => match tolerated(cluster) {
            Ok(()) => Held::Yes,
            Err(why) => {
                not_yet(4, format!("yellow: shard copies assigned to no node: {}{why}", health.unassigned))
            }
        },
    }
}

/// Whether it has settled with a node that is new to it. What it moves there, or makes there of copies that it
/// lacked, may take hours, and nobody is the worse for it: that is not waited for.
pub(super) fn joined(cluster: &Cluster) -> Held {
    let health = &cluster.health;
    if health.busy {
        return Held::NotYet("1 of 2: the cluster has tasks that it has not done".to_owned());
    }
    if health.color == Color::Red {
        let lacks = health.unassigned;
        return Held::NotYet(format!("2 of 2: red: shard copies assigned to no node: {lacks}"));
    }
    Held::Yes
}

/// In the middle of an upgrade a newer node's shards can have no replica on an older node. That is put up with as
/// long as no older node, one of which comes next, is the only one to have something.
fn tolerated(cluster: &Cluster) -> Result<(), String> {
    if !cluster.is_mixed() {
        return Err(String::new());
    }
    let newest = cluster.members.iter().map(|member| &member.version).max();
    for member in cluster.members.iter().filter(|member| Some(&member.version) != newest) {
        if let Some(only) = cluster.only_there(&member.name).first() {
            return Err(format!(", and only {}, which is still to go, has {only}", member.name));
        }
    }
    Ok(())
}

/// Why copies stay unassigned, where somebody's setting says so.
pub(super) async fn hindrance(view: &View<'_>) -> Result<String, AdapterError> {
    let body = get(&view.this, "/_cluster/settings?flat_settings=true").await?;
    let said = scopes(&body).filter_map(|(scope, settings)| {
        let value = settings.get(ALLOCATION)?.as_str().filter(|value| *value != "all")?;
        Some(format!("; {scope}.{ALLOCATION} is `{value}`"))
    });
    Ok(said.collect())
}

#[cfg(test)]
mod tests {
    use super::super::cluster::{Copy, Health};
    use super::super::member::{Member, Tier};
    use super::*;

    fn member(name: &str, version: &str) -> Member {
        Member {
            id: name.to_owned(),
            name: name.to_owned(),
            version: version.parse().unwrap(),
            master: true,
            tier: Some(Tier::Any),
            http: None,
        }
    }

    fn copy(primary: bool, node: Option<&str>) -> Copy {
        let node = node.map(str::to_owned);
        Copy { index: "i".to_owned(), shard: 0, primary, started: node.is_some(), node }
    }

    fn cluster(color: Color) -> Cluster {
        Cluster {
            this: Some("a".to_owned()),
            members: vec![member("a", "6.7.0"), member("b", "6.4.2")],
            elected: None,
            health: Health { color, ..Health::default() },
            copies: vec![copy(true, Some("a")), copy(false, None)],
            peers: Vec::new(),
            leaving: std::collections::BTreeSet::default(),
            target: None,
            budget: 1,
        }
    }

    fn why(cluster: &Cluster) -> String {
        match settled(cluster) {
            Held::NotYet(why) => why,
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn green_has_settled_and_red_has_not() {
        assert_eq!(settled(&cluster(Color::Green)), Held::Yes);
        assert!(why(&cluster(Color::Red)).starts_with("4 of 4: red"));
        let mut busy = cluster(Color::Green);
        busy.health.busy = true;
        assert!(why(&busy).starts_with("1 of 4"));
        busy.health = Health { color: Color::Yellow, initializing: 7, ..Health::default() };
        assert_eq!(why(&busy), "3 of 4: shard copies initialising: 7");
    }

    #[test]
    fn one_that_is_new_is_not_waited_for_until_it_has_its_share() {
        let mut growing = cluster(Color::Yellow);
        growing.health = Health { color: Color::Yellow, initializing: 2, relocating: 9, ..Health::default() };
        assert_eq!(joined(&growing), Held::Yes);
        growing.health.color = Color::Red;
        assert!(matches!(joined(&growing), Held::NotYet(why) if why.starts_with("2 of 2: red")));
    }

    #[test]
    fn yellow_is_put_up_with_only_while_versions_are_mixed() {
        let mut mixed = cluster(Color::Yellow);
        assert_eq!(settled(&mixed), Held::Yes);
        // Only the node that comes next has it.
        mixed.copies = vec![copy(true, Some("b")), copy(false, None)];
        assert!(why(&mixed).contains("only b"), "{}", why(&mixed));
        let mut same = cluster(Color::Yellow);
        same.members[1].version = "6.7.0".parse().unwrap();
        assert!(why(&same).starts_with("4 of 4: yellow"));
    }
}
