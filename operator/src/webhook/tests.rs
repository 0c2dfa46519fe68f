use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use json_patch::Patch;
use k8s_openapi::ByteString;
use prometheus_client::registry::Registry;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;
use walrust_core::types::Timestamp;

use super::certificates::{self, Facts, Pair};
use super::rotation::{Lifetimes, State, Step, after, next_step};
use super::*;
use crate::api::WalrustBackup;
use crate::render::Settings;

const HOST: &str = "walrust-webhook.walrust.svc";

/// What the API server would say.
struct Known(Vec<WalrustBackup>);

#[async_trait::async_trait]
impl Lookup for Known {
    async fn backup(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Arc<WalrustBackup>>, LookupError> {
        if name == "late" {
            return Err(LookupError::Late);
        }
        let mut all = self.0.iter();
        let found = all.find(|it| {
            it.metadata.name.as_deref() == Some(name)
                && it.metadata.namespace.as_deref() == Some(namespace)
        });
        Ok(found.cloned().map(Arc::new))
    }
}

fn hook() -> Hook {
    let backup = serde_json::from_value(json!({
        "apiVersion": "walrust.dev/v1alpha1",
        "kind": "WalrustBackup",
        "metadata": {"name": "notes", "namespace": "apps"},
        "spec": {
            "storage": {"bucket": "team-backups", "credentials": {"secretRef": {"name": "notes-s3"}}},
            "databases": [{"name": "main", "path": "/data/notes.db"}],
        },
    }));
    Hook::new(
        Box::new(Known(vec![backup.unwrap()])),
        Arc::new(Settings::default()),
    )
}

fn pod(labels: &Value) -> Value {
    json!({
        "metadata": {"generateName": "notes-", "labels": labels},
        "spec": {
            "securityContext": {"runAsUser": 10001},
            "containers": [{"name": "notes", "image": "n:1", "volumeMounts": [{"name": "data", "mountPath": "/data"}]}],
            "volumes": [{"name": "data", "emptyDir": {}}],
        },
    })
}

fn review(operation: &str, namespace: &str, pod: &Value) -> Vec<u8> {
    let review = json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {"uid": "u-1", "operation": operation, "namespace": namespace, "dryRun": true, "object": pod},
    });
    serde_json::to_vec(&review).unwrap()
}

fn watched() -> Value {
    json!({"walrust.dev/inject": "watch", "walrust.dev/backup": "notes"})
}

async fn answered(body: &[u8]) -> (Value, Outcome) {
    let (answer, outcome) = hook().review(body).await.unwrap();
    (serde_json::to_value(answer).unwrap(), outcome)
}

#[tokio::test]
async fn a_labelled_pod_is_answered_with_a_patch_that_applies() {
    let before = pod(&watched());
    let (answer, outcome) = answered(&review("CREATE", "apps", &before)).await;
    assert_eq!(outcome, Outcome::Injected);
    assert_eq!(answer["response"]["uid"], "u-1");
    assert_eq!(answer["response"]["allowed"], true);
    assert_eq!(answer["response"]["patchType"], "JSONPatch");
    let patch: ByteString = serde_json::from_value(answer["response"]["patch"].clone()).unwrap();
    let patch: Patch = serde_json::from_slice(&patch.0).unwrap();
    let mut after = before;
    json_patch::patch(&mut after, &patch).unwrap();
    assert_eq!(after["spec"]["initContainers"][1]["name"], "walrust");

    // Asked once more, as after a mesh's webhook: nothing.
    let (again, outcome) = answered(&review("CREATE", "apps", &after)).await;
    assert_eq!(outcome, Outcome::Unchanged);
    assert_eq!(again["response"].get("patch"), None);
}

#[tokio::test]
async fn what_asks_and_cannot_be_served_is_denied_with_the_reason() {
    for (labels, namespace, message, code, outcome) in [
        (
            json!({"walrust.dev/inject": "yes", "walrust.dev/backup": "notes"}),
            "apps",
            "write watch or replicate",
            403,
            Outcome::Denied,
        ),
        (
            json!({"walrust.dev/inject": "watch"}),
            "apps",
            "walrust.dev/backup is missing",
            403,
            Outcome::Denied,
        ),
        (
            watched(),
            "other",
            "there is no WalrustBackup \"notes\" in namespace \"other\"",
            403,
            Outcome::Denied,
        ),
        (
            json!({"walrust.dev/inject": "watch", "walrust.dev/backup": "late"}),
            "apps",
            "did not answer",
            503,
            Outcome::Error,
        ),
    ] {
        let (answer, found) = answered(&review("CREATE", namespace, &pod(&labels))).await;
        assert_eq!(found, outcome, "{labels}");
        assert_eq!(answer["response"]["allowed"], false);
        assert_eq!(answer["response"]["status"]["code"], code);
        let text = answer["response"]["status"]["message"].as_str().unwrap();
        assert!(
            text.starts_with("walrust: ") && text.contains(message),
            "{text}"
        );
    }
}

#[tokio::test]
async fn pods_that_ask_for_nothing_and_updates_pass_unchanged() {
    for (operation, labels) in [
        ("CREATE", json!({"app": "x"})),
        ("CREATE", Value::Null),
        ("UPDATE", watched()),
    ] {
        let (answer, outcome) = answered(&review(operation, "apps", &pod(&labels))).await;
        assert_eq!(outcome, Outcome::Unchanged);
        assert_eq!(answer["response"]["allowed"], true);
    }
    for bad in ["", "{}", "[]", "{\"request\": 7}"] {
        assert!(hook().review(bad.as_bytes()).await.is_err(), "{bad}");
    }
}

fn names() -> Vec<String> {
    vec![HOST.to_owned()]
}

const MINUTE: Duration = Duration::from_secs(60);

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(seconds * 1_000)
}

/// The server goes through three years; a client hears of each bundle one settling time late. It must trust whatever is
/// served at every moment, and nothing may ever be served that has ended.
#[test]
fn over_years_whatever_is_served_is_trusted_by_who_hears_late() {
    let lifetimes = Lifetimes::default();
    let mut now = 1_800_000_000_i64;
    let end = now + 3 * 365 * 86_400;
    let mut state: Option<State> = None;
    let mut told: Vec<(i64, String)> = Vec::new();
    let (mut promoted, mut renewed) = (0, 0);
    while now < end {
        let bundle = state.as_ref().map(State::bundle);
        let known_since = told
            .iter()
            .rev()
            .take_while(|(_, text)| Some(text) == bundle.as_ref())
            .last();
        let known_for = known_since.map_or(Duration::ZERO, |(since, _)| {
            Duration::from_secs((now - since).unsigned_abs())
        });
        let step = next_step(state.as_ref(), &names(), lifetimes, at(now), known_for);
        promoted += usize::from(step == Step::Promote);
        renewed += usize::from(step == Step::Renew);
        if let Step::Wait(wait) = step {
            assert!(wait <= MINUTE && !wait.is_zero());
            // A day at once where nothing is under way: what is due within it is a day late.
            let long = state.as_ref().is_none_or(|state| state.next.is_none());
            now += if long {
                86_400
            } else {
                i64::try_from(wait.as_secs()).unwrap().max(1)
            };
            continue;
        }
        let made = after(step, state.take(), &names(), lifetimes, at(now)).unwrap();
        if told.last().is_none_or(|(_, text)| *text != made.bundle()) {
            told.push((now, made.bundle()));
        }
        let late = told
            .iter()
            .rev()
            .find(|(since, _)| now - since >= 60)
            .or(told.first())
            .unwrap();
        let leaf = Facts::of(&made.leaf.certificate).unwrap();
        assert!(leaf.ends > now);
        let trusted = late
            .1
            .split_inclusive("-----END CERTIFICATE-----\n")
            .filter_map(|pem| Facts::of(pem).ok());
        assert!(
            trusted
                .into_iter()
                .any(|authority| authority.subject == leaf.issuer && authority.ends > now),
            "{step:?}"
        );
        state = Some(made);
    }
    assert!(promoted >= 4 && renewed >= 40, "{promoted} {renewed}");
}

/// Names that never seem to be there would have a new certificate made without end.
#[test]
fn a_certificate_for_hosts_and_addresses_is_made_once() {
    let names = [HOST, "localhost", "127.0.0.1", "::1"].map(str::to_owned);
    let lifetimes = Lifetimes::default();
    let state = after(Step::Create, None, &names, lifetimes, at(1_800_000_000)).unwrap();
    let step = next_step(
        Some(&state),
        &names,
        lifetimes,
        at(1_800_000_000),
        Duration::ZERO,
    );
    assert_eq!(step, Step::Wait(MINUTE));
}

#[test]
fn other_names_and_damage_are_mended() {
    let lifetimes = Lifetimes::default();
    let state = after(Step::Create, None, &names(), lifetimes, at(1_800_000_000)).unwrap();
    let step = |state: &State, names: &[String]| {
        next_step(
            Some(state),
            names,
            lifetimes,
            at(1_800_000_100),
            Duration::ZERO,
        )
    };
    assert!(matches!(step(&state, &names()), Step::Wait(_)));
    assert_eq!(step(&state, &["other.svc".to_owned()]), Step::Renew);
    let foreign = certificates::authority(at(1_800_000_000), lifetimes.authority).unwrap();
    let other = State {
        authority: foreign,
        ..state.clone()
    };
    assert_eq!(step(&other, &names()), Step::Renew);
    let damaged = State {
        leaf: Pair {
            certificate: "x".to_owned(),
            key: "y".to_owned(),
        },
        ..state.clone()
    };
    assert_eq!(step(&damaged, &names()), Step::Create);
    assert_eq!(State::of(&state.data()), Some(state.clone()));
    let mut data = state.data();
    data.remove("ca.key");
    assert_eq!(State::of(&data), None);
    assert!(
        !format!("{state:?}").contains("PRIVATE"),
        "keys are never printed"
    );
}

/// A server with a real socket and real TLS.
struct Running {
    address: std::net::SocketAddr,
    served: Arc<Served>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<Result<(), rustls::Error>>,
}

async fn running() -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let metrics = Arc::new(Metrics::default());
    let served = Arc::new(Served::new(Arc::clone(&metrics)));
    let router = server::router(hook(), Arc::clone(&metrics));
    let stop = CancellationToken::new();
    let task = tokio::spawn(serve(listener, router, Arc::clone(&served), stop.clone()));
    Running {
        address,
        served,
        metrics,
        stop,
        task,
    }
}

fn client(bundle: &str) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    for der in CertificateDer::pem_slice_iter(bundle.as_bytes()) {
        roots.add(der.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap();
    TlsConnector::from(Arc::new(
        config.with_root_certificates(roots).with_no_client_auth(),
    ))
}

/// One request on a connection of its own, as the API server sends it.
async fn ask(
    address: std::net::SocketAddr,
    connector: &TlsConnector,
    path: &str,
    body: Vec<u8>,
) -> Result<(u16, Bytes), String> {
    let stream = TcpStream::connect(address)
        .await
        .map_err(|error| error.to_string())?;
    let name = ServerName::try_from(HOST).unwrap();
    let stream = connector
        .connect(name, stream)
        .await
        .map_err(|error| error.to_string())?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    let connection = tokio::spawn(connection);
    let request = hyper::Request::post(path)
        .header("host", HOST)
        .body(Full::new(Bytes::from(body)))
        .unwrap();
    let response = sender
        .send_request(request)
        .await
        .map_err(|error| error.to_string())?;
    let status = response.status().as_u16();
    let body = response
        .into_body()
        .collect()
        .await
        .map_err(|error| error.to_string())?
        .to_bytes();
    drop(sender);
    let _ = connection.await;
    Ok((status, body))
}

fn now() -> Timestamp {
    walrust_core::clock::Clock::system().now()
}

#[tokio::test]
async fn before_there_is_a_certificate_nothing_is_answered_and_nothing_is_ready() {
    let running = running().await;
    assert!(!running.served.is_ready());
    let other = certificates::authority(now(), MINUTE).unwrap();
    assert!(
        ask(
            running.address,
            &client(&other.certificate),
            "/mutate",
            Vec::new()
        )
        .await
        .is_err()
    );
    assert!(running.served.put("x", "y").is_err());
    let state = after(Step::Create, None, &names(), Lifetimes::default(), now()).unwrap();
    let foreign = certificates::leaf(&state.authority, &names(), now(), MINUTE).unwrap();
    let mismatch = running
        .served
        .put(&state.leaf.certificate, &foreign.key)
        .unwrap_err();
    assert!(mismatch.to_string().contains("do not belong together"));
    running
        .served
        .put(&state.leaf.certificate, &state.leaf.key)
        .unwrap();
    assert!(
        !running.served.is_ready(),
        "the API server does not know who signed it"
    );
    running.served.set_covered(true);
    assert!(running.served.is_ready());
    let connector = client(&state.bundle());
    let (status, _) = ask(
        running.address,
        &connector,
        "/mutate",
        review("CREATE", "apps", &pod(&watched())),
    )
    .await
    .unwrap();
    assert_eq!(status, 200);
    assert_eq!(
        ask(running.address, &connector, "/other", Vec::new())
            .await
            .unwrap()
            .0,
        404
    );
    assert_eq!(
        ask(running.address, &connector, "/mutate", b"{}".to_vec())
            .await
            .unwrap()
            .0,
        400
    );
    assert_eq!(
        ask(running.address, &connector, "/mutate", vec![b' '; 5 << 20])
            .await
            .unwrap()
            .0,
        413
    );
    running.stop.cancel();
    running.task.await.unwrap().unwrap();
}

/// Requests come without a pause while the authority changes: each client trusts the bundle of the moment it connects.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_under_load_fails_no_admission() {
    let running = running().await;
    let lifetimes = Lifetimes::default();
    let first = after(Step::Create, None, &names(), lifetimes, now()).unwrap();
    running
        .served
        .put(&first.leaf.certificate, &first.leaf.key)
        .unwrap();
    let bundle = Arc::new(Mutex::new(first.bundle()));
    let (done, asked) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU32::new(0)),
    );
    let clients = (0..4).map(|_| {
        let (bundle, done, asked, address) = (
            Arc::clone(&bundle),
            Arc::clone(&done),
            Arc::clone(&asked),
            running.address,
        );
        tokio::spawn(async move {
            while !done.load(Ordering::SeqCst) {
                let connector = client(&bundle.lock().unwrap().clone());
                let body = review("CREATE", "apps", &pod(&watched()));
                assert_eq!(
                    ask(address, &connector, "/mutate", body).await.unwrap().0,
                    200
                );
                asked.fetch_add(1, Ordering::SeqCst);
            }
        })
    });
    let clients: Vec<_> = clients.collect();
    let mut state = first;
    for step in [
        Step::Renew,
        Step::Prepare,
        Step::Promote,
        Step::Renew,
        Step::Prepare,
        Step::Promote,
    ] {
        let before = asked.load(Ordering::SeqCst);
        state = after(step, Some(state), &names(), lifetimes, now()).unwrap();
        *bundle.lock().unwrap() = state.bundle();
        let deadline = Instant::now() + Duration::from_secs(20);
        // Whoever began with the bundle before is through: that is what settling waits for.
        while asked.load(Ordering::SeqCst) < before + 12 {
            assert!(Instant::now() < deadline, "no request comes through");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        running
            .served
            .put(&state.leaf.certificate, &state.leaf.key)
            .unwrap();
    }
    done.store(true, Ordering::SeqCst);
    for client in clients {
        client.await.unwrap();
    }
    let stranger = client(&certificates::authority(now(), MINUTE).unwrap().certificate);
    assert!(
        ask(running.address, &stranger, "/mutate", Vec::new())
            .await
            .is_err()
    );
    let mut registry = Registry::default();
    running.metrics.register(&mut registry);
    let mut page = String::new();
    prometheus_client::encoding::text::encode(&mut page, &registry).unwrap();
    let count = asked.load(Ordering::SeqCst);
    assert!(
        page.contains(&format!(
            "walrust_operator_webhook_requests_total{{outcome=\"injected\"}} {count}"
        )),
        "{page}"
    );
    assert!(
        page.contains(&format!(
            "walrust_operator_webhook_duration_seconds_count {count}"
        )),
        "{page}"
    );
    for series in [
        "requests_total{outcome=\"error\"} 0",
        "requests_total{outcome=\"denied\"} 0",
        "cert_expiry_timestamp_seconds 1",
    ] {
        assert!(page.contains(series), "{series}: {page}");
    }
}

#[tokio::test]
async fn files_are_served_and_followed_and_bad_ones_leave_the_last() {
    let folder = tempfile::tempdir().unwrap();
    let metrics = Arc::new(Metrics::default());
    let served = Arc::new(Served::new(metrics));
    let stop = CancellationToken::new();
    let state = after(Step::Create, None, &names(), Lifetimes::default(), now()).unwrap();
    std::fs::write(folder.path().join("tls.crt"), &state.leaf.certificate).unwrap();
    std::fs::write(folder.path().join("tls.key"), "no key").unwrap();
    let (path, follower) = (folder.path().to_owned(), Arc::clone(&served));
    let stopped = stop.clone();
    let often = Duration::from_millis(5);
    let task =
        tokio::spawn(async move { files::follow_every(often, &path, &follower, &stopped).await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!served.is_ready(), "no key yet");
    std::fs::write(folder.path().join("tls.key"), &state.leaf.key).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while !served.is_ready() {
        assert!(Instant::now() < deadline, "what is there now is served");
        tokio::time::sleep(often).await;
    }
    std::fs::write(folder.path().join("tls.key"), "").unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(served.is_ready(), "the last one stays");
    stop.cancel();
    task.await.unwrap();
}
