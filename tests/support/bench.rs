//! A node in a folder that is put back to what it was before each try, and what must hold after it.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use windlass::agent::wire::{self, Missing, ReceiveHeader};
use windlass::model::{Digest, Reference};

use crate::support::node::{Built, Files, Lab, noise, wait_until};
use crate::support::tracer::{Ended, Hit, Tracer};

pub(crate) const SECRET: &str = crate::support::node::SECRET;

/// Each path of a tree: what it is, mode, content.
pub(crate) type Print = BTreeMap<PathBuf, (char, u32, String)>;

/// A node with releases 1 and 2 confirmed (2 is current), 3 staged, 4 pushed, and some that nothing needs.
pub(crate) struct Bench {
    pub(crate) lab: Lab,
    pub(crate) names: Vec<String>,
    pub(crate) last: Built,
    /// Root as it is before each try.
    saved: PathBuf,
    /// What each release holds.
    prints: BTreeMap<String, Print>,
}

/// A service that does nothing, in a few files.
fn service(version: &str) -> Files {
    let mut files = Files::new();
    files.insert("VERSION".to_owned(), (0o644, version.into()));
    files.insert("run.sh".to_owned(), (0o755, "#!/bin/sh\nexec sleep 1000\n".into()));
    files.insert("tmp/seed".to_owned(), (0o644, "seeded".into()));
    for n in 0..3u32 {
        files.insert(format!("lib/part-{n}"), (0o644, noise(n.into(), 900)));
    }
    files.insert("lib/own".to_owned(), (0o644, noise(version.len() as u64, 300)));
    files
}

/// The first of a tree's paths that differs.
fn difference(found: &Print, wanted: &Print) -> Option<String> {
    let paths: BTreeSet<&PathBuf> = found.keys().chain(wanted.keys()).collect();
    let differs = paths.into_iter().find(|path| found.get(*path) != wanted.get(*path))?;
    let (found, wanted) = (found.get(differs), wanted.get(differs));
    Some(format!("{}: {found:?}, not {wanted:?}", differs.display()))
}

/// What a tree is, to the last byte; scratch may be anything.
pub(crate) fn print(tree: &Path) -> Print {
    let mut print = Print::new();
    for entry in walkdir::WalkDir::new(tree).sort_by_file_name() {
        let entry = entry.unwrap();
        let path = entry.path().strip_prefix(tree).unwrap().to_owned();
        let kind = entry.file_type();
        let (letter, content) = if kind.is_symlink() {
            ('l', std::fs::read_link(entry.path()).unwrap().display().to_string())
        } else if kind.is_dir() {
            ('d', String::new())
        } else {
            assert!(!kind.is_fifo() && !kind.is_socket());
            ('f', Digest::of(&std::fs::read(entry.path()).unwrap()).to_string())
        };
        print.insert(path, (letter, entry.metadata().unwrap().mode() & 0o7777, content));
    }
    print
}

impl Bench {
    pub(crate) fn new() -> Self {
        let lab = Lab::new();
        let mut names = Vec::new();
        let built = |n: u32| lab.build(&format!("{n}.0"), &service(&format!("{n}.0")));
        for n in 1..=4 {
            names.push(lab.promote(&built(n)));
        }
        // Two that failed, of which gc keeps one.
        for n in 5..=6 {
            let release = lab.stage(&built(n));
            lab.done(&json!({ "op": "mark-bad", "role": "web", "release": release, "why": "to see" }));
            names.push(release);
        }
        names.push(lab.stage(&built(7)));
        let last = built(8);
        Self::of(lab, names, last)
    }

    /// A node with release 1 confirmed, and a spare of it that does not fit everywhere; the next one is pushed.
    pub(crate) fn with_spare() -> Self {
        let lab = Lab::new();
        let built = |n: u32| {
            let mut files = service(&format!("{n}.0"));
            for at in 0..2_000 {
                files.insert(
                    format!("many/{}/{at}", at % 9),
                    (0o644, ["a", "b", "c"][at % 3].repeat(200).into()),
                );
            }
            lab.build(&format!("{n}.0"), &files)
        };
        let (first, spare) = lab.stage_with_spare(&built(1));
        assert_eq!(lab.promote(&built(1)), first);
        let many = spare.join("web/many");
        for open in [many.join("3"), many.join("4")] {
            std::fs::set_permissions(&open, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        }
        std::fs::remove_file(many.join("3/3")).unwrap();
        std::fs::remove_file(many.join("3/12")).unwrap();
        std::fs::write(many.join("3/12"), "spoilt").unwrap();
        std::fs::create_dir_all(many.join("4/more/below")).unwrap();
        let last = built(2);
        lab.push(&last, None).unwrap();
        Self::of(lab, vec![first], last)
    }

    fn of(lab: Lab, names: Vec<String>, last: Built) -> Self {
        let saved = lab.dir.join("saved");
        let releases = lab.root.join("roles/web/releases");
        let prints = names.iter().map(|name| (name.clone(), print(&releases.join(name)))).collect();
        let bench = Self { lab, names, last, saved, prints };
        bench.save();
        bench
    }

    /// What is there now is what later tries begin with.
    pub(crate) fn save(&self) {
        self.end_processes();
        let _ = std::fs::remove_dir_all(&self.saved);
        copy(&self.lab.root, &self.saved);
    }

    /// As it was when it was saved; nothing of it runs.
    pub(crate) fn reset(&self) {
        self.end_processes();
        std::fs::remove_dir_all(&self.lab.root).unwrap();
        copy(&self.saved, &self.lab.root);
    }

    /// The release of that number.
    pub(crate) fn name(&self, number: usize) -> &str {
        &self.names[number - 1]
    }

    /// All that a controller sends to a node that lacks the bundle, and asks nothing back.
    pub(crate) fn push_stream(&self, built: &Built) -> Vec<u8> {
        let store = self.lab.store();
        let bundle = store.bundle(&Reference::Digest(built.digest)).unwrap();
        let manifest = store.read_blob(&built.digest, 1 << 20).unwrap();
        let config = store.read_blob(&bundle.manifest.config, 1 << 20).unwrap();
        let layers = self.lab.layers(built.digest);
        let header = ReceiveHeader {
            format: wire::PUSH_FORMAT,
            bundle: built.digest,
            manifest: manifest.len() as u64,
            config: config.len() as u64,
            tocs: (0..layers.len()).collect(),
            patched_tocs: Vec::new(),
            token: None,
        };
        let mut stream = serde_json::to_vec(&header).unwrap();
        stream.push(b'\n');
        stream.extend([manifest, config].concat());
        for (layer, described) in layers.iter().zip(&bundle.manifest.layers) {
            let blob = store.open_blob(&layer.digest()).unwrap();
            let mut bytes = vec![0; usize::try_from(described.place.size).unwrap()];
            std::os::unix::fs::FileExt::read_exact_at(&blob, &mut bytes, described.place.offset).unwrap();
            stream.extend(bytes);
        }
        let all = layers.iter().map(|layer| vec![(0, layer.toc.entries.len())]).collect();
        let missing = Missing { objects: 0, bytes: 0, layers: all, bundles: Vec::new() };
        crate::support::node::items(&missing, &layers, &mut stream);
        stream
    }

    /// The release that staging the last bundle gives.
    pub(crate) fn next(&self) -> String {
        format!("{}-{}", self.names.len() + 1, self.last.version)
    }

    /// Remembers what that release holds when nobody disturbs its making.
    pub(crate) fn learn_next(&mut self) {
        let release = self.lab.stage(&self.last);
        assert_eq!(release, self.next());
        let tree = print(&self.lab.release(&release));
        self.prints.insert(release, tree);
        self.reset();
    }

    /// From now on tries begin with the last bundle there.
    pub(crate) fn pushed(&self) {
        self.reset();
        self.lab.push(&self.last, None).unwrap();
        self.save();
    }

    /// `windlass node ...`, hit.
    pub(crate) fn hit(
        &self,
        tracer: &mut Tracer,
        args: &[&str],
        stdin: Option<&Path>,
        hit: Hit<'_>,
    ) -> Ended {
        let program = env!("CARGO_BIN_EXE_windlass");
        let words = [program, "node"].into_iter().chain(args.iter().copied());
        let words = words.chain(["--root", self.lab.root.to_str().unwrap()]);
        let words: Vec<String> = words.map(str::to_owned).collect();
        tracer.run(&words, stdin, hit)
    }

    /// Runs `windlass node ...` undisturbed; it has to end with 0.
    #[track_caller]
    pub(crate) fn ok(&self, args: &[&str], what: &str) -> Value {
        let out = self.lab.node(args).args(["--format", "json"]).output().unwrap();
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(
            out.status.success(),
            "{what}, then {args:?}: {said}{}",
            String::from_utf8_lossy(&out.stdout)
        );
        serde_json::from_slice(&out.stdout).unwrap()
    }

    /// What must hold at once, with nobody having looked at the node: `current` leads to a complete release, and
    /// so does the name of every release.
    #[track_caller]
    pub(crate) fn whole(&self, what: &str) -> String {
        let role = self.lab.root.join("roles/web");
        let link = std::fs::read_link(role.join("current")).unwrap();
        let current = link.strip_prefix("releases").unwrap().to_str().unwrap().to_owned();
        self.complete(&current, what);
        self.objects_are_whole(what);
        current
    }

    /// Each object is what its name says. What has another time is none: it is being written, or was when it was killed.
    #[track_caller]
    fn objects_are_whole(&self, what: &str) {
        let objects = self.lab.root.join("objects");
        for (path, bytes) in crate::support::node::files_below(&objects) {
            let below = path.strip_prefix(&objects).unwrap().to_str().unwrap().trim_end_matches(".x");
            let name = below.replace('/', "");
            if name.len() == 64 {
                if path.metadata().unwrap().mtime() != 1 {
                    continue;
                }
                assert_eq!(Digest::of(&bytes).hex(), name, "{what}");
            } else {
                assert!(below.contains(".tmp-") || below.contains(".unsynced-"), "{what}: {below}");
            }
        }
    }

    #[track_caller]
    pub(crate) fn complete(&self, release: &str, what: &str) {
        let wanted = self.prints.get(release).unwrap_or_else(|| panic!("{what}: {release} is unknown"));
        let differs = difference(&print(&self.lab.release(release)), wanted);
        assert_eq!(differs, None, "{what}: {release}");
    }

    /// What `status` tells is what is there.
    #[track_caller]
    pub(crate) fn truthful(&self, what: &str) -> Value {
        let status = self.ok(&["status", "web"], what)["roles"][0].clone();
        assert_eq!(status["problem"], Value::Null, "{what}: {status}");
        let link = std::fs::read_link(self.lab.root.join("roles/web/current")).unwrap();
        if status["interrupted"] == Value::Null && status["busy"] != true {
            assert_eq!(status["release"].as_str(), link.file_name().unwrap().to_str(), "{what}: {status}");
        }
        for staged in status["staged"].as_array().unwrap() {
            self.complete(staged["release"].as_str().unwrap(), what);
        }
        let alive = self.service();
        let moving = status["interrupted"] != Value::Null || status["busy"] == true;
        match status["process"].as_str().unwrap() {
            // Between the question and the look at the processes it goes on.
            _ if moving => {}
            "running" => assert_eq!(json!(alive), json!([status["pid"]]), "{what}: {status}"),
            _ => assert!(alive.is_empty(), "{what}: {alive:?} live, and status says {status}"),
        }
        let journal = self.ok(&["journal", "web"], what);
        assert!(!journal["entries"].as_array().unwrap().is_empty());
        status
    }

    /// Nothing is half done any more.
    #[track_caller]
    pub(crate) fn at_rest(&self, what: &str) -> Value {
        let mut last = Value::Null;
        wait_until(&format!("{what}: nothing is interrupted"), || {
            last = self.truthful(what);
            last["interrupted"] == Value::Null && last["busy"] != true
        });
        last
    }

    /// No name that only a process at work may need, but for the marker that a push leaves until the next sync.
    #[track_caller]
    pub(crate) fn no_debris(&self, what: &str, marker: bool) {
        let debris: Vec<PathBuf> = walkdir::WalkDir::new(&self.lab.root)
            .into_iter()
            .map(|entry| entry.unwrap().into_path())
            .filter(|path| {
                let name = path.file_name().unwrap().to_string_lossy();
                [".tmp-", ".staging-", ".new-"].iter().any(|prefix| name.starts_with(prefix))
                    || (!marker && name.starts_with(".unsynced-"))
            })
            .collect();
        assert!(debris.is_empty(), "{what}: {debris:?}");
    }

    /// No debris, and each release has its record, and nothing else is there.
    #[track_caller]
    pub(crate) fn clean(&self, what: &str) {
        self.no_debris(what, false);
        for (path, _) in crate::support::node::files_below(&self.lab.root.join("objects")) {
            assert_eq!(path.metadata().unwrap().mtime(), 1, "{what}: {} is no object", path.display());
        }
        let releases = self.lab.root.join("roles/web/releases");
        let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
        for entry in std::fs::read_dir(releases).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if name.starts_with(".spare-") {
                continue;
            }
            let name = name.trim_end_matches(".json").trim_end_matches(".service").to_owned();
            *kinds.entry(name).or_default() += 1;
        }
        assert!(kinds.values().all(|count| *count == 3), "{what}: {kinds:?}");
    }

    /// Processes of the service that live: those whose folder is a release, and that are not windlass.
    pub(crate) fn service(&self) -> Vec<u32> {
        let releases = self.lab.root.join("roles/web/releases");
        processes(|pid| {
            let at = std::fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default();
            let program = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
            at.starts_with(&releases) && !program.to_string_lossy().contains("windlass")
        })
    }

    /// Kills whatever still runs of this node, by its ids.
    pub(crate) fn end_processes(&self) {
        end_keepers(&self.lab.root);
        let root = self.lab.root.to_str().unwrap();
        end_all(|pid: u32| {
            let at = std::fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default();
            let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            at.starts_with(root) || (line.contains("\0node\0") && line.contains(root))
        });
    }

    /// Kills its guards, by their ids.
    pub(crate) fn end_guards(&self) {
        let root = self.lab.root.to_str().unwrap();
        end_all(|pid: u32| {
            let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.contains("\0guard\0") && line.contains(root)
        });
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.end_processes();
    }
}

/// Kills the keepers that the pid files of a node's roles name.
///
/// Neither the working directory nor the command line of a keeper says which node it serves. One that stays starts
/// its service again a second after that was killed, also in a node that was put back to an earlier state.
pub(crate) fn end_keepers(root: &Path) {
    let roles = std::fs::read_dir(root.join("roles")).into_iter().flatten().flatten();
    let keepers: Vec<u64> = roles
        .filter_map(|role| {
            let text = std::fs::read_to_string(role.path().join("pid")).ok()?;
            serde_json::from_str::<Value>(&text).ok()?["keep"]["pid"].as_u64()
        })
        .collect();
    end_all(|pid| {
        let line = || std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        keepers.contains(&pid.into()) && line().contains("\0node\0keep\0")
    });
}

/// Kills these processes, by their ids, and waits until they are gone.
pub(crate) fn end_all(ours: impl Fn(u32) -> bool) {
    wait_until("what runs of it ends", || {
        let left = processes(&ours);
        for pid in &left {
            let pid = Pid::from_raw(i32::try_from(*pid).unwrap()).unwrap();
            let _gone = kill_process(pid, Signal::KILL);
        }
        left.is_empty()
    });
}

/// Every process, but for those that have ended, of which this holds.
pub(crate) fn processes(holds: impl Fn(u32) -> bool) -> Vec<u32> {
    let all = std::fs::read_dir("/proc").unwrap();
    let all = all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let mut found: Vec<u32> = all
        .filter(|pid| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            !stat.is_empty() && !stat.contains(") Z ") && holds(*pid)
        })
        .collect();
    found.sort_unstable();
    found
}

/// How often a process's first thread has gone to sleep: a process that polls does so again and again.
pub(crate) fn sleeps(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    line.map_or(u64::MAX, |count| count.trim().parse().unwrap())
}

pub(crate) fn copy(from: &Path, to: &Path) {
    let out = Command::new("cp").arg("-a").arg(from).arg(to).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}
