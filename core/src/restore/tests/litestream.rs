//! Buckets that Litestream wrote, in both of its layouts.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value;

use super::world::{run, txid};
use crate::restore::{
    LeaveState, Overwrite, RestoreRequest, RestoreTarget, Verify, describe, list_databases,
};
use crate::store::{FileStore, Layout, Store};

struct Bucket {
    directory: tempfile::TempDir,
    store: Arc<dyn Store>,
    layout: Layout,
}

fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/litestream")
}

fn chains() -> Vec<Value> {
    let text = std::fs::read_to_string(fixtures().join("manifest.json")).unwrap();
    let manifest: Value = serde_json::from_str(&text).unwrap();
    manifest["chains"].as_array().unwrap().clone()
}

/// A bucket with these files, in the layout of S3 or of file replicas.
fn bucket(files: &[&str], hex: bool) -> Bucket {
    let directory = tempfile::tempdir().unwrap();
    let layout = Layout::new("".parse().unwrap(), "nested/app.db".parse().unwrap());
    let root = directory.path().join("bucket");
    for file in files {
        let parts: Vec<&str> = file.split('/').collect();
        let (level, name) = (parts[2], parts[3]);
        let level = if hex {
            format!("000{level}")
        } else {
            format!("ltx/{level}")
        };
        let folder = root.join("nested/app.db").join(level);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::copy(fixtures().join(file), folder.join(name)).unwrap();
    }
    let store: Arc<dyn Store> = Arc::new(FileStore::open(&root).unwrap());
    Bucket {
        directory,
        store,
        layout,
    }
}

impl Bucket {
    fn request(&self, target: RestoreTarget) -> RestoreRequest {
        RestoreRequest {
            layout: self.layout.clone(),
            output: self.directory.path().join("out.db"),
            target,
            overwrite: Overwrite::Yes,
            verify: Verify::Full,
            state: LeaveState::Yes,
        }
    }
}

fn files(chain: &Value) -> Vec<&str> {
    chain["files"]
        .as_array()
        .unwrap()
        .iter()
        .map(|file| file.as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn every_chain_of_litestream_restores_in_both_layouts() {
    for chain in chains() {
        for hex in [false, true] {
            let bucket = bucket(&files(&chain), hex);
            for step in chain["steps"].as_array().unwrap() {
                let max = step["max_txid"].as_str().unwrap();
                let target = RestoreTarget::Txid(max.parse().unwrap());
                let report = run(&bucket.store, &bucket.request(target)).await.unwrap();
                assert_eq!(
                    report.checksum.to_string(),
                    step["database_checksum"].as_str().unwrap()
                );
                assert_eq!(report.format, "litestream");
                assert_eq!(report.txid_hex, max);
                assert!(
                    report.time.is_some() && report.notes.is_empty(),
                    "{report:?}"
                );
            }
            let report = run(&bucket.store, &bucket.request(RestoreTarget::Latest))
                .await
                .unwrap();
            assert_eq!(report.txid_hex, chain["txid"].as_str().unwrap());
            let size = std::fs::metadata(bucket.directory.path().join("out.db"))
                .unwrap()
                .len();
            assert_eq!(size, chain["database_size"].as_u64().unwrap());
            // A state directory would let a watcher continue a chain that it cannot continue.
            assert_eq!(
                std::fs::read_dir(bucket.directory.path()).unwrap().count(),
                2
            );
        }
    }
}

#[tokio::test]
async fn litestream_buckets_are_listed_as_such() {
    let chains = chains();
    for hex in [false, true] {
        let bucket = bucket(&files(&chains[0]), hex);
        std::fs::create_dir_all(bucket.directory.path().join("bucket/photos/2024")).unwrap();
        std::fs::write(
            bucket
                .directory
                .path()
                .join("bucket/photos/2024/manifest.txt"),
            "x",
        )
        .unwrap();
        let list = list_databases(&*bucket.store, &"".parse().unwrap())
            .await
            .unwrap();
        assert_eq!(list.databases.len(), 1, "{list:?}");
        let database = &list.databases[0];
        assert_eq!(
            (database.name.as_str(), database.format),
            ("nested/app.db", Some("litestream"))
        );
        assert_eq!(
            (database.segments, database.txid, database.objects),
            (Some(4), Some(5), Some(5))
        );
        assert!(list.is_sound() && database.checksum.is_none() && database.time.is_some());
        let described = describe(&*bucket.store, &bucket.layout).await.unwrap();
        let points: Vec<u64> = described.points.iter().map(|point| point.txid).collect();
        assert_eq!(points, [1, 2, 3, 4, 5]);
        assert!(described.points.iter().all(|point| point.time.is_some()));
        // Each advertised time leads to its point, or to a later one of the same time.
        for point in &described.points {
            let target = RestoreTarget::At(point.time.unwrap());
            let report = run(&bucket.store, &bucket.request(target)).await.unwrap();
            assert!(report.txid >= point.txid);
        }
    }
}

#[tokio::test]
async fn a_gap_in_a_litestream_bucket_is_an_error_and_a_txid_before_it_is_not() {
    let chains = chains();
    let mut files = files(&chains[0]);
    files.remove(2);
    for hex in [false, true] {
        let bucket = bucket(&files, hex);
        let error = run(&bucket.store, &bucket.request(RestoreTarget::Latest))
            .await
            .unwrap_err();
        assert!(
            error
                .to_string()
                .contains("transactions 3 to 3 are missing"),
            "{error}"
        );
        assert!(error.to_string().contains("txid:2"), "{error}");
        let report = run(&bucket.store, &bucket.request(RestoreTarget::Txid(txid(2))))
            .await
            .unwrap();
        assert_eq!(report.txid, 2);
    }
}
