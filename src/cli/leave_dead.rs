//! `windlass leave --dead`: a node that is gone already. Nobody connects to it; the others forget it.
//!
//! What it had, the others have, or it is refused. What that changes in a cluster's settings is journalled before it
//! is changed, as in every rollout; once the node is forgotten it is right as it is, and stays.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::check::kinds;
use super::cluster::{Loaded, claim};
use super::conduct::{code, record};
use super::context::{Context, print};
use super::error::Failure;
use super::leave::{Leaver, last_of_role};
use super::operate::{Wanted, problems, rollouts};
use super::session::Session;
use crate::adapters::Gone;
use crate::agent::Setting;
use crate::model::{NodeName, Role, Timestamp};
use crate::nodes::{Live, NoStager, Problem, Services};
use crate::report::finished_text;
use crate::rollout::{
    At, Candidate, Event, Fault, Finished, Goal, Held, Journal, Kind, NodeError, NodePlan, NodeResult,
    NodeState, Nodes as _, Outcome, Plan, Scope, leave,
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
    let plan = planned(&session, leaver);
    let mut burial = Burial { context, session: &session, services: &services, plan: &plan, journal: None };
    let mut found = Vec::new();
    for role in &leaver.roles {
        let at = At { node: leaver.node.clone(), role: role.clone() };
        let against = match last_of_role(&session, &surveyor, &at) {
            None => {
                let speaks = |one: &&At| {
                    one.role == at.role || joint(&at.role).is_some() && services.kind(one) == joint(&at.role)
                };
                match surveyor.ready.iter().find(speaks) {
                    Some(speaker) => burial.forget(speaker, &at, &address).await?,
                    None => None,
                }
            }
            last => last,
        };
        found.extend(against.map(|error| Problem { node: at.node, role: Some(at.role), error }));
    }
    if found.is_empty() {
        return burial.end(Outcome::Succeeded);
    }
    if burial.journal.is_some() {
        burial.end(Outcome::RolledBack)?;
    }
    Err(problems(&found))
}

/// A plan without steps: nobody goes to the node.
fn planned(session: &Session, leaver: &Leaver) -> Plan {
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
    plan
}

/// A node that is forgotten, and where that is written down.
struct Burial<'a> {
    context: &'a Context,
    session: &'a Session,
    services: &'a Services<'a>,
    plan: &'a Plan,
    /// Begun with the first change: what is refused before that is no rollout.
    journal: Option<Journal>,
}

impl Burial<'_> {
    /// Has the cluster of a service forget it, through one of its peers; why not, if it does not.
    async fn forget(&mut self, speaker: &At, gone: &At, address: &str) -> Result<Option<NodeError>, Failure> {
        let node = Gone { node: &gone.node, address };
        let changes = match self.services.burying(speaker, &node).await {
            Ok(changes) => changes,
            Err(error) => return Ok(Some(error)),
        };
        if changes.is_empty() {
            return Ok(self.bury(speaker, gone, address, &changes).await.err());
        }
        let id = self.begin()?;
        let fleet = &self.session.fleet;
        let live = Live { fleet, claim: claim(Some(id)), stager: NoStager, services: self.services };
        if let Err(error) = live.lock(&speaker.node).await {
            return Ok(Some(error));
        }
        self.note(Event::SettingsChanging { at: speaker.clone(), settings: changes.clone() })?;
        let mut outcome = live.note_settings(&speaker.node, &speaker.role, &changes).await;
        if outcome.is_ok() {
            outcome = self.bury(speaker, gone, address, &changes).await;
            // What is right for those who are there stays as it is now.
            let ask = async || self.services.undrain(speaker, &changes).await;
            let back = holds(ask, |why| {
                let message =
                    format!("{} of {}: settings are not put back: {why}", speaker.role, speaker.node);
                NodeError::new(Fault::Refused, "settings", message)
            });
            let back = back.await;
            if back.is_ok() {
                self.note(Event::SettingsBack { at: speaker.clone(), settings: changes })?;
            }
            outcome = outcome.and(back);
        }
        if outcome.is_ok() {
            // Where this is lost the next rollout looks at them once more, and changes nothing.
            let _ = live.note_settings(&speaker.node, &speaker.role, &[]).await;
        }
        live.unlock_all().await;
        Ok(outcome.err())
    }

    async fn bury(
        &self,
        speaker: &At,
        gone: &At,
        address: &str,
        changes: &[Setting],
    ) -> Result<(), NodeError> {
        let node = Gone { node: &gone.node, address };
        let ask = async || self.services.bury(speaker, &node, changes).await;
        let refused = |why: String| {
            let message = format!("{} on {} cannot be forgotten: {why}", gone.role, gone.node);
            NodeError::new(Fault::Refused, "may-not-leave", message)
        };
        holds(ask, refused).await
    }

    /// Begins the journal, as of any rollout, if that was not done; its id.
    fn begin(&mut self) -> Result<String, Failure> {
        if let Some(journal) = &self.journal {
            return Ok(journal.id().to_owned());
        }
        let journal = rollouts(self.context)?.begin(self.plan)?;
        let id = journal.id().to_owned();
        let claim = claim(Some(id.clone()));
        self.journal = Some(journal);
        self.note(Event::RolloutStarted {
            kind: self.plan.kind,
            cluster: self.plan.cluster.clone(),
            who: claim.who,
            host: claim.host,
            waves: self.plan.waves.len(),
            nodes: self
                .plan
                .nodes()
                .map(|one| At { node: one.node.clone(), role: one.role.clone() })
                .collect(),
        })?;
        Ok(id)
    }

    fn note(&self, event: Event) -> Result<(), Failure> {
        self.journal.as_ref().map_or(Ok(()), |journal| record(self.context, journal, [event]))
    }

    /// Ends the journal; the exit code.
    fn end(mut self, outcome: Outcome) -> Result<u8, Failure> {
        let id = self.begin()?;
        let state = if outcome == Outcome::Succeeded { NodeState::Done } else { NodeState::Untouched };
        let result = |one: &NodePlan| NodeResult {
            at: At { node: one.node.clone(), role: one.role.clone() },
            from: None,
            to: None,
            release: None,
            state,
            downtime_ms: 0,
            tool_downtime_ms: 0,
            bytes_sent: 0,
            next: None,
        };
        let nodes: Vec<NodeResult> = self.plan.nodes().map(result).collect();
        for result in &nodes {
            self.note(Event::NodeDone { result: result.clone() })?;
        }
        self.note(Event::RolloutFinished { outcome, nodes: nodes.clone(), failures: Vec::new() })?;
        let finished = Finished { outcome, nodes, failures: Vec::new(), paused: false, touched: true };
        if outcome == Outcome::Succeeded && !self.context.is_json() {
            print(&finished_text(&id, self.plan, &finished))?;
        }
        Ok(code(&finished))
    }
}

/// Asks until it holds; the error if it never does, or not in time.
async fn holds(
    ask: impl AsyncFn() -> Result<Held, NodeError>,
    refused: impl Fn(String) -> NodeError,
) -> Result<(), NodeError> {
    let begun = Instant::now();
    loop {
        let why = match ask().await? {
            Held::Yes => return Ok(()),
            Held::Never(why) => return Err(refused(why)),
            Held::NotYet(why) | Held::Moving { what: why, .. } => why,
        };
        if begun.elapsed() >= WITHIN {
            return Err(refused(why));
        }
        tokio::time::sleep(PAUSE).await;
    }
}
