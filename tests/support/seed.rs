//! What tests try by chance, so that it can be tried again.

/// Returns `SEED` from the environment, or `default`, and prints it: a failed test tells how to run it again.
pub(crate) fn seed(default: u64) -> u64 {
    let seed = std::env::var("SEED").map_or(default, |text| text.parse().expect("SEED is a number"));
    println!("SEED={seed}");
    seed
}

/// A small generator of numbers that a seed repeats.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns one of `0..bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}
