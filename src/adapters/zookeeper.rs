//! ZooKeeper, asked by its four-letter words `srvr` and `mntr` over its client port.
//!
//! Followers go first and the leader last, so that a rollout costs one election. `ruok` answers `imok` without a
//! quorum and is never asked. The admin server is not asked either: it is off in many places.
//!
//! # Invariants
//!
//! * Members are those of the same role; a server that says it is an observer has no vote and is not counted.
//! * Nothing is changed: a leader that stops hands over by an election, and nothing has to be put back.

use futures_util::future::join_all;

use super::adapter::{Adapter, AdapterError};
use super::view::{Gone, Instance, View};
use crate::agent::Setting;
use crate::rollout::Held;

/// A majority of the members stays in sync while one is away.
pub(super) const QUORUM: &str = "zookeeper-quorum";
/// Every other member is in sync before one is taken away, and all are after it is back.
pub(super) const IN_SYNC: &str = "zookeeper-in-sync";

/// What is known of `ZooKeeper`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Zookeeper;

/// What a server says it is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Mode {
    Leader,
    Follower,
    Observer,
    Standalone,
    /// It answers and takes no part: it looks for a leader, or loads its data.
    Idle(String),
}

/// What the leader says about those that follow it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Followers {
    synced: usize,
    pending: usize,
}

/// A role's servers.
struct Ensemble<'v, 'a> {
    this: Result<Mode, AdapterError>,
    others: Vec<(&'v Instance<'a>, Result<Mode, AdapterError>)>,
}

impl Ensemble<'_, '_> {
    async fn of<'v, 'a>(view: &'v View<'a>) -> Ensemble<'v, 'a> {
        let peers: Vec<&Instance<'_>> =
            view.peers.iter().filter(|peer| peer.role == view.this.role).collect();
        let (this, modes) =
            futures_util::join!(mode(&view.this), join_all(peers.iter().map(|peer| mode(peer))));
        Ensemble { this, others: peers.into_iter().zip(modes).collect() }
    }

    /// How many have a vote, as far as they say.
    fn voters(&self) -> usize {
        let own = usize::from(!matches!(self.this, Ok(Mode::Observer)));
        own + self.others.iter().filter(|(_, mode)| !matches!(mode, Ok(Mode::Observer))).count()
    }

    fn leader<'v, 'a>(&'v self, view: &'v View<'a>) -> Option<&'v Instance<'a>>
    where
        Self: 'v,
    {
        if matches!(self.this, Ok(Mode::Leader)) {
            return Some(&view.this);
        }
        let at = self.others.iter().find(|(_, mode)| matches!(mode, Ok(Mode::Leader)))?.0;
        view.peers.iter().find(|peer| peer.node == at.node && peer.role == at.role)
    }

    /// Who of the others takes no part, and why; in one line.
    fn absent(&self) -> Option<String> {
        let absent = |(peer, mode): &(&Instance<'_>, Result<Mode, AdapterError>)| match mode {
            Ok(Mode::Idle(why)) => Some(format!("{}: {why}", peer.node)),
            Ok(Mode::Standalone) => Some(format!("{} is standalone", peer.node)),
            Err(error) => Some(error.message.clone()),
            Ok(Mode::Leader | Mode::Follower | Mode::Observer) => None,
        };
        let absent: Vec<String> = self.others.iter().filter_map(absent).collect();
        (!absent.is_empty()).then(|| absent.join("; "))
    }
}

impl Adapter for Zookeeper {
    async fn rank(&self, view: &View<'_>) -> Result<u32, AdapterError> {
        Ok(u32::from(mode(&view.this).await? == Mode::Leader))
    }

    async fn may_leave(&self, view: &View<'_>) -> Result<Held, AdapterError> {
        if view.is_off(QUORUM) && view.is_off(IN_SYNC) {
            return Ok(Held::Yes);
        }
        let ensemble = Ensemble::of(view).await;
        match &ensemble.this {
            // It is the only one: there is no quorum to be kept, and no way without an outage.
            Ok(Mode::Standalone) if ensemble.others.is_empty() => return Ok(Held::Yes),
            // It has no vote.
            Ok(Mode::Observer) => return Ok(Held::Yes),
            // It takes no part, and the others do without it.
            Ok(Mode::Idle(_)) | Err(_) if ensemble.leader(view).is_some() => return Ok(Held::Yes),
            Ok(_) | Err(_) => {}
        }
        let Some(leader) = ensemble.leader(view) else {
            let absent = ensemble.absent().map(|absent| format!(" ({absent})")).unwrap_or_default();
            return Ok(Held::NotYet(format!(
                "no server says that it is the leader{absent}{}",
                turn_off(QUORUM)
            )));
        };
        let followers = followers(leader).await?;
        let voters = ensemble.voters();
        let leads = matches!(ensemble.this, Ok(Mode::Leader));
        // Those that go on: the leader and the synced followers, less this one.
        let left = if leads { followers.synced } else { followers.synced.saturating_sub(1) + 1 };
        let needed = voters / 2 + 1;
        if left < needed && !view.is_off(QUORUM) {
            return Ok(Held::NotYet(format!(
                "without it {left} of {voters} members are in sync, and a quorum needs {needed}{}{}",
                ensemble.absent().map(|absent| format!(" ({absent})")).unwrap_or_default(),
                if voters < 3 { turn_off(QUORUM) } else { String::new() },
            )));
        }
        Ok(in_sync(view, &ensemble, leader, followers))
    }

    async fn drain(&self, view: &View<'_>, _: &[Setting]) -> Result<Held, AdapterError> {
        self.may_leave(view).await
    }

    async fn ready(&self, view: &View<'_>) -> Result<Held, AdapterError> {
        Ok(match mode(&view.this).await? {
            // Whether one that is alone ought to have company is known when its peers are: once it has settled.
            Mode::Leader | Mode::Follower | Mode::Observer | Mode::Standalone => Held::Yes,
            Mode::Idle(why) => Held::NotYet(why),
        })
    }

    async fn settled(&self, view: &View<'_>) -> Result<Held, AdapterError> {
        let ensemble = Ensemble::of(view).await;
        let alone = ensemble.others.is_empty();
        match ensemble.this.clone()? {
            Mode::Standalone if alone => return Ok(Held::Yes),
            Mode::Standalone => {
                let count = ensemble.others.len();
                return Ok(Held::NotYet(format!(
                    "it is standalone, and there are {count} more of its role: its conf names no `server.N`"
                )));
            }
            Mode::Idle(why) => return Ok(Held::NotYet(why)),
            Mode::Observer if ensemble.leader(view).is_none() => return Ok(Held::Yes),
            Mode::Observer | Mode::Leader | Mode::Follower => {}
        }
        let Some(leader) = ensemble.leader(view) else {
            return Ok(Held::NotYet("no server says that it is the leader".to_owned()));
        };
        if view.is_off(IN_SYNC) {
            return Ok(Held::Yes);
        }
        let followers = followers(leader).await?;
        Ok(in_sync(view, &ensemble, leader, followers))
    }

    async fn may_part(&self, view: &View<'_>) -> Result<Held, AdapterError> {
        let ensemble = Ensemble::of(view).await;
        if ensemble.others.is_empty() && !view.is_off(QUORUM) {
            let off = turn_off(QUORUM);
            return Ok(Held::Never(format!("it is the only server, and nobody can take over its data{off}")));
        }
        self.may_leave(view).await
    }

    async fn part(&self, view: &View<'_>, _: &[Setting]) -> Result<Held, AdapterError> {
        self.may_part(view).await
    }

    async fn parted(&self, view: &View<'_>) -> Result<Held, AdapterError> {
        let ensemble = Ensemble::of(view).await;
        if ensemble.others.is_empty() {
            return Ok(Held::Yes);
        }
        let Some(leader) = ensemble.leader(view) else {
            return Ok(Held::NotYet("no server says that it is the leader".to_owned()));
        };
        let votes = ensemble.others.iter().filter(|(_, mode)| !matches!(mode, Ok(Mode::Observer))).count();
        let found = followers(leader).await?;
        if view.is_off(IN_SYNC) || (found.synced + 1 >= votes && found.pending == 0) {
            return Ok(Held::Yes);
        }
        Ok(Held::NotYet(format!(
            "{} has {} of {} followers in sync",
            leader.node,
            found.synced,
            votes.saturating_sub(1)
        )))
    }

    async fn bury(&self, view: &View<'_>, _: &Gone<'_>, _: &[Setting]) -> Result<Held, AdapterError> {
        let ensemble = Ensemble::of(view).await;
        if ensemble.leader(view).is_some() || matches!(ensemble.this, Ok(Mode::Standalone)) {
            return Ok(Held::Yes);
        }
        Ok(Held::Never("no server that is there says that it is the leader: its quorum is lost".to_owned()))
    }
}

/// Whether every follower has what the leader has.
fn in_sync(view: &View<'_>, ensemble: &Ensemble<'_, '_>, leader: &Instance<'_>, found: Followers) -> Held {
    if view.is_off(IN_SYNC) {
        return Held::Yes;
    }
    let wanted = ensemble.voters().saturating_sub(1);
    let Followers { synced, pending } = found;
    if synced < wanted {
        let absent = ensemble.absent().map(|absent| format!(" ({absent})")).unwrap_or_default();
        return Held::NotYet(format!("{} has {synced} of {wanted} followers in sync{absent}", leader.node));
    }
    if pending > 0 {
        return Held::NotYet(format!("{} has {pending} syncs pending", leader.node));
    }
    Held::Yes
}

fn turn_off(predicate: &str) -> String {
    format!("; to stop it nevertheless: [rollout] predicates_off = [\"{predicate}\"]")
}

/// Asks a server what it is.
async fn mode(server: &Instance<'_>) -> Result<Mode, AdapterError> {
    let answer = asked(server, "srvr").await?;
    let line = answer.lines().find_map(|line| line.strip_prefix("Mode: "));
    Ok(match line.map(str::trim) {
        Some("leader") => Mode::Leader,
        Some("follower") => Mode::Follower,
        Some("observer") => Mode::Observer,
        Some("standalone") => Mode::Standalone,
        Some(other) => Mode::Idle(format!("it is in mode {}", shown(other))),
        None => match answer.lines().next() {
            Some(said) if !said.trim().is_empty() => Mode::Idle(format!("it says: {}", shown(said))),
            _ => Mode::Idle("it says nothing: it is starting".to_owned()),
        },
    })
}

/// Asks the leader about its followers.
async fn followers(leader: &Instance<'_>) -> Result<Followers, AdapterError> {
    let answer = asked(leader, "mntr").await?;
    let number = |name: &str| {
        let line = answer.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('\t'));
        // Some versions write counts as decimals: `2.0`.
        let whole = line.and_then(|text| text.trim().split('.').next()?.parse().ok());
        whole.ok_or_else(|| {
            AdapterError::new(format!(
                "{} of {}: `mntr` says nothing of {name}: it leads no more, or not yet",
                leader.role, leader.node
            ))
        })
    };
    Ok(Followers { synced: number("zk_synced_followers")?, pending: number("zk_pending_syncs")? })
}

async fn asked(server: &Instance<'_>, word: &str) -> Result<String, AdapterError> {
    let answer = server.word(word).await?;
    if answer.contains("not in the whitelist") {
        let line = "4lw.commands.whitelist=srvr,mntr";
        return Err(AdapterError::new(format!(
            "{} of {}: ZooKeeper does not answer `{word}`: zoo.cfg lacks the line `{line}`",
            server.role, server.node
        ))
        .help(format!("add `{line}` to zoo.cfg"))
        .help(format!(
            "for the rollout that brings the line: [rollout] predicates_off = [\"{QUORUM}\", \"{IN_SYNC}\"]"
        )));
    }
    Ok(answer)
}

/// A service's words, short enough for a line.
fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(120).collect()
}
