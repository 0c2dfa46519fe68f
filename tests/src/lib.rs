//! walrust tests.
