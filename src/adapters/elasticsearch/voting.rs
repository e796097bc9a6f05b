//! A master-eligible node's vote, taken away before the node leaves for good.
//!
//! From 7 on a cluster keeps a committed list of who votes. An exclusion takes a node out of it; where the node is
//! the elected master, it hands over. Before 7 everybody who may be elected votes, and how many make a majority is
//! a setting, which has to be right for those who stay.
//!
//! # Invariants
//!
//! * An exclusion that somebody else made outlives ours.
//! * `discovery.zen.minimum_master_nodes` is put back only while the number of masters is the one that it was for.

use hyper::Method;
use serde_json::{Value, json};

use super::super::adapter::AdapterError;
use super::super::view::Instance;
use super::ask::{accepted, get, send};
use super::cluster::nodes;
use super::member::Member;
use super::settings::{self, READ_ALL, apply as set, effective};
use super::who::Who;
use crate::agent::Setting;
use crate::model::ProductVersion;
use crate::rollout::Held;

/// How many master-eligible nodes make a majority, before 7.
pub(super) const ZEN: &str = "discovery.zen.minimum_master_nodes";
/// The name under which an exclusion is journalled; the rest of it is the node's.
pub(super) const EXCLUSION: &str = "voting_config_exclusions.";

const COORDINATION: &str = "/_cluster/state/metadata?filter_path=metadata.cluster_coordination";

/// Whether nodes have votes that can be taken from them.
fn has_votes(said: &Who) -> bool {
    said.opensearch || said.version.parse::<ProductVersion>().is_ok_and(|version| version.line() >= (7, 0))
}

/// What becomes of a master that leaves, where so many stay.
pub(super) async fn wanted(
    instance: &Instance<'_>,
    said: &Who,
    cluster: &str,
    node: &str,
    stay: usize,
) -> Result<Option<Setting>, AdapterError> {
    let cluster = cluster.to_owned();
    if has_votes(said) {
        let prior = excluded(&get(instance, COORDINATION).await?);
        let name = format!("{EXCLUSION}{node}");
        let known = prior.iter().any(|one| one == node);
        return Ok((!known).then(|| Setting { cluster, name, prior: json!(prior), value: node.into() }));
    }
    let body = get(instance, READ_ALL).await?;
    Ok(majority(&body, &cluster, stay))
}

/// The right majority for those who stay, where it is another one.
fn majority(body: &Value, cluster: &str, stay: usize) -> Option<Setting> {
    let right = (stay / 2 + 1).to_string();
    if effective(body, ZEN).as_deref() == Some(right.as_str()) {
        return None;
    }
    let scope = if body["transient"].get(ZEN).is_some() { "transient" } else { "persistent" };
    let prior = body[scope].get(ZEN).cloned().unwrap_or_default();
    let name = format!("{scope}.{ZEN}");
    Some(Setting { cluster: cluster.to_owned(), name, prior, value: right.into() })
}

fn coordination(body: &Value) -> &Value {
    &body["metadata"]["cluster_coordination"]
}

/// The names of those whose votes were taken away.
fn excluded(body: &Value) -> Vec<String> {
    let all = coordination(body)["voting_config_exclusions"].as_array();
    all.into_iter().flatten().filter_map(|one| one["node_name"].as_str()).map(str::to_owned).collect()
}

/// Takes votes away that were not taken yet.
pub(super) async fn apply(
    instance: &Instance<'_>,
    said: &Who,
    changed: &[Setting],
) -> Result<(), AdapterError> {
    let (votes, zen): (Vec<Setting>, Vec<Setting>) =
        changed.iter().cloned().partition(|setting| setting.name.starts_with(EXCLUSION));
    set(instance, &zen).await?;
    if votes.is_empty() {
        return Ok(());
    }
    let there = excluded(&get(instance, COORDINATION).await?);
    for setting in votes {
        if let Some(node) = setting.value.as_str().filter(|node| !there.iter().any(|one| one == node)) {
            exclude(instance, said, node).await?;
        }
    }
    Ok(())
}

async fn exclude(instance: &Instance<'_>, said: &Who, node: &str) -> Result<(), AdapterError> {
    let by_name = said.opensearch
        || said.version.parse::<ProductVersion>().is_ok_and(|version| version.line() >= (7, 8));
    let path = if by_name {
        format!("/_cluster/voting_config_exclusions?node_names={node}&timeout=5s")
    } else {
        format!("/_cluster/voting_config_exclusions/{node}?timeout=5s")
    };
    let answer = send(instance, Method::POST, &path, None).await?;
    accepted(instance, &path, &answer)
}

/// Whether a node, by its id, has no vote any more, where one was taken from it.
pub(super) async fn settled(
    instance: &Instance<'_>,
    changed: &[Setting],
    id: &str,
) -> Result<Held, AdapterError> {
    if !changed.iter().any(|setting| setting.name.starts_with(EXCLUSION)) {
        return Ok(Held::Yes);
    }
    let body = get(instance, COORDINATION).await?;
    let votes = coordination(&body)["last_committed_config"].as_array();
    let votes = votes.into_iter().flatten().any(|one| one == id);
    Ok(if votes { Held::NotYet("it still has a vote in its cluster".to_owned()) } else { Held::Yes })
}

/// Gives votes back, and keeps what is right for the masters that there are.
pub(super) async fn put_back(
    instance: &Instance<'_>,
    said: &Who,
    changed: &[Setting],
) -> Result<(), AdapterError> {
    let (votes, zen): (Vec<&Setting>, Vec<&Setting>) =
        changed.iter().partition(|setting| setting.name.starts_with(EXCLUSION));
    for setting in zen {
        let masters = nodes(instance).await?.into_iter().filter(|one| one.master).count();
        let is_right = setting.value.as_str() == Some((masters / 2 + 1).to_string().as_str());
        if !is_right {
            settings::revert_plain(instance, std::slice::from_ref(setting)).await?;
        }
    }
    let ours: Vec<&str> = votes.iter().filter_map(|setting| setting.value.as_str()).collect();
    if ours.is_empty() {
        return Ok(());
    }
    let there = excluded(&get(instance, COORDINATION).await?);
    if !there.iter().any(|one| ours.contains(&one.as_str())) {
        return Ok(());
    }
    let members = nodes(instance).await?;
    // Whoever stays would be waited for in vain.
    let gone = there.iter().all(|name| members.iter().all(|one| one.name != *name));
    let path = format!("/_cluster/voting_config_exclusions?wait_for_removal={gone}");
    let answer = send(instance, Method::DELETE, &path, None).await?;
    accepted(instance, &path, &answer)?;
    for other in there.iter().filter(|name| !ours.contains(&name.as_str())) {
        exclude(instance, said, other).await?;
    }
    Ok(())
}

/// What becomes of the settings of a cluster that forgets a node which is gone.
pub(super) async fn burying(
    instance: &Instance<'_>,
    said: &Who,
    members: &[Member],
) -> Result<Vec<Setting>, AdapterError> {
    if has_votes(said) {
        return Ok(Vec::new());
    }
    let masters = members.iter().filter(|one| one.master).count();
    let cluster = said.cluster.clone().unwrap_or_default();
    Ok(majority(&get(instance, READ_ALL).await?, &cluster, masters).into_iter().collect())
}

/// Changes these settings, and takes the vote of a node that is gone, or gives nobody's back where that is done.
pub(super) async fn bury(
    instance: &Instance<'_>,
    said: &Who,
    members: &[Member],
    changed: &[Setting],
) -> Result<Held, AdapterError> {
    if !has_votes(said) {
        set(instance, changed).await?;
        return Ok(Held::Yes);
    }
    let body = get(instance, COORDINATION).await?;
    let is_there = |id: &str| members.iter().any(|one| one.id == id);
    let exclusions = coordination(&body)["voting_config_exclusions"].as_array();
    let exclusions: Vec<(&str, &str)> = exclusions
        .into_iter()
        .flatten()
        .filter_map(|one| Some((one["node_id"].as_str()?, one["node_name"].as_str()?)))
        .collect();
    let gone = absent_votes(&body, members);
    match *gone {
        [] if exclusions.iter().all(|(id, _)| is_there(id)) => Ok(Held::Yes),
        [] => {
            let path = "/_cluster/voting_config_exclusions?wait_for_removal=false";
            let answer = send(instance, Method::DELETE, path, None).await?;
            accepted(instance, path, &answer)?;
            for (_, name) in exclusions.iter().filter(|(id, _)| is_there(id)) {
                exclude(instance, said, name).await?;
            }
            Ok(Held::Yes)
        }
        [id] if exclusions.iter().all(|(one, _)| *one != id) => {
            let by_id = said.opensearch
                || said.version.parse::<ProductVersion>().is_ok_and(|version| version.line() >= (7, 8));
            if !by_id {
                return Ok(Held::Never(format!(
                    "it has a vote, and Elasticsearch {} takes none from a node that is not there: start it again, \
                     or raise the version first",
                    said.version
                )));
            }
            let path = format!("/_cluster/voting_config_exclusions?node_ids={id}&timeout=5s");
            let answer = send(instance, Method::POST, &path, None).await?;
            accepted(instance, &path, &answer)?;
            Ok(Held::NotYet("it still has a vote in its cluster".to_owned()))
        }
        [_] => Ok(Held::NotYet("it still has a vote in its cluster".to_owned())),
        _ => Ok(Held::Never(format!(
            "{} nodes that have a vote are away, and which of them it is cannot be told: start the others first",
            gone.len()
        ))),
    }
}

/// The ids of those that have a vote and are not there.
fn absent_votes<'b>(body: &'b Value, members: &[Member]) -> Vec<&'b str> {
    let votes = coordination(body)["last_committed_config"].as_array();
    let ids = votes.into_iter().flatten().filter_map(Value::as_str);
    ids.filter(|id| members.iter().all(|one| one.id != *id)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_majority_is_set_only_where_it_is_another_one() {
        let defaults = |value: &str| json!({"persistent": {}, "transient": {}, "defaults": {ZEN: value}});
        assert_eq!(majority(&defaults("2"), "u", 2), None);
        let one = majority(&defaults("2"), "u", 1).unwrap();
        assert_eq!(
            (one.name.as_str(), one.prior, one.value),
            (&*format!("persistent.{ZEN}"), Value::Null, "1".into())
        );
        let set = json!({"persistent": {ZEN: "3"}, "transient": {ZEN: "3"}});
        let one = majority(&set, "u", 3).unwrap();
        assert_eq!(
            (one.name.as_str(), one.prior, one.value),
            (&*format!("transient.{ZEN}"), "3".into(), "2".into())
        );
    }

    #[test]
    fn those_without_a_vote_are_known_by_name() {
        let body = json!({"metadata": {"cluster_coordination": {"last_committed_config": ["x"],
            "voting_config_exclusions": [{"node_id": "y", "node_name": "n4"}]}}});
        assert_eq!(excluded(&body), ["n4"]);
        assert_eq!(excluded(&json!({})), Vec::<String>::new());
    }
}
