//! Runs the body that `tests/fuzz_smoke/project.rs` documents.

#![no_main]

#[path = "../../tests/fuzz_smoke/project.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|input: &str| body::run(input));
