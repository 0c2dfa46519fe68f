//! The operator: what a `WalrustBackup` becomes in a cluster.
//!
//! | module | what |
//! |---|---|
//! | [`api`] | the two kinds, with their rules, and the labels that users write |
//! | [`yaml`] | YAML in and out |

pub mod api;
pub mod yaml;
