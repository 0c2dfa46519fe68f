//! A stream with a long past, made by a watcher whose clock is moved.

use crate::bucket::Bucket;
use crate::process::Process;
use crate::program::{Watch, walrust};
use crate::scene::{Scene, Writer};
use crate::shim::Shim;
use crate::support::PATIENCE;

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;

/// Moments of the past, in seconds before now; a snapshot was taken at each.
pub const MOMENTS: [i64; 16] = [
    200 * DAY,
    130 * DAY,
    65 * DAY,
    64 * DAY,
    20 * DAY,
    13 * DAY,
    8 * DAY,
    5 * DAY,
    3 * DAY,
    2 * DAY,
    30 * HOUR,
    29 * HOUR,
    10 * HOUR,
    4 * HOUR,
    2 * HOUR,
    0,
];

/// A database that was watched for 200 days by its watcher's clock, which is moved.
pub fn aged(test: &str, name: &str, bucket: Option<Bucket>) -> Scene {
    let scene = match bucket {
        Some(bucket) => Scene::on(test, name, bucket),
        None => Scene::new(test, name),
    };
    let shim = Shim::build(scene.path());
    let mut writer = scene.writer(scene.spec(1));
    writer.row();
    shim.move_clock(-MOMENTS[0]);
    let mut command = walrust(&scene.bucket, "watch");
    command
        .args([
            "--no-metrics",
            "--sync-interval",
            "10ms",
            "--snapshot-interval",
            "0",
        ])
        .arg(scene.database());
    shim.apply_clock(&mut command);
    let mut watch = Watch {
        process: Process::spawn(&mut command),
    };
    watch
        .process
        .wait_for(PATIENCE, |line| line.starts_with("Watching "));
    watch.wait_stored(&scene, PATIENCE);
    for moment in MOMENTS {
        shim.move_clock(-moment);
        live(&scene, &watch, &mut writer);
        let mut snapshot = walrust(&scene.bucket, "snapshot");
        Process::run(snapshot.arg(scene.database()), PATIENCE).expect_success();
        live(&scene, &watch, &mut writer);
    }
    watch.drain();
    scene
}

fn live(scene: &Scene, watch: &Watch, writer: &mut Writer) {
    for _ in 0..3 {
        writer.row();
        watch.wait_stored(scene, PATIENCE);
    }
}
