//! The Helm chart as a test sees it: what it renders, and the documentation made from its values.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::cluster::{Answer, finish, program};
use crate::support::scratch;

/// `charts/walrust`.
pub fn folder() -> PathBuf {
    repository().join("charts/walrust")
}

/// The checkout.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

/// The values files of `ci/`: one for each way to install it.
pub fn variants() -> Vec<PathBuf> {
    let entries = fs::read_dir(folder().join("ci")).unwrap();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 5, "{files:?}");
    files
}

/// Helm without a cluster.
pub struct Helm {
    home: TempDir,
}

impl Helm {
    /// Helm with a home of its own.
    #[expect(clippy::new_without_default, reason = "it makes a folder")]
    pub fn new() -> Self {
        Self {
            home: scratch("helm"),
        }
    }

    /// One call.
    pub fn run(&self, arguments: &[&str]) -> Answer {
        let mut command = Command::new(program("helm"));
        command.env("HOME", self.home.path()).args(arguments);
        for variable in ["XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"] {
            command.env_remove(variable);
        }
        finish(&mut command, "")
    }

    /// What release `r` in `walrust-system` would consist of.
    #[track_caller]
    pub fn render(&self, options: &[&str]) -> Vec<Value> {
        objects(&self.template(options).expect())
    }

    /// The same as text, or the refusal.
    pub fn template(&self, options: &[&str]) -> Answer {
        let chart = folder();
        let chart = chart.to_str().unwrap();
        let mut arguments = vec!["template", "r", chart, "--namespace", "walrust-system"];
        arguments.extend(options);
        self.run(&arguments)
    }
}

/// The objects of a stream of YAML documents.
#[track_caller]
pub fn objects(text: &str) -> Vec<Value> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).unwrap();
    documents
        .into_iter()
        .filter(|object| !object.is_null())
        .collect()
}

/// `Kind/name` of `object`.
pub fn named(object: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    format!(
        "{}/{}",
        text(&object["kind"]),
        text(&object["metadata"]["name"])
    )
}

/// The table of README.md, made from the comments and defaults of values.yaml.
#[track_caller]
pub fn values_table() -> String {
    let text = fs::read_to_string(folder().join("values.yaml")).unwrap();
    let values: Value = serde_saphyr::from_str(&text).unwrap();
    let mut table = String::from("| key | default | what |\n|---|---|---|\n");
    // Keys above the current line, with their indentation; and the comment just before it.
    let mut path: Vec<(usize, String)> = Vec::new();
    let (mut comment, mut documented) = (String::new(), usize::MAX);
    for line in text.lines() {
        let content = line.trim_start();
        let indent = line.len() - content.len();
        if content.is_empty() {
            comment.clear();
        } else if let Some(words) = content.strip_prefix("# ") {
            comment.push_str(words);
        } else if let Some((key, value)) = content.split_once(':')
            && indent <= documented
        {
            documented = usize::MAX;
            path.retain(|(at, _)| *at < indent);
            path.push((indent, key.to_owned()));
            if comment.is_empty() {
                assert!(value.trim().is_empty(), "{key} has no comment");
                continue;
            }
            let keys: Vec<&str> = path.iter().map(|(_, key)| key.as_str()).collect();
            let default = keys.iter().fold(&values, |value, key| &value[key]);
            // What is documented as a whole is not listed part by part.
            documented = indent;
            let name = keys.join(".");
            let what = comment.replace('|', "\\|");
            table.push_str(&format!("| `{name}` | `{default}` | {what} |\n"));
            comment.clear();
        }
    }
    table
}
