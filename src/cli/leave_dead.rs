//! `windlass leave --dead`: a node that is gone already. Nobody connects to it; the others forget it.
//!
//! Nothing can be undone here, and nothing has to be: what it had, the others have, or it is refused.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::check::kinds;
use super::cluster::{Loaded, claim};
use super::conduct::{code, record};
use super::context::Context;
use super::error::Failure;
use super::leave::{Leaver, last_of_role};
use super::operate::{Wanted, problems, rollouts};
use super::session::Session;
use crate::adapters::Gone;
use crate::model::{NodeName, Role, Timestamp};
use crate::nodes::{Problem, Services};
use crate::rollout::{
    At, Candidate, Event, Fault, Finished, Goal, Held, Kind, NodeError, NodeResult, NodeState, Outcome,
    Scope, leave,
};

/// How long a cluster may take to forget a node.
const WITHIN: Duration = Duration::from_mins(1);
const PAUSE: Duration = Duration::from_millis(500);

/// Has the others forget the node; the exit code.
pub(super) async fn run(context: &Context, mut loaded: Loaded, leaver: &Leaver) -> Result<u8, Failure> {
    let kinds = kinds(context);
    let joint = |role: &Role| kinds.get(role).copied().filter(|kind| kind.is_joint());
    let meant = |role: &&Role| {
        let same = |other: &Role| joint(role).is_some() && joint(role) == joint(other);
        leaver.roles.iter().any(|other| *other == **role || same(other))
    };
    let others: Wanted = loaded
        .cluster
        .nodes
        .iter()
        .filter(|node| node.name != leaver.node)
        .map(|node| (node.name.clone(), node.roles.iter().filter(meant).cloned().collect()))
        .filter(|(_, roles): &(NodeName, Vec<Role>)| !roles.is_empty())
        .collect();
    let address = loaded.cluster.find(leaver.node.as_str()).map(|node| node.address.clone());
    let address = address.unwrap_or_default();
    // Nobody asks it anything, nor about it.
    loaded.cluster.nodes.retain(|node| node.name != leaver.node);
    let session = Session::open(loaded, &others).await;
    let services = session.services().for_good();
    let mut surveyor = session.surveyor(&services, others);
    surveyor.look().await;
    let mut found = Vec::new();
    for role in &leaver.roles {
        let at = At { node: leaver.node.clone(), role: role.clone() };
        let against = match last_of_role(&session, &surveyor, &at) {
            None => {
                let speaks = |one: &&At| {
                    one.role == at.role || joint(&at.role).is_some() && services.kind(one) == joint(&at.role)
                };
                match surveyor.ready.iter().find(speaks) {
                    Some(speaker) => bury(&services, speaker, &at, &address).await,
                    None => None,
                }
            }
            last => last,
        };
        found.extend(against.map(|error| Problem { node: at.node, role: Some(at.role), error }));
    }
    if !found.is_empty() {
        return Err(problems(&found));
    }
    let cluster = &session.loaded.cluster;
    let scope = Scope {
        kind: Kind::Leave,
        cluster: &cluster.name,
        rollout: &cluster.rollout,
        totals: BTreeMap::new(),
        forming: BTreeSet::new(),
        leftovers: Vec::new(),
        time: Timestamp::now(),
    };
    let candidates = leaver
        .roles
        .iter()
        .map(|role| Candidate::of(leaver.node.clone(), role.clone(), Goal::Nothing))
        .collect();
    let mut plan = leave(&scope, candidates);
    for one in plan.waves.iter_mut().flat_map(|wave| &mut wave.nodes) {
        one.steps.clear();
    }
    write_down(context, &plan)
}

/// Has the cluster of a service forget it, through one of its peers; why not, if it does not.
async fn bury(services: &Services<'_>, speaker: &At, gone: &At, address: &str) -> Option<NodeError> {
    let begun = Instant::now();
    let refused = |why: String| {
        let message = format!("{} on {} cannot be forgotten: {why}", gone.role, gone.node);
        NodeError::new(Fault::Refused, "may-not-leave", message)
    };
    loop {
        let why = match services.bury(speaker, &Gone { node: &gone.node, address }).await {
            Ok(Held::Yes) => return None,
            Ok(Held::Never(why)) => return Some(refused(why)),
            Ok(Held::NotYet(why) | Held::Moving { what: why, .. }) => why,
            Err(error) => return Some(error),
        };
        if begun.elapsed() >= WITHIN {
            return Some(refused(why));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The journal of what was done, as of any rollout.
fn write_down(context: &Context, plan: &crate::rollout::Plan) -> Result<u8, Failure> {
    let journal = rollouts(context)?.begin(plan)?;
    let claim = claim(Some(journal.id().to_owned()));
    let ats: Vec<At> =
        plan.nodes().map(|one| At { node: one.node.clone(), role: one.role.clone() }).collect();
    let result = |at: &At| NodeResult {
        at: at.clone(),
        from: None,
        to: None,
        release: None,
        state: NodeState::Done,
        downtime_ms: 0,
        tool_downtime_ms: 0,
        bytes_sent: 0,
        next: None,
    };
    let (outcome, nodes) = (Outcome::Succeeded, ats.iter().map(result).collect::<Vec<_>>());
    let begun = Event::RolloutStarted {
        kind: plan.kind,
        cluster: plan.cluster.clone(),
        who: claim.who,
        host: claim.host,
        waves: plan.waves.len(),
        nodes: ats,
    };
    let done = nodes.iter().map(|result| Event::NodeDone { result: result.clone() });
    let ended = Event::RolloutFinished { outcome, nodes: nodes.clone(), failures: Vec::new() };
    let finished =
        Finished { outcome, nodes: nodes.clone(), failures: Vec::new(), paused: false, touched: true };
    record(context, &journal, std::iter::once(begun).chain(done).chain([ended]), (plan, &finished))?;
    Ok(code(&finished))
}
