//! The routes without a socket, and the pure functions behind them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::clock::Clock;
use crate::engine::{Counters, DatabaseState, DatabaseStatus, StandingError};
use crate::error::{Error, ErrorKind};
use crate::replica::{ReplicaCondition, ReplicaStatus};
use crate::store::Meter;
use crate::types::{Timestamp, Txid};

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

fn facts() -> Facts {
    Facts {
        version: "1.2.3",
        pod: None,
        mode: Mode::Watch,
        config_hash: None,
        config_error: None,
        started: at(0),
        paused: Vec::new(),
        missing: Vec::new(),
        ready_lag: Some(Duration::from_secs(60)),
        gated: false,
    }
}

fn status(name: &str) -> DatabaseStatus {
    DatabaseStatus::new(name.parse().unwrap(), format!("/data/{name}").into())
}

/// A database that is stored up to TXID 7.
fn healthy(name: &str) -> DatabaseStatus {
    let mut status = status(name);
    status.state = DatabaseState::InSync;
    status.txid = Txid::new(7);
    status.durable_txid = Txid::new(7);
    status.lease.held = true;
    status.lease.epoch = Some(3);
    status
}

fn view(statuses: impl IntoIterator<Item = DatabaseStatus>) -> View {
    let seen = |status| Seen {
        status,
        counters: Arc::new(Counters::default()),
    };
    View {
        now: at(100_000),
        facts: facts(),
        counts: Meter::default().snapshot(),
        reloads: [0, 0],
        databases: statuses.into_iter().map(seen).collect(),
        replicas: Vec::new(),
    }
}

/// The board of replicas that are as given.
fn board_of(facts: Facts, replicas: Vec<ReplicaStatus>) -> Arc<Board> {
    let status = |replica| tokio::sync::watch::channel(replica).1;
    let subject = Subject::Replicas(replicas.into_iter().map(status).collect());
    let clock = Clock::manual(at(100_000));
    Arc::new(Board::new(facts, subject, Meter::default(), clock))
}

/// The board of a process that has nothing to do, and does that well.
pub(super) fn empty_board() -> Arc<Board> {
    board_of(facts(), Vec::new())
}

/// The board of a process where something is missing.
pub(super) fn failing_board() -> Arc<Board> {
    let missing = vec!["/data/*.db".into()];
    board_of(Facts { missing, ..facts() }, Vec::new())
}

#[test]
fn a_replica_is_ready_once_it_can_be_read_and_until_it_is_too_old() {
    let mut replica = ReplicaStatus::new("app.db".parse().unwrap(), String::new(), "r.db".into());
    let look = |replica: &ReplicaStatus| {
        let mode = Mode::Replicate;
        board_of(Facts { mode, ..facts() }, vec![replica.clone()]).look()
    };
    let reasons = |replica: &ReplicaStatus| -> Vec<&'static str> {
        unready(&look(replica))
            .iter()
            .map(|reason| reason.reason)
            .collect()
    };
    assert_eq!(reasons(&replica), ["no_base"]);
    replica.state = ReplicaCondition::Replica;
    (replica.txid, replica.head_txid) = (Txid::new(7), Txid::new(9));
    (replica.commit_time, replica.head_time) = (Some(at(40_000)), Some(at(90_000)));
    replica.last_poll = Some(at(95_000));
    replica.errors = 3;
    assert!(reasons(&replica).is_empty());
    let page = render(look(&replica), Format::Prometheus).unwrap();
    for line in [
        "walrust_databases_total 1",
        "walrust_replica_applied_txid{database=\"app.db\"} 7",
        "walrust_replica_source_txid{database=\"app.db\"} 9",
        "walrust_replica_lag_seconds{database=\"app.db\"} 50.0",
        "walrust_error_count_total{database=\"app.db\"} 3",
    ] {
        assert!(page.lines().any(|other| other == line), "{line}\n{page}");
    }
    let report = StatusReport::new(&look(&replica));
    assert_eq!((report.mode.as_str(), report.paused), ("replicate", false));
    let one = &report.databases[0];
    assert_eq!((one.state.as_str(), one.lag_seconds), ("replica", 50.0));
    assert_eq!((one.txid, one.durable_txid), (Txid::new(7), Txid::new(9)));
    let error = Error::new(ErrorKind::Unavailable, "no route");
    replica.error = Some(StandingError::new(&error, at(96_000)));
    replica.last_poll = Some(at(80_000));
    let unready = unready(&look(&replica));
    assert_eq!(unready[0].reason, "lagging");
    assert!(unready[0].message.ends_with("no route"), "{unready:?}");
}

fn reasons(view: &View) -> Vec<&'static str> {
    unready(view).iter().map(|reason| reason.reason).collect()
}

#[test]
fn h2_an_idle_database_is_ready_however_long_it_idles() {
    let mut view = view([healthy("a.db")]);
    view.now = at(i64::from(u32::MAX) * 1000);
    assert_eq!(unready(&view), []);
    assert!(health::started(&view));
}

#[test]
fn h1_what_is_not_backed_up_is_not_ready() {
    let fenced = DatabaseStatus {
        state: DatabaseState::Fenced,
        ..healthy("fenced.db")
    };
    let based = DatabaseStatus {
        durable_txid: None,
        ..healthy("no-base.db")
    };
    let pending = |since| DatabaseStatus {
        pending_since: Some(at(since)),
        ..healthy("lag.db")
    };
    let detached = DatabaseStatus {
        blind_since: Some(at(39_999)),
        ..healthy("blind.db")
    };
    for (status, expected) in [
        (status("new.db"), vec!["acquiring_lease"]),
        (fenced, vec!["fenced"]),
        (based, vec!["no_base"]),
        (pending(40_000), vec![]),
        (pending(39_999), vec!["lagging"]),
        (detached, vec!["lagging"]),
    ] {
        let name = status.name.clone();
        let view = view([healthy("good.db"), status]);
        assert_eq!(reasons(&view), expected, "{name}");
    }
    let mut patient = view([pending(0)]);
    patient.facts.ready_lag = None;
    assert_eq!(reasons(&patient), [""; 0]);
}

#[test]
fn an_optional_file_may_be_missing_and_a_required_pattern_may_not() {
    let missing = DatabaseStatus {
        state: DatabaseState::WaitingForFile,
        blind_since: Some(at(0)),
        ..status("later.db")
    };
    let mut view = view([missing]);
    assert_eq!(unready(&view), []);
    let report = StatusReport::new(&view);
    assert_eq!(report.databases[0].state, "waiting_for_file");
    assert_eq!(report.databases[0].lag_seconds, 0.0);
    view.facts.missing.push("/data/*.db".into());
    assert_eq!(reasons(&view), ["waiting_for_file"]);
    view.facts.missing.clear();
    view.databases[0].status.state = DatabaseState::Erroring;
    let error = Error::new(ErrorKind::NotFound, "no such file");
    view.databases[0].status.error = Some(StandingError::new(&error, at(5)));
    let [reason] = &unready(&view)[..] else {
        panic!("one reason");
    };
    assert!(reason.message.ends_with("no such file"), "{reason:?}");
}

#[test]
fn a_gate_waits_for_every_lease_once() {
    let mut view = view([healthy("a.db"), status("b.db")]);
    assert!(health::started(&view));
    view.facts.gated = true;
    assert!(!health::started(&view));
    view.databases[1].status.lease.epoch = Some(1);
    assert!(health::started(&view));
}

#[test]
fn status_has_the_documented_fields() {
    let mut lagging = healthy("a.db");
    lagging.pending_since = Some(at(97_500));
    let mut view = view([lagging]);
    view.facts
        .paused
        .push(("p.db".parse().unwrap(), "/p.db".into()));
    let report = StatusReport::new(&view);
    let text = serde_json::to_string(&report).unwrap();
    assert_eq!(
        text,
        concat!(
            r#"{"version":"1.2.3","pod":null,"mode":"watch","config_hash":null,"config_error":null,"#,
            r#""started":"1970-01-01T00:00:00Z","paused":false,"databases":[{"name":"a.db","#,
            r#""path":"/data/a.db","state":"in_sync","txid":7,"durable_txid":7,"lag_seconds":2.5,"#,
            r#""detached_until":null,"last_sync":null,"last_snapshot":null,"next_snapshot":null,"wal_bytes":0,"spool_bytes":0,"#,
            r#""proven_txid":null,"proven_at":null,"lease":{"held":true,"epoch":3,"lineage":null},"#,
            r#""error":null},{"name":"p.db","path":"/p.db","state":"paused","txid":null,"#,
            r#""durable_txid":null,"lag_seconds":0.0,"detached_until":null,"last_sync":null,"last_snapshot":null,"#,
            r#""next_snapshot":null,"wal_bytes":0,"spool_bytes":0,"proven_txid":null,"proven_at":null,"#,
            r#""lease":{"held":false,"epoch":null,"lineage":null},"error":null}]}"#
        )
    );
    assert_eq!(serde_json::from_str::<StatusReport>(&text).unwrap(), report);
}

/// interfaces.md section 5.
const SERIES: [&str; 30] = [
    "walrust_last_sync_timestamp",
    "walrust_wal_size_bytes",
    "walrust_next_snapshot_timestamp",
    "walrust_current_txid",
    "walrust_snapshot_count_total",
    "walrust_error_count_total",
    "walrust_validation_success_total",
    "walrust_validation_failure_total",
    "walrust_last_validation_timestamp",
    "walrust_checkpoint_total",
    "walrust_checkpoint_duration_seconds_count",
    "walrust_retry_total",
    "walrust_sync_latency_seconds_count",
    "walrust_databases_total",
    "walrust_uptime_seconds",
    "walrust_lag_seconds",
    "walrust_durable_txid",
    "walrust_proven_txid",
    "walrust_rebase_total",
    "walrust_lease_held",
    "walrust_lease_epoch",
    "walrust_spool_bytes",
    "walrust_storage_requests_total",
    "walrust_storage_bytes_total",
    "walrust_config_info",
    "walrust_config_reload_total",
    "walrust_barrier_total",
    "walrust_barrier_seconds_count",
    "walrust_build_info",
    "walrust_barrier_seconds_bucket",
];

fn named(page: &str) -> BTreeSet<&str> {
    let lines = page.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| line.split(['{', ' ']).next())
        .collect()
}

#[test]
fn h3_every_series_is_there_from_the_start_at_zero() {
    let view = view([status("a.db")]);
    for format in [Format::Prometheus, Format::OpenMetrics] {
        let page = render(view.clone(), format).unwrap();
        let names = named(&page);
        for series in SERIES {
            assert!(names.contains(series), "{series} in {page}");
        }
        let ones = ["walrust_build_info", "walrust_config_info"];
        for line in page.lines().filter(|line| !line.starts_with('#')) {
            let name = line.split(['{', ' ']).next().unwrap();
            let value: f64 = line.rsplit(' ').next().unwrap().parse().unwrap();
            let expected = match name {
                "walrust_uptime_seconds" => 100.0,
                "walrust_databases_total" => 1.0,
                name if ones.contains(&name) => 1.0,
                _ => 0.0,
            };
            assert!((value - expected).abs() < f64::EPSILON, "{line}");
        }
        // What only replicas have is described.
        assert!(page.contains("# TYPE walrust_replica_lag_seconds gauge"));
        assert_eq!(page.ends_with("# EOF\n"), format == Format::OpenMetrics);
    }
}

#[test]
fn numbers_are_those_of_the_status_and_names_are_escaped() {
    let mut status = healthy("a b.db");
    status.pending_since = Some(at(98_000));
    status.wal_bytes = 4152;
    status.last_sync = Some(at(1_705_314_600_500));
    let view = view([status]);
    let page = render(view, Format::Prometheus).unwrap();
    for line in [
        r#"walrust_lag_seconds{database="a b.db"} 2.0"#,
        r#"walrust_wal_size_bytes{database="a b.db"} 4152"#,
        r#"walrust_durable_txid{database="a b.db"} 7"#,
        r#"walrust_lease_epoch{database="a b.db"} 3"#,
        r#"walrust_last_sync_timestamp{database="a b.db"} 1705314600.5"#,
        r#"walrust_sync_latency_seconds_bucket{database="a b.db",le="+Inf"} 0"#,
        "# TYPE walrust_error_count_total counter",
    ] {
        assert!(page.lines().any(|there| there == line), "{line} in {page}");
    }
}

#[test]
fn openmetrics_is_for_those_who_take_it() {
    let prometheus =
        "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.5";
    assert_eq!(Format::accepted(prometheus), Format::OpenMetrics);
    assert_eq!(Format::accepted("*/*"), Format::Prometheus);
    assert_eq!(Format::accepted(""), Format::Prometheus);
}

mod routes {
    use axum::body::Body;
    use hyper::Request;
    use hyper::service::Service as _;
    use hyper_util::service::TowerToHyperService;
    use tokio::sync::mpsc;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::clock::Clock;
    use crate::config::{self, Environment, File, Overrides};
    use crate::engine::{LeaseMode, Permission, Until, Watch, WatchOptions};
    use crate::store::FileStore;

    /// The board of a watch that has not begun.
    fn board(folder: &std::path::Path) -> (Arc<Board>, Watch) {
        let text = format!(
            "[s3]\nbucket = \"file:///nowhere\"\n[[databases]]\npath = \"{}/a.db\"",
            folder.display()
        );
        let environment = Environment::default();
        let file = File::parse("w.toml".as_ref(), &text, &environment).unwrap();
        let resolved = config::resolve(Some(&file), &environment, &Overrides::default()).unwrap();
        let options = WatchOptions {
            store: Arc::new(FileStore::open(&folder.join("bucket")).unwrap()),
            prefix: Default::default(),
            databases: resolved.databases,
            permission: Permission::default(),
            checksums: true,
            until: Until::Stopped,
            patient: false,
            behind_gate: false,
            lease: LeaseMode::Enforce,
            lease_duration: Duration::from_secs(30),
            memory_limit: 1 << 20,
            grace: Duration::from_secs(1),
            clock: Clock::system(),
        };
        let stop = CancellationToken::new();
        let watch = Watch::new(options, mpsc::channel(1).0, &stop).unwrap();
        let clock = Clock::manual(at(5_000));
        let board = Board::new(
            facts(),
            Subject::Watch(watch.handle()),
            Meter::default(),
            clock,
        );
        (Arc::new(board), watch)
    }

    /// Status, content type and body of the answer to GET `path`.
    async fn get(board: &Arc<Board>, path: &str, accept: &str) -> (u16, String, String) {
        let router = TowerToHyperService::new(read_only(board.clone()));
        let request = Request::get(path).header("accept", accept);
        let answer = router.call(request.body(Body::empty()).unwrap()).await;
        let answer = answer.unwrap();
        let (code, kind) = (
            answer.status().as_u16(),
            answer.headers().get("content-type"),
        );
        let kind = kind.map_or("", |kind| kind.to_str().unwrap()).to_owned();
        let body = axum::body::to_bytes(answer.into_body(), 1 << 20).await;
        (
            code,
            kind,
            String::from_utf8(body.unwrap().to_vec()).unwrap(),
        )
    }

    #[tokio::test]
    async fn each_path_answers_what_is_documented() {
        let folder = tempfile::tempdir().unwrap();
        let (board, _watch) = board(folder.path());
        for path in ["/livez", "/healthz", "/startupz"] {
            assert_eq!(get(&board, path, "*/*").await.0, 200, "{path}");
        }
        let (code, kind, body) = get(&board, "/readyz", "*/*").await;
        assert_eq!((code, kind.as_str()), (503, "application/json"));
        assert_eq!(
            body,
            "{\"ready\":false,\"reasons\":[{\"database\":\"a.db\",\"message\":\"the stream is not ours yet\",\
             \"reason\":\"acquiring_lease\"}]}\n"
        );
        let (code, kind, body) = get(&board, "/status", "*/*").await;
        assert_eq!((code, kind.as_str()), (200, "application/json"));
        assert!(
            body.starts_with("{\"v\":1,\"version\":\"1.2.3\","),
            "{body}"
        );
        let (code, kind, body) = get(&board, "/metrics", "*/*").await;
        assert_eq!(
            (code, kind.as_str()),
            (200, Format::Prometheus.content_type())
        );
        assert!(
            body.contains("walrust_lease_held{database=\"a.db\"} 0\n"),
            "{body}"
        );
        let (_, kind, body) = get(&board, "/metrics", "application/openmetrics-text").await;
        assert_eq!(kind, Format::OpenMetrics.content_type());
        assert!(body.ends_with("# EOF\n"));
        assert_eq!(get(&board, "/", "*/*").await.0, 404);
        let router = TowerToHyperService::new(read_only(board.clone()));
        let post = Request::post("/metrics").body(Body::empty()).unwrap();
        assert_eq!(router.call(post).await.unwrap().status().as_u16(), 405);
    }

    #[tokio::test]
    async fn a_new_configuration_is_shown_and_a_refused_one_explained() {
        let folder = tempfile::tempdir().unwrap();
        let (board, _watch) = board(folder.path());
        board.reloaded(Ok("abc".to_owned()));
        board.reloaded(Err("w.toml:1:1: no".to_owned()));
        let view = board.look();
        assert_eq!(view.reloads, [1, 1]);
        assert_eq!(view.facts.config_hash.as_deref(), Some("abc"));
        assert_eq!(view.facts.config_error.as_deref(), Some("w.toml:1:1: no"));
        board.reloaded(Ok("def".to_owned()));
        assert_eq!(board.look().facts.config_error, None);
    }

    #[tokio::test]
    async fn a_port_that_is_taken_is_named() {
        let first = Listener::bind("127.0.0.1:0".parse().unwrap())
            .await
            .unwrap();
        let error = Listener::bind(first.address()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Busy);
        let expected = format!("{}: another process has this port", first.address());
        assert_eq!(error.to_string(), expected);
    }

    #[tokio::test]
    async fn the_wal_is_measured_by_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let (board, _watch) = board(folder.path());
        std::fs::write(folder.path().join("a.db"), "").unwrap();
        assert_eq!(board.look().databases[0].status.wal_bytes, 0);
        std::fs::write(folder.path().join("a.db-wal"), [0; 4152]).unwrap();
        assert_eq!(board.look().databases[0].status.wal_bytes, 4152);
    }
}

mod server {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    use super::*;

    async fn echo() -> std::net::SocketAddr {
        let listener = Listener::bind("127.0.0.1:0".parse().unwrap())
            .await
            .unwrap();
        let address = listener.address();
        let router = axum::Router::new().route("/", axum::routing::get(async || "here\n"));
        tokio::spawn(listener.serve(router, Duration::from_secs(30)));
        address
    }

    async fn say(address: std::net::SocketAddr, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // The server may have heard enough and closed.
        let _ = stream.write_all(bytes).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8(answer).unwrap()
    }

    #[tokio::test]
    async fn a_connection_is_for_one_request() {
        let address = echo().await;
        let answer = say(address, b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.contains("connection: close"), "{answer}");
        assert!(answer.ends_with("here\n"), "{answer}");
    }

    #[tokio::test]
    async fn what_is_no_request_or_too_long_ends_and_others_are_served() {
        let address = echo().await;
        let long = [b"GET / HTTP/1.1\r\nx: ".as_slice(), &[b'a'; 40_000]].concat();
        let many = [
            b"GET / HTTP/1.1\r\n".as_slice(),
            &b"x: 1\r\n".repeat(100),
            b"\r\n",
        ]
        .concat();
        for bad in [b"\x16\x03\x01\x02\x00\r\n\r\n".as_slice(), &long, &many] {
            let answer = say(address, bad).await;
            assert!(!answer.contains("200 OK"), "{answer}");
        }
        let answer = say(address, b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        assert!(answer.ends_with("here\n"), "{answer}");
    }

    #[tokio::test(start_paused = true)]
    async fn clients_that_say_nothing_make_room_for_others() {
        let address = echo().await;
        let mut silent = Vec::new();
        for _ in 0..40 {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        // More than are served at once; time runs by itself while everybody waits.
        let answer = say(address, b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        assert!(answer.ends_with("here\n"), "{answer}");
    }
}
