//! The long campaign: `WINDLASS_LONG=1 cargo test --test stack long -- --nocapture --test-threads=1`.
