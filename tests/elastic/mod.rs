//! A real Elasticsearch of three nodes: upgraded, reconfigured, broken and rolled back, while a client writes and
//! reads. The figures of the long campaign (`tests/run --long`) are in docs/adapters.md.

mod keyed;
mod lab;
mod leave;
mod long;
mod opensearch;
mod plugin;
mod secured;
mod short;
