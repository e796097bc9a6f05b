//! The questions of a rollout, answered by Elasticsearch.

use hyper::Method;

use super::super::adapter::{Adapter, AdapterError};
use super::super::view::{Gone, Instance, View};
use super::ask::{accepted, send};
use super::cluster::{Cluster, Color, look, look_through, master, nodes, spokesman};
use super::who::{Who, who};
use super::{health, leave, predicates, settings};
use crate::agent::Setting;
use crate::model::ProductVersion;
use crate::rollout::Held;

/// Elasticsearch and `OpenSearch`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Elasticsearch;

impl Adapter for Elasticsearch {
    async fn rank(&self, view: &View<'_>) -> Result<u32, AdapterError> {
        let said = who(&view.this).await?;
        let members = nodes(&view.this).await?;
        let elected = master(&view.this, &members).await?;
        let found = members.iter().find(|member| member.name == said.name);
        Ok(found.map_or(0, |member| member.rank(elected.as_ref() == Some(&member.name))))
    }

    async fn may_leave(&self, view: &View<'_>) -> Result<Held, AdapterError> {
        if is_gone(view).await {
            return Ok(Held::Yes);
        }
        let cluster = match look(view).await {
            Ok(cluster) => cluster,
            Err(error) => {
                let message = format!("{}: {}", predicates::ANSWERS, error.message);
                return Err(AdapterError { message, help: error.help });
            }
        };
        let against = predicates::against(&cluster, |name| view.is_off(name));
        Ok(against.map_or(Held::Yes, Held::NotYet))
    }

    async fn settings(&self, view: &View<'_>) -> Result<Vec<Setting>, AdapterError> {
        if is_gone(view).await {
            return Ok(Vec::new());
        }
        let (instance, said) = spokesman(view).await?;
        settings::wanted(instance, &said).await
    }

    async fn drain(&self, view: &View<'_>, changed: &[Setting]) -> Result<Held, AdapterError> {
        if is_gone(view).await {
            return Ok(Held::Yes);
        }
        let (instance, said) = spokesman(view).await?;
        // An index that came into being while replicas were given to nobody has its only copy here: they are given
        // out again until it has another.
        if let Some(why) = only_here(&look(view).await?, view) {
            settings::revert(instance, changed).await?;
            return Ok(Held::NotYet(why));
        }
        settings::apply(instance, changed).await?;
        if let Some(why) = flush(instance, &said).await? {
            return Ok(Held::NotYet(why));
        }
        match only_here(&look(view).await?, view) {
            Some(why) => {
                settings::revert(instance, changed).await?;
                Ok(Held::NotYet(why))
            }
            None => Ok(Held::Yes),
        }
    }

    async fn undrain(&self, view: &View<'_>, settings: &[Setting]) -> Result<Held, AdapterError> {
        Ok(settings::put_back(view, settings).await)
    }

    async fn ready(&self, view: &View<'_>) -> Result<Held, AdapterError> {
        let this = &view.this;
        let said = who(this).await?;
        let version = this.product.as_ref();
        if let Some(wanted) = version.filter(|wanted| !is_same(wanted, &said.version)) {
            return Ok(Held::NotYet(format!("1 of 2: it answers as {}, not {wanted}", said.version)));
        }
        if said.cluster.is_none() {
            return Ok(Held::NotYet("2 of 2: it has not joined a cluster".to_owned()));
        }
        for peer in &view.peers {
            let Ok(other) = who(peer).await else { continue };
            if other.cluster.is_some() && other.cluster_name == said.cluster_name {
                if other.cluster != said.cluster {
                    let title = format!("{} of {}", peer.role, peer.node);
                    return Ok(Held::NotYet(format!("2 of 2: it is in another cluster than {title}")));
                }
                break;
            }
        }
        let members = nodes(this).await?;
        if master(this, &members).await?.is_none() {
            return Ok(Held::NotYet("2 of 2: its cluster has no elected master".to_owned()));
        }
        let seen = members.iter().find(|member| member.name == said.name);
        Ok(match seen {
            None => Held::NotYet("2 of 2: its cluster does not see it yet".to_owned()),
            Some(member) if is_same(&member.version.to_string(), &said.version) => Held::Yes,
            Some(member) => Held::NotYet(format!("2 of 2: its cluster sees it as {}", member.version)),
        })
    }

    async fn settled(&self, view: &View<'_>) -> Result<Held, AdapterError> {
        let cluster = look_through(&view.this, view).await?;
        if view.joins {
            return Ok(health::joined(&cluster));
        }
        let held = health::settled(&cluster);
        Ok(match held {
            Held::NotYet(why) if why.starts_with("4 of 4") => {
                Held::NotYet(why + &health::hindrance(view).await.unwrap_or_default())
            }
            held => held,
        })
    }

    async fn may_part(&self, view: &View<'_>) -> Result<Held, AdapterError> {
        leave::may_part(view).await
    }

    async fn parting(&self, view: &View<'_>) -> Result<Vec<Setting>, AdapterError> {
        leave::parting(view).await
    }

    async fn part(&self, view: &View<'_>, changed: &[Setting]) -> Result<Held, AdapterError> {
        leave::part(view, changed).await
    }

    async fn parted(&self, view: &View<'_>) -> Result<Held, AdapterError> {
        leave::parted(view).await
    }

    async fn burying(&self, view: &View<'_>, gone: &Gone<'_>) -> Result<Vec<Setting>, AdapterError> {
        leave::burying(view, gone).await
    }

    async fn bury(
        &self,
        view: &View<'_>,
        gone: &Gone<'_>,
        changed: &[Setting],
    ) -> Result<Held, AdapterError> {
        leave::bury(view, gone, changed).await
    }
}

/// Whether there is nobody to ask and nothing to be taken from anybody: a service that has no peer and does not
/// answer, or a cluster of which nobody answers and that may be stopped so.
async fn is_gone(view: &View<'_>) -> bool {
    let is_off = view.is_off(predicates::ANSWERS);
    let may = is_off || view.peers.is_empty();
    may && view.this.reach.is_some()
        && spokesman(view).await.is_err()
        && (is_off || !is_guarded(&view.this).await)
}

/// Whether it is there and does not know who asks: one that works, and is not told how to get ready for a stop.
async fn is_guarded(instance: &Instance<'_>) -> bool {
    let answer = instance.http(Method::GET, "/", None).await;
    answer.is_ok_and(|answer| matches!(answer.status, 401 | 403))
}

/// Why the node may not be stopped after all, looked at again just before it is.
fn only_here(cluster: &Cluster, view: &View<'_>) -> Option<String> {
    let member = cluster.member()?;
    if view.is_off("started-copy") || cluster.health.color == Color::Green {
        return None;
    }
    let only = cluster.only_there(&member.name);
    let first = only.first()?;
    Some(format!("started-copy: only this node has {first}, which came into being meanwhile"))
}

/// Has what is in memory written to the disk, so that the node is back sooner; why not yet, if so.
async fn flush(instance: &Instance<'_>, said: &Who) -> Result<Option<String>, AdapterError> {
    let version: Option<ProductVersion> = said.version.parse().ok();
    let synced = !said.opensearch && version.is_some_and(|version| version.line() < (7, 6));
    let path = if synced { "/_flush/synced" } else { "/_flush" };
    let answer = match send(instance, Method::POST, path, None).await {
        Ok(answer) => answer,
        Err(error) => return Ok(Some(format!("it flushes: {}", error.message))),
    };
    // A shard that is written to cannot be flushed as a whole, and is none the worse for that.
    if answer.status != 409 {
        accepted(instance, path, &answer)?;
    }
    Ok(None)
}

/// Whether two texts are the same version; a snapshot's or a distribution's suffix counts for nothing.
fn is_same(one: &str, other: &str) -> bool {
    let numbers = |text: &str| {
        text.parse::<ProductVersion>().map(|version| (version.major, version.minor, version.patch))
    };
    match (numbers(one), numbers(other)) {
        (Ok(one), Ok(other)) => one == other,
        _ => one == other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_the_same_without_what_stands_behind_them() {
        assert!(is_same("7.17.28", "7.17.28-SNAPSHOT") && is_same("6.7", "6.7.0"));
        assert!(!is_same("6.4.2", "6.7.0"));
        assert!(is_same("custom", "custom") && !is_same("custom", "6.7.0"));
    }
}
