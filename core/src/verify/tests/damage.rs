//! V1: each damage is found, once, and nothing else is blamed.

use super::{check, flip, name_of, only, open, small_world};
use crate::ltx::{HEADER_BYTES, Mark};
use crate::manifest::{FileKey, Manifest};
use crate::restore::tests::world::{World, range, stream, txid};
use crate::verify::IssueKind;

fn keys(world: &World) -> Vec<FileKey> {
    world.entries.iter().map(|entry| entry.key).collect()
}

#[tokio::test(start_paused = true)]
async fn v1_a_missing_file_is_an_orphan_and_nothing_else() {
    let world = small_world(30).await;
    for key in keys(&world) {
        let path = world.path_of(key);
        let whole = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let report = check(&world).await;
        let what = format!("{key} dropped");
        only(
            &report,
            IssueKind::Orphan,
            &name_of(key),
            "File missing from S3",
            &what,
        );
        assert_eq!(report.verified, 11, "{what}");
        assert!(report.issues[0].fixable && !report.issues[0].fixed);
        std::fs::write(&path, whole).unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn v1_a_flipped_byte_anywhere_is_an_error_of_that_file_alone() {
    let world = small_world(31).await;
    for key in keys(&world) {
        let path = world.path_of(key);
        let whole = std::fs::read(&path).unwrap();
        let index = whole.len() - 24 - 8;
        let places = [
            0,
            9,
            14,
            22,
            30,
            38,
            45,
            75,
            90,
            97,
            HEADER_BYTES + 3,
            HEADER_BYTES + 9,
            HEADER_BYTES + 14,
            whole.len() / 2,
            index,
            whole.len() - 20,
            whole.len() - 12,
            whole.len() - 1,
        ];
        for at in places {
            flip(&path, at);
            let report = check(&world).await;
            let what = format!("{key}, byte {at} of {}", whole.len());
            only(&report, IssueKind::Error, &name_of(key), "", &what);
            assert_eq!(report.verified, 11, "{what}");
            std::fs::write(&path, &whole).unwrap();
        }
        for length in [0, 1, 99, 100, 120, whole.len() / 2, whole.len() - 1] {
            std::fs::write(&path, &whole[..length]).unwrap();
            let what = format!("{key} cut to {length}");
            only(
                &check(&world).await,
                IssueKind::Error,
                &name_of(key),
                "",
                &what,
            );
        }
        std::fs::write(&path, [&whole[..], b"x"].concat()).unwrap();
        only(
            &check(&world).await,
            IssueKind::Error,
            &name_of(key),
            "",
            "longer",
        );
        std::fs::write(&path, &whole).unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn v1_files_in_each_others_place_are_two_errors() {
    let world = small_world(32).await;
    let all = keys(&world);
    for pair in all.windows(2) {
        let paths = [world.path_of(pair[0]), world.path_of(pair[1])];
        let bytes = paths.clone().map(|path| std::fs::read(path).unwrap());
        std::fs::write(&paths[0], &bytes[1]).unwrap();
        std::fs::write(&paths[1], &bytes[0]).unwrap();
        let report = check(&world).await;
        let mut named: Vec<String> = open(&report).into_iter().map(|(_, name, _)| name).collect();
        named.sort();
        let mut expected = [name_of(pair[0]), name_of(pair[1])];
        expected.sort();
        assert_eq!(named, expected, "{:#?}", report.issues);
        for (path, bytes) in paths.iter().zip(&bytes) {
            std::fs::write(path, bytes).unwrap();
        }
    }
}

/// The same history over other content, written by `writer`.
fn other(seed: u64, writer: crate::types::StreamId) -> World {
    let mut other = World::new(seed, 512);
    other.commits(9);
    other.stream = writer;
    other
}

#[tokio::test(start_paused = true)]
async fn v1_a_whole_file_of_another_history_is_an_error_of_that_file_alone() {
    for writer in [
        stream(0xdef, 1),
        stream(0xdef, 9),
        stream(0xabc, 1),
        stream(0xabc, 7),
    ] {
        let world = small_world(33).await;
        let other = other(34, writer);
        for entry in &world.entries {
            let key = entry.key;
            let mark = if key.range() == range(6, 6) {
                Mark::Rebase
            } else {
                Mark::None
            };
            let path = world.path_of(key);
            let whole = std::fs::read(&path).unwrap();
            std::fs::write(&path, other.encode(key, mark, writer).0).unwrap();
            let what = format!("{key} of {writer:?}");
            only(
                &check(&world).await,
                IssueKind::Error,
                &name_of(key),
                "",
                &what,
            );
            std::fs::write(&path, whole).unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn v1_a_stranger_behind_the_manifest_ends_nobodys_turn() {
    for writer in [stream(0xdef, 1), stream(0xdef, 9), stream(0xabc, 1)] {
        let mut world = small_world(35).await;
        world.commits(2);
        let mut other = other(36, writer);
        other.commits(2);
        let strange = FileKey::incremental(range(10, 11));
        for at in [10, 11] {
            let own = FileKey::incremental(range(at, at));
            let (bytes, _) = world.encode(own, Mark::None, world.stream);
            world.put_bytes(own, bytes).await;
        }
        let (bytes, _) = other.encode(strange, Mark::None, writer);
        world.put_bytes(strange, bytes).await;
        let report = check(&world).await;
        let what = format!("{writer:?}");
        only(
            &report,
            IssueKind::Error,
            &name_of(strange),
            "Chain broken",
            &what,
        );
        assert_eq!(report.verified, 14, "{what}");
    }
}

/// A file that says what it should and holds something else: no sum of its own tells.
fn lying(world: &World, key: FileKey, mark: Mark, change: impl Fn(&mut [u8])) -> Vec<u8> {
    let mut liar = World::new(0, 512);
    liar.images = world.images.clone();
    let at = key.range().max().get();
    change(&mut liar.images.get_mut(&at).unwrap().bytes);
    liar.encode(key, mark, world.stream).0
}

#[tokio::test(start_paused = true)]
async fn v1_content_that_does_not_lead_where_the_file_says_is_found_by_following_the_state() {
    let world = small_world(37).await;
    for entry in world
        .entries
        .iter()
        .filter(|entry| !entry.range().is_snapshot())
    {
        let key = entry.key;
        let mark = if key.range() == range(6, 6) {
            Mark::Rebase
        } else {
            Mark::None
        };
        let path = world.path_of(key);
        let whole = std::fs::read(&path).unwrap();
        // One byte of a page that the file holds.
        let page = touched(&world, key) as usize;
        let bytes = lying(&world, key, mark, |image| {
            image[(page - 1) * 512 + 100] ^= 1
        });
        if bytes.len() != whole.len() {
            // Sizes are compared first; here only the content is to tell.
            continue;
        }
        std::fs::write(&path, bytes).unwrap();
        let what = format!("{key} lies");
        let report = check(&world).await;
        only(
            &report,
            IssueKind::Error,
            &name_of(key),
            "applied to the state before",
            &what,
        );
        assert_eq!(report.verified, 11, "{what}");
        std::fs::write(&path, whole).unwrap();
    }
}

fn touched(world: &World, key: FileKey) -> u32 {
    let last = &world.images[&key.range().max().get()];
    let count = (last.bytes.len() / 512) as u32;
    let touched = &last.touched;
    *touched.iter().find(|page| **page <= count).unwrap()
}

#[tokio::test(start_paused = true)]
async fn v1_exchanged_pages_in_a_snapshot_are_found_by_the_digest() {
    let world = small_world(38).await;
    for at in [1, 5] {
        let key = FileKey::snapshot(txid(at));
        let path = world.path_of(key);
        let whole = std::fs::read(&path).unwrap();
        let bytes = lying(&world, key, Mark::None, |image| {
            let (first, rest) = image.split_at_mut(512);
            first.swap_with_slice(&mut rest[..512]);
        });
        assert_eq!(bytes.len(), whole.len(), "nothing but the content may tell");
        std::fs::write(&path, bytes).unwrap();
        let report = check(&world).await;
        only(
            &report,
            IssueKind::Error,
            &name_of(key),
            "digest",
            "exchanged",
        );
        std::fs::write(&path, whole).unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn v1_a_merged_file_that_misses_a_page_is_found() {
    let mut world = small_world(39).await;
    let key = FileKey::merged(crate::store::Level::new(3).unwrap(), range(2, 9));
    let all: Vec<_> = (2..=9)
        .flat_map(|at| world.images[&at].touched.clone())
        .collect();
    let count = (world.images[&9].bytes.len() / 512) as u32;
    let left_out = *all.iter().filter(|page| **page <= count).max().unwrap();
    let mut less = World::new(0, 512);
    less.images = world.images.clone();
    for image in less.images.values_mut() {
        image.touched.remove(&left_out);
    }
    let (bytes, entry) = less.encode(key, Mark::None, world.stream);
    world.put_bytes(key, bytes).await;
    world.note(entry);
    world.publish().await;
    let report = check(&world).await;
    only(
        &report,
        IssueKind::Error,
        &name_of(key),
        "Chain broken",
        "a page is missing",
    );
}

#[tokio::test(start_paused = true)]
async fn r27_a_gap_names_what_was_expected_and_what_was_found() {
    let mut world = World::new(40, 512);
    world.commits(6);
    world.snapshot(1).await;
    world.incremental(2, 2).await;
    world.incremental(5, 5).await;
    world.incremental(6, 6).await;
    world.publish().await;
    let report = check(&world).await;
    let name = name_of(FileKey::incremental(range(5, 5)));
    only(
        &report,
        IssueKind::Gap,
        &name,
        "TXID gap: expected 3, found 5",
        "gap",
    );
    let gap = &report.issues[0];
    assert_eq!(
        (gap.min_txid, gap.max_txid, gap.fixable),
        (Some(3), Some(4), false)
    );
    assert_eq!(report.verified, 4, "both sides are right in themselves");
}

#[tokio::test(start_paused = true)]
async fn r127_every_fact_of_the_manifest_is_compared() {
    let world = small_world(41).await;
    let path = world.bucket().join(world.layout.manifest());
    let whole = std::fs::read(&path).unwrap();
    let manifest = Manifest::parse(&whole).unwrap();
    type Change = fn(&mut crate::manifest::FileEntry);
    let changes: [(&str, Change); 9] = [
        ("page size", |entry| {
            entry.page_size = crate::types::PageSize::new(1024).unwrap()
        }),
        ("size in pages", |entry| entry.commit.0 += 1),
        ("pages", |entry| entry.pages = Some(1000)),
        ("time", |entry| entry.created = entry.created.plus_millis(1)),
        ("checksum", |entry| {
            entry.post = entry.post.map(other_checksum)
        }),
        ("digest", |entry| {
            entry.digest = Some(crate::types::Digest::new(5))
        }),
        ("writer", |entry| entry.stream = Some(stream(0xabc, 2))),
        ("size", |entry| entry.size += 1),
        ("pre-apply", |entry| {
            entry.pre = entry.pre.map(other_checksum)
        }),
    ];
    for (what, change) in changes {
        // The newest file: another writer's turn in the middle would end that of what follows.
        let mut changed = manifest.clone();
        let entry = changed
            .files
            .iter_mut()
            .find(|entry| entry.range() == range(9, 9))
            .unwrap();
        change(entry);
        std::fs::write(&path, changed.encode().unwrap()).unwrap();
        let report = check(&world).await;
        let name = name_of(FileKey::incremental(range(9, 9)));
        only(&report, IssueKind::Error, &name, "Manifest mismatch", what);
    }
    let mut changed = manifest.clone();
    changed.head.digest = Some(crate::types::Digest::new(7));
    std::fs::write(&path, changed.encode().unwrap()).unwrap();
    only(
        &check(&world).await,
        IssueKind::Error,
        "manifest.json",
        "digest",
        "head",
    );
    let mut changed = manifest;
    changed.head.txid = txid(12);
    std::fs::write(&path, changed.encode().unwrap()).unwrap();
    only(
        &check(&world).await,
        IssueKind::Gap,
        "manifest.json",
        "expected 10, found nothing",
        "head",
    );
}

fn other_checksum(checksum: crate::types::Checksum) -> crate::types::Checksum {
    crate::types::Checksum::from_crc(checksum.get() ^ 1)
}

#[tokio::test(start_paused = true)]
async fn r132_a_damaged_or_missing_manifest_is_one_line() {
    let world = small_world(42).await;
    let path = world.bucket().join(world.layout.manifest());
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let report = check(&world).await;
    only(
        &report,
        IssueKind::Error,
        "manifest.json",
        "The manifest is damaged",
        "damaged",
    );
    assert_eq!(
        (report.files, report.verified, report.manifest),
        (0, 12, false)
    );
    std::fs::write(&path, b"").unwrap();
    only(
        &check(&world).await,
        IssueKind::Error,
        "manifest.json",
        "damaged",
        "empty",
    );
    std::fs::remove_file(&path).unwrap();
    let report = check(&world).await;
    only(
        &report,
        IssueKind::Error,
        "manifest.json",
        "File missing from S3",
        "missing",
    );
    assert!(report.issues[0].fixable);
}

#[tokio::test(start_paused = true)]
async fn a_stale_manifest_leaves_everything_behind_it_checked_and_no_alarm() {
    let mut world = small_world(43).await;
    let path = world.bucket().join(world.layout.manifest());
    let stale = std::fs::read(&path).unwrap();
    world.commits(3);
    world.incremental(10, 10).await;
    world.incremental(11, 12).await;
    world.merged(1, 10, 12).await;
    world.snapshot(12).await;
    world.publish().await;
    std::fs::write(&path, stale).unwrap();
    let report = check(&world).await;
    assert!(
        report.ok && report.issues.is_empty(),
        "{:#?}",
        report.issues
    );
    assert_eq!((report.files, report.behind, report.verified), (12, 4, 16));
    // Damage there is found as anywhere.
    let key = FileKey::incremental(range(11, 12));
    let size = std::fs::metadata(world.path_of(key)).unwrap().len() as usize;
    flip(&world.path_of(key), size / 2);
    only(
        &check(&world).await,
        IssueKind::Error,
        &name_of(key),
        "Checksum",
        "tail",
    );
    std::fs::remove_file(world.path_of(key)).unwrap();
    std::fs::remove_file(world.path_of(FileKey::incremental(range(10, 10)))).unwrap();
    let report = check(&world).await;
    assert!(
        report.ok,
        "the merged file leads over both: {:#?}",
        report.issues
    );
}

#[tokio::test(start_paused = true)]
async fn several_damages_are_all_found_and_links_over_them_are_not_blamed() {
    let world = small_world(44).await;
    let dropped = FileKey::incremental(range(3, 3));
    let flipped = FileKey::snapshot(txid(5));
    let cut = FileKey::incremental(range(8, 8));
    std::fs::remove_file(world.path_of(dropped)).unwrap();
    flip(&world.path_of(flipped), 300);
    std::fs::write(world.path_of(cut), b"LTX1").unwrap();
    let report = check(&world).await;
    let found: Vec<_> = open(&report)
        .into_iter()
        .map(|(kind, name, _)| (kind, name))
        .collect();
    assert_eq!(
        found,
        [
            (IssueKind::Error, name_of(flipped)),
            (IssueKind::Orphan, name_of(dropped)),
            (IssueKind::Error, name_of(cut)),
        ]
    );
    assert_eq!(report.verified, 9);
}

#[tokio::test(start_paused = true)]
async fn a_damaged_page_of_the_index_is_named_and_its_files_are_not_called_forgotten() {
    let mut world = World::new(45, 512);
    world.commit();
    world.snapshot(1).await;
    // Enough for the root to spill.
    for _ in 0..1000 {
        let at = world.commit();
        world.incremental(at, at).await;
    }
    world.publish().await;
    let folder = world.bucket().join(world.layout.index_folder());
    let page = std::fs::read_dir(&folder)
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let name = format!("index/{}", page.file_name().unwrap().to_str().unwrap());
    let report = check(&world).await;
    assert!(
        report.ok && report.issues.is_empty(),
        "{:#?}",
        report.issues
    );
    assert_eq!((report.files, report.verified), (1001, 1001));
    let whole = std::fs::read(&page).unwrap();
    flip(&page, 40);
    let report = check(&world).await;
    only(
        &report,
        IssueKind::Error,
        &name,
        "Part of the manifest is damaged",
        "page",
    );
    assert_eq!(report.verified, 1001);
    std::fs::remove_file(&page).unwrap();
    let report = check(&world).await;
    only(
        &report,
        IssueKind::Error,
        &name,
        "Part of the manifest is missing",
        "page",
    );
    std::fs::write(&page, whole).unwrap();
}

/// A file as Litestream writes it: it says nothing of any state.
fn silent(world: &World, key: FileKey, change: impl Fn(&mut [u8])) -> Vec<u8> {
    let range = key.range();
    let last = &world.images[&range.max().get()];
    let mut image = last.bytes.clone();
    change(&mut image);
    let count = (image.len() / 512) as u32;
    let touched = (range.min().get()..=range.max().get())
        .flat_map(|at| world.images[&at].touched.iter().copied());
    let pages: std::collections::BTreeSet<u32> = match range.is_snapshot() {
        true => (1..=count).collect(),
        false => touched.filter(|page| *page <= count).collect(),
    };
    let commit = crate::types::PageCount(count);
    let header = crate::ltx::Header {
        page_size: world.page_size,
        commit,
        range,
        timestamp: last.time,
        tracking: crate::ltx::Tracking::Untracked,
        wal: None,
        node: 0,
        digest: None,
        mark: Mark::None,
        span_ms: 0,
    };
    let spill = crate::ltx::Spill::Memory;
    let mut encoder = crate::ltx::Encoder::new(Vec::new(), world.page_size, commit, spill);
    for page in pages {
        let content = &image[(page as usize - 1) * 512..page as usize * 512];
        let number = crate::types::PageNumber::new(page).unwrap();
        encoder.page(number, content).unwrap();
    }
    let finished = encoder.finish(&header, None).unwrap();
    [finished.header.to_vec(), finished.out].concat()
}

#[tokio::test(start_paused = true)]
async fn v1_files_that_say_nothing_of_states_are_held_against_each_other() {
    let mut world = World::new(46, 512);
    world.commits(4);
    let merged = FileKey::merged(crate::store::Level::new(1).unwrap(), range(2, 4));
    let keys = [
        FileKey::snapshot(txid(1)),
        FileKey::incremental(range(2, 2)),
        FileKey::incremental(range(3, 4)),
        merged,
        FileKey::snapshot(txid(4)),
    ];
    for key in keys {
        world.put_bytes(key, silent(&world, key, |_| {})).await;
    }
    let report = check(&world).await;
    assert!(report.ok && report.verified == 5, "{report:#?}");
    let page = touched(&world, merged) as usize;
    let wrong = |image: &mut [u8]| image[(page - 1) * 512 + 9] ^= 1;
    for (key, message) in [
        (merged, "another state than the files that it covers"),
        (
            FileKey::snapshot(txid(4)),
            "the files before it lead to another state",
        ),
    ] {
        let path = world.path_of(key);
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, silent(&world, key, wrong)).unwrap();
        let report = check(&world).await;
        only(&report, IssueKind::Error, &name_of(key), message, "silent");
        assert_eq!(report.verified, 4);
        std::fs::write(&path, whole).unwrap();
    }
}
