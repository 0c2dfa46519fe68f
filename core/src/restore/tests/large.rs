//! Files that are fetched in parts and decoded in sections.

use super::world::World;
use crate::manifest::FileKey;
use crate::restore::RestoreTarget;

/// A base and an incremental of some 9 MB each, of pages that do not compress.
pub(crate) async fn large_world(page_size: u32) -> World {
    let mut world = World::new(11, page_size);
    world.commit();
    let size = world.page_size.bytes();
    let image = world.images.get_mut(&1).unwrap();
    let pages = (9 << 20) / size;
    image.bytes = (0..pages * size).map(|_| world.rng.u8(..)).collect();
    world.recompute(1);
    world.snapshot(1).await;
    world.commits(2);
    world.incremental(2, 3).await;
    world.snapshot(3).await;
    world.commits(2);
    world.incremental(4, 4).await;
    world.incremental(5, 5).await;
    world.publish().await;
    world
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_files_are_exact_in_parts_and_sections() {
    for page_size in [512, 4096, 65536] {
        let world = large_world(page_size).await;
        let report = world.check(RestoreTarget::Latest, 5).await;
        assert!(report.requests < 12, "{report:?}");
        let size = world
            .entries
            .iter()
            .find(|file| file.max().get() == 3 && file.range().is_snapshot());
        let snapshot = size.unwrap().size;
        assert!(
            report.bytes_downloaded < snapshot + 200_000 + 20 * page_size as u64,
            "{report:?}"
        );
        assert!(report.bytes_written >= 9 << 20);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_in_a_large_file_is_found_wherever_it_is() {
    let mut world = large_world(4096).await;
    let key = FileKey::snapshot(super::world::txid(3));
    // Without the older snapshot there is no other way.
    std::fs::remove_file(world.path_of(FileKey::snapshot(super::world::txid(1)))).unwrap();
    let whole = std::fs::read(world.path_of(key)).unwrap();
    let length = whole.len();
    let places: Vec<usize> = (0..24).map(|_| world.rng.usize(..length)).collect();
    for place in places
        .into_iter()
        .chain([0, 99, 105, length - 1, length - 20, length - 30])
    {
        let mut bytes = whole.clone();
        bytes[place] ^= 1 << world.rng.u32(..8);
        std::fs::write(world.path_of(key), &bytes).unwrap();
        match world.try_restore(RestoreTarget::Latest).await {
            // A flip that leads LZ4 to the same bytes harms nothing.
            Ok(_) => {
                assert!(std::fs::read(world.output()).unwrap() == world.images[&5].bytes);
                std::fs::remove_file(world.output()).unwrap();
            }
            Err(error) => assert!(error.to_string().contains("0009/"), "byte {place}: {error}"),
        }
        world.nothing_left();
    }
    for length in [0, 50, 100, 5000, length / 2, length - 1] {
        std::fs::write(world.path_of(key), &whole[..length]).unwrap();
        let error = world.try_restore(RestoreTarget::Latest).await.unwrap_err();
        assert!(error.to_string().contains("0009/"), "{error}");
        world.nothing_left();
    }
}
