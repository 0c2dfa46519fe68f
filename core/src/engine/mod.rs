//! Watching databases: capture, uploads, snapshots, checkpoints.
