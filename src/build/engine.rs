//! From recipes to bundles in the store.
//!
//! 1. Find: artifacts, conf; what each layer would be made from, and its key.
//! 2. Make the layers that are not in the store, in nameless files.
//! 3. Compose each role's manifest from its layers.
//! 4. Commit: names for blobs, caches, windlass.lock, and last the index.
//!
//! # Invariants
//!
//! * Nothing in the store or the project's folder changes before 4.
//! * The index is replaced once, after everything it names is on the disk.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use camino::Utf8Path;

use super::artifacts::{self, Found};
use super::blocks::BLOCK;
use super::collect::Shared;
use super::commit::{Commit, Made};
use super::compose::{self, Part, Ready};
use super::source::{ArtifactSource, ConfRead, read_conf};
use super::work::{self, Done, Job, Source, Workshop};
use super::{Budget, BuildError, Observer, Options, Stages, Writer, lock};
use crate::archive::Limits;
use crate::fs::LockKind;
use crate::model::{Buffers, BundlePath, Cancel, Digest, Role};
use crate::recipe::{Lock, Project, Spec};
use crate::store::{ArtifactCache, LayerRecord, Store};

/// One bundle that a build made or found unchanged.
#[derive(Clone, Debug)]
pub struct Built {
    /// The role.
    pub role: Role,
    /// The version it has in the index.
    pub version: crate::model::Version,
    /// Of the manifest.
    pub digest: Digest,
    /// Bytes of all its blobs.
    pub size: u64,
    /// Regular files and hard links.
    pub files: u64,
    /// Bytes of the files.
    pub unpacked_size: u64,
    /// Its layers, and whether each was in the store before.
    pub layers: Vec<(LayerRecord, bool)>,
    /// Whether the index had it already.
    pub unchanged: bool,
    /// From the build's start until it was composed.
    pub duration: Duration,
}

/// What a build did.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// In the order of the roles' names.
    pub bundles: Vec<Built>,
    /// Artifacts whose content was read.
    pub artifacts_read: usize,
    /// Artifacts that were added to windlass.lock.
    pub locked: Vec<BundlePath>,
    /// What a person should know.
    pub warnings: Vec<String>,
    /// CPU time of the stages, in the order of [`super::Stage::ALL`].
    pub stages: [Duration; 8],
}

/// A role's layers as they are planned.
struct Plan<'a> {
    spec: &'a Spec,
    artifacts: Vec<Arc<ArtifactSource>>,
    conf: Vec<ConfRead>,
}

/// Builds the bundles of `roles` in the project at `folder`.
///
/// `lock` is windlass.lock as it is; the outcome's new entries were written to it.
pub fn build(
    project: &Project,
    folder: &Utf8Path,
    roles: &[Role],
    lock: &Lock,
    options: &Options,
    cancel: &Cancel,
    observer: &dyn Observer,
) -> Result<Outcome, BuildError> {
    let started = Instant::now();
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(options.jobs)
        .thread_name(|index| format!("build-{index}"))
        .build()
        .map_err(|source| BuildError::Threads { jobs: options.jobs, source })?;
    let plans = plan(project, folder, roles, options)?;
    let store = Store::create(&folder.join("out"), cancel)?;
    let _in_use = store.lock(LockKind::Shared)?;
    let build = Build { folder, store, lock, options, cancel, observer, started };
    pool.install(|| build.run(&plans))
}

fn plan<'a>(
    project: &'a Project,
    folder: &Utf8Path,
    roles: &[Role],
    options: &Options,
) -> Result<Vec<Plan<'a>>, BuildError> {
    let install = folder.join("install");
    let specs = roles.iter().filter_map(|role| project.recipes.get(role));
    specs
        .map(|spec| {
            let artifact = |unpack| ArtifactSource::new(unpack, &install, options.level).map(Arc::new);
            Ok(Plan {
                spec,
                artifacts: spec.unpack.iter().map(artifact).collect::<Result<_, _>>()?,
                conf: spec
                    .conf
                    .iter()
                    .map(|conf| read_conf(conf, folder, &project.versions, options.level))
                    .collect::<Result<_, _>>()?,
            })
        })
        .collect()
}

/// What identifies a layer before it is made.
type Key = (Digest, LayerOf);

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum LayerOf {
    Artifact(BundlePath),
    Files(Digest),
}

struct Build<'a> {
    folder: &'a Utf8Path,
    store: Store,
    lock: &'a Lock,
    options: &'a Options,
    cancel: &'a Cancel,
    observer: &'a dyn Observer,
    started: Instant,
}

impl Build<'_> {
    fn run(&self, plans: &[Plan<'_>]) -> Result<Outcome, BuildError> {
        let cache = Mutex::new(ArtifactCache::load(&self.store));
        let mut found = self.find(plans, &cache)?;
        let new = self.hash_first(plans, &mut found, &cache)?;
        self.check_lock(&found)?;

        let mut parts = self.cached_parts(plans, &found);
        let jobs = jobs(plans, &found, &parts);
        self.observe(plans, &jobs);
        let shared = Arc::new(Shared {
            budget: Arc::new(Budget::new(self.options.memory, self.options.jobs)),
            buffers: Arc::new(Buffers::sized(BLOCK)),
            cancel: self.cancel.clone(),
            level: self.options.level,
            stages: Stages::default(),
        });
        let dir = self.store.blobs();
        let writer = Writer::new(Arc::clone(&shared), &dir)?;
        let workshop = Workshop {
            shared: &shared,
            dir: &dir,
            writer: &writer,
            limits: Limits { max_unpacked: self.options.max_unpacked },
            observer: self.observer,
        };
        let (keys, work): (Vec<Key>, Vec<Job>) = jobs.into_iter().unzip();
        let done = work::make_all(&work, workshop)?;
        let mut read: BTreeSet<BundlePath> = new;
        let mut made = Made::default();
        let mut warnings = Vec::new();
        for (key, mut done) in keys.into_iter().zip(done) {
            warnings.append(&mut done.warnings);
            if let LayerOf::Artifact(name) = &key.1 {
                read.insert(name.clone());
            }
            let part = self.take_in(&key, done, &mut found, &cache, &mut made)?;
            parts.insert(key, part);
        }
        self.check_lock(&found)?;
        let bundles = self.compose(plans, &found, &parts, workshop, &mut made)?;
        self.cancel.check()?;
        writer.finish()?;
        let commit = Commit { folder: self.folder, store: &self.store, options: self.options };
        let mut cache = cache.into_inner().unwrap_or_else(PoisonError::into_inner);
        let artifacts = found.values().collect::<Vec<_>>();
        let (bundles, locked) = commit.run(&bundles, made, &artifacts, &mut cache)?;
        Ok(Outcome { bundles, artifacts_read: read.len(), locked, warnings, stages: shared.stages.totals() })
    }

    fn find(
        &self,
        plans: &[Plan<'_>],
        cache: &Mutex<ArtifactCache>,
    ) -> Result<BTreeMap<BundlePath, Found>, BuildError> {
        let cache = cache.lock().unwrap_or_else(PoisonError::into_inner);
        let unpacks = plans.iter().flat_map(|plan| &plan.spec.unpack);
        artifacts::find(unpacks, &self.folder.join("install"), &cache)
    }

    /// Hashes the artifacts of which the store may have the layer; the others are hashed as they are
    /// unpacked. Says which were read.
    fn hash_first(
        &self,
        plans: &[Plan<'_>],
        found: &mut BTreeMap<BundlePath, Found>,
        cache: &Mutex<ArtifactCache>,
    ) -> Result<BTreeSet<BundlePath>, BuildError> {
        let likely: BTreeSet<&BundlePath> = plans
            .iter()
            .flat_map(|plan| &plan.artifacts)
            .filter(|source| self.store.knows_options(&source.options))
            .map(|source| &source.name)
            .collect();
        let unknown = found.values_mut().filter(|one| one.digest.is_none() && likely.contains(&one.name));
        let unknown: Vec<&mut Found> = unknown.collect();
        let names = unknown.iter().map(|one| one.name.clone()).collect();
        artifacts::hash(unknown, cache, self.cancel, &|_, _| ())?;
        Ok(names)
    }

    fn check_lock(&self, found: &BTreeMap<BundlePath, Found>) -> Result<(), BuildError> {
        for one in found.values() {
            if let Some(locked) = one.locked() {
                lock::check(self.lock, &one.name, locked, self.options.locked)?;
            } else if self.options.locked && self.lock.get(one.name.as_str()).is_none() {
                return Err(lock::LockMismatch::Unrecorded { name: one.name.clone() }.into());
            }
        }
        Ok(())
    }

    /// The layers that the store has.
    fn cached_parts(&self, plans: &[Plan<'_>], found: &BTreeMap<BundlePath, Found>) -> BTreeMap<Key, Part> {
        let mut parts = BTreeMap::new();
        for plan in plans {
            for source in &plan.artifacts {
                let Some(digest) = found.get(&source.name).and_then(|one| one.digest) else { continue };
                if let Some(record) = self.store.cached_layer(&source.options, &digest) {
                    parts.insert(artifact_key(source), Part::cached(record));
                }
            }
            for conf in &plan.conf {
                if let Some(record) = self.store.cached_layer(&conf.source.options, &conf.source.content) {
                    parts.insert(files_key(conf), Part::cached(record));
                }
            }
        }
        parts
    }

    fn observe(&self, plans: &[Plan<'_>], jobs: &[(Key, Job)]) {
        // Conf is small and in memory already; only artifacts are worth a bar.
        let bytes = |role: &Role| {
            let artifacts = jobs.iter().filter(|(_, job)| matches!(job.source, Source::Artifact(_)));
            artifacts.filter(|(_, job)| job.roles.contains(role)).map(|(_, job)| job.size).sum()
        };
        let roles: Vec<(Role, u64)> =
            plans.iter().map(|plan| (plan.spec.role.clone(), bytes(&plan.spec.role))).collect();
        self.observer.planned(&roles);
    }

    /// Takes in a layer that was made from `key`; gives the part that roles take.
    fn take_in(
        &self,
        key: &Key,
        done: Done,
        found: &mut BTreeMap<BundlePath, Found>,
        cache: &Mutex<ArtifactCache>,
        made: &mut Made,
    ) -> Result<Part, BuildError> {
        let content = match &key.1 {
            LayerOf::Files(content) => *content,
            LayerOf::Artifact(name) => {
                let one = found.get_mut(name).ok_or_else(|| BuildError::Internal(format!("lost {name}")))?;
                match done.digest {
                    Some(digest) => artifacts::remember(one, digest, cache)?,
                    None => artifacts::check_unchanged(one)?,
                }
                one.digest.ok_or_else(|| BuildError::Internal(format!("{name} was not hashed")))?
            }
        };
        Ok(made.add(done.blob, key.0, content))
    }

    fn compose(
        &self,
        plans: &[Plan<'_>],
        found: &BTreeMap<BundlePath, Found>,
        parts: &BTreeMap<Key, Part>,
        workshop: Workshop<'_>,
        made: &mut Made,
    ) -> Result<Vec<Ready>, BuildError> {
        let mut bundles = Vec::new();
        for plan in plans {
            self.cancel.check()?;
            let keys = plan
                .artifacts
                .iter()
                .map(|source| artifact_key(source))
                .chain(plan.conf.iter().map(files_key));
            let layers = keys
                .map(|key| {
                    parts.get(&key).ok_or_else(|| BuildError::Internal("a layer is missing".to_owned()))
                })
                .collect::<Result<Vec<_>, _>>()?;
            let role = compose::Role { spec: plan.spec, conf: &plan.conf, found, layers: &layers };
            let mut ready = compose::compose(&self.store, &role, workshop, made)?;
            ready.duration = self.started.elapsed();
            bundles.push(ready);
            self.observer.composed(&plan.spec.role);
        }
        Ok(bundles)
    }
}

fn artifact_key(source: &ArtifactSource) -> Key {
    (source.options, LayerOf::Artifact(source.name.clone()))
}

fn files_key(conf: &ConfRead) -> Key {
    (conf.source.options, LayerOf::Files(conf.source.content))
}

/// A job for each layer that the store does not have, each once, with all roles that want it.
fn jobs(
    plans: &[Plan<'_>],
    found: &BTreeMap<BundlePath, Found>,
    parts: &BTreeMap<Key, Part>,
) -> Vec<(Key, Job)> {
    let mut jobs: BTreeMap<Key, Job> = BTreeMap::new();
    for plan in plans {
        let role = &plan.spec.role;
        let artifacts = plan.artifacts.iter().map(|source| {
            let one = found.get(&source.name);
            let job = Job {
                source: Source::Artifact(Arc::clone(source)),
                roles: Vec::new(),
                hash: one.is_none_or(|one| one.digest.is_none()),
                size: one.map_or(0, |one| one.stamp.size),
            };
            (artifact_key(source), job)
        });
        let conf = plan.conf.iter().map(|conf| {
            let size = conf.source.files.iter().map(|file| file.bytes.len() as u64).sum();
            let source = Source::Files(Arc::new(conf.source.clone()));
            (files_key(conf), Job { source, roles: Vec::new(), hash: false, size })
        });
        for (key, job) in artifacts.chain(conf) {
            if !parts.contains_key(&key) {
                jobs.entry(key).or_insert(job).roles.push(role.clone());
            }
        }
    }
    jobs.into_iter().collect()
}
