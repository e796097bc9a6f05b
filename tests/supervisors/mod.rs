//! Services under each supervisor: a real supervisord, a real systemd, and the embedded one with its keeper.

mod contract;
mod machine;
mod pidfile;
mod supervisord;
mod systemd;
