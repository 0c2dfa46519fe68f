//! A watch in this process, an application in another, restores compared byte by byte.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use walrust_core::clock::Clock;
use walrust_core::config::{self, Environment, File, Overrides};
use walrust_core::engine::{
    Happening, LeaseMode, Permission, Unfinished, Until, Watch, WatchEvent, WatchOptions,
};
use walrust_core::restore::{
    self, LeaveState, Overwrite, Progress, RestoreRequest, RestoreTarget, Silent, Verify,
};
use walrust_core::store::{FileStore, Layout, Store};
use walrust_core::types::KeyPrefix;

/// Commits `rounds` times, as fast as it can, then copies the database through SQLite's own backup.
const APP: &str = r#"
import sqlite3, sys, random, time
path, rounds, pause, copy = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), sys.argv[4]
r = random.Random(7)
d = sqlite3.connect(path, isolation_level=None, timeout=30)
d.execute("create table if not exists t(id integer primary key, v blob)")
for k in range(rounds):
    d.execute("begin immediate")
    for _ in range(r.randrange(1, 4)):
        d.execute("insert into t(v) values(?)", (r.randbytes(r.randrange(10, 6000)),))
    if k % 7 == 3:
        d.execute("delete from t where id % 5 = ?", (k % 5,))
    d.execute("commit")
    if pause: time.sleep(pause)
c = sqlite3.connect(copy, isolation_level=None)
d.execute("begin"); d.execute("select 1 from t").fetchone()
d.backup(c)
"#;

fn python(script: &str, arguments: &[&str]) {
    let status = Command::new("python3")
        .arg("-c")
        .arg(script)
        .args(arguments)
        .stdin(Stdio::null())
        .status();
    assert!(status.unwrap().success());
}

fn create(path: &Path) {
    python(
        "import sqlite3,sys; d=sqlite3.connect(sys.argv[1]); d.execute('pragma journal_mode=wal'); d.execute('create table first(x)'); d.commit()",
        &[path.to_str().unwrap()],
    );
}

struct Running {
    stop: CancellationToken,
    task: tokio::task::JoinHandle<Vec<Unfinished>>,
    events: mpsc::Receiver<WatchEvent>,
}

fn watch(store: &Arc<dyn Store>, path: &Path, extra: &str) -> Running {
    let text = format!(
        "[s3]\nbucket = \"file:///nowhere\"\n{extra}\n[[databases]]\npath = \"{}\"\n",
        path.display()
    );
    let environment = Environment::default();
    let file = File::parse(Path::new("walrust.toml"), &text, &environment).unwrap();
    let resolved = config::resolve(Some(&file), &environment, &Overrides::default()).unwrap();
    let options = WatchOptions {
        store: store.clone(),
        prefix: KeyPrefix::default(),
        databases: resolved.databases,
        permission: Permission::default(),
        checksums: true,
        until: Until::Stopped,
        patient: false,
        behind_gate: false,
        lease: LeaseMode::Enforce,
        lease_duration: Duration::from_secs(30),
        memory_limit: resolved.memory_limit,
        grace: Duration::from_secs(20),
        clock: Clock::system(),
    };
    let (sender, events) = mpsc::channel(1000);
    let stop = CancellationToken::new();
    let watch = Watch::new(options, sender, &stop).unwrap();
    let task = tokio::spawn(watch.run(stop.clone()));
    Running { stop, task, events }
}

impl Running {
    async fn wait_for(&mut self, wanted: impl Fn(&Happening) -> bool) {
        let all = async {
            while let Some(event) = self.events.recv().await {
                eprintln!("{event:?}");
                if wanted(&event.what) {
                    return;
                }
            }
            panic!("the watch ended");
        };
        tokio::time::timeout(Duration::from_secs(30), all)
            .await
            .unwrap();
    }

    async fn end(mut self) {
        self.stop.cancel();
        let drain = async {
            while let Some(event) = self.events.recv().await {
                eprintln!("{event:?}");
            }
        };
        let (unfinished, ()) = tokio::join!(self.task, drain);
        let unfinished = unfinished.unwrap();
        assert!(unfinished.is_empty(), "{unfinished:?}");
    }
}

async fn restored(store: &Arc<dyn Store>, name: &str, output: &Path) -> restore::RestoreReport {
    let request = RestoreRequest {
        layout: Layout::new(KeyPrefix::default(), name.parse().unwrap()),
        output: output.to_owned(),
        target: RestoreTarget::Latest,
        overwrite: Overwrite::No,
        verify: Verify::Full,
        state: LeaveState::No,
    };
    let progress: Arc<dyn Progress> = Arc::new(Silent);
    restore::restore(store, &request, &Clock::system(), &progress)
        .await
        .unwrap()
}

fn same_database(a: &Path, b: &Path) {
    python(
        r#"
import sqlite3, sys
a, b = (sqlite3.connect(p) for p in sys.argv[1:])
for t in ('sqlite_schema', 't', 'first'):
    x, y = (d.execute('select * from %s order by 1' % t).fetchall() for d in (a, b))
    assert x == y, (t, len(x), len(y))
print('rows', len(x))
"#,
        &[a.to_str().unwrap(), b.to_str().unwrap()],
    );
}

#[tokio::test(flavor = "current_thread")]
async fn a_stream_restores_to_what_the_application_had() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.db");
    create(&path);
    let store: Arc<dyn Store> = Arc::new(FileStore::open(&dir.path().join("bucket")).unwrap());
    for (round, (rounds, pause)) in [(50, "0.01"), (3000, "0"), (20, "0.05")]
        .into_iter()
        .enumerate()
    {
        let mut running = watch(&store, &path, "[sync]\nsync_interval = \"100ms\"");
        running
            .wait_for(|what| matches!(what, Happening::Watching { .. }))
            .await;
        let copy = dir.path().join(format!("copy{round}.db"));
        let arguments: Vec<String> = vec![
            path.display().to_string(),
            rounds.to_string(),
            pause.to_owned(),
            copy.display().to_string(),
        ];
        tokio::task::spawn_blocking(move || {
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            python(APP, &arguments);
        })
        .await
        .unwrap();
        running.end().await;
        let output = dir.path().join(format!("restored{round}.db"));
        let report = restored(&store, "app.db", &output).await;
        eprintln!("{report:?}");
        same_database(&output, &copy);
    }
}
