//! A small stream to be damaged, and what `verify` says of it.

use std::collections::BTreeMap;
use std::fs;

use serde_json::Value;

use crate::bucket::Bucket;
use crate::process::{Output, Process};
use crate::program::{Watch, walrust};
use crate::scene::{Scene, Writer};
use crate::support::{PATIENCE, until};
use crate::workload::Spec;

/// `verify NAME --json` with these further arguments.
pub fn verify(bucket: &Bucket, name: &str, arguments: &[&str]) -> Output {
    let mut command = walrust(bucket, "verify");
    command.arg(name).arg("--json").args(arguments);
    Process::run(&mut command, PATIENCE * 2)
}

/// The issues of a report that are no notes: kind and file name.
pub fn issues(report: &Value) -> Vec<(String, String)> {
    let issues = report["issues"].as_array().unwrap().iter();
    issues
        .filter(|issue| issue["kind"] != "note")
        .map(|issue| {
            let key = issue["key"].as_str().unwrap();
            let name = key.trim_end_matches('/').rsplit('/').next().unwrap();
            let level = key.rsplit('/').nth(1).unwrap_or_default();
            let name = match name.ends_with(".ltx") {
                true => format!("{level}/{name}"),
                false => name.to_owned(),
            };
            (issue["kind"].as_str().unwrap().to_owned(), name)
        })
        .collect()
}

/// Commits and ships `count` rows, one object each.
pub fn ship_rows(watch: &Watch, scene: &Scene, writer: &mut Writer, count: u64) {
    for _ in 0..count {
        writer.row();
        watch.wait_stored(scene, PATIENCE);
    }
}

/// What a real watch leaves after a clean stop: snapshots at the start and in the middle, incrementals of one commit
/// each, and, if asked for, a merged file.
pub fn stored(test: &str, seed: u64, merged: bool) -> Scene {
    let scene = Scene::new(test, "a.db");
    let mut writer = scene.writer(Spec {
        page_size: 512,
        ..scene.spec(seed)
    });
    let flags = ["--sync-interval", "10ms"];
    let watch = Watch::ready(&scene.bucket, &[&scene.database()], &flags);
    watch.wait_attached(&scene);
    ship_rows(&watch, &scene, &mut writer, 4);
    let mut snapshot = walrust(&scene.bucket, "snapshot");
    Process::run(snapshot.arg(scene.database()), PATIENCE).expect_success();
    ship_rows(&watch, &scene, &mut writer, 4);
    if merged {
        let there = || {
            scene
                .bucket
                .ltx_keys()
                .iter()
                .any(|key| key.contains("/0001/"))
        };
        until("a merged file", PATIENCE * 2, || there().then_some(()));
    }
    ship_rows(&watch, &scene, &mut writer, 3);
    watch.drain();
    scene
}

/// A fresh copy of the store, damaged.
pub fn damaged(scene: &Scene, damage: impl FnOnce(&Bucket)) -> Bucket {
    let folder = scene.path().join("damaged");
    let _ = fs::remove_dir_all(&folder);
    let copy = scene.bucket.copy_to(&folder);
    damage(&copy);
    copy
}

/// Every object but the manifest, and the manifest.
pub fn content(bucket: &Bucket) -> (BTreeMap<String, Vec<u8>>, Option<Vec<u8>>) {
    let read = |key: &String| fs::read(bucket.file(key)).ok();
    let keys = bucket.keys();
    let (manifest, others): (Vec<String>, Vec<String>) = keys
        .into_iter()
        .partition(|key| key.ends_with("/manifest.json"));
    let others = others.into_iter();
    let others = others.filter_map(|key| Some((key.clone(), read(&key)?)));
    // The lease is taken and given back where a manifest is written anew.
    let others = others.filter(|(key, _)| !key.ends_with("/lease.json"));
    (others.collect(), manifest.first().and_then(read))
}

/// The place of a file below its database.
pub fn place(key: &str) -> String {
    key.strip_prefix("a.db/").unwrap().to_owned()
}
