//! The configuration file and what it means.
