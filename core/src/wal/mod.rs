//! The write-ahead log as SQLite writes it.
