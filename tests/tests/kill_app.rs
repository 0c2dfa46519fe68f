//! `kill -9` of the application, also inside the fsync of its WAL: no ghost commit is shipped, none is lost.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "test code"
)]

use std::thread;
use std::time::Duration;

use fastrand::Rng;
use walrust_tests::program::{App, Watch, assert_every_point, assert_no_rebase};
use walrust_tests::scene::Scene;
use walrust_tests::shim::{Mode, Shim};
use walrust_tests::support::{PATIENCE, announce, rounds, seeds};
use walrust_tests::workload::Spec;

#[test]
fn application_killed_at_random_moments() {
    for (seed, autocheckpoint) in seeds(1)
        .into_iter()
        .flat_map(|seed| [(seed, 1000), (seed, 0)])
    {
        announce("kill_app", seed);
        let mut rng = Rng::with_seed(seed);
        let scene = Scene::new("kill-app", "a.db");
        let spec = Spec {
            autocheckpoint,
            upheaval: true,
            checkpoints: true,
            ..scene.spec(seed)
        };
        App::start(&Spec {
            commits: Some(10),
            ..spec.clone()
        })
        .finish();
        let watch = Watch::ready(
            &scene.bucket,
            &[&scene.database()],
            &["--sync-interval", "50ms"],
        );
        watch.wait_stored(&scene, PATIENCE);
        for round in 0..rounds(12) {
            let mut app = App::start(&Spec {
                seed: seed * 1000 + round,
                rate: Some(100.0),
                ..spec.clone()
            });
            thread::sleep(Duration::from_millis(rng.u64(30..600)));
            app.process.kill();
        }
        App::start(&Spec {
            commits: Some(10),
            seed: seed + 7,
            ..spec.clone()
        })
        .finish();
        watch.drain();
        assert_every_point(&scene);
        assert_no_rebase(&scene);
    }
}

#[test]
fn w2_e1_application_killed_inside_the_fsync_of_its_wal() {
    for mode in [Mode::DieBefore, Mode::DieAfter] {
        let scene = Scene::new("kill-fsync", "a.db");
        let shim = Shim::build(scene.path());
        let spec = Spec {
            synchronous: "FULL".to_owned(),
            autocheckpoint: 0,
            upheaval: true,
            rate: Some(100.0),
            ..scene.spec(41)
        };
        App::start(&Spec {
            commits: Some(10),
            ..spec.clone()
        })
        .finish();
        let watch = Watch::ready(
            &scene.bucket,
            &[&scene.database()],
            &["--sync-interval", "20ms"],
        );
        watch.wait_stored(&scene, PATIENCE);
        let mut rng = Rng::with_seed(42);
        for round in 0..rounds(10) {
            let own = Spec {
                seed: 4100 + round,
                ..spec.clone()
            };
            let mut app = App::start_with(&own, |command| shim.apply(command, mode));
            app.process.wait_for(PATIENCE, |line| line == "ready\n");
            thread::sleep(Duration::from_millis(rng.u64(10..200)));
            shim.arm();
            let status = app.process.wait(PATIENCE);
            assert_eq!(status.code(), Some(137));
        }
        App::start(&Spec {
            commits: Some(10),
            seed: 47,
            ..spec.clone()
        })
        .finish();
        watch.drain();
        // While we are attached nobody recovers the WAL: a commit whose fsync did not return never happened.
        assert!(scene.oracle().commits().iter().all(|commit| !commit.found));
        assert_every_point(&scene);
        assert_no_rebase(&scene);
    }
}

#[test]
fn e2_a_slow_fsync_is_waited_for_without_a_missed_commit() {
    let scene = Scene::new("slow-fsync", "a.db");
    let shim = Shim::build(scene.path());
    let spec = Spec {
        synchronous: "FULL".to_owned(),
        commits: Some(6),
        ..scene.spec(43)
    };
    App::start(&spec).finish();
    let mut watch = Watch::ready(
        &scene.bucket,
        &[&scene.database()],
        &["--sync-interval", "50ms"],
    );
    watch.wait_stored(&scene, PATIENCE);
    shim.arm();
    let slow = Spec { seed: 44, ..spec };
    App::start_with(&slow, |command| shim.apply(command, Mode::Slow)).finish();
    // The last event of the file came 400 ms before the commit could be seen.
    watch.wait_stored(&scene, Duration::from_secs(20));
    assert!(watch.process.poll().is_none());
    watch.drain();
    assert_every_point(&scene);
}

#[test]
fn both_killed_together_as_by_the_machine() {
    for seed in seeds(1) {
        announce("kill_both", seed);
        let mut rng = Rng::with_seed(seed);
        let scene = Scene::new("kill-both", "a.db");
        let spec = Spec {
            rate: Some(100.0),
            upheaval: true,
            ..scene.spec(seed)
        };
        App::start(&Spec {
            commits: Some(10),
            ..spec.clone()
        })
        .finish();
        for round in 0..rounds(8) {
            let mut watch = Watch::ready(
                &scene.bucket,
                &[&scene.database()],
                &["--sync-interval", "50ms"],
            );
            let mut app = App::start(&Spec {
                seed: seed * 1000 + round,
                ..spec.clone()
            });
            thread::sleep(Duration::from_millis(rng.u64(200..1200)));
            watch.process.kill();
            app.process.kill();
        }
        let watch = Watch::ready(
            &scene.bucket,
            &[&scene.database()],
            &["--sync-interval", "50ms"],
        );
        App::start(&Spec {
            commits: Some(10),
            seed: seed + 7,
            ..spec.clone()
        })
        .finish();
        watch.drain();
        assert_every_point(&scene);
    }
}
