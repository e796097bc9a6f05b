//! Runs the body that `tests/fuzz_smoke/lock.rs` documents.

#![no_main]

#[path = "../../tests/fuzz_smoke/lock.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|input: &str| body::run(input));
