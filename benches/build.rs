//! How fast and how small builds are, as ratios to what people use today, in one run.
//!
//! `cargo bench --bench build [-- SET...]`, where each SET is a `.tar.gz` to measure with; without any, three
//! are made: the Rust toolchain (large binaries), a tree of jar-like files, and the sources of this
//! package's dependencies (small files). `WINDLASS_BENCH_RUNS` sets the runs (3), `WINDLASS_BENCH_DIR` the
//! folder, which must have 6 GB free. Peers that are not installed are left out and named.
//!
//! Wall time is the median of the runs after one warm-up. Figures go to docs/performance.md.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

const WINDLASS: &str = env!("CARGO_BIN_EXE_windlass");

fn main() {
    // `cargo bench` passes --bench to every bench program.
    let sets: Vec<PathBuf> =
        std::env::args_os().skip(1).filter(|a| a != OsStr::new("--bench")).map(Into::into).collect();
    let base = std::env::var_os("WINDLASS_BENCH_DIR")
        .map_or_else(|| Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench-build"), PathBuf::from);
    let bench = Bench {
        runs: std::env::var("WINDLASS_BENCH_RUNS").ok().and_then(|n| n.parse().ok()).unwrap_or(3),
        base,
    };
    let _ = fs::remove_dir_all(&bench.base);
    let install = bench.base.join("project/install");
    fs::create_dir_all(&install).expect("the bench folder can be made");
    if sets.is_empty() {
        make_sets(&install);
    }
    for set in &sets {
        fs::copy(set, install.join(set.file_name().expect("a file"))).expect("the set can be copied");
    }
    let mut archives: Vec<String> = fs::read_dir(&install)
        .expect("install")
        .map(|e| e.expect("entry").file_name().into_string().expect("UTF-8"))
        .collect();
    archives.sort();
    bench.project(&archives);
    println!("machine: {} cores; runs: {}; set: {}", cores(), bench.runs, archives.join(" "));
    bench.cold(&archives);
    bench.rebuilds();
    bench.memory();
    bench.sizes(&archives);
    bench.unpack();
    bench.twenty_roles();
    bench.versions();
    let _ = fs::remove_dir_all(&bench.base);
}

struct Bench {
    runs: usize,
    base: PathBuf,
}

/// One measured command: medians of wall seconds and CPU seconds, and the peak of memory in KiB.
#[derive(Clone, Copy)]
struct Figure {
    wall: f64,
    cpu: f64,
    peak: u64,
}

impl Bench {
    fn project(&self, archives: &[String]) {
        let project = self.base.join("project");
        write(&project.join("windlass.toml"), "schema = 1\nname = \"bench\"\n");
        let mut recipe = "schema = 1\nversion = \"1-{{ build }}\"\n".to_owned();
        for (number, archive) in archives.iter().enumerate() {
            recipe.push_str("[[unpack]]\n");
            for (key, value) in [("artifact", archive.clone()), ("into", format!("a{number}"))] {
                recipe.extend([key, " = \"", &value, "\"\n"]);
            }
        }
        recipe += "[[conf]]\nfrom = \"app\"\ninto = \"conf\"\n";
        write(&project.join("recipes/app.toml"), &recipe);
        write(&project.join("conf/app/app.conf"), "line = 0\n");
    }

    fn sh(&self, script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-ec", script]).current_dir(self.base.join("project"));
        command
    }

    /// Runs `before` and then, measured, `script`, one warm-up and then the runs.
    fn measure(&self, before: &str, script: &str) -> Figure {
        let timing = self.base.join("timing");
        let mut figures = Vec::new();
        for _ in 0..=self.runs {
            assert!(self.sh(before).status().expect("sh").success(), "{before}");
            let mut command = Command::new("/usr/bin/time");
            command.args(["-f", "%U %S %M", "-o"]).arg(&timing).args(["sh", "-ec", script]);
            command.current_dir(self.base.join("project")).stdout(Stdio::null()).stderr(Stdio::null());
            let started = Instant::now();
            let status = command.status().expect("/usr/bin/time is installed (Debian's package `time`)");
            let wall = started.elapsed().as_secs_f64();
            assert!(status.success(), "{script}");
            let text = fs::read_to_string(&timing).expect("timing");
            let fields: Vec<f64> =
                text.split_whitespace().map(|field| field.parse().expect("a number")).collect();
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a size in KiB")]
            figures.push(Figure { wall, cpu: fields[0] + fields[1], peak: fields[2] as u64 });
        }
        figures.remove(0);
        figures.sort_by(|a, b| a.wall.total_cmp(&b.wall));
        let peak = figures.iter().map(|figure| figure.peak).max().unwrap_or(0);
        Figure { peak, ..figures[figures.len() / 2] }
    }

    fn cold(&self, archives: &[String]) {
        println!("\n## Cold build");
        let own = self.measure("rm -rf out windlass.lock", &format!("exec {WINDLASS} -q build"));
        show("windlass build", own, None);
        let per_core = own.cpu / cores();
        println!("  wall over CPU time per core: {:.2}", own.wall / per_core);
        let list = archives.iter().map(|archive| format!("install/{archive}")).collect::<Vec<_>>().join(" ");
        let fresh = "rm -rf ../tree ../tree.tar.zst ../sums; mkdir ../tree";
        let plain = format!(
            "for a in {list}; do mkdir ../tree/$(basename $a); tar xzf $a -C ../tree/$(basename $a); done; \
             find ../tree -type f -print0 | xargs -0 sha256sum > ../sums; tar --zstd -cf ../tree.tar.zst -C ../tree ."
        );
        show("tar xzf, sha256sum, tar --zstd -c", self.measure(fresh, &plain), Some(own));
        if has("pigz") {
            let shell = format!(
                "for a in {list}; do mkdir ../tree/$(basename $a); done; \
                 printf '%s\\n' {list} | xargs -P 2 -I A sh -c 'pigz -dc A | tar x -C ../tree/$(basename A)'; \
                 find ../tree -type f -print0 | xargs -0 -P 2 -n 500 sha256sum > ../sums; \
                 tar -c -C ../tree . | zstd -q -T2 -3 -o ../tree.tar.zst"
            );
            show(
                "the best shell version (pigz, two at once, zstd -T2)",
                self.measure(fresh, &shell),
                Some(own),
            );
        } else {
            println!("  left out: pigz is not installed");
        }
        if has("mksquashfs") {
            let squash = format!(
                "for a in {list}; do mkdir ../tree/$(basename $a); tar xzf $a -C ../tree/$(basename $a); done; \
                 mksquashfs ../tree ../tree.sqfs -noappend -comp zstd -Xcompression-level 3 -quiet -no-progress"
            );
            show(
                "tar xzf, mksquashfs zstd 3",
                self.measure(&format!("{fresh}; rm -f ../tree.sqfs"), &squash),
                Some(own),
            );
        } else {
            println!("  left out: mksquashfs is not installed");
        }
        let output =
            self.sh(&format!("rm -rf out windlass.lock; {WINDLASS} -v build")).output().expect("build");
        let stages = String::from_utf8_lossy(&output.stderr);
        println!(
            "  stages: {}",
            stages.lines().skip_while(|l| !l.starts_with("CPU")).collect::<Vec<_>>().join("\n  ")
        );
        println!("  with --jobs 1:");
        show(
            "windlass build --jobs 1",
            self.measure("rm -rf out windlass.lock", &format!("exec {WINDLASS} -q build --jobs 1")),
            Some(own),
        );
    }

    fn rebuilds(&self) {
        println!("\n## Rebuilds");
        let cold = self.measure("rm -rf out windlass.lock", &format!("exec {WINDLASS} -q build"));
        let conf = self.measure("date +%N > conf/app/app.conf", &format!("exec {WINDLASS} -q build"));
        show("one conf line changed", conf, None);
        println!("  share of the cold build: {:.1} %", 100.0 * conf.wall / cold.wall);
        show("nothing changed", self.measure("true", &format!("exec {WINDLASS} -q build")), None);
    }

    fn memory(&self) {
        println!("\n## Memory");
        for memory in ["512MiB", "128MiB", "64MiB"] {
            let figure = self
                .measure("rm -rf out windlass.lock", &format!("exec {WINDLASS} -q build --memory {memory}"));
            show(&format!("--memory {memory}"), figure, None);
        }
    }

    fn sizes(&self, archives: &[String]) {
        println!("\n## Size");
        for archive in archives {
            let script = format!(
                "rm -rf ../one; mkdir ../one; tar xzf install/{archive} -C ../one; tar -c -C ../one . | zstd -q -3 | wc -c"
            );
            let peer = number(&self.sh(&script).output().expect("sh").stdout);
            let script = format!(
                "{WINDLASS} inspect app --format json | python3 -c 'import json,sys; \
                 print([l[\"size\"] for l in json.load(sys.stdin)[\"layers\"] if l[\"source\"] == \"install/{archive}\"][0])'"
            );
            let own = number(&self.sh(&script).output().expect("sh").stdout);
            println!("  {archive}: {own:.0} bytes, {:.3} of tar | zstd -3 ({peer:.0})", own / peer);
        }
    }

    fn unpack(&self) {
        println!("\n## Unpack, two threads, sha256 of every file checked");
        let own = self.measure("rm -rf ../unpacked", &format!("exec {WINDLASS} -q unpack app ../unpacked"));
        show("windlass unpack", own, None);
        if has("mksquashfs") {
            let make = format!(
                "rm -rf ../squash ../tree.sqfs ../made; {WINDLASS} -q unpack app ../made; \
                 mksquashfs ../made ../tree.sqfs -noappend -comp zstd -Xcompression-level 3 -quiet -no-progress"
            );
            assert!(self.sh(&make).stdout(Stdio::null()).status().expect("sh").success());
            let peer = self.measure("rm -rf ../squash", "unsquashfs -q -n -d ../squash ../tree.sqfs");
            show("unsquashfs", peer, Some(own));
        }
        let _ = fs::remove_dir_all(self.base.join("unpacked"));
    }

    fn twenty_roles(&self) {
        println!("\n## Twenty roles, nothing changed");
        let make = "mkdir -p ../twenty/recipes ../twenty/install ../twenty/conf/app; cp windlass.toml ../twenty; \
             cp conf/app/app.conf ../twenty/conf/app; \
             for n in $(seq 5); do mkdir -p ../t$n; echo $n > ../t$n/f; tar czf ../twenty/install/a$n.tar.gz -C .. t$n; done; \
             for n in $(seq 20); do { echo 'schema = 1'; echo 'version = \"1-{{ build }}\"'; \
             for a in 1 2 3 4 5; do printf '[[unpack]]\\nartifact = \"a%s.tar.gz\"\\ninto = \"r%s/x%s\"\\n' $a $n $a; done; \
             printf '[[conf]]\\nfrom = \"app\"\\ninto = \"c%s\"\\nrender = [\"app.conf\"]\\n' $n; } > ../twenty/recipes/role$n.toml; done";
        assert!(self.sh(make).status().expect("sh").success());
        show(
            "windlass build",
            self.measure("true", &format!("cd ../twenty; exec {WINDLASS} -q build")),
            None,
        );
    }

    fn versions(&self) {
        println!("\n## Two versions that differ in 5 % of their files");
        let script = format!(
            "rm -rf ../two; mkdir -p ../two/recipes ../two/install ../two/src/app; cp windlass.toml ../two; cd ../two; \
             for n in $(seq 2000); do seq $n $((n + 400)) > src/app/f$n; done; tar czf install/app-1.tar.gz -C src app; \
             for n in $(seq 20 20 2000); do echo edited >> src/app/f$n; done; tar czf install/app-2.tar.gz -C src app; \
             for v in 1 2; do printf 'schema = 1\\nversion = \"%s\"\\n[[unpack]]\\nartifact = \"app-%s.tar.gz\"\\n' $v $v > recipes/app$v.toml; done; \
             {WINDLASS} -q build > /dev/null; for v in 1 2; do {WINDLASS} inspect app$v --format json; done | python3 -c 'import json,sys; \
             d = json.JSONDecoder(); t = sys.stdin.read(); a, i = d.raw_decode(t); b, _ = d.raw_decode(t[i:].lstrip()); \
             x, y = [{{e[\"digest\"] for e in s[\"entries\"] if e[\"type\"] == \"file\"}} for s in (a, b)]; print(100 * len(x & y) / len(x))'"
        );
        println!("  digests shared: {:.1} %", number(&self.sh(&script).output().expect("sh").stdout));
    }
}

fn show(name: &str, figure: Figure, own: Option<Figure>) {
    let ratio =
        own.map_or_else(String::new, |own| format!("; windlass takes {:.3} of it", own.wall / figure.wall));
    println!(
        "  {name}: {:.3} s wall, {:.2} s CPU, {} MiB peak{ratio}",
        figure.wall,
        figure.cpu,
        figure.peak / 1024
    );
}

fn number(bytes: &[u8]) -> f64 {
    let text = String::from_utf8_lossy(bytes);
    text.trim().parse().unwrap_or_else(|_| panic!("a number, not {text:?}"))
}

#[expect(clippy::cast_precision_loss, reason = "a handful of cores")]
fn cores() -> f64 {
    std::thread::available_parallelism().map_or(1.0, |cores| cores.get() as f64)
}

fn has(program: &str) -> bool {
    Command::new("sh")
        .args(["-c", &format!("command -v {program}")])
        .stdout(Stdio::null())
        .status()
        .is_ok_and(|s| s.success())
}

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().expect("a folder")).expect("folder");
    fs::write(path, text).expect("file");
}

/// Three archives of about 800 MB raw in all.
fn make_sets(install: &Path) {
    let shell = |script: &str| {
        let status = Command::new("bash").args(["-ec", script]).current_dir(install).status().expect("bash");
        assert!(status.success(), "{script}");
    };
    shell(
        "cd \"$(rustc --print sysroot)\"; find . -type f -size -200M | LC_ALL=C sort | head -c 100000 | \
           awk '{print}' | while read f; do s=$(stat -c %s \"$f\"); t=$((t + s)); [ $t -gt 320000000 ] && break; echo \"$f\"; done > /tmp/windlass-bench-list; \
           tar czf \"$OLDPWD/toolchain.tar.gz\" --transform 's,^,toolchain/,' -T /tmp/windlass-bench-list; rm /tmp/windlass-bench-list",
    );
    let jars = install.join("jars/lib");
    fs::create_dir_all(&jars).expect("folder");
    let mut state = 1u64;
    for number in 0..250u32 {
        // From 5 KiB to 13 MiB, as a directory of jars has them.
        let size = 5_000 + (number * number % 251) as usize * 11_000;
        let mut bytes = Vec::with_capacity(size + 8);
        while bytes.len() < size {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let noise = state.to_be_bytes();
            bytes.extend_from_slice(if state.is_multiple_of(11) { b"META-INF" } else { &noise });
        }
        fs::write(jars.join(format!("library-{number}.jar")), bytes).expect("file");
    }
    shell("tar czf jars.tar.gz jars; rm -rf jars");
    shell(
        "cd \"${CARGO_HOME:-$HOME/.cargo}/registry/src\"; tar czf \"$OLDPWD/sources.tar.gz\" --transform 's,^,sources/,' .",
    );
}
