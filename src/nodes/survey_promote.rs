//! What a promotion would change on each node.

use std::collections::BTreeMap;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;

use super::change::Contents;
use super::error::node_error;
use super::survey::{Problem, Survey, Surveyor, bad_release, healthy, inputs, unconfirmed_from};
use super::target::Target;
use crate::adapters::{self, Upgrade};
use crate::agent::{Preview, PreviewRequest, Request, RoleStatus};
use crate::inventory::SupervisorKind;
use crate::model::{Digest, NodeName, Reference, Role};
use crate::remote::{Secrets, context};
use crate::rollout::{At, Candidate, Fault, Goal, NodeError};
use crate::store::Store;

impl Surveyor<'_> {
    /// Candidates for other bundles.
    pub async fn promote(
        &self,
        store: &Store,
        secrets: &Secrets,
        targets: &BTreeMap<Role, Target>,
        allow_bad: bool,
    ) -> Survey {
        let kinds = targets.iter().map(|(role, target)| (role, target.kind()));
        let mut survey = Survey { forming: self.forming(kinds), ..Survey::default() };
        let mut requests: BTreeMap<At, PreviewRequest> = BTreeMap::new();
        for (role, target) in targets {
            let names = target.secrets(secrets.names());
            let with = self.wanted.iter().filter(|(_, roles)| roles.contains(role));
            for node in with.filter_map(|(name, _)| self.cluster.find(name.as_str())) {
                let mut request = target.request(context(self.cluster, node, survey.forming.contains(role)));
                match secrets.needed(&node.root, &request, &names) {
                    Ok(found) => request.secrets = found,
                    Err(error) => {
                        let mut problem = NodeError::new(Fault::Here, "secret", error.to_string());
                        problem.line.help = error.help();
                        let (node, role) = (node.name.clone(), Some(role.clone()));
                        survey.problems.push(Problem { node, role, error: problem });
                        // The other nodes lack the same.
                        break;
                    }
                }
                requests.insert(At { node: node.name.clone(), role: role.clone() }, request);
            }
        }
        if !survey.problems.is_empty() {
            return survey;
        }
        let ask = async |node: &NodeName, role: &Role| {
            let at = At { node: node.clone(), role: role.clone() };
            let request = requests.get(&at).cloned();
            let answer = match (self.fleet.member(node), request) {
                (Ok(member), Some(request)) => {
                    let request = Request::Preview(Box::new(request));
                    let answer = member.remote.call::<Preview>(request).await;
                    match answer {
                        Ok(preview) => Ok(preview),
                        Err(error) => Err(node_error(&error)),
                    }
                }
                (Err(error), _) => Err(error),
                (Ok(_), None) => Err(super::error::not_connected(node)),
            };
            (at, answer)
        };
        let mut asking = FuturesUnordered::new();
        for (node, roles) in &self.wanted {
            for role in roles {
                if targets.contains_key(role) {
                    asking.push(ask(node, role));
                }
            }
        }
        let mut answers = BTreeMap::new();
        while let Some((at, answer)) = asking.next().await {
            answers.insert(at, answer);
        }
        drop(asking);
        let mut known = Known { store, contents: BTreeMap::new() };
        for (at, answer) in answers {
            match answer {
                Ok(preview) => {
                    let Some(target) = targets.get(&at.role) else { continue };
                    let found = self.candidate(
                        &at,
                        target,
                        &preview,
                        (allow_bad, survey.forming.contains(&at.role)),
                        &mut known,
                    );
                    match found {
                        Ok(candidate) => survey.candidates.push(candidate),
                        Err(error) => {
                            let (node, role) = (at.node.clone(), Some(at.role.clone()));
                            survey.problems.push(Problem { node, role, error });
                        }
                    }
                    survey.previews.insert(at, preview);
                }
                Err(error) => {
                    let (node, role) = (at.node, Some(at.role));
                    survey.problems.push(Problem { node, role, error });
                }
            }
        }
        survey
    }

    fn candidate(
        &self,
        at: &At,
        target: &Target,
        preview: &Preview,
        (allow_bad, forming): (bool, bool),
        known: &mut Known<'_>,
    ) -> Result<Candidate, NodeError> {
        let status = self.role(&at.node, &at.role)?;
        let digest = target.bundle.tagged.digest;
        // Going back marks what is left; that is no reason to refuse what is current.
        if let Some(status) = status.filter(|_| !preview.same && !allow_bad) {
            bad_release(at, status, |release| {
                status.staged.iter().any(|one| one.release == *release && one.digest == digest)
            })?;
        }
        let from = status.and_then(|status| status.release.clone());
        let on_node: Vec<Digest> =
            preview.bundles.iter().copied().filter(|bundle| known.load(bundle)).collect();
        let current = status.and_then(|status| status.digest).filter(|digest| known.load(digest));
        let nothing = Contents::default();
        let current = current.and_then(|digest| known.contents.get(&digest)?.as_ref()).unwrap_or(&nothing);
        let there: Vec<&Contents> =
            on_node.iter().filter_map(|digest| known.contents.get(digest)?.as_ref()).collect();
        // What runs is told to read its conf again, where nothing else has changed; whatever is wrong is restarted.
        // Another supervisor than the embedded one names the release in what it was configured with.
        let told = target.record.service.as_ref().is_some_and(|service| service.reload.is_some())
            && self
                .cluster
                .find(at.node.as_str())
                .is_some_and(|node| node.supervisor == SupervisorKind::Pidfile);
        let reloads = told
            && status.is_some_and(healthy)
            && !preview.service_changed
            && target.contents.is_other_conf(current);
        let runs_something = status.is_some_and(|status| status.kind.is_some());
        let (point_of_no_return, together) = going(at, status, target)?;
        Ok(Candidate {
            node: at.node.clone(),
            role: at.role.clone(),
            zone: self.zone(&at.node),
            unconfirmed_from: unconfirmed_from(status, preview.same),
            from,
            goal: Goal::Bundle(digest),
            to: Some(target.bundle.tagged.version.clone()),
            on_target: preview.same,
            up: self.ready.contains(at),
            healthy: status.is_some_and(healthy) && self.ready.contains(at),
            service: target.record.service.is_some() || runs_something,
            drains: self.drains(status) && !reloads,
            reloads,
            rank: self.rank(at),
            change: target.contents.change(current, &there),
            inputs: inputs(self.cluster, &at.node, forming),
            point_of_no_return,
            together,
            joint: target.record.service.as_ref().is_some_and(|service| adapters::needs_peers(service.kind)),
        })
    }
}

/// Whether a service's data has no way back from the target's version, and whether all of its kind stop before one
/// starts; an error if its data cannot come there.
fn going(at: &At, status: Option<&RoleStatus>, target: &Target) -> Result<(bool, bool), NodeError> {
    let Some((service, status)) = target.record.service.as_ref().zip(status) else {
        return Ok((false, false));
    };
    let (from, to) = (status.opened.as_deref().or(status.product.as_deref()), target.product());
    let upgrade = adapters::upgrade(service.kind, from, to.as_deref()).map_err(|error| {
        let message = format!("{} on {}: {error}", at.role, at.node);
        let mut made = NodeError::new(Fault::Refused, "version-path", message);
        made.line.help.push(error.help);
        made
    })?;
    let together = adapters::together(service.kind, status.product.as_deref(), to.as_deref());
    Ok((upgrade == Upgrade::PointOfNoReturn, together))
}

/// Bundles that nodes have and the store still knows, read once.
struct Known<'a> {
    store: &'a Store,
    contents: BTreeMap<Digest, Option<Contents>>,
}

impl Known<'_> {
    /// Whether the store knows it; reads it if it does.
    fn load(&mut self, digest: &Digest) -> bool {
        let store = self.store;
        self.contents
            .entry(*digest)
            .or_insert_with(|| {
                let bundle = store.bundle(&Reference::Digest(*digest)).ok()?;
                let layers: Result<Vec<_>, _> =
                    bundle.manifest.layers.iter().map(|layer| store.layer(layer)).collect();
                let record = store.record(&bundle).ok();
                Some(Contents::of(&bundle, &layers.ok()?, record.as_ref()))
            })
            .is_some()
    }
}
