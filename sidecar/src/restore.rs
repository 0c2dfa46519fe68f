//! `walrust-sidecar restore`: for init containers. It fails closed: a wrong key, a bucket that is denied or gone, or a
//! backup that is broken never becomes "start with an empty database".

use std::sync::Arc;

use tracing::{error, info};
use walrust_core::clock::Clock;
use walrust_core::config::streams::{self, Stream};
use walrust_core::config::{File, StoreSettings};
use walrust_core::process::Signals;
use walrust_core::restore::{
    Filled, LeaveState, NoBackup, Overwrite, Progress, RestoreRequest, RestoreTarget, Silent,
    discover, fill, is_there,
};
use walrust_core::store::{Layout, Store};
use walrust_core::types::KeyPrefix;
use walrust_core::{Error, ErrorKind, Result};

use crate::args::RestoreArgs;
use crate::configuration::Source;

/// Restores what the configuration names.
pub(crate) async fn run(args: &RestoreArgs, source: Source, file: File) -> Result<()> {
    let settings = source.store(&file)?;
    Signals::listen()?
        .interrupting(restore(args, &file, &settings))
        .await
}

async fn restore(args: &RestoreArgs, file: &File, settings: &StoreSettings) -> Result<()> {
    let wanted = match args.if_missing {
        true => streams::without_used_patterns(file)?,
        false => file.clone(),
    };
    let mut store = Lazy {
        settings,
        opened: None,
    };
    let stored = match streams::has_pattern(&wanted) {
        true => {
            let (store, prefix) = store.open().await?;
            discover(&**store, prefix).await?
        }
        false => Vec::new(),
    };
    let all = streams::of(&wanted, &stored)?;
    let no_backup = NoBackup::from(args.when_no_backup);
    let mut failures = Vec::new();
    if no_backup == NoBackup::Fail {
        failures.extend(patterns_of_nothing(&wanted, &all).map(str::to_owned));
    }
    for failure in &failures {
        error!(pattern = %failure, "the bucket has no database that it means");
    }
    for stream in all {
        if let Err(error) = one(args, &mut store, &stream).await {
            error!(db = %stream.name, kind = error.kind().name(), "{error}");
            failures.push(stream.name.to_string());
        }
    }
    match failures.is_empty() {
        true => Ok(()),
        false => {
            let message = format!("not restored: {}", failures.join(", "));
            Err(Error::new(ErrorKind::NotFound, message)
                .hint("the application must not start without them"))
        }
    }
}

/// The patterns of `file` that no stream stands for, though one is required.
fn patterns_of_nothing<'f>(
    file: &'f File,
    all: &'f [Stream],
) -> impl Iterator<Item = &'f str> + 'f {
    let entries = file.databases.iter().filter(|entry| !entry.optional);
    entries.filter_map(|entry| {
        let alone = File {
            databases: vec![entry.clone()],
            ..File::default()
        };
        let directory = walrust_core::fs::parent(&entry.path);
        let stands = |stream: &Stream| walrust_core::fs::parent(&stream.path) == directory;
        let nothing = streams::has_pattern(&alone) && !all.iter().any(stands);
        nothing.then(|| entry.path.to_str().unwrap_or_default())
    })
}

async fn one(args: &RestoreArgs, store: &mut Lazy<'_>, stream: &Stream) -> Result<()> {
    let output = stream.path.clone();
    if is_there(&output)? {
        if args.if_missing {
            info!(db = %stream.name, path = %output.display(), "is there");
            return Ok(());
        }
        return Err(Error::new(ErrorKind::Exists, "a file is there already")
            .on(output.display())
            .hint("--if-missing leaves it alone"));
    }
    let (store, prefix) = store.open().await?;
    let request = RestoreRequest {
        layout: Layout::new(prefix.clone(), stream.name.clone()),
        output,
        target: RestoreTarget::Latest,
        overwrite: Overwrite::No,
        verify: args.verify.into(),
        state: LeaveState::Yes,
    };
    let progress: Arc<dyn Progress> = Arc::new(Silent);
    let no_backup = args.when_no_backup.into();
    match fill(store, &request, no_backup, &Clock::system(), &progress).await? {
        Filled::Exists => info!(db = %stream.name, "is there"),
        Filled::NoBackup => info!(db = %stream.name, "no backup: the application begins"),
        Filled::Restored(done) => {
            for note in &done.notes {
                tracing::warn!(db = %stream.name, "{note}");
            }
            let (txid, bytes) = (done.txid, done.bytes_written);
            info!(db = %stream.name, txid, bytes, duration_ms = done.duration_ms, "restored");
        }
    }
    Ok(())
}

/// A store that is reached only when something is asked of it.
struct Lazy<'a> {
    settings: &'a StoreSettings,
    opened: Option<(Arc<dyn Store>, KeyPrefix)>,
}

impl Lazy<'_> {
    async fn open(&mut self) -> Result<&(Arc<dyn Store>, KeyPrefix)> {
        let opened = match self.opened.take() {
            Some(opened) => opened,
            None => self.settings.open_to_read().await?,
        };
        Ok(self.opened.insert(opened))
    }
}
