//! Tables of the configuration: what a file may say, and what holds in the end.

mod files;
mod names;
mod sources;
mod streams;

use std::path::Path;

use super::{Environment, File};

fn parse(text: &str) -> File {
    parse_with(text, &Environment::default())
}

fn parse_with(text: &str, environment: &Environment) -> File {
    File::parse(Path::new("walrust.toml"), text, environment).unwrap()
}

/// The faults of `text`, one `line:column: message` each.
fn faults(text: &str) -> Vec<String> {
    let faults = File::parse(Path::new("walrust.toml"), text, &Environment::default())
        .expect_err(text)
        .faults;
    faults
        .into_iter()
        .map(|fault| format!("{}: {}", fault.place, fault.message))
        .collect()
}
