//! WALs written by SQLite, whole and damaged. The snapshot's end is the oracle.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use super::super::*;
use crate::sqlite::testing::{App, Scratch, attach, scratch};
use crate::types::PageSize;

/// A WAL of one generation, its bytes, and where it ends for a reader.
struct Sample {
    app: App,
    place: Scratch,
    bytes: Vec<u8>,
    end: WalEnd,
    /// Frame numbers that end a commit.
    commits: Vec<u32>,
}

fn sample(page_size: u32) -> Sample {
    let place = scratch("app.db");
    let mut app = App::with_database(&place.path, page_size);
    app.sql("a", "CREATE TABLE t(v)");
    for i in 0..4 {
        app.sql(
            "a",
            &format!("INSERT INTO t VALUES (randomblob({}))", 200 + i * 900),
        );
    }
    let end = end_of(&place.path);
    let bytes = std::fs::read(wal_of(&place)).unwrap();
    let commits = commits_of(&bytes, end);
    Sample {
        app,
        place,
        bytes,
        end,
        commits,
    }
}

fn wal_of(place: &Scratch) -> std::path::PathBuf {
    crate::fs::with_suffix(&place.path, "-wal")
}

pub(super) fn end_of(database: &Path) -> WalEnd {
    let source = attach(database);
    let end = source.view().wal.unwrap();
    source.detach().unwrap();
    end
}

pub(super) fn file(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

/// Scans from the start of the generation: the frames seen, and how it ended.
fn scan_all(bytes: &[u8], end: &WalEnd) -> (Vec<u32>, Result<WalCursor, ScanError>) {
    let wal = file(bytes);
    let from = WalCursor::start(&wal).unwrap();
    let mut seen = Vec::new();
    let outcome = scan(&wal, &from, end, &mut Vec::new(), &mut |frame| {
        if frame.commit.is_some() {
            seen.push(frame.number);
        }
        Ok(())
    });
    (seen, outcome)
}

fn commits_of(bytes: &[u8], end: WalEnd) -> Vec<u32> {
    let (commits, outcome) = scan_all(bytes, &end);
    assert_eq!(outcome.unwrap().frame(), end.frames);
    commits
}

fn size_of(sample: &Sample) -> PageSize {
    WalHeader::read(&file(&sample.bytes)).unwrap().page_size
}

#[test]
fn w1_a_wal_of_this_machine_is_valid_to_its_last_frame() {
    for page_size in [512, 4096, 65536] {
        let sample = sample(page_size);
        assert_eq!(size_of(&sample).get(), page_size);
        assert_eq!(sample.commits.len(), 5);
        assert_eq!(sample.commits.last(), Some(&sample.end.frames));
        let flipped = WalEnd {
            big_endian: !sample.end.big_endian,
            ..sample.end
        };
        let (_, outcome) = scan_all(&sample.bytes, &flipped);
        assert!(matches!(outcome, Err(ScanError::NotContinuous { .. })));
    }
}

/// Rewrites every checksum of a WAL for the other byte order.
const SWAP_BYTE_ORDER: &str = r#"
def swap(path):
    d = bytearray(open(path, "rb").read())
    magic, _, size = struct.unpack(">3I", d[:12])
    big = not magic & 1
    def total(b, a, c):
        w = struct.unpack((">" if big else "<") + "%dI" % (len(b) // 4), b)
        for i in range(0, len(w), 2):
            a = (a + w[i] + c) & 0xffffffff; c = (c + w[i + 1] + a) & 0xffffffff
        return a, c
    struct.pack_into(">I", d, 0, magic ^ 1)
    a, c = total(d[:24], 0, 0)
    struct.pack_into(">2I", d, 24, a, c)
    for o in range(32, len(d) - size - 23, size + 24):
        a, c = total(d[o:o + 8] + d[o + 24:o + 24 + size], a, c)
        struct.pack_into(">2I", d, o + 16, a, c)
    open(path, "wb").write(d)
"#;

#[test]
fn w1_a_wal_of_the_other_byte_order_that_sqlite_goes_on_writing_is_valid() {
    let mut sample = sample(1024);
    let copy = sample.place.directory.path().join("copy.db");
    let copy_wal = crate::fs::with_suffix(&copy, "-wal");
    std::fs::copy(&sample.place.path, &copy).unwrap();
    std::fs::write(&copy_wal, &sample.bytes).unwrap();
    let swap = format!("{SWAP_BYTE_ORDER}\nswap({:?})", copy_wal.to_str().unwrap());
    sample.app.call(&["python", &swap]);
    // SQLite recovers it, by its own checks, and keeps its byte order for what it appends.
    sample.app.open("b", &copy);
    sample.app.sql("b", "PRAGMA wal_autocheckpoint=0");
    assert_eq!(sample.app.sql("b", "SELECT count(*) FROM t")[0][0], 4);
    sample
        .app
        .sql("b", "INSERT INTO t VALUES (randomblob(5000))");
    let end = end_of(&copy);
    assert_ne!(end.big_endian, sample.end.big_endian);
    assert!(end.frames > sample.end.frames);
    let commits = commits_of(&std::fs::read(&copy_wal).unwrap(), end);
    assert_eq!(commits.len(), 6);
}

#[test]
fn w2_a_cut_or_garbled_wal_never_yields_what_the_snapshot_does_not_prove() {
    let sample = sample(512);
    let header = WAL_HEADER_BYTES;
    let size = frame_offset(size_of(&sample), 1) as usize - header;
    for length in header..sample.bytes.len() {
        let (seen, outcome) = scan_all(&sample.bytes[..length], &sample.end);
        let whole = ((length - header) / size) as u32;
        assert!(
            matches!(outcome, Err(ScanError::EndsEarly { at, reason: EarlyEnd::EndOfFile, .. }) if at == whole + 1)
        );
        assert!(seen.iter().all(|commit| *commit <= whole));
    }
    // Every seventh byte is enough to meet each field of the frames and every part of a page.
    for at in (header..sample.bytes.len()).step_by(7) {
        let mut bytes = sample.bytes.clone();
        bytes[at] ^= 0x40;
        let frame = ((at - header) / size) as u32 + 1;
        let (_, outcome) = scan_all(&bytes, &sample.end);
        match outcome {
            Err(ScanError::EndsEarly { at, .. }) => assert_eq!(at, frame),
            other => panic!("byte {at}: {other:?}"),
        }
    }
    // What lies behind the snapshot's end is not looked at.
    let mut longer = sample.bytes.clone();
    longer.extend_from_slice(&sample.bytes[header..]);
    assert_eq!(commits_of(&longer, sample.end), sample.commits);
}

#[test]
fn w2_an_earlier_snapshot_ends_at_its_own_commit() {
    let sample = sample(512);
    let wal = file(&sample.bytes);
    for commit in &sample.commits {
        let frame = frame_at(&wal, size_of(&sample), *commit).unwrap().unwrap();
        let end = WalEnd {
            frames: *commit,
            checksum: frame.checksum,
            ..sample.end
        };
        let seen = commits_of(&sample.bytes, end);
        assert_eq!(seen.last(), Some(commit));
        let wrong = WalEnd {
            checksum: [1, 2],
            ..end
        };
        let (_, outcome) = scan_all(&sample.bytes, &wrong);
        assert!(matches!(outcome, Err(ScanError::Mismatch { at, .. }) if at == *commit));
    }
}

#[test]
fn w3_stale_generation_tail() {
    let mut sample = sample(4096);
    let old = sample.end;
    sample.app.sql("a", "PRAGMA wal_checkpoint(RESTART)");
    sample.app.sql("a", "INSERT INTO t VALUES (1)");
    let new = end_of(&sample.place.path);
    let bytes = std::fs::read(wal_of(&sample.place)).unwrap();
    assert!(new.frames < old.frames && bytes.len() == sample.bytes.len());
    assert_eq!(commits_of(&bytes, new), [new.frames]);
    let too_far = WalEnd {
        frames: old.frames,
        ..new
    };
    let (seen, outcome) = scan_all(&bytes, &too_far);
    assert_eq!(seen, [new.frames]);
    match outcome {
        Err(ScanError::EndsEarly {
            at,
            reason: EarlyEnd::Salt { found, .. },
            ..
        }) => assert_eq!((at, found), (new.frames + 1, old.salt)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn w4_a_zeroed_header_checksum_is_an_error() {
    let sample = sample(4096);
    let mut bytes = sample.bytes.clone();
    bytes[24..32].fill(0);
    let error = WalCursor::start(&file(&bytes)).unwrap_err();
    assert!(matches!(error, HeaderError::Checksum { .. }), "{error}");
    for at in 0..WAL_HEADER_BYTES {
        let mut bytes = sample.bytes.clone();
        bytes[at] ^= 1;
        assert!(WalCursor::start(&file(&bytes)).is_err(), "byte {at}");
    }
    for length in 0..WAL_HEADER_BYTES {
        let error = WalCursor::start(&file(&sample.bytes[..length])).unwrap_err();
        assert!(matches!(error, HeaderError::Short(found) if found == length));
    }
}

#[test]
fn w5_a_new_generation_that_outgrew_the_old_one_starts_at_frame_one() {
    let mut sample = sample(4096);
    let cursor = sample.end.cursor(size_of(&sample));
    sample.app.sql("a", "PRAGMA wal_checkpoint(RESTART)");
    sample
        .app
        .sql("a", "INSERT INTO t VALUES (randomblob(100000))");
    let end = end_of(&sample.place.path);
    assert!(end.frames > cursor.frame());
    assert_eq!(
        cursor.continuation(&end),
        Continuation::Restarted { once: true }
    );
    let wal = File::open(wal_of(&sample.place)).unwrap();
    assert!(!cursor.is_proven_by(&wal).unwrap());
    let refused = scan(&wal, &cursor, &end, &mut Vec::new(), &mut |_| Ok(()));
    assert!(matches!(refused, Err(ScanError::NotContinuous { .. })));
    let bytes = std::fs::read(wal_of(&sample.place)).unwrap();
    assert_eq!(commits_of(&bytes, end), [end.frames]);
}

#[test]
fn w6_a_wal_that_is_reset_while_it_is_read_is_an_error_and_moves_nothing() {
    let mut sample = sample(65536);
    // More than one chunk, so that something is read after the reset.
    sample
        .app
        .sql("a", "INSERT INTO t VALUES (randomblob(1000000))");
    let end = end_of(&sample.place.path);
    let bytes = std::fs::read(wal_of(&sample.place)).unwrap();
    let truncate: fn(&File) = |wal| wal.set_len(0).unwrap();
    let overwrite: fn(&File) = |wal| {
        let zeros = vec![0; wal.metadata().unwrap().len() as usize];
        std::os::unix::fs::FileExt::write_all_at(wal, &zeros, 0).unwrap();
    };
    for reset in [truncate, overwrite] {
        let wal = file(&bytes);
        let from = WalCursor::start(&wal).unwrap();
        let before = from;
        let mut seen = 0;
        let outcome = scan(&wal, &from, &end, &mut Vec::new(), &mut |frame| {
            if frame.number == 1 {
                reset(&wal);
            }
            seen = frame.number;
            Ok(())
        });
        assert!(matches!(outcome, Err(ScanError::EndsEarly { at, .. }) if at == seen + 1));
        assert!(seen < end.frames);
        assert_eq!(from, before);
    }
}

#[test]
fn a_saved_cursor_is_proven_by_its_own_frame_only() {
    let sample = sample(4096);
    let wal = file(&sample.bytes);
    let cursor = sample.end.cursor(size_of(&sample));
    assert!(cursor.is_proven_by(&wal).unwrap());
    assert!(WalCursor::start(&wal).unwrap().is_proven_by(&wal).unwrap());
    let saved = serde_json::to_string(&cursor).unwrap();
    assert_eq!(serde_json::from_str::<WalCursor>(&saved).unwrap(), cursor);
    let last = sample.bytes.len() - 1;
    for (bytes, why) in [
        (&sample.bytes[..last - 4100], "the frame is not there"),
        (&sample.bytes[..40], "only the header is there"),
        (&sample.bytes[..0], "emptied"),
    ] {
        assert!(!cursor.is_proven_by(&file(bytes)).unwrap(), "{why}");
    }
    let mut bytes = sample.bytes.clone();
    let header = frame_offset(size_of(&sample), cursor.frame() - 1) as usize;
    bytes[header + 20] ^= 1;
    assert!(!cursor.is_proven_by(&file(&bytes)).unwrap());
}

#[test]
fn the_index_header_is_told_from_a_torn_one() {
    let sample = sample(4096);
    let shm = std::fs::read(crate::fs::with_suffix(&sample.place.path, "-shm")).unwrap();
    let bytes: [u8; IndexHeader::BYTES] = shm[..IndexHeader::BYTES].try_into().unwrap();
    let header = IndexHeader::decode(&bytes).unwrap();
    assert_eq!(header.end(), Some(sample.end));
    assert_eq!(header.page_size.map(PageSize::get), Some(4096));
    for at in 0..IndexHeader::BYTES {
        let mut torn = bytes;
        torn[at] ^= 0x80;
        assert!(IndexHeader::decode(&torn).is_err(), "byte {at}");
    }
    assert_eq!(
        IndexHeader::decode(&[0; IndexHeader::BYTES]),
        Err(IndexHeaderError::Uninitialized)
    );
}

#[test]
fn no_bytes_make_a_scan_panic_or_go_past_its_end() {
    let mut random = fastrand::Rng::with_seed(7);
    let sample = sample(512);
    for _ in 0..2000 {
        let mut bytes = sample.bytes.clone();
        for _ in 0..random.u32(1..4) {
            let at = random.usize(WAL_HEADER_BYTES..bytes.len());
            match random.u32(0..3) {
                0 => bytes[at] = random.u8(..),
                1 => bytes.truncate(at.max(WAL_HEADER_BYTES + 1)),
                _ => bytes.extend_from_slice(&sample.bytes[at % sample.bytes.len()..]),
            }
        }
        let (seen, outcome) = scan_all(&bytes, &sample.end);
        assert!(seen.iter().all(|number| sample.commits.contains(number)));
        if let Ok(cursor) = outcome {
            assert_eq!(cursor, sample.end.cursor(size_of(&sample)));
        }
    }
}
