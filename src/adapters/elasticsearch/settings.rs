//! What a rollout changes in a cluster, and how it is put back.
//!
//! # Invariants
//!
//! * Only what [`wanted`] names is ever set, and only in the cluster that it was named for.
//! * What somebody else has set meanwhile is left as it is: only what is still ours is put back.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::join_all;
use hyper::Method;
use serde_json::{Map, Value, json};

use super::super::adapter::AdapterError;
use super::super::view::{Instance, View};
use super::ask::{accepted, get, send};
use super::voting;
use super::who::{Who, who};
use crate::agent::Setting;
use crate::rollout::Held;

/// Which shards may be given to nodes.
pub(super) const ALLOCATION: &str = "cluster.routing.allocation.enable";
const ML: &str = "ml.upgrade_mode";
/// Who may be given no shards, by name, with commas between.
pub(super) const EXCLUDE: &str = ".cluster.routing.allocation.exclude._name";
pub(super) const READ: &str = "/_cluster/settings?flat_settings=true";
/// The same, with what holds where nothing is set.
pub(super) const READ_ALL: &str = "/_cluster/settings?flat_settings=true&include_defaults=true";

/// What a setting is, wherever it is set, in an answer of [`READ_ALL`].
pub(super) fn effective(body: &Value, name: &str) -> Option<String> {
    let found = ["transient", "persistent", "defaults"].iter().find_map(|scope| body[scope].get(name))?;
    Some(found.as_str().map_or_else(|| found.to_string(), str::to_owned))
}

fn listed(value: &Value) -> Vec<&str> {
    let names = value.as_str().unwrap_or_default().split(',').map(str::trim);
    names.filter(|name| !name.is_empty()).collect()
}

/// How a node's name comes into the list of those that are given no shards; `None` where it is there already.
pub(super) fn exclusion(cluster: &str, body: &Value, node: &str) -> Option<Setting> {
    let name = &EXCLUDE[1..];
    // The transient one is what counts.
    let scope = if body["transient"].get(name).is_some() { "transient" } else { "persistent" };
    let prior = body[scope].get(name).cloned().unwrap_or_default();
    let mut names = listed(&prior);
    if names.contains(&node) {
        return None;
    }
    names.push(node);
    let value = names.join(",").into();
    Some(Setting { cluster: cluster.to_owned(), name: format!("{scope}{EXCLUDE}"), prior, value })
}

/// What was there before a rollout: of a list, what others have put there since stays.
fn before(setting: &Setting, found: &Value) -> Option<Value> {
    if *found == setting.value {
        return Some(setting.prior.clone());
    }
    if !setting.name.ends_with(EXCLUDE) {
        return None;
    }
    let prior = listed(&setting.prior);
    let ours: Vec<&str> = listed(&setting.value).into_iter().filter(|name| !prior.contains(name)).collect();
    let names = listed(found);
    let rest: Vec<&str> = names.iter().copied().filter(|name| !ours.contains(name)).collect();
    if rest.len() == names.len() {
        return None;
    }
    Some(if rest.is_empty() && setting.prior.is_null() { Value::Null } else { rest.join(",").into() })
}

/// What [`apply`] makes of a setting: a list keeps what others have put there since.
fn after(setting: &Setting, found: &Value) -> Option<Value> {
    if !setting.name.ends_with(EXCLUDE) {
        return (*found != setting.value).then(|| setting.value.clone());
    }
    let (names, prior) = (listed(found), listed(&setting.prior));
    let ours = listed(&setting.value).into_iter().filter(|name| !prior.contains(name));
    let missing: Vec<&str> = ours.filter(|name| !names.contains(name)).collect();
    (!missing.is_empty()).then(|| names.into_iter().chain(missing).collect::<Vec<_>>().join(",").into())
}

/// The two scopes of an answer of [`READ`]; the second wins over the first.
pub(super) fn scopes(body: &Value) -> impl Iterator<Item = (&'static str, &Map<String, Value>)> {
    ["persistent", "transient"].into_iter().filter_map(|scope| Some((scope, body[scope].as_object()?)))
}

/// What will change in a cluster with these settings: replicas stay where they are while a node is away. What
/// somebody holds tighter already is left so.
fn allocation(cluster: &str, body: &Value) -> Vec<Setting> {
    let found: BTreeMap<&str, Option<&str>> = scopes(body)
        .map(|(scope, settings)| (scope, settings.get(ALLOCATION).and_then(Value::as_str)))
        .collect();
    let set = |scope: &str| found.get(scope).copied().flatten();
    let change = |scope: &str| Setting {
        cluster: cluster.to_owned(),
        name: format!("{scope}.{ALLOCATION}"),
        prior: set(scope).map_or(Value::Null, Value::from),
        value: "primaries".into(),
    };
    let is_tight = |value: &str| value != "all";
    match (set("persistent"), set("transient")) {
        // The transient one is what counts.
        (_, Some(transient)) if is_tight(transient) => Vec::new(),
        (Some(persistent), None) if is_tight(persistent) => Vec::new(),
        (Some(persistent), Some(_)) if is_tight(persistent) => vec![change("transient")],
        (_, Some(_)) => vec![change("persistent"), change("transient")],
        (_, None) => vec![change("persistent")],
    }
}

/// What draining will change.
pub(super) async fn wanted(instance: &Instance<'_>, said: &Who) -> Result<Vec<Setting>, AdapterError> {
    let Some(cluster) = &said.cluster else { return Ok(Vec::new()) };
    let mut settings = allocation(cluster, &get(instance, READ).await?);
    if has_jobs(instance).await {
        let prior = upgrade_mode(instance).await?;
        if prior == Some(false) {
            let (cluster, name) = (cluster.clone(), ML.to_owned());
            settings.push(Setting { cluster, name, prior: false.into(), value: true.into() });
        }
    }
    Ok(settings)
}

/// Whether machine learning has jobs that run; most clusters do not have it at all.
async fn has_jobs(instance: &Instance<'_>) -> bool {
    let answer = send(instance, Method::GET, "/_ml/anomaly_detectors/_stats", None).await;
    let body = answer.ok().filter(|answer| answer.status == 200).and_then(|answer| answer.json().ok());
    body.is_some_and(|body| {
        body["jobs"].as_array().into_iter().flatten().any(|job| job["state"].as_str() == Some("opened"))
    })
}

async fn upgrade_mode(instance: &Instance<'_>) -> Result<Option<bool>, AdapterError> {
    let answer = send(instance, Method::GET, "/_ml/info", None).await?;
    if answer.status != 200 {
        return Ok(None);
    }
    Ok(answer.json()?["upgrade_mode"].as_bool())
}

/// Sets what is not set yet.
pub(super) async fn apply(instance: &Instance<'_>, settings: &[Setting]) -> Result<(), AdapterError> {
    change(instance, settings, |setting, found| after(setting, &found)).await
}

/// Puts back what is still as a rollout set it.
pub(super) async fn revert(instance: &Instance<'_>, settings: &[Setting]) -> Result<(), AdapterError> {
    let is_vote = |setting: &&Setting| {
        setting.name.starts_with(voting::EXCLUSION) || setting.name.ends_with(voting::ZEN)
    };
    let (votes, plain): (Vec<&Setting>, Vec<&Setting>) = settings.iter().partition(is_vote);
    if !votes.is_empty() {
        let votes: Vec<Setting> = votes.into_iter().cloned().collect();
        voting::put_back(instance, &who(instance).await?, &votes).await?;
    }
    let plain: Vec<Setting> = plain.into_iter().cloned().collect();
    revert_plain(instance, &plain).await
}

/// The same, of what is a setting of the cluster.
pub(super) async fn revert_plain(instance: &Instance<'_>, settings: &[Setting]) -> Result<(), AdapterError> {
    if settings.is_empty() {
        return Ok(());
    }
    change(instance, settings, |setting, found| before(setting, &found)).await
}

/// Reads what is set, and sets what `to` says.
async fn change(
    instance: &Instance<'_>,
    settings: &[Setting],
    to: impl Fn(&Setting, Value) -> Option<Value>,
) -> Result<(), AdapterError> {
    let found = get(instance, READ).await?;
    let body = request(settings, &found, &to);
    if !body.is_empty() {
        let path = "/_cluster/settings?timeout=5s&master_timeout=5s";
        let answer = send(instance, Method::PUT, path, Some(&Value::Object(body))).await?;
        accepted(instance, path, &answer)?;
    }
    for setting in settings.iter().filter(|setting| setting.name == ML) {
        let found = upgrade_mode(instance).await?.map_or(Value::Null, Value::from);
        if let Some(value) = to(setting, found) {
            let path = format!("/_ml/set_upgrade_mode?enabled={value}&timeout=5s");
            let answer = send(instance, Method::POST, &path, None).await?;
            accepted(instance, &path, &answer)?;
        }
    }
    Ok(())
}

/// The body that sets what `to` says of settings that are as `found` has them.
fn request(
    settings: &[Setting],
    found: &Value,
    to: &impl Fn(&Setting, Value) -> Option<Value>,
) -> Map<String, Value> {
    let mut body = Map::new();
    for setting in settings {
        let Some((scope, name)) = setting.name.split_once('.').filter(|_| setting.name != ML) else {
            continue;
        };
        if let Some(value) = to(setting, found[scope].get(name).cloned().unwrap_or_default()) {
            body.entry(scope).or_insert_with(|| json!({}))[name] = value;
        }
    }
    body
}

/// Puts settings back through whoever of their cluster answers.
pub(super) async fn put_back(view: &View<'_>, settings: &[Setting]) -> Held {
    let clusters: BTreeSet<&str> = settings.iter().map(|setting| setting.cluster.as_str()).collect();
    let mut why = Vec::new();
    for cluster in clusters {
        let of_it: Vec<Setting> =
            settings.iter().filter(|setting| setting.cluster == cluster).cloned().collect();
        why.extend(put_back_in(view, cluster, &of_it).await.err());
    }
    if why.is_empty() { Held::Yes } else { Held::NotYet(why.join("; ")) }
}

async fn put_back_in(view: &View<'_>, cluster: &str, settings: &[Setting]) -> Result<(), String> {
    let mut why = "no node of its cluster answers".to_owned();
    // All at once: one that hangs holds up nobody.
    let answers = join_all(view.all().map(who)).await;
    for (instance, answer) in view.all().zip(answers) {
        let outcome = match answer {
            Ok(found) if found.cluster.as_deref() == Some(cluster) => revert(instance, settings).await,
            Ok(_) => continue,
            Err(error) => Err(error),
        };
        match outcome {
            Ok(()) => return Ok(()),
            Err(error) => why = error.message,
        }
    }
    Err(why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(body: &Value) -> Vec<(String, Value)> {
        allocation("u", body).into_iter().map(|setting| (setting.name, setting.prior)).collect()
    }

    fn scope(value: Option<&str>) -> Value {
        value.map_or_else(|| json!({}), |value| json!({ ALLOCATION: value }))
    }

    fn both(persistent: Option<&str>, transient: Option<&str>) -> Vec<(String, Value)> {
        names(&json!({"persistent": scope(persistent), "transient": scope(transient)}))
    }

    #[test]
    fn every_scope_that_has_a_say_is_changed() {
        let (persistent, transient) = (format!("persistent.{ALLOCATION}"), format!("transient.{ALLOCATION}"));
        assert_eq!(both(None, None), [(persistent.clone(), Value::Null)]);
        assert_eq!(both(Some("all"), None), [(persistent.clone(), "all".into())]);
        let two = [(persistent, Value::Null), (transient.clone(), "all".into())];
        assert_eq!(both(None, Some("all")), two);
        assert_eq!(both(Some("none"), Some("all")), [(transient, "all".into())]);
        // Held tighter already.
        assert!(both(Some("primaries"), None).is_empty());
        assert!(both(None, Some("none")).is_empty());
        assert!(both(Some("all"), Some("new_primaries")).is_empty());
    }

    #[test]
    fn a_list_keeps_the_names_of_others() {
        let list = |value: Value| json!({"persistent": {(&EXCLUDE[1..]): value}, "transient": {}});
        let none = json!({"persistent": {}, "transient": {}});
        let first = exclusion("u", &none, "n4").unwrap();
        assert_eq!(
            (&first.name, &first.prior, &first.value),
            (&format!("persistent{EXCLUDE}"), &Value::Null, &"n4".into())
        );
        assert_eq!(before(&first, &"n4".into()), Some(Value::Null));
        let second = exclusion("u", &list("old,n3".into()), "n4").unwrap();
        assert_eq!((&second.prior, &second.value), (&"old,n3".into(), &"old,n3,n4".into()));
        assert_eq!(before(&second, &"old,n3,n4".into()), Some("old,n3".into()));
        assert_eq!(before(&second, &"n4,new".into()), Some("new".into()));
        assert_eq!(before(&second, &"n4".into()), Some("".into()));
        assert_eq!(before(&second, &"new".into()), None);
        assert_eq!(
            (after(&second, &"new".into()), after(&second, &"n4,new".into())),
            (Some("new,n4".into()), None)
        );
        assert_eq!(exclusion("u", &list("n3, n4".into()), "n4"), None);
        let both = json!({"persistent": {}, "transient": {(&EXCLUDE[1..]): "n1"}});
        assert_eq!(exclusion("u", &both, "n4").unwrap().name, format!("transient{EXCLUDE}"));
    }

    #[test]
    fn only_what_is_still_ours_is_put_back() {
        let settings = allocation("u", &json!({"persistent": {}, "transient": scope(Some("all"))}));
        let back = |setting: &Setting, found: Value| before(setting, &found);
        let ours = json!({"persistent": scope(Some("primaries")), "transient": scope(Some("primaries"))});
        let body = Value::Object(request(&settings, &ours, &back));
        assert_eq!(body, json!({"persistent": {ALLOCATION: null}, "transient": {ALLOCATION: "all"}}));
        let theirs = json!({"persistent": scope(Some("none")), "transient": {}});
        assert!(request(&settings, &theirs, &back).is_empty());
    }
}
