//! walrust.
fn main() {}
