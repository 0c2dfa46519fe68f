//! Databases that SQLite made.

use super::world::{World, run};
use crate::error::ErrorKind;
use crate::restore::{Overwrite, RestoreTarget, Verify};
use crate::sqlite::testing::App;

#[tokio::test]
async fn r5_databases_of_sqlite_come_back_page_by_page_also_after_a_vacuum() {
    for page_size in [512, 4096, 65536] {
        let mut world = World::new(70, page_size);
        let path = world.directory.path().join("app.db");
        let mut app = App::with_database(&path, page_size);
        app.sql("a", "CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB)");
        app.sql("a", "CREATE INDEX i ON t(v)");
        world.commit_image(app.image("a"));
        world.snapshot(1).await;
        for statement in [
            "INSERT INTO t(v) WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM n WHERE x<300) SELECT randomblob(x) FROM n",
            "DELETE FROM t WHERE id % 3 = 0",
            "VACUUM",
            "UPDATE t SET v = zeroblob(9000) WHERE id < 20",
            "DELETE FROM t",
            "VACUUM",
        ] {
            app.sql("a", statement);
            let at = world.commit_image(app.image("a"));
            world.incremental(at, at).await;
        }
        world.publish().await;
        for (txid, image) in &world.images {
            for verify in [Verify::Quick, Verify::Full] {
                let mut request = world.request(RestoreTarget::Txid(super::world::txid(*txid)));
                request.overwrite = Overwrite::Yes;
                request.verify = verify;
                let report = run(&world.store, &request).await.unwrap();
                assert_eq!((report.txid, report.verified), (*txid, verify));
                assert!(std::fs::read(world.output()).unwrap() == image.bytes);
            }
        }
    }
}

#[tokio::test]
async fn a_database_that_somebody_has_open_is_not_replaced() {
    let world = World::simple(71, 4096, 3).await;
    let mut app = App::with_database(&world.output(), 4096);
    app.sql("a", "CREATE TABLE t(x)");
    let before = std::fs::read(world.output()).unwrap();
    let mut request = world.request(RestoreTarget::Latest);
    request.overwrite = Overwrite::Yes;
    let error = run(&world.store, &request).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
    assert_eq!(std::fs::read(world.output()).unwrap(), before);
    assert_eq!(app.sql("a", "SELECT count(*) FROM t").to_string(), "[[0]]");
    drop(app);
    run(&world.store, &request).await.unwrap();
    assert!(std::fs::read(world.output()).unwrap() == world.images[&3].bytes);
}
