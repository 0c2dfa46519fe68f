//! The keys of one database's objects. Nothing else builds or parses a key.

use crate::error::{Error, ErrorKind, Result};
use crate::types::{DatabaseName, Digest, KeyPrefix, Txid, TxidRange};

/// The folder that holds what concerns all databases of a prefix.
const SHARED: &str = ".walrust";
const SUFFIX: &str = ".ltx";

/// A level of merged files: 1 (a minute's), 2 (an hour's), 3 (a day's); Litestream has up to 8.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Level(u8);

impl Level {
    /// Level `value`, or nothing outside `1..=8`: 0 holds files as captured, 9 snapshots.
    pub const fn new(value: u8) -> Option<Self> {
        if value >= 1 && value <= 8 {
            Some(Self(value))
        } else {
            None
        }
    }

    /// The plain number.
    pub const fn get(self) -> u8 {
        self.0
    }
}

/// What a key below a database's folder stands for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Entry {
    /// A file as captured.
    Incremental(TxidRange),
    /// A merged file.
    Merged(Level, TxidRange),
    /// A snapshot of the state after this transaction.
    Snapshot(Txid),
    /// An immutable page of the index: the files of this range, and the hash of the page itself.
    IndexPage(TxidRange, Digest),
    /// The index's root.
    Manifest,
    /// Who may write.
    Lease,
}

impl Entry {
    /// The transactions that an LTX file covers by its name, or nothing for other objects.
    pub fn range(self) -> Option<TxidRange> {
        match self {
            Self::Incremental(range) | Self::Merged(_, range) => Some(range),
            Self::Snapshot(max) => Some(TxidRange::snapshot(max)),
            Self::IndexPage(..) | Self::Manifest | Self::Lease => None,
        }
    }

    /// Refuses a file whose header tells another range than its name (X3). Errors: `Corrupt`.
    pub fn check_range(self, header: TxidRange) -> Result<()> {
        match self.range() {
            Some(range) if range != header => Err(Error::new(
                ErrorKind::Corrupt,
                format!("the file is named {range} but holds {header}"),
            )),
            _ => Ok(()),
        }
    }
}

/// The keys of one database under one prefix.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Layout {
    prefix: KeyPrefix,
    name: DatabaseName,
}

impl Layout {
    /// The keys of `name` under `prefix`.
    pub fn new(prefix: KeyPrefix, name: DatabaseName) -> Self {
        Self { prefix, name }
    }

    /// The database's name.
    pub fn name(&self) -> &DatabaseName {
        &self.name
    }

    /// The prefix in front of the name.
    pub fn prefix(&self) -> &KeyPrefix {
        &self.prefix
    }

    /// What all keys of this database begin with; ends in `/`.
    pub fn folder(&self) -> String {
        format!("{}/", self.prefix.join(self.name.as_str()))
    }

    /// The key of any entry.
    pub fn key(&self, entry: Entry) -> String {
        let folder = self.folder();
        match entry {
            Entry::Incremental(range) => format!("{folder}0000/{range}{SUFFIX}"),
            Entry::Merged(Level(level), range) => format!("{folder}{level:04x}/{range}{SUFFIX}"),
            Entry::Snapshot(max) => format!("{folder}0009/{}{SUFFIX}", TxidRange::snapshot(max)),
            Entry::IndexPage(range, hash) => format!("{folder}index/{range}-{hash}.json"),
            Entry::Manifest => format!("{folder}manifest.json"),
            Entry::Lease => format!("{folder}lease.json"),
        }
    }

    /// The key of a file as captured.
    pub fn incremental(&self, range: TxidRange) -> String {
        self.key(Entry::Incremental(range))
    }

    /// The key of a merged file.
    pub fn merged(&self, level: Level, range: TxidRange) -> String {
        self.key(Entry::Merged(level, range))
    }

    /// The key of the snapshot at `max`.
    pub fn snapshot(&self, max: Txid) -> String {
        self.key(Entry::Snapshot(max))
    }

    /// The key of the index's root.
    pub fn manifest(&self) -> String {
        self.key(Entry::Manifest)
    }

    /// The key of an index page.
    pub fn index_page(&self, range: TxidRange, hash: Digest) -> String {
        self.key(Entry::IndexPage(range, hash))
    }

    /// The key of the lease.
    pub fn lease(&self) -> String {
        self.key(Entry::Lease)
    }

    /// What the keys of files as captured begin with; ends in `/`.
    pub fn incremental_folder(&self) -> String {
        format!("{}0000/", self.folder())
    }

    /// What the keys of a level's merged files begin with; ends in `/`.
    pub fn merged_folder(&self, level: Level) -> String {
        format!("{}{:04x}/", self.folder(), level.get())
    }

    /// What the keys of snapshots begin with; ends in `/`.
    pub fn snapshot_folder(&self) -> String {
        format!("{}0009/", self.folder())
    }

    /// What the keys of index pages begin with; ends in `/`.
    pub fn index_folder(&self) -> String {
        format!("{}index/", self.folder())
    }

    /// What `key` stands for, or nothing where it is not of this database or nobody's business.
    pub fn parse(&self, key: &str) -> Option<Entry> {
        parse_entry(key.strip_prefix(&self.folder())?)
    }

    /// The database and entry that `key` belongs to, whatever the database is called. Names are
    /// arbitrary but for the components that walrust keeps, so the end of a key decides.
    pub fn locate(prefix: &KeyPrefix, key: &str) -> Option<(Self, Entry)> {
        let rest = key.strip_prefix(&prefix.join(""))?;
        let (folder, last) = rest.rsplit_once('/')?;
        let (name, entry) = match folder.rsplit_once('/') {
            Some((name, level)) => match parse_entry(&format!("{level}/{last}")) {
                Some(entry) => (name, entry),
                None => (folder, parse_entry(last)?),
            },
            None => (folder, parse_entry(last)?),
        };
        let layout = Self::new(prefix.clone(), name.parse().ok()?);
        Some((layout, entry))
    }
}

/// The key of a holder's claim: one a process, for all its databases under `prefix`.
pub fn claim_key(prefix: &KeyPrefix, holder: &str) -> String {
    prefix.join(&format!("{SHARED}/holders/{holder}/claim.json"))
}

/// The key of an object with which `doctor` tries the store, or what all of them begin with where `object`
/// is empty; no listing takes them for a database's.
pub fn trial_key(prefix: &KeyPrefix, object: &str) -> String {
    prefix.join(&format!("{SHARED}/doctor/{object}"))
}

/// Reads the part of a key behind the database's folder.
fn parse_entry(rest: &str) -> Option<Entry> {
    match rest {
        "manifest.json" => return Some(Entry::Manifest),
        "lease.json" => return Some(Entry::Lease),
        _ => {}
    }
    let (folder, file) = rest.split_once('/')?;
    if folder == "index" {
        return parse_index_page(file);
    }
    let range = parse_range(file.strip_suffix(SUFFIX)?)?;
    match folder {
        "0000" => Some(Entry::Incremental(range)),
        "0009" => range.is_snapshot().then_some(Entry::Snapshot(range.max())),
        _ => {
            let level = (1..=8).find(|level| folder == format!("{level:04x}"))?;
            Some(Entry::Merged(Level::new(level)?, range))
        }
    }
}

fn parse_range(text: &str) -> Option<TxidRange> {
    let (min, max) = text.split_once('-')?;
    TxidRange::new(min.parse().ok()?, max.parse().ok()?)
}

fn parse_index_page(file: &str) -> Option<Entry> {
    let (range, hash) = file.strip_suffix(".json")?.rsplit_once('-')?;
    let digest: Digest = hash.parse().ok()?;
    // Only the spelling that we write: otherwise two keys would mean one page.
    let entry = Entry::IndexPage(parse_range(range)?, digest);
    (digest.to_string() == hash).then_some(entry)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn txid(value: u64) -> Txid {
        Txid::new(value).unwrap()
    }

    fn range(min: u64, max: u64) -> TxidRange {
        TxidRange::new(txid(min), txid(max)).unwrap()
    }

    fn layout(prefix: &str, name: &str) -> Layout {
        Layout::new(prefix.parse().unwrap(), name.parse().unwrap())
    }

    fn entries() -> [Entry; 7] {
        [
            Entry::Incremental(range(1, 1)),
            Entry::Incremental(range(0x1f, 0xff)),
            Entry::Merged(Level::new(3).unwrap(), range(2, u64::MAX)),
            Entry::Snapshot(txid(100)),
            Entry::IndexPage(range(2, 9), Digest::new(7)),
            Entry::Manifest,
            Entry::Lease,
        ]
    }

    #[test]
    fn keys_are_those_of_the_documentation() {
        let keys = entries().map(|entry| layout("prod", "users/a b.db").key(entry));
        assert_eq!(
            keys,
            [
                "prod/users/a b.db/0000/0000000000000001-0000000000000001.ltx",
                "prod/users/a b.db/0000/000000000000001f-00000000000000ff.ltx",
                "prod/users/a b.db/0003/0000000000000002-ffffffffffffffff.ltx",
                "prod/users/a b.db/0009/0000000000000001-0000000000000064.ltx",
                "prod/users/a b.db/index/0000000000000002-0000000000000009-00000000000000000000000000000007.json",
                "prod/users/a b.db/manifest.json",
                "prod/users/a b.db/lease.json",
            ]
        );
        assert_eq!(
            claim_key(&"".parse().unwrap(), "h1"),
            ".walrust/holders/h1/claim.json"
        );
        assert_eq!(
            claim_key(&"prod".parse().unwrap(), "h1"),
            "prod/.walrust/holders/h1/claim.json"
        );
        let trial = trial_key(&"prod".parse().unwrap(), "t1/object");
        assert_eq!(trial, "prod/.walrust/doctor/t1/object");
        assert_eq!(Layout::locate(&"prod".parse().unwrap(), &trial), None);
    }

    #[test]
    fn every_key_reads_back_and_finds_its_database() {
        for (prefix, name) in [
            ("", "app.db"),
            ("prod/eu", "users/app.db"),
            ("", "ltx.db/x"),
            ("a", "#1 über"),
        ] {
            let layout = layout(prefix, name);
            for entry in entries() {
                let key = layout.key(entry);
                assert_eq!(layout.parse(&key), Some(entry), "{key}");
                assert_eq!(
                    Layout::locate(layout.prefix(), &key),
                    Some((layout.clone(), entry)),
                    "{key}"
                );
            }
        }
    }

    #[test]
    fn x4_foreign_keys_are_nobodys_business() {
        let layout = layout("", "app.db");
        for key in [
            "",
            "app.db",
            "app.db/",
            "app.db/0000",
            "app.db/0000/",
            "other.db/manifest.json",
            "app.db/0000/0000000000000002-0000000000000001.ltx",
            "app.db/0000/2-3.ltx",
            "app.db/0000/0000000000000001-0000000000000002.LTX",
            "app.db/0000/0000000000000000-0000000000000001.ltx",
            "app.db/0009/0000000000000002-0000000000000003.ltx",
            "app.db/000a/0000000000000001-0000000000000002.ltx",
            "app.db/0/0000000000000001-0000000000000002.ltx",
            "app.db/0000/x/0000000000000001-0000000000000002.ltx",
            "app.db/0000/0000000000000001-0000000000000002.ltx/x",
            "app.db/index/x.json",
            "app.db/../lease.json",
            "app.db/index/0000000000000002-0000000000000009-0000000000000000000000000000000A.json",
        ] {
            assert_eq!(layout.parse(key), None, "{key}");
        }
        assert_eq!(Layout::locate(&KeyPrefix::default(), "../lease.json"), None);
        assert_eq!(
            Layout::locate(&KeyPrefix::default(), ".walrust/lease.json"),
            None
        );
        assert_eq!(Layout::locate(&KeyPrefix::default(), "lease.json"), None);
    }

    #[test]
    fn x3_a_file_whose_header_contradicts_its_name_is_refused() {
        let entry = Entry::Incremental(range(5, 9));
        assert!(entry.check_range(range(5, 9)).is_ok());
        assert_eq!(
            entry.check_range(range(5, 8)).unwrap_err().kind(),
            ErrorKind::Corrupt
        );
        let snapshot = Entry::Snapshot(txid(9));
        assert!(snapshot.check_range(range(1, 9)).is_ok());
        assert!(snapshot.check_range(range(2, 9)).is_err());
    }
}
