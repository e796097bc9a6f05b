//! Elasticsearch itself, three nodes of it: upgraded, reconfigured, broken and brought back, while a client writes
//! and reads. The long campaign runs with `WINDLASS_LONG=1`; its figures are in docs/adapters.md.

mod keyed;
mod lab;
mod leave;
mod long;
mod opensearch;
mod plugin;
mod secured;
mod short;
