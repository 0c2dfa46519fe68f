//! Sending one file to the store: created, never replaced (invariant 5).

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::image::Piece;
use super::join::{self, Joined, Part, join};
use crate::error::{Error, ErrorKind, Result};
use crate::lease::Lease;
use crate::ltx::{Decoder, HEADER_BYTES, Header, Outline, Reheaded};
use crate::process::blocking;
use crate::store::{Put, PutOutcome, Store};

/// The bytes to send.
#[derive(Debug)]
pub(super) enum Bytestream {
    /// All at hand.
    Memory(Bytes),
    /// In the spool, `size` bytes, under the header of whoever captured it.
    File { path: PathBuf, size: u64 },
    /// Several captured files, to be joined to one.
    Parts { parts: Vec<Part>, scratch: PathBuf },
    /// As an image makes them.
    Pieces(PieceSource),
}

/// Whoever makes the pieces answers here.
pub(super) type Wanted = oneshot::Sender<Piece>;

/// Where the pieces of an image come from. Each is made when it is asked for, so that there is one at a
/// time.
#[derive(Debug)]
pub(super) struct PieceSource(mpsc::Sender<Wanted>);

impl PieceSource {
    /// A source, and where its requests arrive.
    pub(super) fn new() -> (Self, mpsc::Receiver<Wanted>) {
        let (requests, receiver) = mpsc::channel(1);
        (Self(requests), receiver)
    }

    /// The next piece. Errors: Cancelled once nobody makes any.
    async fn next(&self) -> Result<Piece> {
        let (wanted, piece) = oneshot::channel();
        self.0.send(wanted).await.map_err(|_| given_up())?;
        piece.await.map_err(|_| given_up())
    }
}

/// Where files go, and under which lease.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) store: Arc<dyn Store>,
    pub(super) lease: Arc<Lease>,
}

/// A file that is stored.
#[derive(Debug, Clone)]
pub(super) struct Shipped {
    /// Bytes of the object.
    pub(super) bytes: u64,
    /// The header of the same pages as an earlier run stored them, where they were there already.
    pub(super) found: Option<Box<Header>>,
    /// What the file says that several were joined to.
    pub(super) joined: Option<Box<Joined>>,
}

/// Stores the file at `key` under `header`; it is ours and durable when this returns. Errors: Fenced if
/// another file is there already or another writer owns the stream; Cancelled if an image was given up.
pub(super) async fn ship(
    target: Target,
    key: String,
    header: Header,
    body: Bytestream,
    part: usize,
    put: Put,
) -> Result<Shipped> {
    match body {
        Bytestream::Memory(bytes) => whole(&target, &key, bytes, put).await,
        Bytestream::File { path, size } => {
            let file = open(path.clone(), size, header).await?;
            if size <= part as u64 {
                check_file(path).await?;
                let bytes = file.read(0, size).await?;
                return whole(&target, &key, bytes, put).await;
            }
            // It is checked while it is sent, and does not become an object before.
            let checked = tokio::spawn(check_file(path));
            let checked = async {
                let died = |_| Error::new(ErrorKind::Internal, "the check of a file died");
                checked.await.map_err(died)?
            };
            from_file(&target, &key, file, part, put, checked).await
        }
        Bytestream::Parts { parts, scratch } => {
            let (joined, body) = blocking(move || join(&parts, &scratch, &header)).await?;
            let shipped = match body {
                join::Bytestream::Memory(bytes) => whole(&target, &key, bytes, put).await?,
                join::Bytestream::File(file, size) => {
                    let file = Local::new(file, size);
                    if size <= part as u64 {
                        let bytes = file.read(0, size).await?;
                        whole(&target, &key, bytes, put).await?
                    } else {
                        from_file(&target, &key, file, part, put, async { Ok(()) }).await?
                    }
                }
            };
            Ok(Shipped {
                joined: Some(Box::new(joined)),
                ..shipped
            })
        }
        Bytestream::Pieces(pieces) => streamed(&target, &key, &header, pieces, put).await,
    }
}

/// A file on this machine, as it is to be stored.
#[derive(Debug, Clone)]
struct Local {
    file: Arc<File>,
    size: u64,
    /// What differs from the bytes on the disk, where another run captured them.
    other: Option<Arc<Reheaded>>,
}

impl Local {
    fn new(file: File, size: u64) -> Self {
        Self {
            file: Arc::new(file),
            size,
            other: None,
        }
    }

    async fn read(&self, offset: u64, length: u64) -> Result<Bytes> {
        let Self { file, other, .. } = self.clone();
        blocking(move || {
            let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()];
            file.read_exact_at(&mut bytes, offset)
                .map_err(|error| Error::io("spooled file", error))?;
            if let Some(other) = other {
                other.lay_over(offset, &mut bytes);
            }
            Ok(bytes.into())
        })
        .await
    }
}

/// Opens a file of the spool, to be stored under `header`.
async fn open(path: PathBuf, size: u64, header: Header) -> Result<Local> {
    blocking(move || {
        let damaged =
            |error: Error| Error::new(ErrorKind::Corrupt, format!("the spool is damaged: {error}"));
        let file = File::open(&path).map_err(|error| damaged(Error::io(path.display(), error)))?;
        let outline = Outline::read(&file, |_| {});
        let outline = outline.map_err(|error| damaged(Error::from(error).on(path.display())))?;
        let other = match outline.header == header {
            true => None,
            false => Some(Arc::new(outline.under(&header)?)),
        };
        Ok(Local {
            other,
            ..Local::new(file, size)
        })
    })
    .await
}

async fn whole(target: &Target, key: &str, bytes: Bytes, put: Put) -> Result<Shipped> {
    let size = bytes.len() as u64;
    match target.lease.put(key, bytes.clone(), put).await? {
        PutOutcome::Stored { .. } => Ok(Shipped {
            bytes: size,
            found: None,
            joined: None,
        }),
        PutOutcome::Refused { .. } => {
            // Ours if the answer to an earlier try was lost, or if we died before we noted it.
            if target.store.get(key, None).await?.bytes == bytes {
                target.lease.confirm().await?;
                return Ok(Shipped {
                    bytes: size,
                    found: None,
                    joined: None,
                });
            }
            Err(occupied(target, key).await)
        }
    }
}

/// Another file stands at `key`. Exists if an earlier run of this stream stored it, late perhaps: the next
/// session finds and follows it. Otherwise Fenced.
async fn occupied(target: &Target, key: &str) -> Error {
    match stands_there(target, key).await {
        Ok(true) => Error::new(
            ErrorKind::Exists,
            "an earlier run of this watch stored another file there",
        )
        .on(key),
        Ok(false) => Error::new(
            ErrorKind::Fenced,
            "another writer has stored a different file there",
        )
        .on(key)
        .hint("only one watcher may write to a path; stop the other one"),
        Err(error) => error,
    }
}

/// Whether the file at `key` is of our lineage and of no later epoch, and the lease still ours.
async fn stands_there(target: &Target, key: &str) -> Result<bool> {
    target.lease.check().await?;
    let object = target.store.get(key, Some(0..HEADER_BYTES as u64)).await?;
    let there = Header::decode(&object.bytes).map_err(|error| Error::from(error).on(key))?;
    let ours = target.lease.stream_id();
    Ok(there
        .stream()
        .is_some_and(|there| there.lineage == ours.lineage && there.epoch <= ours.epoch))
}

/// Checks a spooled file from end to end before it leaves the machine.
async fn check_file(path: PathBuf) -> Result<()> {
    blocking(move || {
        let damaged = |error: Error| {
            Error::new(ErrorKind::Corrupt, format!("the spool is damaged: {error}"))
                .on(path.display())
        };
        let file = File::open(&path).map_err(|error| damaged(Error::io(path.display(), error)))?;
        let reader = std::io::BufReader::with_capacity(256 * 1024, file);
        verify(reader).map_err(damaged)
    })
    .await
}

/// Decodes a file to its end.
pub(super) fn verify(reader: impl std::io::Read) -> Result<()> {
    let mut decoder = Decoder::new(reader)?;
    let mut page = Vec::new();
    while decoder.next_page(&mut page)?.is_some() {}
    decoder.finish()?;
    Ok(())
}

/// Sends a file in parts; it becomes an object once `checked` says that it is whole.
async fn from_file(
    target: &Target,
    key: &str,
    file: Local,
    part: usize,
    put: Put,
    checked: impl Future<Output = Result<()>>,
) -> Result<Shipped> {
    let size = file.size;
    let mut upload = target.lease.begin_upload(key, put.clone()).await?;
    let sent = async {
        let mut offset = 0;
        while offset < size {
            let length = (size - offset).min(part as u64);
            upload.part(file.read(offset, length).await?).await?;
            offset += length;
        }
        checked.await?;
        target.lease.complete(key, &put, &mut *upload).await
    }
    .await;
    match sent {
        Ok(PutOutcome::Stored { .. }) => Ok(Shipped {
            bytes: size,
            found: None,
            joined: None,
        }),
        Ok(PutOutcome::Refused { .. }) => {
            let same = equals_file(&*target.store, key, &file, part).await?;
            abandon(upload).await;
            target.lease.confirm().await?;
            if same {
                Ok(Shipped {
                    bytes: size,
                    found: None,
                    joined: None,
                })
            } else {
                Err(occupied(target, key).await)
            }
        }
        Err(error) => {
            abandon(upload).await;
            Err(error)
        }
    }
}

/// Frees the parts; what cannot be freed now is found at the next start.
async fn abandon(upload: Box<dyn crate::store::Upload>) {
    if let Err(error) = upload.abort().await {
        tracing::debug!(%error, "an abandoned upload stays until the next start");
    }
}

async fn equals_file(store: &dyn Store, key: &str, file: &Local, part: usize) -> Result<bool> {
    let there = store.head(key).await?;
    if there.is_none_or(|there| there.size != file.size) {
        return Ok(false);
    }
    let mut offset = 0;
    while offset < file.size {
        let end = (offset + part as u64).min(file.size);
        let there = store.get(key, Some(offset..end)).await?.bytes;
        if there != file.read(offset, end - offset).await? {
            return Ok(false);
        }
        offset = end;
    }
    Ok(true)
}

async fn streamed(
    target: &Target,
    key: &str,
    header: &Header,
    pieces: PieceSource,
    put: Put,
) -> Result<Shipped> {
    let first = match pieces.next().await? {
        Piece::Last(bytes) => {
            let size = bytes.len() as u64;
            return match target.lease.put(key, bytes, put).await? {
                PutOutcome::Stored { .. } => Ok(Shipped {
                    bytes: size,
                    found: None,
                    joined: None,
                }),
                PutOutcome::Refused { .. } => found(target, key, header).await,
            };
        }
        Piece::Part(bytes) => bytes,
    };
    let mut upload = target.lease.begin_upload(key, put.clone()).await?;
    let mut size = first.len() as u64;
    let sent = async {
        upload.part(first).await?;
        loop {
            let (bytes, last) = match pieces.next().await? {
                Piece::Part(bytes) => (bytes, false),
                Piece::Last(bytes) => (bytes, true),
            };
            size += bytes.len() as u64;
            upload.part(bytes).await?;
            if last {
                return target.lease.complete(key, &put, &mut *upload).await;
            }
        }
    }
    .await;
    match sent {
        Ok(PutOutcome::Stored { .. }) => Ok(Shipped {
            bytes: size,
            found: None,
            joined: None,
        }),
        Ok(PutOutcome::Refused { .. }) => {
            abandon(upload).await;
            found(target, key, header).await
        }
        Err(error) => {
            abandon(upload).await;
            Err(error)
        }
    }
}

fn given_up() -> Error {
    Error::new(ErrorKind::Cancelled, "the snapshot was given up")
}

/// An image stands at `key` already: an earlier run stored it and died before it said so. The digest
/// proves that it holds the same pages.
async fn found(target: &Target, key: &str, header: &Header) -> Result<Shipped> {
    let object = target.store.get(key, Some(0..HEADER_BYTES as u64)).await?;
    let there = Header::decode(&object.bytes).map_err(|error| Error::from(error).on(key))?;
    let same = there.range == header.range
        && there.commit == header.commit
        && there.page_size == header.page_size
        && there.digest == header.digest
        && there.mark == header.mark
        && there.digest.is_some();
    target.lease.confirm().await?;
    if same {
        Ok(Shipped {
            bytes: object.meta.size,
            found: Some(Box::new(there)),
            joined: None,
        })
    } else {
        Err(occupied(target, key).await)
    }
}
