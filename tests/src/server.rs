//! An S3 server in this process, on loopback, that can fail, lose answers, stall and be slow on demand.

use std::fs;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use s3s::Body;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::sync::{Mutex as AsyncMutex, oneshot};

use crate::bucket::{ACCESS_KEY, Bucket, SECRET_KEY};
use crate::support::scratch;

/// One request, as a rule sees it and as the log keeps it.
#[derive(Clone, Debug)]
pub struct Call {
    /// Counts from 1 since the server started (or [`Server::restart_count`]).
    pub number: u64,
    /// `GET`, `PUT`, `POST`, `DELETE`, `HEAD`.
    pub method: String,
    /// Path, percent-encoded: `/bucket/key`.
    pub path: String,
    /// Query, without the question mark.
    pub query: String,
    /// Bytes of the request's body.
    pub sent: u64,
    /// Status of the answer; 0 while there is none, or if it was withheld.
    pub status: u16,
    /// Bytes of the answer's body.
    pub received: u64,
}

impl Call {
    /// Whether it changes what is stored.
    pub fn writes(&self) -> bool {
        matches!(self.method.as_str(), "PUT" | "POST" | "DELETE")
    }
}

/// What becomes of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// The usual.
    Pass,
    /// This status, and nothing is done.
    Fail(u16),
    /// It is done, but this status is answered.
    FailAfter(u16),
    /// The connection breaks and nothing is done.
    Drop,
    /// It is done, and the connection breaks.
    DropAfter,
    /// It is done after a while.
    Delay(Duration),
}

type Rule = Box<dyn FnMut(&Call) -> Action + Send>;

#[derive(Default)]
struct State {
    calls: Vec<Call>,
    count: u64,
    rule: Option<Rule>,
    outage: bool,
    /// Bytes a second, both ways together.
    bandwidth: Option<u64>,
}

struct Shared {
    state: Mutex<State>,
    /// Held while a conditional write is decided and done: the file system behind has no such thing.
    conditional: AsyncMutex<()>,
    /// The one wire that everybody's bytes share.
    wire: AsyncMutex<()>,
    service: S3Service,
}

/// The running server. Dropping it ends it.
pub struct Server {
    endpoint: String,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    folder: TempDir,
}

impl Server {
    /// Starts a server with an empty store.
    pub fn start() -> Self {
        let folder = scratch("s3");
        let store = s3s_fs::FileSystem::new(folder.path()).unwrap();
        let mut builder = S3ServiceBuilder::new(store);
        builder.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            conditional: AsyncMutex::default(),
            wire: AsyncMutex::default(),
            service: builder.build(),
        });
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let (stop, stopped) = oneshot::channel();
        let serving = Arc::clone(&shared);
        let thread = thread::spawn(move || {
            let runtime = Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(serve(listener, serving, stopped));
            runtime.shutdown_timeout(Duration::from_secs(1));
        });
        Self {
            endpoint,
            shared,
            stop: Some(stop),
            thread: Some(thread),
            folder,
        }
    }

    /// A new, empty bucket.
    pub fn bucket(&self, name: &str) -> Bucket {
        let root = self.folder.path().join(name);
        fs::create_dir(&root).unwrap();
        Bucket::S3 {
            endpoint: self.endpoint.clone(),
            path: name.to_owned(),
            root: Some(root),
        }
    }

    /// `http://127.0.0.1:PORT`.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Decides about each request from now on.
    pub fn rule(&self, rule: impl FnMut(&Call) -> Action + Send + 'static) {
        self.shared.state.lock().unwrap().rule = Some(Box::new(rule));
    }

    /// No rule from now on.
    pub fn no_rule(&self) {
        self.shared.state.lock().unwrap().rule = None;
    }

    /// While set, every connection breaks before anything is done.
    pub fn outage(&self, on: bool) {
        self.shared.state.lock().unwrap().outage = on;
    }

    /// Bytes a second that pass, both ways and all requests together; none: no limit.
    pub fn bandwidth(&self, bytes_a_second: Option<u64>) {
        self.shared.state.lock().unwrap().bandwidth = bytes_a_second;
    }

    /// The requests so far, in order of arrival.
    pub fn calls(&self) -> Vec<Call> {
        self.shared.state.lock().unwrap().calls.clone()
    }

    /// Forgets the requests so far and counts from 1 again.
    pub fn restart_count(&self) {
        let mut state = self.shared.state.lock().unwrap();
        state.calls.clear();
        state.count = 0;
    }

    /// Bytes of request bodies so far.
    pub fn uploaded(&self) -> u64 {
        self.shared
            .state
            .lock()
            .unwrap()
            .calls
            .iter()
            .map(|call| call.sent)
            .sum()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn serve(
    listener: std::net::TcpListener,
    shared: Arc<Shared>,
    mut stopped: oneshot::Receiver<()>,
) {
    let listener = TcpListener::from_std(listener).unwrap();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = &mut stopped => return,
        };
        let Ok((stream, _)) = accepted else { continue };
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(Arc::clone(&shared), request));
            let mut server = http1::Builder::new();
            server.timer(TokioTimer::new());
            // An error is a broken connection: the client's doing, or ours on demand.
            let _ = server.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// A connection that is to break.
#[derive(Debug)]
struct Broken;

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("broken on demand")
    }
}

impl std::error::Error for Broken {}

async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Response<Body>, Broken> {
    let (parts, body) = request.into_parts();
    if shared.state.lock().unwrap().outage {
        return Err(Broken);
    }
    let body = body.collect().await.map_err(|_| Broken)?.to_bytes();
    let (number, action) = shared.register(&parts, body.len() as u64);
    shared.transmit(body.len() as u64).await;
    if shared.state.lock().unwrap().outage {
        return Err(Broken);
    }
    match action {
        Action::Pass | Action::FailAfter(_) | Action::DropAfter => {}
        Action::Fail(status) => return Ok(shared.refuse(number, status)),
        Action::Drop => return Err(Broken),
        Action::Delay(time) => tokio::time::sleep(time).await,
    }
    let conditional = ["if-match", "if-none-match"]
        .iter()
        .any(|name| parts.headers.contains_key(*name))
        && parts.method != Method::GET;
    let guard = if conditional {
        Some(shared.conditional.lock().await)
    } else {
        None
    };
    let request = Request::from_parts(parts, Body::from(body));
    let response = shared.service.call(request).await;
    drop(guard);
    let response = response.unwrap_or_else(|_| status_only(StatusCode::INTERNAL_SERVER_ERROR));
    match action {
        Action::FailAfter(status) => return Ok(shared.refuse(number, status)),
        Action::DropAfter => return Err(Broken),
        _ => {}
    }
    let (head, body) = response.into_parts();
    let body = body.collect().await.map_err(|_| Broken)?.to_bytes();
    shared.transmit(body.len() as u64).await;
    shared.finish(number, head.status.as_u16(), body.len() as u64);
    Ok(Response::from_parts(head, Body::from(body)))
}

impl Shared {
    fn register(&self, parts: &hyper::http::request::Parts, sent: u64) -> (u64, Action) {
        let mut state = self.state.lock().unwrap();
        state.count += 1;
        let call = Call {
            number: state.count,
            method: parts.method.to_string(),
            path: parts.uri.path().to_owned(),
            query: parts.uri.query().unwrap_or_default().to_owned(),
            sent,
            status: 0,
            received: 0,
        };
        let action = state.rule.as_mut().map_or(Action::Pass, |rule| rule(&call));
        state.calls.push(call);
        (state.count, action)
    }

    fn finish(&self, number: u64, status: u16, received: u64) {
        let mut state = self.state.lock().unwrap();
        if let Some(call) = state
            .calls
            .iter_mut()
            .rev()
            .find(|call| call.number == number)
        {
            call.status = status;
            call.received = received;
        }
    }

    fn refuse(&self, number: u64, status: u16) -> Response<Body> {
        self.finish(number, status, 0);
        status_only(StatusCode::from_u16(status).unwrap())
    }

    /// Takes the time that `bytes` need on the shared wire.
    async fn transmit(&self, bytes: u64) {
        let bandwidth = self.state.lock().unwrap().bandwidth;
        if let Some(bandwidth) = bandwidth {
            let _wire = self.wire.lock().await;
            tokio::time::sleep(Duration::from_secs_f64(bytes as f64 / bandwidth as f64)).await;
        }
    }
}

fn status_only(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}
