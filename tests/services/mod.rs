//! Adapters against the real services: each test starts a cluster on this machine, promotes another release under a
//! client that keeps working, and looks at what the client saw.

mod kafka;
mod lab;
mod nginx;
mod redis;
mod zookeeper;
mod zookeeper_client;
