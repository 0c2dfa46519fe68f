//! The frames of a transaction larger than memory, by page: an external sort that keeps the newest frame
//! of each page.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::types::PageNumber;

/// Pairs in memory before they go to disk: 8 MiB, of which 2 GiB of 4 KiB frames make two runs.
const PAIRS: usize = 1 << 20;

/// Runs merged at once. With 16 KiB each: 1 MiB of buffers.
const FAN_IN: usize = 64;
const BUFFER: usize = 16 << 10;

/// Page in the upper half, frame in the lower: the order of pairs is the order of the numbers.
type Pair = u64;

fn page_bits(pair: Pair) -> u32 {
    (pair >> 32) as u32
}

/// Takes pairs of page and frame in any order.
#[derive(Debug)]
pub struct FrameSorter {
    directory: PathBuf,
    capacity: usize,
    pairs: Vec<Pair>,
    /// Level by level: a level has fewer than [`FAN_IN`] runs, each merged from as many of the one below.
    runs: Vec<Vec<Run>>,
}

/// A sorted run in a file that has no name.
#[derive(Debug)]
struct Run(File);

impl FrameSorter {
    /// A sorter whose runs go to nameless files in `directory`.
    pub fn new(directory: &Path) -> Self {
        Self::with_capacity(directory, PAIRS)
    }

    /// As [`FrameSorter::new`], with at most `pairs` pairs of 8 bytes in memory.
    pub fn with_capacity(directory: &Path, pairs: usize) -> Self {
        Self {
            directory: directory.to_owned(),
            capacity: pairs.max(1),
            pairs: Vec::new(),
            runs: Vec::new(),
        }
    }

    /// Notes that `frame` holds `page`. Errors: Exhausted when the disk is full.
    pub fn push(&mut self, page: PageNumber, frame: u32) -> Result<()> {
        if self.pairs.len() >= self.capacity {
            self.spill()?;
        }
        self.pairs
            .push(u64::from(page.get()) << 32 | u64::from(frame));
        Ok(())
    }

    /// The pages ascending, each once, with the largest of its frames.
    pub fn finish(mut self) -> Result<SortedFrames> {
        sort(&mut self.pairs);
        if self.runs.is_empty() {
            let inputs = vec![Input::Memory(self.pairs.into_iter())];
            return SortedFrames::new(inputs);
        }
        self.spill()?;
        let mut runs: Vec<Run> = self.runs.into_iter().flatten().collect();
        while runs.len() > FAN_IN {
            let group = runs.drain(..FAN_IN).collect();
            runs.push(merge(group, &self.directory)?);
        }
        SortedFrames::new(
            runs.into_iter()
                .map(Run::into_input)
                .collect::<Result<_>>()?,
        )
    }

    fn spill(&mut self) -> Result<()> {
        if self.pairs.is_empty() {
            return Ok(());
        }
        sort(&mut self.pairs);
        let run = Run::write(&self.directory, self.pairs.drain(..).map(Ok))?;
        let mut run = run;
        for level in 0.. {
            if self.runs.len() <= level {
                self.runs.push(Vec::new());
            }
            let Some(runs) = self.runs.get_mut(level) else {
                break;
            };
            runs.push(run);
            if runs.len() < FAN_IN {
                break;
            }
            run = merge(std::mem::take(runs), &self.directory)?;
        }
        Ok(())
    }
}

fn sort(pairs: &mut Vec<Pair>) {
    pairs.sort_unstable_by_key(|pair| Reverse(*pair));
    // Descending, so that the frame that stays is the largest.
    pairs.dedup_by_key(|pair| page_bits(*pair));
    pairs.reverse();
}

fn io(directory: &Path) -> impl Fn(std::io::Error) -> Error {
    move |error| Error::io(directory.display(), error)
}

fn merge(runs: Vec<Run>, directory: &Path) -> Result<Run> {
    let inputs = runs
        .into_iter()
        .map(Run::into_input)
        .collect::<Result<_>>()?;
    let merged = SortedFrames::new(inputs)?
        .map(|pair| pair.map(|(page, frame)| u64::from(page.get()) << 32 | u64::from(frame)));
    Run::write(directory, merged)
}

impl Run {
    fn write(directory: &Path, pairs: impl Iterator<Item = Result<Pair>>) -> Result<Self> {
        let file = tempfile::tempfile_in(directory).map_err(io(directory))?;
        let mut writer = BufWriter::with_capacity(BUFFER, file);
        for pair in pairs {
            writer
                .write_all(&pair?.to_le_bytes())
                .map_err(io(directory))?;
        }
        let file = writer.into_inner();
        let mut file = file.map_err(|error| io(directory)(error.into_error()))?;
        file.rewind().map_err(io(directory))?;
        Ok(Self(file))
    }

    fn into_input(self) -> Result<Input> {
        let length = self
            .0
            .metadata()
            .map_err(|error| Error::io("sorted run", error))?
            .len();
        Ok(Input::Disk {
            left: length / 8,
            reader: BufReader::with_capacity(BUFFER, self.0),
        })
    }
}

#[derive(Debug)]
enum Input {
    Memory(std::vec::IntoIter<Pair>),
    Disk { left: u64, reader: BufReader<File> },
}

impl Input {
    fn next(&mut self) -> Result<Option<Pair>> {
        match self {
            Self::Memory(pairs) => Ok(pairs.next()),
            Self::Disk { left: 0, .. } => Ok(None),
            Self::Disk { left, reader } => {
                let mut bytes = [0; 8];
                let read = reader.read_exact(&mut bytes);
                read.map_err(|error| Error::io("sorted run", error))?;
                *left -= 1;
                Ok(Some(Pair::from_le_bytes(bytes)))
            }
        }
    }
}

/// The sorted frames: pages ascending, each once, with its newest frame. Ends after an error.
#[derive(Debug)]
pub struct SortedFrames {
    inputs: Vec<Input>,
    heads: BinaryHeap<Reverse<(Pair, usize)>>,
}

impl SortedFrames {
    fn new(mut inputs: Vec<Input>) -> Result<Self> {
        let mut heads = BinaryHeap::with_capacity(inputs.len());
        for (index, input) in inputs.iter_mut().enumerate() {
            heads.extend(input.next()?.map(|pair| Reverse((pair, index))));
        }
        Ok(Self { inputs, heads })
    }

    /// The smallest pair, its input moved on.
    fn pop(&mut self) -> Result<Option<Pair>> {
        let Some(Reverse((pair, index))) = self.heads.pop() else {
            return Ok(None);
        };
        if let Some(input) = self.inputs.get_mut(index) {
            let next = input.next()?;
            self.heads.extend(next.map(|pair| Reverse((pair, index))));
        }
        Ok(Some(pair))
    }

    fn newest(&mut self) -> Result<Option<(PageNumber, u32)>> {
        let Some(mut pair) = self.pop()? else {
            return Ok(None);
        };
        while let Some(Reverse((next, _))) = self.heads.peek() {
            if page_bits(*next) != page_bits(pair) {
                break;
            }
            pair = self.pop()?.unwrap_or(pair);
        }
        Ok(PageNumber::new(page_bits(pair)).map(|page| (page, pair as u32)))
    }
}

impl Iterator for SortedFrames {
    type Item = Result<(PageNumber, u32)>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.newest();
        if next.is_err() {
            self.heads.clear();
        }
        next.transpose()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn sorted(pairs: &[(u32, u32)], capacity: usize) -> Vec<(u32, u32)> {
        let directory = tempfile::tempdir().unwrap();
        let mut sorter = FrameSorter::with_capacity(directory.path(), capacity);
        for (page, frame) in pairs {
            sorter
                .push(PageNumber::new(*page).unwrap(), *frame)
                .unwrap();
            assert!(sorter.pairs.len() <= capacity);
            assert!(sorter.runs.iter().all(|level| level.len() < FAN_IN));
        }
        assert_eq!(
            std::fs::read_dir(directory.path()).unwrap().count(),
            0,
            "nothing to clean up"
        );
        let frames = sorter.finish().unwrap().map(Result::unwrap);
        frames.map(|(page, frame)| (page.get(), frame)).collect()
    }

    fn model(pairs: &[(u32, u32)]) -> Vec<(u32, u32)> {
        let mut newest = BTreeMap::new();
        for (page, frame) in pairs {
            let slot = newest.entry(*page).or_insert(*frame);
            *slot = (*slot).max(*frame);
        }
        newest.into_iter().collect()
    }

    proptest! {
        #[test]
        fn each_page_comes_once_ascending_with_its_newest_frame(
            pairs in prop::collection::vec((1..60_u32, any::<u32>()), 0..400),
            capacity in 1..50_usize,
        ) {
            prop_assert_eq!(sorted(&pairs, capacity), model(&pairs));
        }
    }

    #[test]
    fn more_runs_than_are_merged_at_once() {
        let pairs: Vec<_> = (0..9000_u32)
            .map(|n| (u32::MAX - n * 7919 % 4001, n))
            .collect();
        assert_eq!(sorted(&pairs, 1), model(&pairs), "three levels");
        assert_eq!(sorted(&pairs, 100), model(&pairs), "two levels");
        assert_eq!(sorted(&pairs, 10_000), model(&pairs), "memory");
    }
}
