//! Old releases, bundles and objects go; what is or may be needed stays.
//!
//! Of each role stay: what is current, what was current before an activation that is not confirmed, the prior,
//! what is pinned, what a process runs from, what was staged after the current one, the last `keep` good ones
//! and, counted apart, the last `keep` bad ones.
//!
//! # Invariants
//!
//! * A release's removal is journalled before its first file goes.
//! * Objects go while nobody else uses the store, and only those that nothing links.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use camino::Utf8PathBuf;
use serde::{Deserialize, Serialize};

use super::desk::Desk;
use super::error::AgentError;
use super::layout::Root;
use super::lock::Authority;
use super::names::ReleaseName;
use super::record::Record;
use super::recover;
use super::state::State;
use super::supervise::users_of;
use crate::fs::{DirLock, IoError, IoResultExt as _, LockKind, calls, clear_leftovers, remove_tree};
use crate::model::{Digest, Role};

/// What to remove.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GcRequest {
    /// Good releases of each role that stay besides those that must; bad ones, counted apart.
    pub keep: usize,
    /// Only say what would go.
    #[serde(default)]
    pub dry_run: bool,
}

/// What was, or would be, removed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Collected {
    /// Releases.
    pub releases: Vec<CollectedRelease>,
    /// Bundles that no release is made from.
    pub bundles: Vec<Digest>,
    /// Objects that nothing links.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Nothing was removed.
    pub dry_run: bool,
}

/// A release that was, or would be, removed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CollectedRelease {
    /// Of which role.
    pub role: Role,
    /// Which.
    pub release: ReleaseName,
}

/// Removes what is not needed.
pub(super) fn collect(
    root: &Root,
    request: GcRequest,
    authority: &Authority,
) -> Result<Collected, AgentError> {
    let mut collected = Collected { dry_run: request.dry_run, ..Collected::default() };
    let (mut used, mut gone) = (BTreeSet::new(), BTreeSet::new());
    for dir in root.roles()?.into_iter().filter(super::layout::RoleDir::exists) {
        let mut desk = Desk::open(root, dir.role())?;
        // Waiting for the role may have taken long enough to lose the lock.
        authority.check(root)?;
        if !request.dry_run {
            recover::clear(&desk)?;
        }
        let paths: Vec<Utf8PathBuf> =
            desk.state().releases.keys().map(|release| desk.dir().release(release)).collect();
        let in_use = users_of(&paths).at("read", "/proc".into())?;
        // One that is about to be brought up again has no process, and still needs its release.
        let kept = desk.process().ok().and_then(|process| process.release);
        let in_use = |release: &ReleaseName| {
            in_use.contains_key(&desk.dir().release(release)) || kept.as_ref() == Some(release)
        };
        let garbage = garbage(desk.state(), request.keep, in_use);
        for (release, known) in desk.state().releases.clone() {
            if known.removed {
                continue;
            }
            if !garbage.contains(&release) {
                used.insert(known.bundle);
                continue;
            }
            if !request.dry_run {
                remove(&mut desk, &release)?;
            }
            gone.insert(dir.release(&release));
            gone.extend(Some(dir.spare(&release)).filter(|spare| spare.is_dir()));
            collected.releases.push(CollectedRelease { role: dir.role().clone(), release });
        }
    }
    let Some(_alone) = DirLock::wait_for(&root.objects(), LockKind::Exclusive, Duration::from_secs(30))?
    else {
        return Err(AgentError::Request("a push is under way on this node; try again after it".to_owned()));
    };
    for bundle in root.known_bundles()? {
        if !used.contains(&bundle) {
            if !request.dry_run {
                root.forget_bundle(&bundle)?;
            }
            collected.bundles.push(bundle);
        }
    }
    objects(root, &gone, &mut collected)?;
    Ok(collected)
}

/// Which releases of a role may go.
fn garbage(state: &State, keep: usize, in_use: impl Fn(&ReleaseName) -> bool) -> BTreeSet<ReleaseName> {
    let must =
        [state.current.as_ref(), state.prior(), state.unconfirmed.as_ref().and_then(|one| one.from.as_ref())];
    let newest_first = || state.releases.iter().rev().filter(|(_, known)| !known.removed);
    let good = newest_first().filter(|(_, known)| known.good && known.bad.is_none()).take(keep);
    let bad = newest_first().filter(|(_, known)| known.bad.is_some()).take(keep);
    let kept: BTreeSet<&ReleaseName> = good.chain(bad).map(|(release, _)| release).collect();
    let stays = |release: &ReleaseName, pinned: bool, bad: bool| {
        let waits = !bad && state.current.as_ref().is_none_or(|current| release > current);
        pinned || waits || must.contains(&Some(release)) || kept.contains(release) || in_use(release)
    };
    newest_first()
        .filter(|(release, known)| !stays(release, known.pinned, known.bad.is_some()))
        .map(|(release, _)| release.clone())
        .collect()
}

fn remove(desk: &mut Desk, release: &ReleaseName) -> Result<(), AgentError> {
    desk.record(Record::Removed { release: release.clone() })?;
    let dir = desk.dir();
    let (tree, spare) = (dir.release(release), dir.spare(release));
    for path in [tree, spare, dir.release_record(release), dir.release_service(release)] {
        remove_tree(&path)?;
    }
    Ok(())
}

/// Objects that nothing links, and what killed pushes left. The caller has the store alone.
fn objects(root: &Root, gone: &BTreeSet<Utf8PathBuf>, collected: &mut Collected) -> Result<(), IoError> {
    let dir = root.objects();
    // A dry run's releases are still there: each of their links is one that would go.
    let would_go = if collected.dry_run { links_of(gone)? } else { std::collections::HashMap::new() };
    for shard in dir.read_dir_utf8().at("read", &dir)? {
        let shard = shard.at("read", &dir)?;
        if shard.file_name().len() != 2 {
            continue;
        }
        if !collected.dry_run {
            clear_leftovers(shard.path())?;
        }
        for entry in shard.path().read_dir_utf8().at("read", shard.path())? {
            let entry = entry.at("read", shard.path())?;
            let meta = entry.metadata().at("read", entry.path())?;
            let links = meta.nlink() - would_go.get(&meta.ino()).copied().unwrap_or(0).min(meta.nlink());
            if links > 1 || !meta.is_file() {
                continue;
            }
            if !collected.dry_run {
                calls::remove_file(entry.path()).at("remove", entry.path())?;
            }
            collected.objects += 1;
            collected.bytes += meta.len();
        }
    }
    if !collected.dry_run {
        root.clear_unfinished_bundles()?;
    }
    Ok(())
}

/// How many links to each inode are in these trees.
fn links_of(trees: &BTreeSet<Utf8PathBuf>) -> Result<std::collections::HashMap<u64, u64>, IoError> {
    let mut links = std::collections::HashMap::new();
    for tree in trees {
        for entry in walkdir::WalkDir::new(tree).follow_links(false) {
            let entry = entry.at("read", tree)?;
            if entry.file_type().is_file() {
                let meta = entry.metadata().at("read", tree)?;
                *links.entry(meta.ino()).or_insert(0) += 1;
            }
        }
    }
    Ok(links)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> ReleaseName {
        text.parse().unwrap()
    }

    #[test]
    fn what_is_needed_stays() {
        let mut state = State::default();
        let mut seq = 0;
        let mut push = |state: &mut State, record: Record| {
            seq += 1;
            *state = state.after(&record, seq).unwrap();
        };
        push(&mut state, Record::Created { format: 1, role: "kafka".parse().unwrap() });
        for n in 1..=9u64 {
            let release = name(&format!("{n}-a"));
            let (rollout, who, bundle) = (None, String::new(), Digest::of(&[]));
            push(&mut state, Record::Staged { release: release.clone(), bundle, rollout, who });
            if n == 9 {
                break;
            }
            let from = state.current.clone();
            let to = Some(release.clone());
            push(&mut state, Record::Activating { from, to: to.clone(), rollout: None, confirm: None });
            push(&mut state, Record::Activated { to });
            match n {
                // Never confirmed, and never said to be bad.
                3 => {}
                5 | 6 => {
                    let (from, to) = (Some(release.clone()), state.prior().cloned());
                    push(&mut state, Record::MarkedBad { release, why: "x".to_owned() });
                    push(
                        &mut state,
                        Record::RollingBack { from, to: to.clone(), why: String::new(), restart: false },
                    );
                    push(&mut state, Record::RolledBack { to });
                }
                _ => push(&mut state, Record::Confirmed { release }),
            }
        }
        push(&mut state, Record::Pinned { release: name("1-a") });
        let gone = |keep, used: &str| -> Vec<String> {
            garbage(&state, keep, |release| release.to_string() == used)
                .iter()
                .map(ToString::to_string)
                .collect()
        };
        // 8 is current, 7 prior, 9 staged, 1 pinned; 6 is the last bad one.
        assert_eq!(gone(1, ""), ["2-a", "3-a", "4-a", "5-a"]);
        assert_eq!(gone(1, "2-a"), ["3-a", "4-a", "5-a"]);
        assert_eq!(gone(3, ""), ["2-a", "3-a"]);
        assert_eq!(gone(0, ""), ["2-a", "3-a", "4-a", "5-a", "6-a"]);
    }
}
