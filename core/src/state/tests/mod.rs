mod control;
mod crash;
mod dir;
mod page_sets;
mod page_table;
mod spool;

use std::path::PathBuf;

use super::{Place, Saved, StateDir};
use crate::types::{
    DatabaseSum, Epoch, Lineage, PageCount, PageNumber, PageSize, PageSum, Txid, TxidRange,
};

/// A scratch directory with a database name in it.
struct Scratch {
    root: tempfile::TempDir,
}

impl Scratch {
    fn new() -> Self {
        Self {
            root: tempfile::tempdir().unwrap(),
        }
    }

    fn database(&self) -> PathBuf {
        self.root.path().join("app.db")
    }

    fn state(&self) -> PathBuf {
        self.root
            .path()
            .canonicalize()
            .unwrap()
            .join(".app.db-walrust")
    }

    fn open(&self) -> StateDir {
        StateDir::create_or_open(&self.database()).unwrap()
    }
}

fn txid(value: u64) -> Txid {
    Txid::new(value).unwrap()
}

fn range(min: u64, max: u64) -> TxidRange {
    TxidRange::new(txid(min), txid(max)).unwrap()
}

fn page(number: u32) -> PageNumber {
    PageNumber::new(number).unwrap()
}

fn page_size() -> PageSize {
    PageSize::new(4096).unwrap()
}

/// A sum that no other page or version has.
fn sum(number: u32, version: u64) -> PageSum {
    PageSum {
        crc: 1 << 63 | u64::from(number) << 20 | version,
        hash: u128::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c834)
            ^ u128::from(version) << 64,
    }
}

fn place(number: u64, count: u32, sum: DatabaseSum) -> Place {
    Place {
        txid: txid(number),
        sum,
        page_size: page_size(),
        page_count: PageCount(count),
        wal: None,
    }
}

fn saved(place: Place) -> Saved {
    Saved {
        lineage: Lineage::new(7).unwrap(),
        epoch: Some(Epoch::FIRST),
        place,
        restored_head: None,
        rewind_from: None,
        last_snapshot: None,
    }
}

#[test]
fn every_part_may_be_handed_to_a_blocking_thread() {
    fn send<T: Send + 'static>() {}
    send::<StateDir>();
    send::<super::PageTable>();
    send::<super::Huge>();
    send::<super::Fill>();
    send::<super::Spool>();
    send::<super::Staged>();
    send::<super::Overlay>();
    send::<super::PageSets>();
    send::<super::FrameSorter>();
    send::<super::SortedFrames>();
}
