//! From the bucket back to a database file.
