//! Verification of made-up histories: what is right passes, and each damage is found where it is.

mod damage;
mod faults;
mod healthy;
mod large;
mod mending;
mod real;

use std::path::Path;
use std::sync::Arc;

use super::{Fix, IssueKind, VerifyReport, VerifyRequest, verify};
use crate::clock::Clock;
use crate::lease::LeasePolicy;
use crate::ltx::Mark;
use crate::manifest::{FileKey, Manifest};
use crate::restore::tests::world::{START, World, range};
use crate::restore::{Progress, Silent};
use crate::store::Store;
use crate::types::Timestamp;

fn clock() -> Clock {
    Clock::manual(Timestamp::from_millis(START + 1_000_000_000))
}

fn request(world: &World, fix: Fix) -> VerifyRequest {
    VerifyRequest {
        layout: world.layout.clone(),
        fix,
        deep: false,
        scratch: std::env::temp_dir(),
    }
}

async fn run_on(store: &Arc<dyn Store>, world: &World, fix: Fix) -> crate::Result<VerifyReport> {
    let progress: Arc<dyn Progress> = Arc::new(Silent);
    verify(store, &request(world, fix), &clock(), &progress).await
}

async fn check(world: &World) -> VerifyReport {
    run_on(&world.store, world, Fix::No).await.unwrap()
}

/// Mends; a writer without a lease is thought to be gone at once.
fn yes() -> Fix {
    Fix::Yes(LeasePolicy {
        duration: std::time::Duration::ZERO,
        ..LeasePolicy::default()
    })
}

async fn mend(world: &World) -> VerifyReport {
    run_on(&world.store, world, yes()).await.unwrap()
}

/// What is open, as kind, file name and message.
fn open(report: &VerifyReport) -> Vec<(IssueKind, String, String)> {
    let issues = report.open_issues();
    issues
        .map(|issue| {
            let name = issue
                .key
                .rsplit_once("p/app.db/")
                .map_or("", |(_, name)| name);
            (issue.kind, name.to_owned(), issue.message.clone())
        })
        .collect()
}

/// That exactly this is wrong.
#[track_caller]
fn only(report: &VerifyReport, kind: IssueKind, name: &str, message: &str, what: &str) {
    let found = open(report);
    let [(found_kind, found_name, found_message)] = found.as_slice() else {
        panic!("{what}: {found:#?}");
    };
    assert_eq!(
        (*found_kind, found_name.as_str()),
        (kind, name),
        "{what}: {found_message}"
    );
    assert!(found_message.contains(message), "{what}: {found_message}");
    assert!(!report.ok, "{what}");
}

/// A history with every kind of file, published whole. Snapshots at 1 and 5, a rebase at 6.
async fn small_world(seed: u64) -> World {
    let mut world = World::new(seed, 512);
    fill(&mut world).await;
    world.publish().await;
    world
}

async fn fill(world: &mut World) {
    world.commits(9);
    world.snapshot(1).await;
    world.incremental(2, 2).await;
    world.incremental(3, 3).await;
    world.incremental(4, 5).await;
    world.merged(1, 2, 5).await;
    world.snapshot(5).await;
    world
        .put(FileKey::incremental(range(6, 6)), Mark::Rebase)
        .await;
    world.incremental(7, 7).await;
    world.incremental(8, 8).await;
    world.merged(1, 6, 8).await;
    world.merged(2, 2, 8).await;
    world.incremental(9, 9).await;
}

/// The place of a file in the database's folder.
fn name_of(key: FileKey) -> String {
    key.to_string()
}

/// As after a compaction.
fn compacted(world: &World) {
    let path = world.bucket().join(world.layout.manifest());
    let mut manifest = Manifest::parse(&std::fs::read(&path).unwrap()).unwrap();
    manifest.compactions += 1;
    std::fs::write(&path, manifest.encode().unwrap()).unwrap();
}

fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 0x10;
    std::fs::write(path, bytes).unwrap();
}
