//! Whole-program tests: the real `walrust` binary beside an application in another process.
//!
//! The oracle is bytes. An application writes through a [`record::Recorder`], which keeps a log of its
//! commits with the image that SQLite showed after each; [`oracle::Oracle`] reads that log and says which
//! commit a restored file is. [`program`] drives the binary, [`bucket`] names the stores it writes to:
//! a folder, a real server ([`weed`]), or an in-process one that can fail on demand ([`server`]). [`cluster`] is a real
//! Kubernetes API server.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a harness reports by panicking"
)]

pub mod aged;
pub mod bank;
pub mod bucket;
pub mod chart;
pub mod cluster;
pub mod damage;
pub mod litestream;
pub mod locks;
pub mod operator;
pub mod oracle;
pub mod page;
pub mod pod;
pub mod process;
pub mod program;
pub mod record;
pub mod replica;
pub mod scene;
pub mod served;
pub mod server;
pub mod shell;
pub mod shim;
pub mod support;
pub mod transcript;
pub mod weed;
pub mod workload;
