//! Redis with one master: replicas go first, then the master hands over by `FAILOVER` and goes as a replica.
//!
//! `FAILOVER` holds writes back until the replica has everything, so that nothing is lost that was acknowledged by
//! that replica, and nothing at all that a client saw acknowledged by the master while it lived.
//!
//! # Invariants
//!
//! * Who is master is what the servers are at the moment, not a setting: it is not put back. A node goes back as
//!   the replica of whoever is master then.
//! * A master is stopped only when it has become a replica, unless it is alone or `redis-failover` is off.
//!
//! # Not here
//!
//! Redis Cluster, and Sentinel's own view: Sentinel sees a failover that somebody else made.

use std::net::IpAddr;

use super::adapter::{Adapter, AdapterError};
use super::redis_info::{Group, Info, info, said};
use super::resp::Reply;
use super::view::{Gone, Instance, View};
use crate::agent::Setting;
use crate::rollout::Held;

/// Every other server is in sync before one is taken away, and all are after it is back.
pub(super) const IN_SYNC: &str = "redis-in-sync";
/// The master hands over before it is stopped.
pub(super) const FAILOVER: &str = "redis-failover";
/// The master goes on taking writes while a replica is away (`min-replicas-to-write`).
pub(super) const MIN_REPLICAS: &str = "redis-min-replicas";

/// How long writes may be held back for a failover, in milliseconds. Then Redis gives it up by itself.
const FAILOVER_MS: &str = "5000";

/// What is known of Redis.
#[derive(Clone, Copy, Debug, Default)]
pub struct Redis;

impl Adapter for Redis {
    async fn rank(&self, view: &View<'_>) -> Result<u32, AdapterError> {
        Ok(u32::from(info(&view.this).await?.is_master()))
    }

    async fn may_leave(&self, view: &View<'_>) -> Result<Held, AdapterError> {
        leave(view, &Group::of(view).await).await
    }

    async fn drain(&self, view: &View<'_>, _: &[Setting]) -> Result<Held, AdapterError> {
        let group = Group::of(view).await;
        let held = leave(view, &group).await?;
        let Ok(this) = &group.this else { return Ok(held) };
        if let Some(state) = this.failover() {
            return Ok(Held::NotYet(format!("it hands over: {state}")));
        }
        if this.is_master() {
            return match held {
                Held::Yes if !group.others.is_empty() && !view.is_off(FAILOVER) => {
                    hand_over(view, this).await
                }
                held => Ok(held),
            };
        }
        match follow_the_new(this, &group).await? {
            Some(why) => Ok(Held::NotYet(why)),
            None => Ok(held),
        }
    }

    async fn undrain(&self, view: &View<'_>, _: &[Setting]) -> Result<Held, AdapterError> {
        let group = Group::of(view).await;
        // One that does not run takes part in nothing.
        let Ok(this) = &group.this else { return Ok(Held::Yes) };
        // It calls itself a replica as soon as it has asked the other to take over, whatever becomes of that, and
        // takes no write meanwhile.
        if this.failover().is_some() {
            view.this.redis(&[&["FAILOVER", "ABORT"]]).await?;
            return Ok(Held::NotYet("a failover is being given up".to_owned()));
        }
        rejoin(view, &group, this).await
    }

    async fn ready(&self, view: &View<'_>) -> Result<Held, AdapterError> {
        let group = Group::of(view).await;
        let this = group.this.clone()?;
        if let Some(part) = this.loading() {
            return Ok(Held::NotYet(format!("it loads its data ({part}%)")));
        }
        // In a failover that does not end it is up, and has a link to nobody until that is given up.
        if this.is_master() || this.failover().is_some() {
            return Ok(Held::Yes);
        }
        if let Some(why) = this.lags() {
            return Ok(Held::NotYet(why));
        }
        caught_up(view, &group).await
    }

    async fn settled(&self, view: &View<'_>) -> Result<Held, AdapterError> {
        let group = Group::of(view).await;
        let this = group.this.clone()?;
        let mut masters: Vec<&str> = group.masters().iter().map(|(peer, _)| peer.node.as_str()).collect();
        if this.is_master() {
            masters.push(view.this.node.as_str());
        }
        match *masters {
            [_] => {}
            [] => return Ok(Held::NotYet("no server says that it is the master".to_owned())),
            _ => {
                let names = masters.join(" and ");
                return Ok(Held::NotYet(format!(
                    "{names} all say that they are the master: one must follow the other"
                )));
            }
        }
        if view.is_off(IN_SYNC) {
            return Ok(Held::Yes);
        }
        if let Some(why) = group.others_lag() {
            return Ok(Held::NotYet(why));
        }
        if this.is_replica() { caught_up(view, &group).await } else { Ok(Held::Yes) }
    }

    async fn may_part(&self, view: &View<'_>) -> Result<Held, AdapterError> {
        let group = Group::of(view).await;
        if group.others.is_empty() && !view.is_off(FAILOVER) {
            return Ok(Held::Never(format!(
                "it is the only server, and nobody can take over its data; to stop it nevertheless: [rollout] \
                 predicates_off = [\"{FAILOVER}\"]"
            )));
        }
        leave(view, &group).await
    }

    async fn part(&self, view: &View<'_>, settings: &[Setting]) -> Result<Held, AdapterError> {
        self.drain(view, settings).await
    }

    async fn parted(&self, view: &View<'_>) -> Result<Held, AdapterError> {
        let group = Group::of(view).await;
        if group.others.is_empty() {
            return Ok(Held::Yes);
        }
        Ok(match group.masters().len() {
            0 => Held::NotYet("no server says that it is the master".to_owned()),
            1 => match group.others_lag().filter(|_| !view.is_off(IN_SYNC)) {
                Some(why) => Held::NotYet(why),
                None => Held::Yes,
            },
            _ => Held::NotYet("more than one server says that it is the master".to_owned()),
        })
    }

    async fn bury(&self, view: &View<'_>, _: &Gone<'_>, _: &[Setting]) -> Result<Held, AdapterError> {
        let group = Group::of(view).await;
        let own = usize::from(group.this.as_ref().is_ok_and(Info::is_master));
        Ok(match group.masters().len() + own {
            1 => Held::Yes,
            0 => Held::Never(
                "no server that is there says that it is the master: make one of them that by hand (REPLICAOF NO \
                 ONE), and send the others there"
                    .to_owned(),
            ),
            _ => Held::Never("more than one server says that it is the master".to_owned()),
        })
    }
}

/// Whether it may be stopped, or, if it is the master, hand over.
async fn leave(view: &View<'_>, group: &Group<'_, '_>) -> Result<Held, AdapterError> {
    let masters = group.masters();
    let this = match &group.this {
        Ok(this) => this,
        // It answers nobody, and another one is the master: nobody misses it.
        Err(_) if !masters.is_empty() => return Ok(Held::Yes),
        Err(error) => return Err(error.clone()),
    };
    if let Some(part) = this.loading() {
        return Ok(Held::NotYet(format!("it loads its data ({part}%)")));
    }
    if group.others.is_empty() {
        // It is alone: there is no way without an outage.
        return Ok(Held::Yes);
    }
    if let Some(why) = group.others_lag().filter(|_| !view.is_off(IN_SYNC)) {
        return Ok(Held::NotYet(why));
    }
    if this.is_master() {
        return master_leaves(view, this).await;
    }
    match *masters {
        [(master, found)] => min_replicas(view, master, found).await,
        [] if view.is_off(IN_SYNC) => Ok(Held::Yes),
        [] => Ok(Held::NotYet("no server says that it is the master".to_owned())),
        // Which of them clients write to is not known: nothing is taken away.
        _ => Ok(Held::NotYet("more than one server says that it is the master".to_owned())),
    }
}

async fn master_leaves(view: &View<'_>, this: &Info) -> Result<Held, AdapterError> {
    if view.is_off(FAILOVER) {
        return Ok(Held::Yes);
    }
    let off = format!("or stop it as it is: [rollout] predicates_off = [\"{FAILOVER}\"]");
    if this.is_clustered() {
        return Ok(Held::Never(format!(
            "it is a master of a Redis Cluster: `redis-cli cluster failover` on one of its replicas first; {off}"
        )));
    }
    if !this.has_failover() {
        return Ok(Held::Never(format!(
            "it is the master, and Redis {} has no FAILOVER (6.2 has): hand over by hand (CLIENT PAUSE on it, \
             equal offsets, REPLICAOF NO ONE on a replica, REPLICAOF that one here) and promote again; {off}",
            this.version()
        )));
    }
    if this.failover().is_none() && !this.replicas().iter().any(|one| one.online) {
        return Ok(Held::NotYet(format!("it is the master, and none of its replicas is online; {off}")));
    }
    min_replicas(view, &view.this, this).await
}

/// Whether a master goes on taking writes with one replica less.
async fn min_replicas(view: &View<'_>, master: &Instance<'_>, found: &Info) -> Result<Held, AdapterError> {
    let Some(good) = found.good_replicas().filter(|_| !view.is_off(MIN_REPLICAS)) else {
        return Ok(Held::Yes);
    };
    // The old name is understood by every version.
    let wanted = match master.redis(&[&["CONFIG", "GET", "min-slaves-to-write"]]).await?.pop() {
        Some(Reply::Many(pair)) => match pair.get(1) {
            Some(Reply::Text(number)) => number.parse::<u64>().unwrap_or(0),
            _ => 0,
        },
        Some(Reply::Error(text)) => return Err(said(master, "CONFIG GET min-replicas-to-write", &text)),
        _ => 0,
    };
    if good > wanted || wanted == 0 {
        return Ok(Held::Yes);
    }
    Ok(Held::NotYet(format!(
        "its master takes writes with {wanted} good replicas or more and has {good}; to stop it nevertheless: \
         [rollout] predicates_off = [\"{MIN_REPLICAS}\"]"
    )))
}

/// Has the replica that is furthest take over.
async fn hand_over(view: &View<'_>, this: &Info) -> Result<Held, AdapterError> {
    let replicas = this.replicas();
    let online = replicas.iter().filter(|one| one.online);
    let Some(best) = online.max_by_key(|one| one.offset) else {
        return Ok(Held::NotYet("none of its replicas is online".to_owned()));
    };
    let port = best.port.to_string();
    if let Some(why) = elsewhere(view, &best.ip, best.port) {
        return Ok(Held::Never(why));
    }
    let command = ["FAILOVER", "TO", &best.ip, &port, "TIMEOUT", FAILOVER_MS];
    match view.this.redis(&[&command]).await?.pop() {
        Some(Reply::Error(text)) => Err(said(&view.this, "FAILOVER", &text)),
        _ => Ok(Held::NotYet(format!("it hands over to {}:{port}", best.ip))),
    }
}

/// Why a replica that the master sees at that address is not handed over to: no node has it. The master would ask
/// there for as long as it takes, and take no write meanwhile. Names are not compared.
fn elsewhere(view: &View<'_>, ip: &str, port: u16) -> Option<String> {
    let addresses = view.peers.iter().map(|peer| (peer.address.as_str(), peer.port()));
    let mut addresses = addresses.filter(|(address, _)| address.parse::<IpAddr>().is_ok()).peekable();
    addresses.peek()?;
    let named = view.peers.iter().any(|peer| peer.address.parse::<IpAddr>().is_err());
    if named || addresses.any(|known| known == (ip, port)) {
        return None;
    }
    Some(format!(
        "it is the master, and sees its replica at {ip}:{port}, which is no node's address: set \
         `replica-announce-ip` in the replicas' conf (`slave-announce-ip` before 5), or stop it as it is: [rollout] \
         predicates_off = [\"{FAILOVER}\"]"
    ))
}

/// After a failover the other replicas still follow this one, whether it has their connections at the moment or not:
/// they are sent to the new master. What is still to be done, if anything.
async fn follow_the_new(this: &Info, group: &Group<'_, '_>) -> Result<Option<String>, AdapterError> {
    if let Some(why) = this.lags() {
        return Ok(Some(why));
    }
    let (host, port) = this.follows();
    // One that follows the new master by another name, or a third server on purpose, is left alone.
    let known =
        |(host, port)| group.others.iter().any(|(one, _)| (one.address.as_str(), one.port()) == (host, port));
    let astray = group.others.iter().filter(|(_, other)| {
        let replica = other.as_ref().ok().filter(|other| other.is_replica());
        replica.is_some_and(|other| other.follows() != (host, port) && !known(other.follows()))
    });
    let mut sent = Vec::new();
    for (peer, _) in astray {
        if let Some(Reply::Error(text)) = peer.redis(&[&["REPLICAOF", host, &port.to_string()]]).await?.pop()
        {
            return Err(said(peer, "REPLICAOF", &text));
        }
        sent.push(peer.node.as_str());
    }
    let what = (!sent.is_empty()).then(|| sent.join(", "));
    Ok(what.map(|what| format!("{what}: on the way to the new master {host}:{port}")))
}

/// One whose conf starts it as a master beside the master follows that one.
async fn rejoin(view: &View<'_>, group: &Group<'_, '_>, this: &Info) -> Result<Held, AdapterError> {
    let masters = group.masters();
    let [(master, found)] = *masters else { return Ok(Held::Yes) };
    // The one that has just started is the one that does not belong: clients write to the other.
    if !this.is_master() || this.uptime() > found.uptime() || !this.replicas().is_empty() {
        return Ok(Held::Yes);
    }
    let (host, port) = group
        .others
        .iter()
        .filter_map(|(_, other)| other.as_ref().ok().filter(|other| other.is_replica()))
        .map(Info::follows)
        .find(|(_, port)| *port == master.port())
        .map_or_else(|| (master.address.clone(), master.port()), |(host, port)| (host.to_owned(), port));
    match view.this.redis(&[&["REPLICAOF", &host, &port.to_string()]]).await?.pop() {
        Some(Reply::Error(text)) => Err(said(&view.this, "REPLICAOF", &text)),
        _ => Ok(Held::NotYet(format!(
            "it started as a master beside {}: it follows that one now",
            master.node
        ))),
    }
}

/// Whether it has what the master had a moment ago: under writes the two are never seen equal.
async fn caught_up(view: &View<'_>, group: &Group<'_, '_>) -> Result<Held, AdapterError> {
    let masters = group.masters();
    let [(master, found)] = *masters else { return Ok(Held::Yes) };
    let now = info(&view.this).await?;
    if now.offset() >= found.offset() {
        return Ok(Held::Yes);
    }
    let behind = found.offset() - now.offset();
    Ok(Held::NotYet(format!("it is {behind} bytes behind {}", master.node)))
}
