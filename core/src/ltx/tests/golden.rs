//! Files that Litestream wrote, against the values that it wrote them from.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::Value;

use super::*;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/litestream")
}

fn manifest() -> Value {
    let text = std::fs::read_to_string(root().join("manifest.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn read(path: &Value) -> Vec<u8> {
    std::fs::read(root().join(path.as_str().unwrap())).unwrap()
}

fn hex(value: u64) -> String {
    format!("{value:016x}")
}

#[test]
fn every_field_of_litestream_files_is_read() {
    let manifest = manifest();
    let files = manifest["files"].as_array().unwrap();
    assert!(files.len() >= 12);
    for file in files {
        let bytes = read(&file["path"]);
        let (verified, pages) = decode(&bytes).unwrap();
        let (header, expected) = (&verified.header, &file["header"]);
        assert_eq!(header.page_size.get(), expected["page_size"]);
        assert_eq!(header.commit.0, expected["commit"]);
        assert_eq!(
            header.range.min().to_string(),
            expected["min_txid"].as_str().unwrap()
        );
        assert_eq!(
            header.range.max().to_string(),
            expected["max_txid"].as_str().unwrap()
        );
        assert_eq!(header.timestamp.millis(), expected["timestamp_ms"]);
        assert_eq!(header.tracking, Tracking::Untracked);
        assert_eq!(header.node, expected["node_id"]);
        let wal = header
            .wal
            .map_or((0, 0, [0; 2]), |wal| (wal.offset, wal.size, wal.salt));
        assert_eq!(wal.0, expected["wal_offset"]);
        assert_eq!(wal.1, expected["wal_size"]);
        assert_eq!(wal.2[0], expected["wal_salt1"]);
        assert_eq!(wal.2[1], expected["wal_salt2"]);
        assert_eq!(
            header.encode(),
            bytes[..100],
            "a header is written as it was read"
        );

        assert_eq!(verified.size, file["size"]);
        assert_eq!(verified.post_apply, None);
        let sum = verified.file_checksum.to_string();
        assert_eq!(sum, file["trailer"]["file_checksum"].as_str().unwrap());

        let frames = file["pages"]["frames"].as_array().unwrap();
        assert_eq!(pages.len(), frames.len());
        let index = read_index(&bytes);
        for (((number, data), frame), entry) in pages.iter().zip(frames).zip(index) {
            assert_eq!(number.get(), frame["pgno"]);
            let sum = PageSum::of(*number, data);
            assert_eq!(hex(sum.crc), frame["checksum"].as_str().unwrap());
            assert_eq!(entry.page, *number);
            assert_eq!(entry.offset, frame["offset"]);
            assert_eq!(entry.length, frame["size"]);
        }
        let name: LtxName = file["path"]
            .as_str()
            .unwrap()
            .rsplit('/')
            .next()
            .unwrap()
            .parse()
            .unwrap();
        name.check(header).unwrap();
    }
}

fn read_index(file: &[u8]) -> Vec<IndexEntry> {
    let tail = file.last_chunk().unwrap();
    let at = IndexLocation::find(*tail, file.len() as u64).unwrap();
    let index = &file[at.offset as usize..][..at.length as usize];
    IndexReader::new(index, at)
        .collect::<Result<_, _>>()
        .unwrap()
}

#[test]
fn chains_of_litestream_files_give_its_databases() {
    let manifest = manifest();
    for chain in manifest["chains"].as_array().unwrap() {
        let mut database = BTreeMap::new();
        let files = chain["files"].as_array().unwrap();
        for (path, step) in files.iter().zip(chain["steps"].as_array().unwrap()) {
            let (verified, pages) = decode(&read(path)).unwrap();
            database.extend(pages);
            database.retain(|page, _| verified.header.commit.holds(*page));
            let mut sum = DatabaseSum::EMPTY;
            for (number, data) in &database {
                sum.add(PageSum::of(*number, data));
            }
            assert_eq!(
                sum.checksum.to_string(),
                step["database_checksum"].as_str().unwrap()
            );
            assert_eq!(verified.header.commit.0, step["commit"]);
        }
        assert_eq!(database.len(), chain["pages"].as_u64().unwrap() as usize);
    }
}

#[test]
fn files_of_litestream_written_anew_hold_the_same() {
    for file in manifest()["files"].as_array().unwrap() {
        let bytes = read(&file["path"]);
        let (verified, pages) = decode(&bytes).unwrap();
        let spec = Spec {
            header: verified.header.clone(),
            post_apply: None,
            pages: pages.clone(),
        };
        let (again, pages_again) = decode(&spec.encode()).unwrap();
        assert_eq!((again.header, pages_again), (verified.header, pages));
    }
}
