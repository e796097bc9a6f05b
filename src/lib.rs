//! windlass: vendor tarballs and conf become immutable bundles, moved node by node, with a way back.
//!
//! Modules, from the edge down. A module may use those below it and never one above;
//! `tests/architecture.rs` keeps this against the table in `ARCHITECTURE.md`.
//!
//! | module | for |
//! |---|---|
//! | [`cli`] | arguments, one file per command, errors to text and exit codes |
//! | [`report`] | progress, tables, diffs: what a person reads |
//! | `nodes` | the cluster's nodes for a rollout: connected, surveyed, probed, staged |
//! | `rollout` | plans as data, the engine that runs them, gates, undo, journals |
//! | `check` | what is wrong before anything is touched: topology lints, the nodes' preflight |
//! | `push` | bundles, brought to nodes: what each lacks, to many at once |
//! | `remote` | nodes, spoken to: the agent put there and checked, calls, the lock |
//! | `agent` | what runs on a node: objects, stage, activate, guard, journal, gc |
//! | [`build`] | the parallel engine: recipe to bundle in the store |
//! | `inventory` | cluster.toml, host lists, rollout policy, selection of nodes |
//! | `transport` | nodes, reached: SSH, this machine, jump hosts, known hosts |
//! | [`store`] | `out/`: OCI layout, caches, locks, gc |
//! | [`bundle`] | the format: canonical tar, frames, table of contents, manifest |
//! | [`archive`] | vendor archives as checked streams of entries |
//! | [`recipe`] | windlass.toml, recipes, templates, windlass.lock, diagnostics |
//! | [`fs`] | the only place that renames, links, locks and fsyncs |
//! | [`model`] | digest, names, paths, sizes: no I/O |
pub mod adapters;
pub mod agent;
pub mod archive;
pub mod build;
pub mod bundle;
pub mod check;
pub mod cli;
pub mod fs;
pub mod inventory;
pub mod model;
pub mod nodes;
pub mod push;
pub mod recipe;
pub mod remote;
pub mod report;
pub mod rollout;
pub mod store;
pub mod transport;
