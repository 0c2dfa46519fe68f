//! Every restore point of random histories is exact.

use super::world::{START, World, txid};
use crate::ltx::Mark;
use crate::manifest::{Catalog, FileKey};
use crate::restore::{RestoreTarget, points};
use crate::types::Timestamp;

#[tokio::test]
async fn the_newest_state_of_a_plain_chain_is_exact() {
    for page_size in [512, 4096, 65536] {
        let world = World::simple(1, page_size, 8).await;
        let report = world.check(RestoreTarget::Latest, 8).await;
        assert_eq!(report.segments, 7);
        assert_eq!(report.format, "walrust");
    }
}

/// A history with snapshots, merges, batches and rebases at random places.
async fn random_world(seed: u64) -> World {
    let mut world = World::new(seed, 512);
    world.tracked = !seed.is_multiple_of(3);
    world.commit();
    world.snapshot(1).await;
    let mut boundary = 1;
    while world.head() < 40 {
        let first = world.head() + 1;
        let batch = world.rng.u64(1..4);
        world.commits(batch);
        let last = world.head();
        let mark = match world.rng.u32(..12) {
            0 => Mark::Rebase,
            1 => Mark::Base,
            _ => Mark::None,
        };
        let key = FileKey::incremental(super::world::range(first, last));
        world.put(key, mark).await;
        if world.rng.u32(..4) == 0 && last > boundary + 1 {
            let level = world.rng.u8(1..4);
            world.merged(level, boundary + 1, last).await;
            boundary = last;
        }
        if world.rng.u32(..8) == 0 {
            world.snapshot(last).await;
        }
        if world.rng.u32(..6) == 0 {
            world.publish().await;
        }
    }
    world
}

#[tokio::test]
async fn p6_every_advertised_point_of_a_random_history_is_exact() {
    for seed in 0..12 {
        let world = random_world(seed).await;
        let mut catalog = Catalog::load(&*world.store, &world.layout).await.unwrap();
        catalog.complete(&*world.store).await.unwrap();
        let points = points(&catalog);
        let ends: std::collections::BTreeSet<u64> =
            world.entries.iter().map(|file| file.max().get()).collect();
        let advertised: std::collections::BTreeSet<u64> =
            points.iter().map(|p| p.txid.get()).collect();
        assert_eq!(advertised, ends, "seed {seed}");
        for point in points {
            world
                .check(RestoreTarget::Txid(point.txid), point.txid.get())
                .await;
            let time = world.images[&point.txid.get()].time;
            world.check(RestoreTarget::At(time), point.txid.get()).await;
        }
        world.check(RestoreTarget::Latest, world.head()).await;
        for inside in (1..world.head()).filter(|at| !ends.contains(at)) {
            let error = world
                .try_restore(RestoreTarget::Txid(txid(inside)))
                .await
                .unwrap_err();
            assert!(error.to_string().contains("no restore point"), "{error}");
        }
    }
}

#[tokio::test]
async fn p2_a_thousand_random_times_mean_the_states_of_the_commit_log() {
    let mut world = World::new(60, 512);
    world.commit();
    world.snapshot(1).await;
    let mut clock = START;
    for at in 2..=30 {
        world.commit();
        // Equal times, small steps back, and two long ones.
        clock += match at {
            10 | 20 => -3_600_000,
            _ => world.rng.i64(-2_000..20_000).max(-500) / 1000 * 1000,
        };
        world.images.get_mut(&at).unwrap().time = Timestamp::from_millis(clock);
        world.incremental(at, at).await;
    }
    world.publish().await;
    let mut catalog = Catalog::load(&*world.store, &world.layout).await.unwrap();
    catalog.complete(&*world.store).await.unwrap();
    let points = points(&catalog);
    let log: Vec<(u64, i64)> = world
        .images
        .iter()
        .map(|(txid, image)| (*txid, image.time.millis()))
        .collect();
    let mut restored = 0;
    for _ in 0..1000 {
        let time = clock + world.rng.i64(-8_000_000..100_000);
        let target = RestoreTarget::At(Timestamp::from_millis(time));
        let found = super::super::resolve::point_at(
            &points,
            Timestamp::from_millis(time),
            Timestamp::from_millis(START + 1_000_000_000),
        );
        let expected = oracle(&log, time);
        assert_eq!(found.ok().map(|(txid, _)| txid.get()), expected, "{time}");
        if let Some(expected) = expected.filter(|_| restored < 25) {
            world.check(target, expected).await;
            restored += 1;
        }
    }
    assert_eq!(restored, 25);
}

/// The plain reading of R78 and R146 over a commit log.
fn oracle(log: &[(u64, i64)], time: i64) -> Option<u64> {
    let mut stretches: Vec<Vec<(u64, i64)>> = vec![Vec::new()];
    let mut before = i64::MIN;
    for commit in log {
        if before.saturating_sub(commit.1) > 60_000 {
            stretches.push(Vec::new());
        }
        before = commit.1;
        stretches.last_mut().unwrap().push(*commit);
    }
    let newest_in = |stretch: &[(u64, i64)]| {
        stretch
            .iter()
            .filter(|(_, at)| *at <= time)
            .map(|(txid, _)| *txid)
            .max()
    };
    let contains = |stretch: &&Vec<(u64, i64)>| {
        stretch.iter().any(|(_, at)| *at <= time) && stretch.iter().any(|(_, at)| *at >= time)
    };
    if let Some(stretch) = stretches.iter().rev().find(contains) {
        return newest_in(stretch);
    }
    stretches
        .iter()
        .rev()
        .find_map(|stretch| newest_in(stretch))
}
