//! How fast a push is and how much it sends, beside rsync of the same trees over the same sshd, in one run.
//!
//! `cargo bench --bench push [-- SET...]`, where each SET is a `.tar.gz` to measure with; without any, two are
//! made: part of the Rust toolchain (large binaries), and the sources of this package's dependencies (small
//! files). `WINDLASS_BENCH_BUMP=OLD.tar.gz,NEW.tar.gz` adds a real version bump. `WINDLASS_BENCH_RUNS` sets the
//! runs (3), `WINDLASS_BENCH_DIR` the folder, which must have 10 GB free and should be on a file system with a
//! journal. Wall times are medians after one warm-up, of the whole command: connecting is part of them.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::Value;

#[allow(dead_code, clippy::unwrap_used, reason = "shared with the tests, whose set-up may panic")]
#[path = "../tests/support/net.rs"]
mod net;
#[allow(dead_code, clippy::unwrap_used, reason = "shared with the tests, whose set-up may panic")]
#[path = "../tests/support/sshd.rs"]
mod sshd;

const WINDLASS: &str = env!("CARGO_BIN_EXE_windlass");

/// What is pushed, as a project's only role.
struct Bench {
    runs: usize,
    base: PathBuf,
    ssh: String,
    address: std::net::Ipv4Addr,
}

fn main() {
    let mut sets: Vec<PathBuf> =
        std::env::args_os().skip(1).filter(|a| a != OsStr::new("--bench")).map(Into::into).collect();
    let base = std::env::var_os("WINDLASS_BENCH_DIR")
        .map_or_else(|| Path::new(env!("CARGO_TARGET_TMPDIR")).to_owned(), PathBuf::from)
        .join("bench-push");
    let _ = fs::remove_dir_all(&base);
    fs::create_dir_all(base.join("project/install")).expect("the bench folder can be made");
    let base = base.canonicalize().expect("a folder");
    let sshd = sshd::Sshd::start(&base.join("sshd"));
    fs::write(base.join("known_hosts"), sshd.known_hosts()).expect("known_hosts");
    let ssh = format!(
        "ssh -F none -p {} -i {} -o UserKnownHostsFile={} -c aes128-gcm@openssh.com",
        sshd.port,
        sshd.client_key().display(),
        base.join("known_hosts").display()
    );
    let runs = std::env::var("WINDLASS_BENCH_RUNS").ok().and_then(|n| n.parse().ok()).unwrap_or(3);
    let bench = Bench { runs, base, ssh, address: sshd.address() };
    bench.cluster(&sshd);
    if sets.is_empty() {
        sets = bench.make_sets();
    }
    println!("machine: {} cores; runs: {runs}", std::thread::available_parallelism().map_or(1, usize::from));
    bench.make_trees(&sets);
    bench.first();
    bench.conf();
    bench.edits();
    if let Ok(bump) = std::env::var("WINDLASS_BENCH_BUMP") {
        let (old, new) = bump.split_once(',').expect("OLD,NEW");
        bench.bump(Path::new(old), Path::new(new));
    }
    drop(sshd);
    let _ = fs::remove_dir_all(&bench.base);
}

impl Bench {
    fn sh(&self, script: &str) -> String {
        let mut command = Command::new("bash");
        command.args(["-ec", script]).current_dir(&self.base).stderr(Stdio::inherit());
        let output = command.output().expect("bash");
        assert!(output.status.success(), "{script}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Median wall seconds of `script`, `before` being run first each time.
    fn time(&self, before: &str, script: &str) -> f64 {
        let mut walls = Vec::new();
        for _ in 0..=self.runs {
            self.sh(before);
            let started = Instant::now();
            self.sh(script);
            walls.push(started.elapsed().as_secs_f64());
        }
        walls.remove(0);
        walls.sort_by(f64::total_cmp);
        walls[walls.len() / 2]
    }

    fn cluster(&self, sshd: &sshd::Sshd) {
        let at = self.base.display();
        let text = format!(
            "schema = 1\nname = \"bench\"\n[ssh]\nport = {}\nidentity = \"{}\"\nknown_hosts = \"{at}/known_hosts\"\n\
             [nodes.n1]\naddress = \"{}\"\nroot = \"{at}/n1\"\nroles = [\"app\"]\n\
             [rollout]\nmin_healthy = \"2s\"\n",
            sshd.port,
            sshd.client_key().display(),
            sshd.address()
        );
        write(&self.base.join("project/cluster.toml"), &text);
        write(&self.base.join("project/conf/app/app.conf"), "line = 0\n");
    }

    /// Builds a bundle of archives below install/.
    fn build(&self, version: &str, archives: &[&str]) {
        let project = self.base.join("project");
        write(&project.join("windlass.toml"), "schema = 1\nname = \"bench\"\n");
        let mut recipe = format!("schema = 1\nversion = \"{version}-{{{{ build }}}}\"\n");
        for (number, archive) in archives.iter().enumerate() {
            let unpack = format!("[[unpack]]\nartifact = \"{archive}\"\ninto = \"a{number}\"\nstrip = 0\n");
            recipe.push_str(&unpack);
        }
        recipe += "[[conf]]\nfrom = \"app\"\ninto = \"conf\"\n[service]\nkind = \"process\"\nstart = [\"/bin/sleep\", \"infinity\"]\n";
        write(&project.join("recipes/app.toml"), &recipe);
        self.sh(&format!("{WINDLASS} -q -C project build >/dev/null"));
    }

    fn push(&self) -> Value {
        let text = self.sh(&format!("{WINDLASS} -q -C project push --format json"));
        serde_json::from_str::<Value>(&text).expect("JSON")["nodes"][0].clone()
    }

    fn make_sets(&self) -> Vec<PathBuf> {
        self.sh(
            "mkdir sets; cd \"$(rustc --print sysroot)\"; find . -type f -size -120M | LC_ALL=C sort > $OLDPWD/list; \
             awk 'BEGIN { t = 0 } { \"stat -c %s \\\"\" $0 \"\\\"\" | getline s; t += s; if (t > 400000000) exit; print }' \
             $OLDPWD/list > $OLDPWD/list2; tar czf \"$OLDPWD/sets/toolchain.tar.gz\" -T $OLDPWD/list2; cd \"$OLDPWD\"; \
             cd \"${CARGO_HOME:-$HOME/.cargo}/registry/src\"; find . -type f -size -200k | LC_ALL=C sort | head -n 13000 > $OLDPWD/list; \
             tar czf \"$OLDPWD/sets/sources.tar.gz\" -T $OLDPWD/list",
        );
        vec![self.base.join("sets/toolchain.tar.gz"), self.base.join("sets/sources.tar.gz")]
    }

    /// The sets as an unpacked tree, and the same with small edits in 5 % of the files; an archive of each.
    fn make_trees(&self, sets: &[PathBuf]) {
        self.sh("mkdir -p v1");
        for (number, set) in sets.iter().enumerate() {
            let set = fs::canonicalize(set).expect("a set");
            self.sh(&format!(
                "mkdir v1/s{number}; tar xzf {} --no-same-owner -C v1/s{number}",
                set.display()
            ));
        }
        self.sh(
            "chmod -R u+rwX v1; cp -a v1 v2; cd v2; find . -type f | LC_ALL=C sort | awk 'NR % 20 == 7' | \
             while read -r f; do s=$(stat -c %s \"$f\"); { head -c $((s / 2)) \"$f\"; echo edited; tail -c +$((s / 2 + 1)) \"$f\"; } > ../edit; \
             cat ../edit > \"$f\"; done; cd ..; for v in v1 v2; do tar -c -C $v . | gzip -1 > project/install/$v.tar.gz; done",
        );
        let tree = self.sh("find v1 -type f | wc -l; du -sb v1 | cut -f1");
        println!("set: files, bytes: {}", tree.split_whitespace().collect::<Vec<_>>().join(", "));
    }

    fn forget() -> &'static str {
        "chmod -R u+w n1/roles n1/objects n1/bundles 2>/dev/null; rm -rf n1/roles n1/objects n1/bundles; sync"
    }

    fn rsync(&self, options: &str, from: &str, to: &str) -> String {
        format!("rsync {options} -e '{}' {from}/ {}:{}/{to}/", self.ssh, self.address, self.base.display())
    }

    fn first(&self) {
        println!("\n## First push");
        self.build("1", &["v1.tar.gz"]);
        // The agent is put there first: it goes once to a node.
        self.push();
        self.sh(Self::forget());
        let row = self.push();
        println!("  bytes sent: {}; bundle: {}", row["bytes_sent"], self.bundle_size());
        let own = self.time(Self::forget(), &format!("{WINDLASS} -q -C project push >/dev/null"));
        println!("  windlass push, checked and synced: {own:.2} s");
        let fresh = "rm -rf r1; sync";
        let sync = format!("; sync -f {}", self.base.display());
        for (name, options, after) in
            [("rsync -a", "-a", ""), ("rsync -az", "-az", ""), ("rsync -a, sync", "-a", sync.as_str())]
        {
            let peer = self.time(fresh, &format!("{}{after}", self.rsync(options, "v1", "r1")));
            println!("  {name}: {peer:.2} s; windlass takes {:.2} of it", own / peer);
        }
        // The limit: only the bytes, which nobody unpacks, checks or writes.
        let bytes =
            format!("cat project/out/blobs/sha256/* | {} {} 'cat >/dev/null'", self.ssh, self.address);
        let limit = self.time("true", &bytes);
        println!("  the bundle's bytes through ssh to /dev/null: {limit:.2} s");
    }

    fn bundle_size(&self) -> u64 {
        let text = self.sh(&format!("{WINDLASS} -C project ls --format json"));
        let rows: Value = serde_json::from_str(&text).expect("JSON");
        rows["bundles"]
            .as_array()
            .and_then(|rows| rows.last())
            .and_then(|row| row["size"].as_u64())
            .unwrap_or(0)
    }

    fn conf(&self) {
        println!("\n## After a change of conf");
        let mut line = 0;
        for promoted in [false, true] {
            let mut rows = Vec::new();
            for _ in 0..=self.runs {
                line += 1;
                write(&self.base.join("project/conf/app/app.conf"), &format!("line = {line}\n"));
                self.build("1", &["v1.tar.gz"]);
                rows.push(self.push());
                if promoted {
                    self.sh(&format!("{WINDLASS} -q -C project promote >/dev/null; sync"));
                }
            }
            rows.remove(0);
            rows.sort_by_key(|row| row["duration_ms"].as_u64());
            let row = &rows[rows.len() / 2];
            let last = if promoted { "promoted" } else { "only pushed" };
            println!("  the last release was {last}:");
            println!("  {} bytes, {} ms on a connection that is up", row["bytes_sent"], row["duration_ms"]);
        }
        self.sh(&format!("{WINDLASS} -q -C project service stop --role app >/dev/null"));
    }

    fn edits(&self) {
        println!("\n## Small edits in 5 % of the files");
        let remove = format!("{}; rm -rf project/out/cache/patches", Self::forget());
        self.build("2", &["v2.tar.gz"]);
        let before = format!("{remove}; {WINDLASS} -q -C project push app:1-1 >/dev/null; sync");
        self.sh(&before);
        let row = self.push();
        println!(
            "  {} bytes, of them {} patches; making them took {} of {} ms",
            row["bytes_sent"], row["patches_sent"], row["patching_ms"], row["duration_ms"]
        );
        let own = self.time(&before, &format!("{WINDLASS} -q -C project push >/dev/null"));
        println!("  windlass push: {own:.2} s");
        let base = self.base.display();
        let options = format!("-a --link-dest={base}/r1");
        let fresh = format!("rm -rf r1 r2; {}; sync", self.rsync("-a", "v1", "r1"));
        let peer = self.time(&fresh, &self.rsync(&options, "v2", "r2"));
        println!("  rsync -a --link-dest: {peer:.2} s; windlass takes {:.2} of it", own / peer);
        self.sh(&fresh);
        let bytes = self.rsync_bytes(&format!("-az --link-dest={base}/r1"), "v2", "r2");
        println!("  rsync -az --link-dest: {bytes} bytes sent");
    }

    fn rsync_bytes(&self, options: &str, from: &str, to: &str) -> u64 {
        let text = self.sh(&self.rsync(&format!("{options} --stats"), from, to));
        let line = text.lines().find(|line| line.starts_with("Total bytes sent")).expect("stats");
        line.chars().filter(char::is_ascii_digit).collect::<String>().parse().expect("a number")
    }

    fn bump(&self, old: &Path, new: &Path) {
        println!("\n## A version bump: {} to {}", old.display(), new.display());
        for (path, name) in [(old, "b1"), (new, "b2")] {
            let path = path.canonicalize().expect("an archive");
            self.sh(&format!(
                "mkdir {name}; tar xzf {} --no-same-owner --strip-components=1 -C {name}; chmod -R u+rwX {name}; \
                 tar -c -C {name} . | gzip -1 > project/install/{name}.tar.gz",
                path.display()
            ));
        }
        self.sh(Self::forget());
        self.build("b1", &["b1.tar.gz"]);
        self.push();
        self.build("b2", &["b2.tar.gz"]);
        let row = self.push();
        println!(
            "  windlass: {} bytes, {} ms, of which making {} patches took {}",
            row["bytes_sent"], row["duration_ms"], row["patches_sent"], row["patching_ms"]
        );
        self.sh(&format!("rm -rf r1 r2; {}; sync", self.rsync("-a", "b1", "r1")));
        let started = Instant::now();
        let bytes = self.rsync_bytes(&format!("-az --link-dest={}/r1", self.base.display()), "b2", "r2");
        println!("  rsync -az --link-dest: {bytes} bytes, {:.2} s", started.elapsed().as_secs_f64());
        let sent = row["bytes_sent"].as_f64().unwrap_or(f64::NAN);
        #[expect(clippy::cast_precision_loss, reason = "a share")]
        let share = sent / bytes as f64;
        println!("  windlass sends {share:.3} of it");
    }
}

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().expect("a folder")).expect("folder");
    fs::write(path, text).expect("file");
}
