//! The whole old stack in one cluster file: four nodes, the stock recipes and their conf, and every service that can
//! be had for real, several of them on one node, while clients write through the front door and to Redis. The short
//! version is for every run of the tests; the long one runs with `tests/run --long`, and its figures are in
//! docs/adapters.md.

mod clients;
mod lab;
mod long;
mod short;
mod stock;
