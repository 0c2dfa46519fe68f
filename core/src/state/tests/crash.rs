//! Kill at every step: each state that the files can be in between two writes must open as the state
//! before or after, with a table that is proven.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::page_table::{Model, assert_holds, change, commit_huge, filled, total};
use super::{Scratch, page_size, place, saved, sum};
use crate::state::{PageTable, Proof, Saved, StateDir};
use crate::types::PageNumber;

type Image = BTreeMap<String, Vec<u8>>;

const TABLE_HEAD: usize = 64;

fn image(folder: &Path) -> Image {
    let mut image = Image::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if name != "lock" && entry.path().is_file() {
            image.insert(name, std::fs::read(entry.path()).unwrap());
        }
    }
    image
}

fn restore(folder: &Path, image: &Image) {
    for name in super::crash::image(folder).keys() {
        std::fs::remove_file(folder.join(name)).unwrap();
    }
    for (name, bytes) in image {
        std::fs::write(folder.join(name), bytes).unwrap();
    }
}

/// `old` with its first `done` bytes overwritten by `new`.
fn partly(old: &[u8], new: &[u8], done: usize) -> Vec<u8> {
    let mut bytes = new[..done].to_vec();
    bytes.extend_from_slice(old.get(done..).unwrap_or_default());
    bytes
}

struct Step {
    files: Image,
    saved: Saved,
    model: Model,
}

impl Step {
    fn take(scratch: &Scratch, table: &PageTable, model: &Model) -> Self {
        Self {
            files: image(&scratch.state()),
            saved: table.saved().unwrap().clone(),
            model: model.clone(),
        }
    }

    /// Whether `files` opens as this state, the table proven.
    fn is_found(&self, scratch: &Scratch, dir: &StateDir, files: &Image) -> bool {
        restore(&scratch.state(), files);
        let (mut table, _) = PageTable::open(dir, 1 << 20).unwrap();
        if table.saved() != Some(&self.saved) {
            return false;
        }
        assert_eq!(table.prove().unwrap(), Proof::Proven);
        assert_holds(&table, &self.model);
        // It goes on from here, and what it writes is found again.
        let mut model = self.model.clone();
        let (entries, place) = change(&mut model, self.saved.place.txid.get() + 1, 12, &[2, 3]);
        table.layer(entries, place).unwrap();
        table.commit().unwrap();
        let (mut again, _) = PageTable::open(dir, 1 << 20).unwrap();
        assert_eq!(again.prove().unwrap(), Proof::Proven);
        assert_holds(&again, &model);
        true
    }
}

/// Where a write of `length` bytes may be cut: every byte of what matters, some of the padding.
fn cuts(length: usize) -> impl Iterator<Item = usize> {
    (0..=length).filter(move |at| *at < 64 || at % 97 == 0 || *at + 90 > length)
}

fn check_commit(scratch: &Scratch, dir: &StateDir, before: &Step, after: &Step) {
    let redo = ["redo.0", "redo.1"]
        .into_iter()
        .find(|name| before.files.get(*name) != after.files.get(*name))
        .unwrap();
    let (old_redo, new_redo) = (&before.files[redo], &after.files[redo]);
    let mut files = before.files.clone();
    for done in cuts(new_redo.len()) {
        files.insert(redo.to_owned(), partly(old_redo, new_redo, done));
        let complete = partly(old_redo, new_redo, done).starts_with(new_redo);
        let expected = if complete { after } else { before };
        assert!(
            expected.is_found(scratch, dir, &files),
            "{done} bytes of the record"
        );
    }
    let (old_table, new_table) = (&before.files["pages"], &after.files["pages"]);
    for done in cuts(new_table.len()) {
        files.insert("pages".to_owned(), partly(old_table, new_table, done));
        assert!(
            after.is_found(scratch, dir, &files),
            "{done} bytes of the table"
        );
    }
    for odd in [0, 1] {
        let mut mixed = partly(old_table, new_table, new_table.len());
        for (index, entry) in mixed[TABLE_HEAD..].chunks_mut(24).enumerate() {
            let at = TABLE_HEAD + index * 24;
            if index % 2 == odd && at + 24 <= old_table.len() {
                entry.copy_from_slice(&old_table[at..at + 24]);
            }
        }
        files.insert("pages".to_owned(), mixed);
        assert!(after.is_found(scratch, dir, &files), "every second entry");
    }
}

#[test]
fn r66_killed_at_every_byte_of_a_commit_table_and_cursor_fit() {
    let scratch = Scratch::new();
    let dir = scratch.open();
    let (mut table, mut model) = filled(&dir, 10);
    let mut at = 1;
    // Growing, shrinking, long records over short ones and the reverse, none changed.
    let batches: [(u32, &[u32]); 6] = [
        (10, &[3]),
        (14, &[1, 2, 3, 4, 5, 6, 7]),
        (5, &[1]),
        (5, &[]),
        (20, &[2, 4]),
        (20, &[1, 20]),
    ];
    for (count, pages) in batches {
        at += 1;
        let before = Step::take(&scratch, &table, &model);
        let (entries, place) = change(&mut model, at, count, pages);
        table.layer(entries, place).unwrap();
        table.commit().unwrap();
        let after = Step::take(&scratch, &table, &model);
        check_commit(&scratch, &dir, &before, &after);
        restore(&scratch.state(), &after.files);
        table = PageTable::open(&dir, 1 << 20).unwrap().0;
        assert_eq!(table.prove().unwrap(), Proof::Proven);
    }
}

#[test]
fn r66_killed_inside_a_huge_batch_table_and_cursor_fit() {
    let scratch = Scratch::new();
    let dir = scratch.open();
    let (mut table, mut model) = filled(&dir, 10);
    let (entries, place) = change(&mut model, 2, 10, &[1, 2]);
    table.layer(entries, place).unwrap();
    table.commit().unwrap();
    let before = Step::take(&scratch, &table, &model);
    commit_huge(&mut table, &mut model, 3, 30, &[1, 5, 6]);
    let after = Step::take(&scratch, &table, &model);
    // The record is complete beside the old one, but has not its name.
    let mut files = before.files.clone();
    files.insert("0123.tmp".to_owned(), after.files["redo.1"].clone());
    assert!(before.is_found(&scratch, &dir, &files));
    files.remove("0123.tmp");
    files.insert("redo.0".to_owned(), after.files["redo.0"].clone());
    files.insert("redo.1".to_owned(), after.files["redo.1"].clone());
    let (old_table, new_table) = (&before.files["pages"], &after.files["pages"]);
    for done in cuts(new_table.len()) {
        files.insert("pages".to_owned(), partly(old_table, new_table, done));
        assert!(
            after.is_found(&scratch, &dir, &files),
            "{done} bytes of the table"
        );
    }
}

#[test]
fn r66_killed_between_a_new_table_and_its_record_no_table_is_believed() {
    let scratch = Scratch::new();
    let dir = scratch.open();
    let (table, model) = filled(&dir, 10);
    let before = Step::take(&scratch, &table, &model);
    let (table, model) = filled(&dir, 10);
    let after = Step::take(&scratch, &table, &model);
    let mut files = before.files.clone();
    files.insert("pages".to_owned(), after.files["pages"].clone());
    restore(&scratch.state(), &files);
    let (mut table, damage) = PageTable::open(&dir, 1 << 20).unwrap();
    assert_eq!(table.saved(), Some(&before.saved));
    assert_eq!(table.prove().unwrap(), Proof::Absent);
    assert_eq!(damage.len(), 1, "{damage:?}");
}

/// Numbers that look random and are the same in parent and child.
fn mix(a: u64, b: u64) -> u64 {
    xxhash_rust::xxh3::xxh3_64_with_seed(&a.to_le_bytes(), b)
}

/// Batch `at`, the same in parent and child: the new page count and the changed pages.
fn batch(at: u64) -> (u32, Vec<u32>) {
    let count = 40 + (mix(at, 1) % 60) as u32;
    let pages = (1..=count).filter(|page| mix(at, u64::from(*page) + 2).is_multiple_of(4));
    (count, pages.collect())
}

const CHILD: &str = "WALRUST_TEST_KILLED_CHILD";

#[test]
#[ignore = "run by r66_kill_9_at_any_instant, which kills it"]
fn child_that_commits_until_it_is_killed() {
    let database = PathBuf::from(std::env::var_os(CHILD).unwrap());
    let dir = StateDir::create_or_open(&database).unwrap();
    let (mut table, mut model) = match PageTable::open(&dir, 1 << 20).unwrap().0 {
        table if table.saved().is_none() => filled(&dir, 50),
        mut table => {
            assert_eq!(table.prove().unwrap(), Proof::Proven);
            let place = table.saved().unwrap().place;
            let model = read_model(&table, place.page_count.0);
            (table, model)
        }
    };
    std::fs::write(database.with_extension("ready"), b"").unwrap();
    loop {
        let at = table.saved().unwrap().place.txid.get() + 1;
        let (count, pages) = batch(at);
        match at % 7 {
            0 => commit_huge(&mut table, &mut model, at, count, &pages),
            1 => {
                table.update(|saved| saved.last_snapshot = None).unwrap();
                let (entries, place) = change(&mut model, at, count, &pages);
                table.layer(entries, place).unwrap();
                table.commit().unwrap();
            }
            _ => {
                let (entries, place) = change(&mut model, at, count, &pages);
                table.layer(entries, place).unwrap();
                table.commit().unwrap();
            }
        }
    }
}

fn read_model(table: &PageTable, count: u32) -> Model {
    let pages: Vec<PageNumber> = (1..=count).map(super::page).collect();
    let mut model = Model::new();
    let mut each = |page: PageNumber, sum: Option<_>| {
        model.insert(page.get(), sum.unwrap());
        Ok(())
    };
    table.lookup_all(&pages, &mut each).unwrap();
    model
}

#[test]
fn r66_kill_9_at_any_instant() {
    let scratch = Scratch::new();
    let mut model: Model = (1..=50).map(|n| (n, sum(n, 1))).collect();
    let mut at = 1;
    for round in 0..12 {
        let ready = scratch.database().with_extension("ready");
        let _ = std::fs::remove_file(&ready);
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact"])
            .arg("state::tests::crash::child_that_commits_until_it_is_killed")
            .env(CHILD, scratch.database())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        while !ready.exists() && child.try_wait().unwrap().is_none() {
            assert!(
                std::time::Instant::now() < deadline,
                "the child does not start"
            );
            std::thread::sleep(Duration::from_millis(2));
        }
        std::thread::sleep(Duration::from_micros(mix(round, 0) % 40_000));
        child.kill().unwrap();
        let status = child.wait().unwrap();
        let mut said = String::new();
        child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut said)
            .unwrap();
        assert_eq!(status.signal(), Some(9), "{said}");

        let (mut table, _) = PageTable::open(&scratch.open(), 1 << 20).unwrap();
        let reached = table.saved().unwrap().place;
        while at < reached.txid.get() {
            at += 1;
            let (count, pages) = batch(at);
            change(&mut model, at, count, &pages);
        }
        assert_eq!(
            reached,
            place(at, model.len() as u32, total(&model)),
            "round {round}"
        );
        assert_eq!(table.prove().unwrap(), Proof::Proven, "round {round}");
        assert_holds(&table, &model);
    }
    assert!(
        at > 20,
        "only {at} batches: the child was killed too early to show anything"
    );
}

#[test]
fn u18_after_a_power_loss_a_table_is_proven_or_not_believed() {
    let scratch = Scratch::new();
    let dir = scratch.open();
    let (mut table, mut model) = filled(&dir, 200);
    let mut steps = vec![Step::take(&scratch, &table, &model)];
    for at in 2..9 {
        let (entries, place) = change(&mut model, at, 180 + at as u32, &[at as u32, 170, 200]);
        table.layer(entries, place).unwrap();
        table.commit().unwrap();
        if at == 4 {
            table.anchor().unwrap();
        }
        steps.push(Step::take(&scratch, &table, &model));
    }
    drop(table);
    let mut proven = 0;
    for round in 0..400_u64 {
        // Each file, and each block of the table, is of another moment since the last anchor.
        let pick = |what: u64| &steps[3 + (mix(round, what) % 5) as usize].files;
        let mut files = steps[3].files.clone();
        for (what, name) in ["redo.0", "redo.1", "saved"].into_iter().enumerate() {
            files.insert(name.to_owned(), pick(what as u64)[name].clone());
        }
        let mut blocks = pick(3)["pages"].clone();
        for (index, block) in blocks.chunks_mut(1024).enumerate() {
            let other = &pick(4 + index as u64 / 3)["pages"];
            let at = index * 1024;
            let length = block.len().min(other.len().saturating_sub(at));
            block[..length].copy_from_slice(&other[at..at + length]);
        }
        files.insert("pages".to_owned(), blocks);
        for (what, name) in ["redo.0", "redo.1"].into_iter().enumerate() {
            if mix(round, what as u64 + 10).is_multiple_of(4) {
                files.insert(name.to_owned(), vec![0; 3000]);
            }
        }
        restore(&scratch.state(), &files);
        let (mut table, _) = PageTable::open(&dir, 1 << 20).unwrap();
        let saved = table.saved().expect("the anchor is durable").clone();
        assert!(saved.place.txid.get() >= 4, "round {round}");
        let step = steps.iter().find(|step| step.saved == saved).unwrap();
        if table.prove().unwrap() == Proof::Proven {
            assert_holds(&table, &step.model);
            proven += 1;
        } else {
            assert!(table.lookup(super::page(1)).is_err());
        }
    }
    assert!((20..380).contains(&proven), "{proven} of 400 show little");
}

#[test]
fn no_length_and_no_flipped_byte_of_any_file_panics_or_is_believed() {
    let scratch = Scratch::new();
    let dir = scratch.open();
    let (mut table, mut model) = filled(&dir, 4);
    for at in 2..5 {
        let (entries, place) = change(&mut model, at, 4, &[1, 3]);
        table.layer(entries, place).unwrap();
        table.commit().unwrap();
    }
    let whole = Step::take(&scratch, &table, &model);
    drop(table);
    for name in ["redo.0", "redo.1", "saved", "pages"] {
        let bytes = &whole.files[name];
        for at in cuts(bytes.len() - 1) {
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x20;
            for changed in [bytes[..at].to_vec(), flipped] {
                let mut files = whole.files.clone();
                files.insert(name.to_owned(), changed);
                restore(&scratch.state(), &files);
                let (mut table, _) = PageTable::open(&dir, 1 << 20).unwrap();
                if table.prove().unwrap() == Proof::Proven {
                    let found = table.saved().unwrap().place;
                    let model = read_model(&table, found.page_count.0);
                    assert_eq!(found.sum, total(&model), "{name} at {at}");
                }
            }
        }
    }
    assert_eq!(page_size(), saved(whole.saved.place).place.page_size);
}
