//! A Kubernetes control plane for tests, until standard input closes: see `walrust_tests::cluster`.
//!
//! By hand: `cargo run --bin walrust-test-cluster` prints its kubeconfig; Ctrl-C takes it down.

fn main() {
    walrust_tests::cluster::host::run();
}
