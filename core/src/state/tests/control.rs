use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Scratch;
use crate::error::{Error, ErrorKind, Result};
use crate::state::{ControlSocket, Incoming, Op, Request, StateDir, ask_watcher};

const SOON: Duration = Duration::from_secs(20);

fn request(op: Op) -> Request {
    Request {
        op,
        names: Vec::new(),
    }
}

async fn ask(database: &Path, op: Op, timeout: Duration) -> Result<Value> {
    let database = database.to_owned();
    let asked = tokio::task::spawn_blocking(move || ask_watcher(&database, &request(op), timeout));
    asked.await.unwrap()
}

/// A watcher that answers what it was asked; `Snapshot` fails, `Detach` never answers.
fn watcher(dir: &StateDir) -> CancellationToken {
    let stop = CancellationToken::new();
    let (sender, mut requests) = mpsc::channel::<Incoming>(1);
    let socket = ControlSocket::bind(dir).unwrap();
    tokio::spawn(socket.serve(sender, stop.clone()));
    tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Some(Incoming { request, reply }) = requests.recv().await {
            let answer = match request.op {
                Op::Status => Ok(json!({"names": request.names})),
                Op::Sync { timeout_ms } => Ok(json!({"timeout": timeout_ms})),
                Op::Snapshot { .. } => {
                    let error = Error::new(ErrorKind::Fenced, "another writer");
                    Err(error.on("app.db").hint("stop it"))
                }
                Op::Detach { .. } => {
                    kept.push(reply);
                    continue;
                }
            };
            let _ = reply.send(answer);
        }
    });
    stop
}

/// What the socket says to these bytes.
async fn raw(path: PathBuf, bytes: Vec<u8>) -> String {
    let talk = move || {
        let mut stream = UnixStream::connect(path).unwrap();
        // The server may have read enough and closed.
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer
    };
    tokio::task::spawn_blocking(talk).await.unwrap()
}

#[tokio::test]
async fn requests_reach_the_watcher_and_answers_come_back_typed() {
    let scratch = Scratch::new();
    let dir = scratch.open();
    let database = scratch.database();
    let stop = watcher(&dir);
    let answer = ask(&database, Op::Status, SOON).await.unwrap();
    assert_eq!(answer, json!({"names": []}));
    let op = Op::Sync {
        timeout_ms: Some(5),
    };
    assert_eq!(
        ask(&database, op, SOON).await.unwrap(),
        json!({"timeout": 5})
    );
    let op = Op::Snapshot { timeout_ms: None };
    let error = ask(&database, op, SOON).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fenced);
    assert_eq!(
        (error.message(), error.next_step()),
        ("another writer", Some("stop it"))
    );
    stop.cancel();
}

#[tokio::test]
async fn nobody_there_is_not_found_and_no_answer_is_unavailable() {
    let scratch = Scratch::new();
    let database = scratch.database();
    let error = ask(&database, Op::Status, SOON).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "no state directory");
    let dir = scratch.open();
    let error = ask(&database, Op::Status, SOON).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "no socket");
    // A process that was killed leaves its socket.
    std::mem::forget(ControlSocket::bind(&dir).unwrap());
    let stop = watcher(&dir);
    ask(&database, Op::Status, SOON).await.unwrap();
    let short = Duration::from_millis(50);
    let error = ask(&database, Op::Detach { for_ms: 1 }, short)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    stop.cancel();
    let gone = async {
        while scratch.state().join("control.sock").exists() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(SOON, gone).await.unwrap();
}

#[tokio::test]
async fn a_watcher_that_accepts_nothing_does_not_hold_a_client_up() {
    let scratch = Scratch::new();
    let dir = scratch.open();
    let _deaf = ControlSocket::bind(&dir).unwrap();
    let path = scratch.state().join("control.sock");
    let short = Duration::from_millis(100);
    let error = ask(&scratch.database(), Op::Status, short)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    // Fill the kernel's queue: connecting itself would wait now.
    let fill = tokio::task::spawn_blocking(move || {
        let mut waiting = Vec::new();
        for _ in 0..10_000 {
            let flags = rustix::net::SocketFlags::NONBLOCK;
            let family = rustix::net::AddressFamily::UNIX;
            let stream = rustix::net::SocketType::STREAM;
            let socket = rustix::net::socket_with(family, stream, flags, None).unwrap();
            let address = rustix::net::SocketAddrUnix::new(&path).unwrap();
            if rustix::net::connect(&socket, &address).is_err() {
                return waiting;
            }
            waiting.push(socket);
        }
        panic!("the queue has no end");
    });
    let _waiting = fill.await.unwrap();
    let error = ask(&scratch.database(), Op::Status, short)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn the_socket_is_reached_below_a_path_of_any_length() {
    let scratch = Scratch::new();
    let deep = scratch.root.path().join("d".repeat(200));
    std::fs::create_dir(&deep).unwrap();
    let database = deep.join("app.db");
    let dir = StateDir::create_or_open(&database).unwrap();
    let stop = watcher(&dir);
    ask(&database, Op::Status, SOON).await.unwrap();
    assert!(dir.path().join("control.sock").exists());
    stop.cancel();
}

#[tokio::test]
async fn odd_requests_are_answered_with_an_error_and_stop_nobody() {
    let scratch = Scratch::new();
    let dir = scratch.open();
    let stop = watcher(&dir);
    let path = scratch.state().join("control.sock");
    let long = [b"{\"op\":\"".as_slice(), &vec![b'x'; 300 << 10], b"\"}\n"].concat();
    let odd: [&[u8]; 6] = [
        b"",
        b"\n",
        b"{\"op\":\"status\"}",
        b"{\"op\":\"rm\"}\n",
        b"\xff\xfe\n",
        b"[]\n",
    ];
    for bytes in odd.into_iter().chain([long.as_slice()]) {
        let answer = raw(path.clone(), bytes.to_vec()).await;
        // A request cut off for its length may be reset before the client reads.
        let refused = answer.contains("\"kind\":\"invalid\"");
        assert!(
            refused || (answer.is_empty() && bytes.len() > 1000),
            "{answer}"
        );
    }
    let named = b"{\"op\":\"status\",\"names\":[\"a\",\"b/c\"],\"later\":1}\n".to_vec();
    assert_eq!(
        raw(path.clone(), named).await,
        "{\"ok\":{\"names\":[\"a\",\"b/c\"]}}\n"
    );
    let escape = b"{\"op\":\"status\",\"names\":[\"../x\"]}\n".to_vec();
    assert!(raw(path, escape).await.contains("invalid"));
    stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn silent_clients_are_sent_away() {
    let scratch = Scratch::new();
    let dir = scratch.open();
    let stop = watcher(&dir);
    let path = scratch.state().join("control.sock");
    // More than are served at once; time runs by itself while everybody waits.
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(tokio::net::UnixStream::connect(&path).await.unwrap());
    }
    let mut last = tokio::net::UnixStream::connect(&path).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut last, b"{\"op\":\"status\"}\n")
        .await
        .unwrap();
    let start = tokio::time::Instant::now();
    let mut answer = String::new();
    tokio::io::AsyncReadExt::read_to_string(&mut last, &mut answer)
        .await
        .unwrap();
    assert_eq!(answer, "{\"ok\":{\"names\":[]}}\n");
    assert!(
        start.elapsed() < Duration::from_secs(30),
        "{:?}",
        start.elapsed()
    );
    stop.cancel();
}
