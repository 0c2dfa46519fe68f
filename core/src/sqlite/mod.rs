//! The only module that names SQLite's library.
