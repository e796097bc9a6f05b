//! The fuzz targets' bodies, run over their seeds and over seeded mutations of them.
//!
//! `fuzz/run` explores with coverage and `AddressSanitizer`, and needs a nightly toolchain. This is the part of it that
//! fits any machine and every test run: a body that no longer compiles, a seed that fails, and bugs a few edits away
//! from well-formed input are found without it. libFuzzer on stable Rust would compile the library and its
//! dependencies a second time for the same few seconds of unguided mutations.
//!
//! ```text
//! SEED=4711 cargo test fuzz_smoke            other mutations
//! FUZZ_RUNS=100000 cargo test fuzz_smoke     more of them
//! ```
//!
//! A failing input is kept in `target/tmp/`; copy it to `fuzz/seeds/TARGET/` once it is fixed.

use std::fs;
use std::path::Path;

mod archive;
mod footer;
mod frame;
mod index;
mod lock;
mod manifest;
mod project;
mod record;
mod toc;

/// Declares one test per target, with the number of mutated inputs that it runs in about a second.
macro_rules! smoke {
    ($($target:ident: $runs:literal, $input:ident => $run:expr;)*) => {
        $(#[test]
        fn $target() {
            smoke(stringify!($target), $runs, |$input| $run);
        })*

        #[test]
        fn every_target_has_a_smoke_test() {
            let mut here = [$(stringify!($target)),*];
            here.sort_unstable();
            assert_eq!(names_in("fuzz/seeds"), here);
            assert_eq!(names_in("fuzz/fuzz_targets"), here.map(|name| format!("{name}.rs")));
        }
    };
}

smoke! {
    archive: 10_000, input => archive::run(input);
    footer: 100_000, input => footer::run(input);
    frame: 50_000, input => frame::run(input);
    index: 50_000, input => index::run(input);
    lock: 10_000, input => lock::run(&String::from_utf8_lossy(input));
    manifest: 20_000, input => manifest::run(input);
    project: 1000, input => project::run(&String::from_utf8_lossy(input));
    record: 50_000, input => record::run(input);
    toc: 20_000, input => toc::run(input);
}

fn from_env(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

/// The names in a folder of the repository, sorted.
fn names_in(folder: &str) -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let entries = fs::read_dir(folder).expect("the folder is there");
    let mut names: Vec<_> =
        entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8")).collect();
    names.sort_unstable();
    names
}

/// Runs one target on nothing, on each of its seeds, and on mutations of them.
fn smoke(target: &str, runs: u64, run: impl Fn(&[u8])) {
    let seed = from_env("SEED").unwrap_or(1);
    println!("{target}: SEED={seed}");
    let folder = format!("fuzz/seeds/{target}");
    let seeds: Vec<Vec<u8>> = names_in(&folder)
        .iter()
        .map(|name| Path::new(env!("CARGO_MANIFEST_DIR")).join(&folder).join(name))
        .map(|path| fs::read(path).expect("a seed can be read"))
        .collect();
    let tried = |input: &[u8]| {
        let kept = Kept { target, seed, input };
        run(input);
        drop(kept);
    };
    tried(&[]);
    for input in &seeds {
        tried(input);
    }
    let mut random = Random(seed);
    for _ in 0..from_env("FUZZ_RUNS").unwrap_or(runs) {
        tried(&random.mutation(&seeds));
    }
}

/// Keeps the input of a run that panics.
struct Kept<'a> {
    target: &'a str,
    seed: u64,
    input: &'a [u8],
}

impl Drop for Kept<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let path =
                Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fuzz-{}-{}", self.target, self.seed));
            match fs::write(&path, self.input) {
                Ok(()) => println!("{}: failed on the input in {}", self.target, path.display()),
                Err(error) => println!("{}: could not keep {:?}: {error}", self.target, self.input),
            }
        }
    }
}

/// `SplitMix64`.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `end`, which is not 0.
    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).expect("it is below a usize")
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }

    /// A range of `bytes`, mostly short; empty only if they are.
    fn range(&mut self, bytes: &[u8]) -> std::ops::Range<usize> {
        if bytes.is_empty() {
            return 0..0;
        }
        let start = self.below(bytes.len());
        let longest = if self.below(4) == 0 { bytes.len() - start } else { 8.min(bytes.len() - start) };
        start..start + 1 + self.below(longest)
    }

    /// One of the seeds after one to eight edits.
    fn mutation(&mut self, seeds: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = self.pick(seeds).clone();
        for _ in 0..1 << self.below(4) {
            let range = self.range(&bytes);
            match self.below(7) {
                0 => bytes[range.start..].iter_mut().take(1).for_each(|byte| *byte ^= 1 << self.below(8)),
                1 => bytes[range].iter_mut().for_each(|byte| *byte = self.next().to_le_bytes()[0]),
                2 => {
                    let value = *self.pick(&[0, 1, 0x7F, 0x80, 0xFF, b'"', b'.', b'/', b'0', b'9', b'\n']);
                    bytes[range].fill(value);
                }
                3 => drop(bytes.drain(range)),
                4 => {
                    let copy = bytes[range].to_vec();
                    let at = self.below(bytes.len() + 1);
                    bytes.splice(at..at, copy);
                }
                5 => {
                    let other = self.pick(seeds);
                    let piece = other[self.range(other)].to_vec();
                    bytes.splice(range, piece);
                }
                _ => bytes.truncate(range.end),
            }
        }
        bytes
    }
}
