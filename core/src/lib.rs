//! The engine of walrust: continuous backup, restore and replication of SQLite databases.

pub mod clock;
pub mod config;
pub mod doctor;
pub mod engine;
pub mod error;
pub mod estimate;
pub mod fs;
pub mod lease;
pub mod ltx;
pub mod manifest;
pub mod memory;
pub mod process;
pub mod replica;
pub mod report;
pub mod restore;
pub mod retention;
pub mod serve;
pub mod sqlite;
pub mod state;
pub mod store;
pub mod types;
pub mod verify;
pub mod wal;

pub use error::{Error, ErrorKind, Result};
