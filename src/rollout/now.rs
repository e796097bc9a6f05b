//! `rollback --now`: every node at the same time, without waves and without gates.
//!
//! For whoever is on call: the prior release is on each node's disk, and the node does the rest by itself.

use std::cell::RefCell;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;

use super::engine::{Finished, Run};
use super::event::NodeState;
use super::node::NodeRun;
use super::ports::{Nodes, Person, Recorder};
use super::track::Track;

impl<N: Nodes, R: Recorder, P: Person> Run<'_, N, R, P> {
    /// Takes the nodes of a plan that goes back there at once.
    pub async fn run_now(&self) -> Finished {
        let tracks: Vec<RefCell<Track>> =
            self.plan.nodes().map(|node| RefCell::new(Track::new(node.clone()))).collect();
        let all: Vec<&RefCell<Track>> = tracks.iter().collect();
        let begun = match self.begin(&all) {
            Ok(()) => self.lock(&all).await,
            Err(failures) => Err(failures),
        };
        if let Err(failures) = begun {
            self.failures.borrow_mut().extend(failures);
        } else {
            let mut going: FuturesUnordered<_> = all.iter().map(|track| self.now(track)).collect();
            while going.next().await.is_some() {}
        }
        self.finish(&all, false).await
    }

    async fn now(&self, track: &RefCell<Track>) {
        let node = NodeRun { run: self, track, kind: self.plan.kind };
        if let Err(failed) = node.jump().await {
            self.failures.borrow_mut().push(failed);
            let mut track = track.borrow_mut();
            let at = track.at();
            track.state = NodeState::NeedsPerson;
            track.next = Some(format!("windlass status --nodes {}", at.node));
        }
        self.node_done(track);
    }
}
