//! Runs the body that `tests/fuzz_smoke/frame.rs` documents.

#![no_main]

#[path = "../../tests/fuzz_smoke/frame.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|input: &[u8]| body::run(input));
