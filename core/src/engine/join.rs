//! Several captured files as one, where more were captured than objects are due.
//!
//! While the log grows quickly it is captured more often than `sync_interval` asks for, so that it can be
//! checkpointed. What belongs to one interval still becomes one object: of each page the newest version,
//! and none beyond the size of the last file. That is exact, for a file holds every page that the database
//! has more than after the file before.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{BufWriter, Read, Seek as _, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::{Buf as _, Bytes};

use super::capture::Batch;

use crate::error::{Error, ErrorKind, Result};
use crate::ltx::{
    Decoder, Encoder, Finished, HEADER_BYTES, Header, Mark, Spill, Tracking, Verified, WalSpan,
};
use crate::types::{Checksum, PageNumber, TxidRange};

/// What is joined in memory; more goes through a file.
const IN_MEMORY: u64 = 4 * 1024 * 1024;
/// Bytes that are written at once.
const BUFFER: usize = 256 * 1024;
/// The most files, and bytes of them, that become one.
const MOST_PARTS: usize = 32;
const MOST_BYTES: u64 = 64 * 1024 * 1024;
/// Longest span of commits that a header holds, in milliseconds.
const MAX_SPAN_MS: i64 = (1 << 30) - 1;

/// One of the files.
#[derive(Debug, Clone)]
pub(super) enum Part {
    /// In memory.
    Memory(Bytes),
    /// In the spool, `size` bytes.
    File { path: PathBuf, size: u64 },
}

/// What the file that stands for all of them says.
#[derive(Debug, Clone)]
pub(super) struct Joined {
    pub(super) header: Header,
    /// The checksum of the database after it.
    pub(super) post: Option<Checksum>,
    pub(super) pages: u64,
}

/// Its bytes.
#[derive(Debug)]
pub(super) enum Bytestream {
    Memory(Bytes),
    /// A file without a name.
    File(File, u64),
}

/// How many of `batches`, which follow each other, may become one file: those of one `interval`, up to where an
/// image holds the state. A rebase is a point of its own.
pub(super) fn run_length<'a>(
    mut batches: impl Iterator<Item = &'a Batch>,
    interval: Duration,
) -> usize {
    let Some(first) = batches.next() else {
        return 0;
    };
    if !joinable(&first.header) {
        return 1;
    }
    let interval = i64::try_from(interval.as_millis()).unwrap_or(i64::MAX);
    let (mut size, mut ends) = (first.body.size(), first.boundary);
    let more = batches.take(MOST_PARTS - 1).take_while(|batch| {
        size = size.saturating_add(batch.body.size());
        // The state on disk stands behind what is spooled: it must not stand inside an object.
        let alike = batch.outlives_us() == first.outlives_us() && !batch.sending;
        !std::mem::replace(&mut ends, batch.boundary)
            && alike
            && joins(&first.header, &batch.header)
            && batch.seen.last.millis_since(first.seen.first) <= interval
            && size <= MOST_BYTES
    });
    1 + more.count()
}

fn joinable(header: &Header) -> bool {
    header.mark == Mark::None && !header.range.is_snapshot()
}

/// Whether files of the same shape may become one. All are of our lineage, and stored under our epoch.
fn joins(first: &Header, other: &Header) -> bool {
    let tracks = |header: &Header| matches!(header.tracking, Tracking::Tracked { .. });
    joinable(other) && other.page_size == first.page_size && tracks(other) == tracks(first)
}

/// Joins files that follow each other for shipping, under `header`. What is large goes to a nameless file in
/// `scratch`. Errors: those of [`join_to`].
pub(super) fn join(
    parts: &[Part],
    scratch: &Path,
    header: &Header,
) -> Result<(Joined, Bytestream)> {
    let total: u64 = parts.iter().map(Part::size).sum();
    let failed = |error| Error::io(scratch.display(), error);
    let out = if total <= IN_MEMORY {
        Out::Memory(vec![0; HEADER_BYTES])
    } else {
        let mut file = tempfile::tempfile_in(scratch).map_err(failed)?;
        file.write_all(&[0; HEADER_BYTES]).map_err(failed)?;
        Out::File(BufWriter::with_capacity(BUFFER, file))
    };
    let (joined, done) = join_to(out, parts, scratch, Some(header))?;
    let body = match done.out {
        Out::Memory(mut bytes) => {
            if let Some(head) = bytes.get_mut(..HEADER_BYTES) {
                head.copy_from_slice(&done.header);
            }
            Bytestream::Memory(bytes.into())
        }
        Out::File(writer) => {
            let file = writer.into_inner();
            let mut file = file.map_err(|error| failed(error.into_error()))?;
            file.rewind().map_err(failed)?;
            file.write_all(&done.header).map_err(failed)?;
            Bytestream::File(file, done.size)
        }
    };
    Ok((joined, body))
}

/// Joins files that follow each other; `out` receives everything behind the header, which is theirs unless
/// another is given. A long page index waits in `scratch`. Errors: Corrupt for a file that is damaged or does not
/// follow the one before; Exhausted.
pub(super) fn join_to<W: Write>(
    out: W,
    parts: &[Part],
    scratch: &Path,
    header: Option<&Header>,
) -> Result<(Joined, Finished<W>)> {
    let mut inputs = parts
        .iter()
        .map(|part| Input::open(part).map_err(|error| error.on(part.name())))
        .collect::<Result<Vec<_>>>()?;
    let headers: Vec<Header> = inputs
        .iter()
        .map(|input| input.decoder.header().clone())
        .collect();
    let own = header_of(&headers)?;
    let header = header.cloned().unwrap_or_else(|| own.clone());
    if !own.says_the_same(&header) {
        let message = format!("{} is not what was captured", own.range);
        return Err(damaged(Error::new(ErrorKind::Corrupt, message)));
    }
    let spill = Spill::Directory(scratch.to_owned());
    let mut encoder = Encoder::new(out, header.page_size, header.commit, spill);
    merge(&mut inputs, &mut encoder, &header)?;
    let mut post = None;
    let mut before: Option<Verified> = None;
    for (input, part) in inputs.into_iter().zip(parts) {
        let verified = input.decoder.finish();
        let verified = verified.map_err(|error| damaged(error.into()).on(part.name()))?;
        if let Some(before) = &before {
            check_follows(before, &verified)?;
        }
        post = verified.post_apply;
        before = Some(verified);
    }
    let done = encoder.finish(&header, post)?;
    let joined = Joined {
        header,
        post,
        pages: done.pages,
    };
    Ok((joined, done))
}

/// Writes the newest version of each page up to the last size.
fn merge<W: Write>(inputs: &mut [Input], encoder: &mut Encoder<W>, header: &Header) -> Result<()> {
    // The smallest page first, and of equal ones the newest.
    let mut heads = BinaryHeap::with_capacity(inputs.len());
    for (at, input) in inputs.iter_mut().enumerate() {
        heads.extend(input.advance()?.map(|page| Reverse((page, Reverse(at)))));
    }
    let mut written = None;
    while let Some(Reverse((page, Reverse(at)))) = heads.pop() {
        let Some(input) = inputs.get_mut(at) else {
            break;
        };
        if written != Some(page) && header.commit.holds(page) {
            encoder.page(page, &input.data)?;
            written = Some(page);
        }
        heads.extend(input.advance()?.map(|page| Reverse((page, Reverse(at)))));
    }
    Ok(())
}

/// The header that leads from before the first of `headers` to after the last.
pub(super) fn header_of(headers: &[Header]) -> Result<Header> {
    let (Some(first), Some(last)) = (headers.first(), headers.last()) else {
        return Err(Error::new(ErrorKind::Internal, "no files to join"));
    };
    let range = TxidRange::new(first.range.min(), last.range.max());
    let same = headers.iter().all(|header| joins(first, header));
    let Some(range) = range.filter(|_| same) else {
        return Err(Error::new(ErrorKind::Internal, "files that do not join"));
    };
    let since = first.timestamp.plus_millis(-i64::from(first.span_ms));
    let span = last.timestamp.millis_since(since).clamp(0, MAX_SPAN_MS);
    Ok(Header {
        range,
        tracking: first.tracking,
        wal: span_of(headers),
        span_ms: u32::try_from(span).unwrap_or_default(),
        ..last.clone()
    })
}

/// The part of the WAL that all of them cover, or where that is not one part, what the last one does.
fn span_of(headers: &[Header]) -> Option<WalSpan> {
    let mut spans = headers.iter().map(|header| header.wal);
    let first = spans.next()?;
    let mut joined = first?;
    for span in spans {
        let span = span?;
        let follows = span.salt == joined.salt && joined.offset + joined.size == span.offset;
        if !follows {
            return headers.last()?.wal;
        }
        joined.size += span.size;
    }
    Some(joined)
}

fn check_follows(before: &Verified, next: &Verified) -> Result<()> {
    let numbers = before.header.range.max().next() == next.header.range.min();
    let states = match (before.post_apply, next.header.tracking) {
        (Some(post), Tracking::Tracked { pre_apply }) => pre_apply == Some(post),
        _ => true,
    };
    if numbers && states {
        return Ok(());
    }
    let message = format!(
        "{} does not follow {}",
        next.header.range, before.header.range
    );
    Err(damaged(Error::new(ErrorKind::Corrupt, message)))
}

fn damaged(error: Error) -> Error {
    Error::new(ErrorKind::Corrupt, format!("the spool is damaged: {error}"))
}

impl Part {
    fn size(&self) -> u64 {
        match self {
            Self::Memory(bytes) => bytes.len() as u64,
            Self::File { size, .. } => *size,
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Memory(_) => "a captured file".to_owned(),
            Self::File { path, .. } => path.display().to_string(),
        }
    }
}

/// One file being read.
struct Input {
    decoder: Decoder<Box<dyn Read>>,
    /// The page that was read last.
    data: Vec<u8>,
}

impl Input {
    fn open(part: &Part) -> Result<Self> {
        let reader: Box<dyn Read> = match part {
            Part::Memory(bytes) => Box::new(bytes.clone().reader()),
            Part::File { path, .. } => {
                let file = File::open(path);
                Box::new(file.map_err(|error| damaged(Error::io(path.display(), error)))?)
            }
        };
        let decoder = Decoder::new(reader).map_err(|error| damaged(error.into()))?;
        Ok(Self {
            decoder,
            data: Vec::new(),
        })
    }

    fn advance(&mut self) -> Result<Option<PageNumber>> {
        let next = self.decoder.next_page(&mut self.data);
        next.map_err(|error| damaged(error.into()))
    }
}

enum Out {
    Memory(Vec<u8>),
    File(BufWriter<File>),
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Self::Memory(buffer) => buffer.write(bytes),
            Self::File(file) => file.write(bytes),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match self {
            Self::Memory(_) => Ok(()),
            Self::File(file) => file.flush(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::super::budget::Room;
    use super::super::capture::Body;
    use super::super::encode::Seen;
    use super::*;
    use crate::types::{
        DatabaseSum, Epoch, Lineage, PageCount, PageSize, PageSum, StreamId, Timestamp, Txid,
    };

    const SIZE: usize = 512;

    /// A database, and the files that led to it.
    struct World {
        pages: Vec<u8>,
        sum: DatabaseSum,
        files: Vec<Part>,
        headers: Vec<Header>,
    }

    impl World {
        fn new() -> Self {
            let mut world = Self {
                pages: Vec::new(),
                sum: DatabaseSum::EMPTY,
                files: Vec::new(),
                headers: Vec::new(),
            };
            world.commit(1, &[]);
            world
        }

        /// Changes `writes` (page and content) in a database that ends with `count` pages.
        fn commit(&mut self, count: u8, writes: &[(u8, u8)]) {
            let size = PageSize::new(SIZE as u32).unwrap();
            let before = self.pages.len() as u8;
            let mut changed: BTreeMap<u8, u8> =
                (before + 1..=count).map(|page| (page, 0)).collect();
            changed.extend(
                writes
                    .iter()
                    .copied()
                    .filter(|(page, _)| (1..=count).contains(page)),
            );
            for page in count + 1..=before {
                self.sum
                    .remove(sum(page, self.pages[usize::from(page) - 1]));
            }
            let pre = self.before();
            self.pages.resize(usize::from(count), 0);
            let mut encoder =
                Encoder::new(vec![0; 100], size, PageCount(count.into()), Spill::Memory);
            for (page, content) in changed {
                let slot = &mut self.pages[usize::from(page) - 1];
                if page <= before {
                    self.sum.remove(sum(page, *slot));
                }
                *slot = content;
                self.sum.add(sum(page, content));
                encoder.page(number(page), &[content; SIZE]).unwrap();
            }
            let at = self.files.len() as u64 + 2;
            let stream = StreamId {
                lineage: Lineage::new(1).unwrap(),
                epoch: Epoch::new(1).unwrap(),
            };
            let header = Header {
                page_size: size,
                commit: PageCount(count.into()),
                range: TxidRange::single(Txid::new(at).unwrap()),
                timestamp: Timestamp::from_millis(at as i64 * 10),
                tracking: Tracking::Tracked {
                    pre_apply: Some(pre),
                },
                wal: Some(WalSpan {
                    offset: 32 + at * 10,
                    size: 10,
                    salt: [1, 2],
                }),
                node: stream.to_node_id(),
                digest: Some(self.sum.digest),
                mark: Mark::None,
                span_ms: 3,
            };
            let done = encoder.finish(&header, Some(self.sum.checksum)).unwrap();
            let mut bytes = done.out;
            bytes[..100].copy_from_slice(&done.header);
            self.files.push(Part::Memory(bytes.into()));
            self.headers.push(header);
        }

        /// The checksum after the last file.
        fn before(&self) -> Checksum {
            let Some(Part::Memory(bytes)) = self.files.last() else {
                return Checksum::EMPTY;
            };
            let verified = Decoder::new(&bytes[..]).unwrap().finish().unwrap();
            verified.post_apply.unwrap()
        }
    }

    fn number(page: u8) -> PageNumber {
        PageNumber::new(page.into()).unwrap()
    }

    fn sum(page: u8, content: u8) -> PageSum {
        PageSum::of(number(page), &[content; SIZE])
    }

    /// Applies a file to an image.
    fn apply(image: &mut Vec<u8>, file: &[u8]) -> Header {
        let mut decoder = Decoder::new(file).unwrap();
        image.resize(decoder.header().commit.0 as usize, 255);
        let mut data = Vec::new();
        while let Some(page) = decoder.next_page(&mut data).unwrap() {
            image[page.get() as usize - 1] = data[0];
        }
        decoder.finish().unwrap().header
    }

    fn bytes(part: &Part) -> &[u8] {
        match part {
            Part::Memory(bytes) => bytes,
            Part::File { .. } => unreachable!("all in memory"),
        }
    }

    proptest! {
        #[test]
        fn one_file_leads_where_all_of_them_lead(
            commits in prop::collection::vec(
                (1..12_u8, prop::collection::vec((1..12_u8, any::<u8>()), 0..6)),
                2..8,
            ),
            skipped in 0..4_usize,
        ) {
            let mut world = World::new();
            for (count, writes) in &commits {
                world.commit(*count, writes);
            }
            let skipped = skipped.min(world.files.len() - 1);
            let (before, joined) = world.files.split_at(skipped);
            let mut image = Vec::new();
            for file in before {
                apply(&mut image, bytes(file));
            }
            let scratch = tempfile::tempdir().unwrap();
            // As another epoch stores them.
            let own = header_of(&world.headers[skipped..]).unwrap();
            let wanted = Header { node: own.node + 1, ..own };
            let (says, body) = join(joined, scratch.path(), &wanted).unwrap();
            let Bytestream::Memory(file) = body else { panic!("small") };
            let header = apply(&mut image, &file);
            prop_assert_eq!(&image, &world.pages);
            prop_assert_eq!(&header, &says.header);
            prop_assert_eq!(&header, &wanted);
            let (first, last) = (&world.headers[skipped], world.headers.last().unwrap());
            prop_assert_eq!(header.range.min(), first.range.min());
            prop_assert_eq!(header.range.max(), last.range.max());
            prop_assert_eq!(header.tracking, first.tracking);
            prop_assert_eq!(header.digest, last.digest);
            prop_assert_eq!(header.commit, last.commit);
            prop_assert_eq!(says.post, Some(world.sum.checksum));
            let many = joined.len() as i64;
            prop_assert_eq!(i64::from(header.span_ms), (many - 1) * 10 + 3);
            prop_assert_eq!(header.wal.unwrap().size, joined.len() as u64 * 10);
        }
    }

    #[test]
    fn what_an_image_holds_ends_a_file() {
        let mut world = World::new();
        for count in 2..7 {
            world.commit(count, &[(1, count)]);
        }
        let batch = |(at, header): (usize, &Header)| Batch {
            header: header.clone(),
            post: None,
            frames: 1,
            pages: 1,
            seen: Seen::at(header.timestamp),
            body: Body::Streamed,
            rebase: None,
            boundary: at == 2,
            sending: false,
        };
        let mut batches: Vec<_> = world.headers.iter().enumerate().map(batch).collect();
        let length =
            |batches: &[Batch], millis| run_length(batches.iter(), Duration::from_millis(millis));
        assert_eq!(length(&batches, 1000), 3);
        assert_eq!(length(&batches[2..], 1000), 1);
        assert_eq!(length(&batches[3..], 1000), 3);
        assert_eq!(length(&batches[3..], 10), 2, "one interval");
        assert_eq!(length(&[], 10), 0);
        batches[4].header.mark = Mark::Rebase;
        assert_eq!(length(&batches[3..], 1000), 1);
        assert_eq!(length(&batches[4..], 1000), 1, "a point of its own");
        batches[4].header.mark = Mark::None;
        batches[4].body = Body::Memory(Bytes::new(), Room::none());
        assert_eq!(
            length(&batches[3..], 1000),
            1,
            "u9: the saved state stands between them"
        );
        batches[3].body = Body::Memory(Bytes::new(), Room::none());
        assert_eq!(length(&batches[3..], 1000), 2);
        batches[4].sending = true;
        assert_eq!(length(&batches[3..], 1000), 1, "on its way already");
    }

    #[test]
    fn u6_what_is_damaged_or_does_not_follow_is_not_joined() {
        let mut world = World::new();
        world.commit(3, &[(1, 7)]);
        world.commit(4, &[(2, 8)]);
        let scratch = tempfile::tempdir().unwrap();
        let header = header_of(&world.headers[1..]).unwrap();
        let kind = |parts: &[Part]| {
            let joined = join(parts, scratch.path(), &header);
            joined.map(drop).unwrap_err().kind()
        };
        let [a, b, c] = &world.files[..] else {
            panic!("three files")
        };
        assert_eq!(kind(&[a.clone(), c.clone()]), ErrorKind::Corrupt, "a gap");
        assert_ne!(
            kind(&[b.clone(), a.clone()]),
            ErrorKind::Exhausted,
            "backwards"
        );
        let mut flipped = bytes(c).to_vec();
        let at = flipped.len() - 40;
        flipped[at] ^= 1;
        let flipped = Part::Memory(flipped.into());
        assert_eq!(kind(&[b.clone(), flipped]), ErrorKind::Corrupt);
        let gone = Part::File {
            path: scratch.path().join("gone"),
            size: 9,
        };
        assert_eq!(kind(&[b.clone(), gone]), ErrorKind::Corrupt);
    }
}
