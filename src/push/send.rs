//! One bundle to one node: tables first, then what it lacks.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use tokio::sync::OnceCell;

use super::error::PushError;
use super::items::{Lacking, Piece, PieceKey, is_covered};
use super::observer::{Observer, Phase};
use super::pairs::{Pair, pairs};
use super::patches::{Batch, Patches};
use super::pool::Pool;
use super::source::{At, Layers, Source, read_table};
use crate::agent::wire::{
    Item, MAX_PATCH, Missing, PUSH_FORMAT, PatchedToc, PushLine, ReceiveHeader, make_patch,
};
use crate::agent::{Have, Request, WantedObject};
use crate::bundle::manifest::Layer;
use crate::fs::{DirLock, LockKind};
use crate::model::{Cancel, Digest, Reference};
use crate::remote::{Receiving, Remote, RemoteError};
use crate::store::{Store, StoreError, StoredBundle};

/// What all nodes share of what was read.
const POOL: u64 = 64 << 20;

/// What one node holds of it at a time: a frame on its way, and the next one.
const NODE_SHARE: u64 = 10 << 20;

/// Tables from this size on may travel as patches.
const TABLE: u64 = 4 << 10;

/// Sends bundles of one store to any number of nodes.
#[derive(Debug)]
pub struct Pusher(Arc<State>);

#[derive(Debug)]
struct State {
    store: Store,
    cancel: Cancel,
    pool: Pool<PieceKey>,
    layers: Layers,
    sources: Once<Digest, Source>,
    plans: Once<(Digest, Digest), Plan>,
    patches: Once<(Digest, Digest), Patches>,
    /// Patches of tables of contents, by the digests of both; empty where one is not worth it.
    tables: Once<(Digest, Digest), Vec<u8>>,
    /// gc must not take what is being sent.
    _lock: DirLock,
}

/// What is made once for all who ask for it.
type Once<K, V> = Mutex<HashMap<K, Arc<OnceCell<Arc<V>>>>>;

/// Which files of a bundle may be patched from another.
#[derive(Debug)]
struct Plan {
    old: Arc<Source>,
    pairs: Vec<Pair>,
}

/// What came of sending.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Bytes of the stream, all of it.
    pub bytes: u64,
    /// Contents that travelled.
    pub objects: u64,
    /// Contents that were there.
    pub reused: u64,
    /// Contents that travelled as patches.
    pub patches: u64,
    /// Making the patches took so long; zero where they were there.
    pub patching: Duration,
}

impl Pusher {
    /// Sends what is in `store`, to about `parallel` nodes at a time; gc waits until this is dropped.
    pub fn new(store: Store, parallel: usize, cancel: &Cancel) -> Result<Self, PushError> {
        let lock = store.lock(LockKind::Shared)?;
        Ok(Self(Arc::new(State {
            store,
            cancel: cancel.clone(),
            // Where there is only one node nobody else wants what it had.
            pool: Pool::new(if parallel <= 1 { NODE_SHARE } else { POOL.max(parallel as u64 * NODE_SHARE) }),
            layers: Layers::default(),
            sources: Mutex::default(),
            plans: Mutex::default(),
            patches: Mutex::default(),
            tables: Mutex::default(),
            _lock: lock,
        })))
    }

    /// The store.
    pub fn store(&self) -> &Store {
        &self.0.store
    }

    /// Makes sure that `remote` has all of a bundle's contents. The node's lock should be held.
    pub async fn send(
        &self,
        remote: &Remote,
        bundle: Digest,
        observer: &dyn Observer,
    ) -> Result<Sent, PushError> {
        let source = self.source(bundle).await?;
        let sending = Sending { state: &self.0, pusher: self, remote, source, observer };
        sending.run().await
    }

    /// Opens a bundle ahead of its sending, which tells what is wrong with it.
    pub(super) async fn open(&self, bundle: Digest) {
        let _ = self.source(bundle).await;
    }

    async fn source(&self, digest: Digest) -> Result<Arc<Source>, PushError> {
        let state = Arc::clone(&self.0);
        once(&self.0.sources, digest, async || {
            blocking(move || Ok(Source::open(&state.store, digest, &state.layers)?)).await
        })
        .await
    }

    async fn plan(&self, old: Arc<Source>, new: Arc<Source>) -> Result<Arc<Plan>, PushError> {
        let key = (old.digest, new.digest);
        once(&self.0.plans, key, async || {
            blocking(move || {
                let pairs = pairs(&old, &new);
                Ok(Plan { old, pairs })
            })
            .await
        })
        .await
    }

    async fn patches(
        &self,
        plan: &Arc<Plan>,
        new: &Arc<Source>,
        observer: &dyn Observer,
    ) -> Result<Arc<Patches>, PushError> {
        let (state, plan, new) = (Arc::clone(&self.0), Arc::clone(plan), Arc::clone(new));
        let role = new.role.clone();
        once(&self.0.patches, (plan.old.digest, new.digest), async || {
            let made =
                blocking(move || Patches::get(&state.store, &plan.old, &new, &plan.pairs, &state.cancel));
            let made = made.await?;
            if !made.took.is_zero() {
                observer.patched(&role, made.count(), made.bytes(), made.took);
            }
            Ok(made)
        })
        .await
    }
}

async fn once<K: Eq + Hash, V>(
    all: &Once<K, V>,
    key: K,
    make: impl AsyncFnOnce() -> Result<V, PushError>,
) -> Result<Arc<V>, PushError> {
    let cell = Arc::clone(all.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default());
    cell.get_or_try_init(async || Ok(Arc::new(make().await?))).await.cloned()
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, PushError> + Send + 'static,
) -> Result<T, PushError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => Err(PushError::Internal(error.to_string())),
    }
}

/// The manifests of bundles; `None` if the store lacks one.
fn described(store: &Store, bundles: &[Digest]) -> Result<Option<Vec<StoredBundle>>, PushError> {
    let found = bundles.iter().map(|digest| store.bundle(&Reference::Digest(*digest)));
    match found.collect() {
        Ok(found) => Ok(Some(found)),
        Err(StoreError::NoBundle { .. } | StoreError::NoBlob { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// One bundle on its way to one node.
struct Sending<'a> {
    state: &'a Arc<State>,
    pusher: &'a Pusher,
    remote: &'a Remote,
    source: Arc<Source>,
    observer: &'a dyn Observer,
}

/// What may travel as patches to one node.
struct Patchable {
    plan: Arc<Plan>,
    places: Vec<Pair>,
}

impl Sending<'_> {
    fn phase(&self, phase: Phase) {
        self.observer.phase(self.remote.node(), Some(&self.source.role), phase);
    }

    async fn run(&self) -> Result<Sent, PushError> {
        self.phase(Phase::Tables);
        let mut stream = self.remote.receive().await?;
        let missing = self.tables(&mut stream).await?;
        self.phase(Phase::Sending);
        let mut lacking = Lacking::new(&self.source, &missing);
        let patchable = self.patchable(&missing, &mut lacking).await?;
        let plain = lacking.pieces(&self.source);
        let estimate: u64 = plain.iter().map(|piece| piece.estimate(&self.source)).sum();
        self.total(stream.sent() + estimate);
        let (mut patches, mut patching) = (0, Duration::ZERO);
        match patchable {
            None => self.pieces(&mut stream, &plain).await?,
            Some(patchable) => {
                // What has no partner travels while the patches are made.
                let making = async {
                    let (made, there) = tokio::join!(
                        self.pusher.patches(&patchable.plan, &self.source, self.observer),
                        self.there(&patchable)
                    );
                    Ok::<_, PushError>((made?, there?))
                };
                let plainly = async {
                    self.pieces(&mut stream, &plain).await?;
                    self.phase(Phase::Patches);
                    Ok(())
                };
                let ((), (made, there)) = tokio::try_join!(plainly, making)?;
                self.phase(Phase::Sending);
                patching = made.took;
                let covered = Lacking::covered(&self.source, &plain);
                let wanted = patchable
                    .places
                    .iter()
                    .zip(there)
                    .filter(|(pair, _)| !is_covered(&self.source, &covered, pair.new));
                let (by_patch, rest): (Vec<_>, Vec<_>) =
                    wanted.partition(|(pair, there)| *there && made.size(pair.new).is_some());
                let places: Vec<At> = by_patch.iter().map(|(pair, _)| pair.new).collect();
                let bytes: u64 = places.iter().filter_map(|at| made.size(*at)).sum();
                self.total(stream.sent() + bytes);
                let mut left: Vec<At> = rest.iter().map(|(pair, _)| pair.new).collect();
                left.extend(
                    self.batches(&mut stream, &made, places, |made, places| Ok(made.some_patches(places)))
                        .await?,
                );
                patches = (by_patch.len() + rest.len() - left.len()) as u64;
                left.sort_unstable();
                let left = self.batches(&mut stream, &made, left, Patches::some_contents).await?;
                let rest = Lacking::of(&self.source, &left).pieces(&self.source);
                let more: u64 = rest.iter().map(|piece| piece.estimate(&self.source)).sum();
                self.total(stream.sent() + more);
                self.pieces(&mut stream, &rest).await?;
            }
        }
        let received = self.end(&mut stream).await?;
        Ok(Sent {
            bytes: stream.sent(),
            objects: received.objects,
            reused: received.reused,
            patches,
            patching,
        })
    }

    fn total(&self, bytes: u64) {
        self.observer.total(self.remote.node(), &self.source.role, bytes);
    }

    async fn send(&self, stream: &mut Receiving, bytes: Bytes) -> Result<(), PushError> {
        let count = bytes.len() as u64;
        stream.send(bytes).await.map_err(|error| self.refused(error))?;
        self.observer.sent(self.remote.node(), count);
        Ok(())
    }

    async fn line(&self, stream: &mut Receiving) -> Result<PushLine, PushError> {
        stream.line().await.map_err(|error| self.refused(error))
    }

    /// What a node says of contents that are not what they should be is the store's fault.
    fn refused(&self, error: RemoteError) -> PushError {
        match error {
            RemoteError::Agent { .. } if matches!(error.kind(), "digest" | "wire" | "bundle") => {
                let (node, role) = (self.remote.node().clone(), self.source.role.clone());
                PushError::Damaged { node, role, source: Box::new(error) }
            }
            other => other.into(),
        }
    }

    fn out_of_turn(&self, line: &PushLine) -> PushError {
        let what = match line {
            PushLine::Tocs(_) => "it asked for tables out of turn",
            PushLine::Missing(_) => "it told what it lacks out of turn",
            PushLine::Done(_) => "it was done before everything was sent",
        };
        PushError::Protocol { node: self.remote.node().clone(), what: what.to_owned() }
    }

    /// Header, manifest, config and the tables that the node wants; gives what it lacks.
    async fn tables(&self, stream: &mut Receiving) -> Result<Missing, PushError> {
        let (unasked, patched) = self.unasked().await?;
        let source = &self.source;
        let header = ReceiveHeader {
            format: PUSH_FORMAT,
            bundle: source.digest,
            manifest: source.manifest.len() as u64,
            config: source.config.len() as u64,
            tocs: unasked.clone(),
            patched_tocs: patched.iter().map(|(patched, _)| *patched).collect(),
            token: self.remote.token(),
        };
        let mut first = BytesMut::new();
        first
            .put_slice(&serde_json::to_vec(&header).map_err(|error| PushError::Internal(error.to_string()))?);
        first.put_u8(b'\n');
        first.put_slice(&source.manifest);
        first.put_slice(&source.config);
        self.send(stream, first.freeze()).await?;
        for layer in unasked {
            self.table(stream, layer).await?;
        }
        for (_, patch) in patched {
            self.send(stream, Bytes::copy_from_slice(&patch)).await?;
        }
        let asked = match self.line(stream).await? {
            PushLine::Tocs(asked) => asked,
            other => return Err(self.out_of_turn(&other)),
        };
        for layer in asked {
            if layer >= self.source.layers.len() {
                let what = format!("it asked for the table of layer {layer}");
                return Err(PushError::Protocol { node: self.remote.node().clone(), what });
            }
            self.table(stream, layer).await?;
        }
        match self.line(stream).await? {
            PushLine::Missing(missing) => Ok(missing),
            other => Err(self.out_of_turn(&other)),
        }
    }

    async fn table(&self, stream: &mut Receiving, layer: usize) -> Result<(), PushError> {
        let (state, source) = (Arc::clone(self.state), Arc::clone(&self.source));
        let table = blocking(move || Ok(read_table(&state.store, &source.described.layers[layer])?));
        self.send(stream, table.await?.into()).await
    }

    /// Layers whose tables no bundle of the node had when it was connected to, and those of them that travel as
    /// patches, with their patches: the node will ask for the tables.
    async fn unasked(&self) -> Result<(Vec<usize>, Vec<(PatchedToc, Arc<Vec<u8>>)>), PushError> {
        let (state, there) = (Arc::clone(self.state), self.remote.bundles().to_vec());
        // What the store does not have any more it cannot tell about; then the node asks.
        let Some(there) = blocking(move || described(&state.store, &there)).await? else {
            return Ok((Vec::new(), Vec::new()));
        };
        let like = there.iter().rev().find(|bundle| bundle.tagged.role == self.source.role);
        let known: HashSet<Digest> = there
            .iter()
            .flat_map(|bundle| bundle.manifest.layers.iter().map(|layer| layer.place.digest))
            .collect();
        let (mut plain, mut patched) = (Vec::new(), Vec::new());
        for (layer, described) in self.source.described.layers.iter().enumerate() {
            let place = described.place;
            if known.contains(&place.digest) {
                continue;
            }
            match like.and_then(|old| old.manifest.layers.get(layer)) {
                Some(old) if place.size >= TABLE => {
                    let patch = self.table_patch(old, described).await?;
                    if patch.is_empty() {
                        plain.push(layer);
                    } else {
                        let (from, size) = (old.place.digest, patch.len() as u64);
                        patched.push((PatchedToc { layer, from, size }, patch));
                    }
                }
                _ => plain.push(layer),
            }
        }
        Ok((plain, patched))
    }

    /// What turns the table of the layer `old` into that of `new`; empty if it saves little.
    async fn table_patch(&self, old: &Layer, new: &Layer) -> Result<Arc<Vec<u8>>, PushError> {
        let key = (old.place.digest, new.place.digest);
        let (state, old, new) = (Arc::clone(self.state), old.clone(), new.clone());
        once(&self.state.tables, key, async || {
            blocking(move || {
                if old.place.size.max(new.place.size) > MAX_PATCH {
                    return Ok(Vec::new());
                }
                let (from, to) = (read_table(&state.store, &old)?, read_table(&state.store, &new)?);
                let patch = make_patch(&from, &to, 3).unwrap_or_default();
                Ok(if patch.len() * 10 < to.len() * 8 { patch } else { Vec::new() })
            })
            .await
        })
        .await
    }

    /// What may be patched from the newest bundle of this role that the node has; it is taken out of `lacking`.
    async fn patchable(
        &self,
        missing: &Missing,
        lacking: &mut Lacking,
    ) -> Result<Option<Patchable>, PushError> {
        let index = self.state.store.index()?;
        let older = index.bundles().filter(|one| {
            one.role == self.source.role
                && one.digest != self.source.digest
                && missing.bundles.contains(&one.digest)
        });
        let Some(older) = older.last() else { return Ok(None) };
        let old = self.pusher.source(older.digest).await?;
        let plan = self.pusher.plan(old, Arc::clone(&self.source)).await?;
        let places: Vec<Pair> = plan.pairs.iter().filter(|pair| lacking.has(pair.new)).copied().collect();
        for pair in &places {
            lacking.remove(pair.new);
        }
        Ok(if places.is_empty() { None } else { Some(Patchable { plan, places }) })
    }

    /// Which old contents the node really has: a bundle may be known and not be complete.
    async fn there(&self, patchable: &Patchable) -> Result<Vec<bool>, PushError> {
        let wanted = patchable.places.iter().map(|pair| WantedObject {
            digest: pair.old_id.digest,
            size: pair.old_size,
            executable: pair.old_id.executable,
        });
        let have: Have = self.remote.call(Request::Have { objects: wanted.collect() }).await?;
        let mut there = vec![true; patchable.places.len()];
        for index in have.missing {
            if let Some(there) = there.get_mut(index) {
                *there = false;
            }
        }
        Ok(there)
    }

    /// Sends pieces, each while the next one is read.
    async fn pieces(&self, stream: &mut Receiving, pieces: &[Piece]) -> Result<(), PushError> {
        let mut next = match pieces.first() {
            Some(piece) => Some(self.piece(piece).await?),
            None => None,
        };
        for following in pieces.iter().skip(1).map(Some).chain([None]) {
            let Some(bytes) = next.take() else { break };
            let reading = async {
                match following {
                    Some(piece) => self.piece(piece).await.map(Some),
                    None => Ok(None),
                }
            };
            let ((), read) = tokio::try_join!(self.send(stream, bytes), reading)?;
            next = read;
        }
        Ok(())
    }

    async fn piece(&self, piece: &Piece) -> Result<Bytes, PushError> {
        let (source, wanted) = (Arc::clone(&self.source), piece.clone());
        let make = async |mut buffer: Vec<u8>| {
            blocking(move || {
                wanted.read(&source, &mut buffer)?;
                Ok(buffer)
            })
            .await
        };
        self.state.pool.get(piece.key(&self.source), piece.bound(&self.source), make).await
    }

    /// Sends what `batch` makes of places, some at a time; gives those that are left.
    async fn batches(
        &self,
        stream: &mut Receiving,
        patches: &Arc<Patches>,
        places: Vec<At>,
        batch: fn(&Patches, &[At]) -> Result<Batch, PushError>,
    ) -> Result<Vec<At>, PushError> {
        let (mut left, mut rest) = (Vec::new(), places);
        while !rest.is_empty() {
            let patches = Arc::clone(patches);
            let (made, after) = blocking(move || {
                let made = batch(&patches, &rest)?;
                let after = rest.split_off(made.count);
                Ok((made, after))
            })
            .await?;
            self.send(stream, made.items.into()).await?;
            left.extend(made.left);
            rest = after;
        }
        Ok(left)
    }

    async fn end(&self, stream: &mut Receiving) -> Result<crate::agent::wire::Received, PushError> {
        self.send(stream, Item::End.head().into()).await?;
        match self.line(stream).await? {
            PushLine::Done(received) => Ok(received),
            other => Err(self.out_of_turn(&other)),
        }
    }
}
