//! Whatever happens to a stored object, a restore is exact or names an object: never a wrong byte.

use std::path::Path;

use super::world::{World, range, stream, txid, walk};
use crate::error::{Error, ErrorKind};
use crate::ltx::Mark;
use crate::manifest::{Catalog, FileKey, IndexPage, Manifest};
use crate::restore::{RestoreReport, RestoreTarget};

/// A history with every kind of file, small enough to try everything. Published whole.
async fn small_world(seed: u64) -> World {
    let mut world = World::new(seed, 512);
    world.commits(2);
    world.snapshot(1).await;
    world.incremental(2, 2).await;
    world.commits(4);
    world.incremental(3, 3).await;
    world.incremental(4, 5).await;
    world.merged(1, 2, 5).await;
    world.snapshot(5).await;
    world
        .put(FileKey::incremental(range(6, 6)), Mark::Rebase)
        .await;
    world.commits(2);
    world.incremental(7, 7).await;
    world.incremental(8, 8).await;
    world.publish().await;
    world
}

/// Restores `target` over a damaged bucket: the exact state, or an error that names an object.
async fn exact_or_error(world: &World, expected: u64, what: &str) -> Option<Error> {
    let result: Result<RestoreReport, Error> =
        world.try_restore(RestoreTarget::Txid(txid(expected))).await;
    let outcome = judge(world, expected, what, result);
    let latest = world.try_restore(RestoreTarget::Latest).await;
    judge(world, world.head(), what, latest).or(outcome)
}

fn judge(
    world: &World,
    expected: u64,
    what: &str,
    result: Result<RestoreReport, Error>,
) -> Option<Error> {
    match result {
        Ok(report) => {
            assert_eq!(report.txid, expected, "{what}");
            let restored = std::fs::read(world.output()).unwrap();
            assert!(
                restored == world.images[&expected].bytes,
                "{what}: wrong bytes at {expected}"
            );
            std::fs::remove_file(world.output()).unwrap();
            world.nothing_left();
            None
        }
        Err(error) => {
            world.nothing_left();
            assert!(error.object().is_some(), "{what}: {error}");
            Some(error)
        }
    }
}

fn objects(world: &World) -> Vec<std::path::PathBuf> {
    walk(&world.bucket())
}

fn is_ltx(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "ltx")
}

#[tokio::test]
async fn any_flipped_byte_gives_the_exact_state_or_names_the_object() {
    let mut world = small_world(21).await;
    let mut found = 0;
    for path in objects(&world) {
        let whole = std::fs::read(&path).unwrap();
        // Headers and ends byte by byte, the rest here and there.
        let step = |at: usize| {
            if at < 130 || at + 60 > whole.len() {
                1
            } else {
                29
            }
        };
        let mut at = 0;
        while at < whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << world.rng.u32(..8);
            std::fs::write(&path, &bytes).unwrap();
            let what = format!("{} byte {at}", path.display());
            let target = world.rng.u64(..3);
            let expected = [5, 7, 8][target as usize];
            found += usize::from(exact_or_error(&world, expected, &what).await.is_some());
            at += step(at);
        }
        std::fs::write(&path, &whole).unwrap();
    }
    assert!(found > 50, "only {found} flips were noticed");
}

#[tokio::test]
async fn r1_any_removed_object_gives_the_exact_state_or_names_what_is_missing() {
    let world = small_world(22).await;
    for path in objects(&world) {
        let whole = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let mut errors = 0;
        for expected in [1, 2, 3, 5, 6, 7, 8] {
            let what = format!("without {} to {expected}", path.display());
            errors += u32::from(exact_or_error(&world, expected, &what).await.is_some());
        }
        // What only this file holds cannot come back.
        let name = path.file_name().unwrap().to_str().unwrap();
        if [
            "0000000000000008-0000000000000008.ltx",
            "0000000000000007-0000000000000007.ltx",
        ]
        .contains(&name)
        {
            assert!(errors > 0, "{name} was not missed");
        }
        std::fs::write(&path, whole).unwrap();
    }
}

#[tokio::test]
async fn r1_the_last_incremental_cannot_vanish_unnoticed_once_the_index_names_it() {
    let world = World::simple(23, 512, 6).await;
    let key = FileKey::incremental(range(6, 6));
    std::fs::remove_file(world.path_of(key)).unwrap();
    let error = world.try_restore(RestoreTarget::Latest).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(
        error.to_string().contains(&world.layout.key(key.entry())),
        "{error}"
    );
    world.check(RestoreTarget::Txid(txid(5)), 5).await;
    let middle = FileKey::incremental(range(3, 3));
    std::fs::remove_file(world.path_of(middle)).unwrap();
    let error = world
        .try_restore(RestoreTarget::Txid(txid(5)))
        .await
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains(&world.layout.key(middle.entry())),
        "{error}"
    );
}

#[tokio::test]
async fn any_truncated_object_gives_the_exact_state_or_names_the_object() {
    let world = small_world(24).await;
    for path in objects(&world) {
        let whole = std::fs::read(&path).unwrap();
        for length in [0, 1, 99, 100, 130, whole.len() / 2, whole.len() - 1] {
            std::fs::write(&path, &whole[..length.min(whole.len() - 1)]).unwrap();
            for expected in [5, 8] {
                let what = format!("{} cut to {length}", path.display());
                exact_or_error(&world, expected, &what).await;
            }
        }
        std::fs::write(&path, whole).unwrap();
    }
}

#[tokio::test]
async fn r2_a_whole_file_of_another_lineage_or_history_is_never_applied() {
    for (tracked, published) in [(true, true), (false, true), (true, false), (false, false)] {
        let mut world = small_world(25).await;
        let mut other = World::new(26, 512);
        other.tracked = tracked;
        other.commits(8);
        if !published {
            // The same files as a tail that no index names.
            for at in 9..=12 {
                world.commit();
                other.commit();
                let (bytes, _) = world.encode(
                    FileKey::incremental(range(at, at)),
                    Mark::None,
                    world.stream,
                );
                world
                    .put_bytes(FileKey::incremental(range(at, at)), bytes)
                    .await;
            }
        }
        for writer in [
            stream(0xdef, 1),
            stream(0xdef, 9),
            world.stream,
            stream(0xabc, 2),
        ] {
            for path in objects(&world).into_iter().filter(|path| is_ltx(path)) {
                let whole = std::fs::read(&path).unwrap();
                let name = path.strip_prefix(world.bucket()).unwrap().to_str().unwrap();
                let key = FileKey::from_entry(world.layout.parse(name).unwrap()).unwrap();
                let (bytes, _) = other.encode(key, Mark::None, writer);
                std::fs::write(&path, bytes).unwrap();
                let what =
                    format!("{name} swapped, {writer:?} tracked {tracked} published {published}");
                for expected in [2, 5, 7, 8, world.head()] {
                    // The bytes of the other history can only be right where nothing was said of the
                    // state: an untracked tail of the very same writer.
                    exact_or_error(&world, expected, &what).await;
                }
                std::fs::write(&path, whole).unwrap();
            }
        }
    }
}

#[tokio::test]
async fn x3_a_file_under_another_name_is_refused() {
    let world = World::simple(27, 512, 6).await;
    let (from, to) = (
        FileKey::incremental(range(4, 4)),
        FileKey::incremental(range(5, 5)),
    );
    std::fs::copy(world.path_of(from), world.path_of(to)).unwrap();
    let error = world.try_restore(RestoreTarget::Latest).await.unwrap_err();
    assert!(error.to_string().contains(&to.to_string()), "{error}");
    world.nothing_left();
}

#[tokio::test]
async fn r12_the_index_of_a_newer_program_is_refused_and_not_worked_around() {
    let world = World::simple(28, 512, 3).await;
    let path = world.bucket().join(world.layout.manifest());
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.starts_with("{\"v\":1,"));
    std::fs::write(&path, text.replacen("{\"v\":1,", "{\"v\":2,", 1)).unwrap();
    let error = world.try_restore(RestoreTarget::Latest).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("manifest.json"), "{error}");
}

#[tokio::test]
async fn without_its_index_a_database_restores_from_listing_and_headers_with_a_warning() {
    let world = small_world(29).await;
    let path = world.bucket().join(world.layout.manifest());
    for broken in [None, Some("{"), Some(""), Some("{\"v\":1}"), Some("[[[[")] {
        match broken {
            None => std::fs::remove_file(&path).unwrap(),
            Some(text) => std::fs::write(&path, text).unwrap(),
        }
        let report = world.check(RestoreTarget::Latest, 8).await;
        assert!(
            report
                .notes
                .iter()
                .any(|note| note.contains("manifest.json")),
            "{report:?}"
        );
        assert_eq!(report.format, "walrust");
        for at in [1, 2, 3, 5, 6, 7] {
            world.check(RestoreTarget::Txid(txid(at)), at).await;
        }
    }
    // Without index nothing tells a hole from a file on its way.
    std::fs::remove_file(world.path_of(FileKey::incremental(range(7, 7)))).unwrap();
    let error = world.try_restore(RestoreTarget::Latest).await.unwrap_err();
    assert!(
        error
            .to_string()
            .contains("transactions 7 to 7 are missing"),
        "{error}"
    );
}

#[tokio::test]
async fn r81_a_damaged_snapshot_gives_way_to_an_older_one_and_a_note() {
    let world = small_world(30).await;
    let path = world.path_of(FileKey::snapshot(txid(5)));
    let whole = std::fs::read(&path).unwrap();
    for at in [0, 20, 104, 200, whole.len() - 1] {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x55;
        std::fs::write(&path, bytes).unwrap();
        let report = world.check(RestoreTarget::Latest, 8).await;
        assert!(
            report
                .snapshot
                .ends_with("0009/0000000000000001-0000000000000001.ltx"),
            "{report:?}"
        );
        assert!(
            report.notes.iter().any(|note| note.contains("0009/")),
            "{report:?}"
        );
    }
}

#[tokio::test]
async fn r4_headers_that_lie_about_sizes_do_no_harm() {
    let world = small_world(31).await;
    let path = world.path_of(FileKey::incremental(range(8, 8)));
    let whole = std::fs::read(&path).unwrap();
    for (at, value) in [
        (8, 65536_u32),
        (8, 0),
        (12, u32::MAX),
        (12, 0),
        (100, 0),
        (100, u32::MAX),
        (106, u32::MAX),
    ] {
        let mut bytes = whole.clone();
        bytes[at..at + 4].copy_from_slice(&value.to_be_bytes());
        std::fs::write(&path, bytes).unwrap();
        let error = exact_or_error(&world, 8, &format!("byte {at} = {value}")).await;
        assert!(error.is_some());
    }
    let mut catalog = Catalog::load(&*world.store, &world.layout).await.unwrap();
    catalog.complete(&*world.store).await.unwrap();
}

#[tokio::test]
async fn a_file_that_grows_the_database_without_the_new_pages_is_refused() {
    // Applying one file after the other would give zeros there, merging them the content from before
    // the cut.
    for tracked in [false, true] {
        let mut world = World::new(32, 512);
        world.tracked = tracked;
        let pages = |count: u8, fill: u8| vec![fill; usize::from(count) * 512];
        world.commit_image(pages(5, 1));
        world.snapshot(1).await;
        world.commit_image(pages(2, 1));
        world.incremental(2, 2).await;
        world.commit_image([pages(2, 1), pages(3, 0)].concat());
        world.images.get_mut(&3).unwrap().touched.remove(&4);
        world.incremental(3, 3).await;
        world.publish().await;
        let error = world.try_restore(RestoreTarget::Latest).await.unwrap_err();
        assert!(
            error
                .to_string()
                .contains("no file of the chain holds page 4"),
            "{error}"
        );
        world.check(RestoreTarget::Txid(txid(2)), 2).await;
    }
}

#[tokio::test]
async fn a_damaged_page_of_the_index_gives_way_to_a_listing() {
    let mut world = World::simple(33, 512, 8).await;
    let path = world.bucket().join(world.layout.manifest());
    let mut manifest = Manifest::parse(&std::fs::read(&path).unwrap()).unwrap();
    let (old, new): (Vec<_>, Vec<_>) = std::mem::take(&mut manifest.files)
        .into_iter()
        .partition(|file| file.max().get() < 6);
    let page = IndexPage::new(old, Vec::new());
    let (bytes, reference) = page.encode().unwrap().unwrap();
    manifest.files = new;
    manifest.pages = vec![reference];
    std::fs::write(&path, manifest.encode().unwrap()).unwrap();
    let page = world
        .bucket()
        .join(world.layout.index_page(reference.range, reference.hash));
    std::fs::create_dir_all(page.parent().unwrap()).unwrap();
    std::fs::write(&page, &bytes).unwrap();
    let report = world.check(RestoreTarget::Latest, 8).await;
    assert!(report.notes.is_empty(), "{report:?}");
    for at in 1..=8 {
        world.check(RestoreTarget::Txid(txid(at)), at).await;
    }
    for at in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << world.rng.u32(..8);
        std::fs::write(&page, &flipped).unwrap();
        if at % 37 == 0 {
            let report = world.check(RestoreTarget::Latest, 8).await;
            assert!(
                report.notes.iter().any(|note| note.contains("index/")),
                "{report:?}"
            );
        }
    }
    std::fs::remove_file(&page).unwrap();
    world.check(RestoreTarget::Latest, 8).await;
    let report = world.check(RestoreTarget::Txid(txid(3)), 3).await;
    assert!(
        report.notes.iter().any(|note| note.contains("index/")),
        "{report:?}"
    );
}

#[tokio::test]
async fn the_damaged_end_of_a_history_never_passes_for_an_older_state() {
    let mut world = World::simple(34, 512, 4).await;
    world.commit();
    // Behind the index, and then without one.
    let newest = world.incremental(5, 5).await;
    let path = world.path_of(newest.key);
    let whole = std::fs::read(&path).unwrap();
    for with_index in [true, false] {
        if !with_index {
            std::fs::remove_file(world.bucket().join(world.layout.manifest())).unwrap();
        }
        for at in [0, 8, 20, 90, whole.len() - 1] {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            std::fs::write(&path, bytes).unwrap();
            let error = world.try_restore(RestoreTarget::Latest).await.unwrap_err();
            assert!(
                error.to_string().contains(&newest.key.to_string()),
                "byte {at}: {error}"
            );
        }
    }
}
