//! The index of what a database's folder holds.
