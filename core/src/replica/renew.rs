//! The replica made anew from a whole image: at first, and where nothing leads on from what it holds.
//!
//! | there is | done |
//! |---|---|
//! | no file | the image gets its name |
//! | a file that may be replaced and that nobody has open | the same, and its WAL goes |
//! | the replica, of the same shape | its pages that differ are written in one transaction, under another schema version |
//! | the replica, of another shape or damaged | the image takes its name, its WAL goes; whoever has it open keeps the old state until it opens anew |
//!
//! # Crash table
//!
//! | died | found at the next start |
//! |---|---|
//! | before the image got its name | no file, or the one before, which the state file says is to be replaced |
//! | between commit and state file | the file holds another state than the one written down: made anew |

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::apply::commit;
use super::header::{SchemaVersion, TrueHeader, dress, shown_schema};
use super::home::{Home, file_id};
use super::local::{Former, Local, saved, wal_place};
use super::state_file::{ReplicaState, Standing};
use crate::error::{Error, ErrorKind, Result};
use crate::fs::{parent, sync_directory, with_suffix};
use crate::restore::{Image, Overwrite, check_output};
use crate::sqlite::{ClosedToOthers, Committed, FileId, PageTransaction, PageWriter};
use crate::state::{Fill, PageTable};
use crate::types::{DatabaseSum, PageNumber, PageSize, PageSum};

/// How long somebody who has just got a lock on the old file may need to open its WAL as well.
const STRAGGLERS: Duration = Duration::from_millis(50);

/// Pages between two looks at whether to stop.
const STRIDE: u32 = 1024;

/// Refuses, before anything is fetched, a place that [`create`] could not use.
///
/// # Errors
/// `Exists` for leftovers of another database, `Busy` where somebody has the file open.
pub(super) fn check_place(home: &Home, overwrite: Overwrite) -> Result<()> {
    check_output(&home.local, overwrite).map_err(|error| match error.kind() {
        ErrorKind::Exists => Error::new(ErrorKind::Exists, error.message())
            .on(error.object().unwrap_or_default())
            .hint("--replace removes it"),
        _ => error,
    })
}

/// Makes a replica where no file is, or where `overwrite` allows to replace one. Blocking.
///
/// # Errors
/// Those of [`check_place`].
pub(super) fn create(home: &Home, image: Image, overwrite: Overwrite) -> Result<Local> {
    check_place(home, overwrite)?;
    let (mut state, table) = prepare(home, &image, None)?;
    state.write(&home.state_path, home.clock.now())?;
    image.publish(overwrite)?;
    adopt(home, state, table)
}

/// Makes a replica anew in the place of a former one. Blocking.
///
/// # Errors
/// `Busy` where readers hold a state that is needed first, `Cancelled` at a stop. The replica is as it was.
pub(super) fn renew(
    home: &Home,
    mut former: Former,
    image: Image,
    stop: &CancellationToken,
) -> Result<Local> {
    if let Some(db) = &mut former.db {
        let committed = db.look()?;
        let first = first_page(&image)?;
        if let Some(shape) = fits(db, &committed, image.header().page_size, &first)? {
            return rewrite(home, former, image, shape, stop);
        }
    }
    swap(home, former, image)
}

/// What stands at the replica's beginning, if the image can take its place page by page.
fn fits(
    db: &mut PageWriter,
    committed: &Committed,
    page_size: PageSize,
    first: &[u8],
) -> Result<Option<Shape>> {
    if committed.page_size != page_size {
        return Ok(None);
    }
    let mut page = Vec::new();
    let read = db.begin()?.read(PageNumber::FIRST, &mut page);
    match read {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::Corrupt => return Ok(None),
        Err(error) => return Err(error),
    }
    let headers = TrueHeader::of(first).zip(TrueHeader::of(&page));
    Ok(headers
        .filter(|(new, old)| new.fits(old))
        .map(|(new, _)| Shape {
            header: new,
            schema: shown_schema(&page),
        }))
}

/// The image's header, and the schema's version that the replica shows now.
struct Shape {
    header: TrueHeader,
    schema: u32,
}

/// Page 1 of an image.
fn first_page(image: &Image) -> Result<Vec<u8>> {
    let path = image.path();
    let mut page = vec![0; image.header().page_size.bytes()];
    let file = File::open(path).map_err(|error| Error::io(path.display(), error))?;
    file.read_exact_at(&mut page, 0)
        .map_err(|error| Error::io(path.display(), error))?;
    Ok(page)
}

fn standing(image: &Image, header: TrueHeader, schema: SchemaVersion) -> Result<Standing> {
    let last = image.header();
    let stream = last.stream().ok_or_else(|| {
        Error::new(
            ErrorKind::Unsupported,
            "written by Litestream, whose files name no digest that would prove a replica",
        )
        .hint("walrust restore brings back such a backup")
    })?;
    Ok(Standing {
        txid: last.range.max(),
        stream,
        sum: image.sum(),
        page_size: last.page_size,
        page_count: last.commit,
        time: last.timestamp,
        header,
        schema,
    })
}

/// Fills a page table from the sums of an image.
fn fill(table: &PageTable, image: &Image) -> Result<Fill> {
    let mut fill = table.fill(image.header().page_size)?;
    image.sums(|page, sum| fill.push(page, sum))?;
    Ok(fill)
}

/// Makes an image what the replica is to show, durably, and the page table with it. Gives the state to write
/// down before it gets its name.
fn prepare(
    home: &Home,
    image: &Image,
    replaces: Option<FileId>,
) -> Result<(ReplicaState, PageTable)> {
    let mut first = first_page(image)?;
    let header = TrueHeader::of(&first)
        .ok_or_else(|| Error::new(ErrorKind::Corrupt, "the image has no header"))?;
    let standing = standing(image, header, SchemaVersion::new(header.schema()))?;
    dress(&mut first, standing.page_count, header.schema());
    let path = image.path();
    let fail = |error| Error::io(path.display(), error);
    let file = OpenOptions::new().write(true).open(path).map_err(fail)?;
    file.write_all_at(&first, 0)
        .and_then(|()| file.sync_all())
        .map_err(fail)?;
    let metadata = file.metadata().map_err(fail)?;
    let mut state = ReplicaState::new(home.source.clone(), &standing, FileId::from(&metadata));
    state.replaces = replaces;
    let (mut table, _) = PageTable::open(&home.dir, 0)?;
    let fill = fill(&table, image)?;
    table.install(fill, saved(&state, standing.sum))?;
    Ok((state, table))
}

/// Opens the image under its own name.
fn adopt(home: &Home, mut state: ReplicaState, table: PageTable) -> Result<Local> {
    let mut db = PageWriter::open(&home.local)?;
    let committed = db.look()?;
    if db.file_id() != state.file {
        let message = "was replaced just now";
        return Err(Error::new(ErrorKind::Busy, message).on(home.local.display()));
    }
    if state.replaces.take().is_some() {
        state.write(&home.state_path, home.clock.now())?;
    }
    Ok(Local {
        db,
        table,
        state,
        committed,
        proved: true,
    })
}

/// Writes what differs, in one transaction: readers see the old state or the new one.
fn rewrite(
    home: &Home,
    former: Former,
    image: Image,
    shape: Shape,
    stop: &CancellationToken,
) -> Result<Local> {
    let mut db = former
        .db
        .ok_or_else(|| Error::new(ErrorKind::Internal, "no database to write to"))?;
    let known = former.state.as_ref().map(|state| state.schema);
    let schema = known
        .unwrap_or_else(|| SchemaVersion::new(shape.schema))
        .jumped(shape.header.schema(), shape.schema);
    let standing = standing(&image, shape.header, schema)?;
    let (mut table, _) = PageTable::open(&home.dir, 0)?;
    let fill = fill(&table, &image)?;
    let mut state = ReplicaState::new(home.source.clone(), &standing, db.file_id());
    let tx = replace_pages(db.begin()?, &image, &standing, stop)?;
    home.intend(&state)?;
    let committed = commit(tx, &standing)?;
    state.wal = committed.and_then(|committed| committed.end).map(wal_place);
    table.install(fill, saved(&state, standing.sum))?;
    state.write(&home.state_path, home.clock.now())?;
    let proved = committed.is_some();
    let committed = match committed {
        Some(committed) => committed,
        None => db.look()?,
    };
    Ok(Local {
        db,
        table,
        state,
        committed,
        proved,
    })
}

fn replace_pages<'w>(
    mut tx: PageTransaction<'w>,
    image: &Image,
    standing: &Standing,
    stop: &CancellationToken,
) -> Result<PageTransaction<'w>> {
    let path = image.path();
    let file = File::open(path).map_err(|error| Error::io(path.display(), error))?;
    let mut source = std::io::BufReader::with_capacity(1 << 20, file);
    let old = tx.before().page_count;
    let lock = standing.page_size.lock_page();
    let (mut new, mut present) = (vec![0; standing.page_size.bytes()], Vec::new());
    let mut first = Vec::new();
    let mut sum = DatabaseSum::EMPTY;
    for number in 1..=standing.page_count.0 {
        source
            .read_exact(&mut new)
            .map_err(|error| Error::io(path.display(), error))?;
        let Some(page) = PageNumber::new(number).filter(|page| *page != lock) else {
            continue;
        };
        if number % STRIDE == 0 && stop.is_cancelled() {
            return Err(Error::new(ErrorKind::Cancelled, "asked to stop"));
        }
        sum.add(PageSum::of(page, &new));
        if page == PageNumber::FIRST {
            first.clone_from(&new);
            continue;
        }
        if old.holds(page) {
            tx.read(page, &mut present)?;
            if present == new {
                continue;
            }
        }
        tx.write(page, &new)?;
    }
    if sum != standing.sum {
        let message = "the image is no longer what it was when it was proved";
        return Err(Error::new(ErrorKind::Corrupt, message).on(path.display()));
    }
    let shown = standing.schema.shown(standing.header.schema());
    dress(&mut first, standing.page_count, shown);
    tx.finish(&first, standing.page_count)?;
    Ok(tx)
}

/// Puts the image in the place of a replica of another shape. Whoever opens the name meanwhile gets the old file,
/// which is whole without its WAL, or "busy" for a moment, or the new file without one.
fn swap(home: &Home, former: Former, image: Image) -> Result<Local> {
    let replaces = file_id(&home.local)?;
    let Some(mut db) = former.db else {
        // It is no database, so that nobody reads it.
        let (mut state, table) = prepare(home, &image, replaces)?;
        like_before(&home.local, image.path())?;
        state.write(&home.state_path, home.clock.now())?;
        image.publish(Overwrite::Yes)?;
        return adopt(home, state, table);
    };
    require_all_copied_back(home, &mut db)?;
    let (mut state, table) = prepare(home, &image, replaces)?;
    like_before(&home.local, image.path())?;
    let old = db.keep_others_out()?;
    require_all_copied_back(home, &mut db)?;
    std::thread::sleep(STRAGGLERS);
    let closed = ClosedToOthers::close(image.path())?;
    state.write(&home.state_path, home.clock.now())?;
    let path = image.into_path();
    for suffix in ["-shm", "-wal"] {
        remove(&with_suffix(&home.local, suffix))?;
    }
    // Also after a power loss no WAL may lie beside the new file.
    let directory = parent(&home.local);
    let sync = || sync_directory(directory).map_err(|error| Error::io(directory.display(), error));
    sync()?;
    path.persist(&home.local)
        .map_err(|error| Error::io(home.local.display(), error.error))?;
    drop((old, closed));
    db.close()?;
    sync()?;
    adopt(home, state, table)
}

/// The file must be the whole state before it can lie there without its WAL.
pub(super) fn require_all_copied_back(home: &Home, db: &mut PageWriter) -> Result<()> {
    let done = db.checkpoint()?;
    if done.done >= done.log {
        return Ok(());
    }
    let message = "readers hold an older state, so that its file cannot be replaced yet";
    Err(Error::new(ErrorKind::Busy, message).on(home.local.display()))
}

/// Owner, group and mode of the file before: its readers are to read on.
fn like_before(old: &Path, new: &Path) -> Result<()> {
    let metadata = std::fs::metadata(old).map_err(|error| Error::io(old.display(), error))?;
    let fail = |error| Error::io(new.display(), error);
    std::fs::set_permissions(new, metadata.permissions()).map_err(fail)?;
    let ours = std::fs::metadata(new).map_err(fail)?;
    if (ours.uid(), ours.gid()) != (metadata.uid(), metadata.gid()) {
        // Only root may give a file away, and only to a group of ours may we; else it stays ours.
        let _ = std::os::unix::fs::chown(new, Some(metadata.uid()), Some(metadata.gid()));
    }
    Ok(())
}

fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io(path.display(), error))
        }
        _ => Ok(()),
    }
}
