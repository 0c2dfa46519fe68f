//! Which commit is this file? Reads what a [`crate::record::Recorder`] wrote.

use std::collections::HashMap;
use std::fmt;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_128_with_seed;

use crate::record::{Commit, Record, digest};

/// Every commit of an application, with the image that it left.
pub struct Oracle {
    dir: PathBuf,
    pages: File,
    commits: Vec<Commit>,
    by_digest: HashMap<String, Vec<u64>>,
}

/// Why a file is not the expected image.
#[derive(Debug, PartialEq, Eq)]
pub struct Mismatch(String);

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Oracle {
    /// Reads the log in `dir`. A record being written, or torn by a kill, is left out.
    pub fn open(dir: &Path) -> Self {
        let text = fs::read(dir.join("log")).unwrap();
        let whole = text
            .iter()
            .rposition(|&byte| byte == b'\n')
            .map_or(0, |at| at + 1);
        let lines = text[..whole]
            .split(|&byte| byte == b'\n')
            .filter(|line| !line.is_empty());
        let mut commits = Vec::new();
        let mut by_digest: HashMap<String, Vec<u64>> = HashMap::new();
        for line in lines {
            if let Record::Commit(commit) = serde_json::from_slice(line).unwrap() {
                by_digest
                    .entry(commit.digest.clone())
                    .or_default()
                    .push(commit.seq);
                commits.push(commit);
            }
        }
        let pages = File::open(dir.join("pages")).unwrap();
        Self {
            dir: dir.to_owned(),
            pages,
            commits,
            by_digest,
        }
    }

    /// All commits, in order; number n stands at index n.
    pub fn commits(&self) -> &[Commit] {
        &self.commits
    }

    /// The newest commit.
    pub fn last(&self) -> &Commit {
        self.commits.last().expect("nothing was recorded")
    }

    /// The commits that left an image with this digest, oldest first.
    pub fn with_digest(&self, digest: &str) -> &[u64] {
        self.by_digest.get(digest).map_or(&[], Vec::as_slice)
    }

    /// The database as it was after commit `seq`, byte for byte.
    pub fn image(&self, seq: u64) -> Vec<u8> {
        let target = &self.commits[seq as usize];
        let mut places: Vec<u64> = Vec::new();
        let mut page_size = 0;
        for commit in &self.commits[..=seq as usize] {
            if commit.page_size != page_size {
                places.clear();
                page_size = commit.page_size;
            }
            places.resize(commit.page_count as usize, u64::MAX);
            for &(page, at) in &commit.changed {
                places[page as usize - 1] = at;
            }
        }
        let page_size = target.page_size as usize;
        let mut image = vec![0; page_size * places.len()];
        for (page, at) in image.chunks_exact_mut(page_size.max(1)).zip(places) {
            self.pages.read_exact_at(page, at + 16).unwrap();
        }
        image
    }

    /// The commits whose image is exactly this file, oldest first.
    pub fn find(&self, file: &Path) -> Result<Vec<u64>, Mismatch> {
        let bytes =
            fs::read(file).map_err(|error| Mismatch(format!("{}: {error}", file.display())))?;
        self.find_bytes(&bytes)
            .map_err(|Mismatch(why)| Mismatch(format!("{}: {why}", file.display())))
    }

    /// The commits whose image is exactly these bytes, oldest first.
    pub fn find_bytes(&self, bytes: &[u8]) -> Result<Vec<u64>, Mismatch> {
        let digest = digest_of(bytes).ok_or_else(|| Mismatch("not whole pages".to_owned()))?;
        let seqs = self.with_digest(&digest).to_vec();
        match seqs.first() {
            None => Err(Mismatch(format!(
                "digest {digest} is no commit's; {}",
                self.nearest(bytes)
            ))),
            Some(&seq) => self.check(bytes, seq).map(|()| seqs),
        }
    }

    /// Whether the file is exactly the image of commit `seq`.
    pub fn check_file(&self, file: &Path, seq: u64) -> Result<(), Mismatch> {
        let bytes =
            fs::read(file).map_err(|error| Mismatch(format!("{}: {error}", file.display())))?;
        self.check(&bytes, seq)
    }

    fn check(&self, bytes: &[u8], seq: u64) -> Result<(), Mismatch> {
        let expected = self.image(seq);
        if expected == bytes {
            return Ok(());
        }
        let page_size = (self.commits[seq as usize].page_size as usize).max(1);
        let differing = differing_pages(&expected, bytes, page_size);
        Err(Mismatch(format!(
            "not commit {seq}: {} bytes for {}, {} pages differ: {:?}",
            bytes.len(),
            expected.len(),
            differing.len(),
            &differing[..differing.len().min(12)]
        )))
    }

    /// The commit with the fewest differing pages, for the message of a failure.
    fn nearest(&self, bytes: &[u8]) -> String {
        let recent = self.commits.iter().rev().take(400);
        let best = recent.map(|commit| {
            let image = self.image(commit.seq);
            (
                differing_pages(&image, bytes, (commit.page_size as usize).max(1)),
                commit,
            )
        });
        best.min_by_key(|(pages, _)| pages.len())
            .map_or_else(String::new, |(pages, commit)| {
                format!(
                    "nearest is commit {} of {} ({} pages for {}): {} pages differ: {:?}",
                    commit.seq,
                    self.commits.len(),
                    bytes.len() / (commit.page_size as usize).max(1),
                    commit.page_count,
                    pages.len(),
                    &pages[..pages.len().min(12)]
                )
            })
    }

    /// The folder of the log.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

fn differing_pages(one: &[u8], other: &[u8], page_size: usize) -> Vec<usize> {
    let count = one.len().max(other.len()).div_ceil(page_size);
    let page = |bytes: &[u8], index: usize| {
        bytes
            .get(index * page_size..((index + 1) * page_size).min(bytes.len()))
            .map(<[u8]>::to_vec)
    };
    (0..count)
        .filter(|&index| page(one, index) != page(other, index))
        .map(|index| index + 1)
        .collect()
}

/// The digest of a database file's bytes, or nothing if they are not whole pages.
pub fn digest_of(bytes: &[u8]) -> Option<String> {
    if bytes.is_empty() {
        return Some(format!("{:032x}", 0));
    }
    let stored = u16::from_be_bytes([*bytes.get(16)?, *bytes.get(17)?]);
    let page_size = if stored == 1 {
        65536
    } else {
        usize::from(stored)
    };
    if page_size < 512 || !bytes.len().is_multiple_of(page_size) {
        return None;
    }
    let hashes: Vec<u128> = bytes
        .chunks_exact(page_size)
        .zip(1_u64..)
        .map(|(page, number)| xxh3_128_with_seed(page, number))
        .collect();
    Some(format!("{:032x}", digest(page_size as u32, &hashes)))
}
