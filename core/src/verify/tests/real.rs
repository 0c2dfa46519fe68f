//! Databases that SQLite made: drills, the deep check, and what Litestream wrote.

use std::path::Path;
use std::sync::Arc;

use super::{clock, flip, request, run_on};
use crate::error::ErrorKind;
use crate::manifest::FileKey;
use crate::restore::tests::world::{World, range, txid};
use crate::restore::{Progress, Silent};
use crate::sqlite::testing::App;
use crate::store::{FileStore, Layout, Store};
use crate::verify::{DrillReport, DrillRequest, DrillTarget, Fix, VerifyRequest, drill, verify};

/// A database with an index, of five states.
async fn real_world(seed: u64, page_size: u32) -> World {
    let mut world = World::new(seed, page_size);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("app.db");
    let mut app = App::with_database(&path, page_size);
    app.sql("a", "CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB)");
    app.sql("a", "CREATE INDEX i ON t(v)");
    world.commit_image(app.image("a"));
    world.snapshot(1).await;
    for statement in [
        "INSERT INTO t(v) WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM n WHERE x<300) SELECT randomblob(x) FROM n",
        "DELETE FROM t WHERE id % 3 = 0",
        "VACUUM",
        "UPDATE t SET v = zeroblob(900) WHERE id < 20",
    ] {
        app.sql("a", statement);
        let at = world.commit_image(app.image("a"));
        world.incremental(at, at).await;
    }
    world.publish().await;
    world
}

async fn drilled(world: &World, target: DrillTarget, scratch: &Path) -> DrillReport {
    let request = DrillRequest {
        layout: world.layout.clone(),
        target,
        scratch: scratch.to_owned(),
    };
    drill(&world.store, &request, &clock()).await
}

fn is_empty(directory: &Path) -> bool {
    std::fs::read_dir(directory).unwrap().next().is_none()
}

#[tokio::test]
async fn a_drill_restores_checks_and_leaves_nothing() {
    for page_size in [512, 4096, 65536] {
        let world = real_world(80, page_size).await;
        let scratch = tempfile::tempdir().unwrap();
        let report = drilled(&world, DrillTarget::Latest, scratch.path()).await;
        assert!(report.ok, "{report:?}");
        assert_eq!(report.txid, Some(txid(5)));
        assert_eq!(report.bytes, Some(world.images[&5].bytes.len() as u64));
        assert_eq!(
            (report.integrity.as_deref(), report.message),
            (Some("ok"), None)
        );
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..40 {
            let report = drilled(&world, DrillTarget::Random, scratch.path()).await;
            assert!(report.ok, "{report:?}");
            seen.insert(report.txid.unwrap().get());
        }
        assert!(
            seen.len() > 2 && seen.iter().all(|txid| (1..=5).contains(txid)),
            "{seen:?}"
        );
        assert!(is_empty(scratch.path()));
    }
}

#[tokio::test]
async fn a_drill_that_fails_says_why_and_leaves_nothing() {
    let world = real_world(81, 512).await;
    let scratch = tempfile::tempdir().unwrap();
    let key = FileKey::incremental(range(3, 3));
    flip(&world.path_of(key), 130);
    let report = drilled(&world, DrillTarget::Latest, scratch.path()).await;
    assert!(!report.ok);
    assert_eq!(
        (report.failure, report.integrity),
        (Some(ErrorKind::Corrupt), None)
    );
    let message = report.message.unwrap();
    assert!(
        message.contains(&world.layout.key(key.entry())),
        "{message}"
    );
    assert!(is_empty(scratch.path()));
    let report = drilled(&world, DrillTarget::Latest, &scratch.path().join("nowhere")).await;
    assert_eq!(report.failure, Some(ErrorKind::NotFound));
    assert!(report.message.unwrap().contains("nowhere"));
    let unknown = World::new(81, 512);
    let report = drilled(&unknown, DrillTarget::Random, scratch.path()).await;
    assert_eq!(report.failure, Some(ErrorKind::NotFound));
}

#[tokio::test]
async fn v2_pages_that_are_what_they_claim_and_no_sound_database_fail_the_deep_check() {
    let mut world = real_world(82, 512).await;
    // As a capture that mixes up pages would: all sums are right, the database is not.
    let mut bytes = world.images[&5].bytes.clone();
    let pages = bytes.len() / 512;
    let last = bytes[(pages - 1) * 512..].to_vec();
    bytes[512..1024].copy_from_slice(&last);
    let at = world.commit_image(bytes);
    world.incremental(at, at).await;
    world.publish().await;
    let shallow = run_on(&world.store, &world, Fix::No).await.unwrap();
    assert!(
        shallow.ok,
        "the bytes are those that were captured: {:#?}",
        shallow.issues
    );
    let scratch = tempfile::tempdir().unwrap();
    let deep = VerifyRequest {
        deep: true,
        scratch: scratch.path().to_owned(),
        ..request(&world, Fix::No)
    };
    let progress: Arc<dyn Progress> = Arc::new(Silent);
    let report = verify(&world.store, &deep, &clock(), &progress)
        .await
        .unwrap();
    assert_eq!((report.ok, report.deep.ok), (false, Some(false)));
    assert_eq!(report.failure(), Some(ErrorKind::Corrupt));
    let message = report.deep.message.unwrap();
    assert!(message.contains("integrity_check"), "{message}");
    assert!(is_empty(scratch.path()));

    let sound = real_world(83, 4096).await;
    let deep = VerifyRequest {
        deep: true,
        scratch: scratch.path().to_owned(),
        ..request(&sound, Fix::No)
    };
    let report = verify(&sound.store, &deep, &clock(), &progress)
        .await
        .unwrap();
    assert_eq!(
        (report.ok, report.deep.ok),
        (true, Some(true)),
        "{report:#?}"
    );
}

#[tokio::test]
async fn what_litestream_wrote_is_verified_too() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/litestream");
    let copy = tempfile::tempdir().unwrap();
    let progress: Arc<dyn Progress> = Arc::new(Silent);
    for name in ["p512", "p4096", "p4096-frame", "p65536"] {
        let from = fixtures.join(name);
        for path in crate::restore::tests::world::walk(&from) {
            let to = copy
                .path()
                .join(name)
                .join(path.strip_prefix(&from).unwrap());
            std::fs::create_dir_all(to.parent().unwrap()).unwrap();
            std::fs::copy(path, to).unwrap();
        }
        let store: Arc<dyn Store> = Arc::new(FileStore::open(copy.path()).unwrap());
        let request = VerifyRequest {
            layout: Layout::new("".parse().unwrap(), name.parse().unwrap()),
            fix: Fix::No,
            deep: true,
            scratch: copy.path().to_owned(),
        };
        let report = verify(&store, &request, &clock(), &progress).await.unwrap();
        assert!(report.ok, "{name}: {report:#?}");
        assert_eq!((report.format, report.files), ("litestream", 0));
        assert!(
            report.verified > 0 && report.verified == report.behind,
            "{report:#?}"
        );
        let file = crate::restore::tests::world::walk(&copy.path().join(name));
        let file = file
            .iter()
            .filter(|path| path.extension().is_some_and(|e| e == "ltx"));
        let file = file
            .max_by_key(|path| std::fs::metadata(path).unwrap().len())
            .unwrap();
        let size = std::fs::metadata(file).unwrap().len() as usize;
        flip(file, size / 2);
        let report = verify(&store, &request, &clock(), &progress).await.unwrap();
        let issues: Vec<_> = report.open_issues().collect();
        assert_eq!(issues.len(), 1, "{name}: {issues:#?}");
        assert!(
            issues[0]
                .key
                .ends_with(file.file_name().unwrap().to_str().unwrap())
        );
    }
}
