//! Each damage of a bucket against each command that reads one: everything is found, nothing is blamed wrongly, what is
//! restored or replicated is exact or refused, and `--fix` changes only what it may.
//!
//! The table at the end of [`v1_the_damage_matrix`] is what is expected, and what a run prints.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "test code"
)]

use std::collections::BTreeSet;
use std::fs;
use std::io::Cursor;
use std::path::Path;

use walrust_core::ltx::{Header, Outline};
use walrust_tests::bucket::Bucket;
use walrust_tests::damage::{content, damaged, issues, place, ship_rows, stored, verify};
use walrust_tests::process::Process;
use walrust_tests::program::{Watch, restore};
use walrust_tests::replica::Replica;
use walrust_tests::scene::Scene;
use walrust_tests::support::PATIENCE;
use walrust_tests::workload::Spec;

/// What is damaged, what `verify` must say of it, and whether `--fix` writes the manifest.
struct Expected<'a> {
    what: &'a str,
    /// Kind and place of each issue.
    issues: &'a [(&'a str, String)],
    mends: bool,
}

/// What the commands made of a damage, as the columns of the table.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Outcome {
    verify: String,
    fix: &'static str,
    deep: &'static str,
    restore: &'static str,
    new_replica: &'static str,
    following: &'static str,
}

/// A stream, and a replica that followed it up to its newest snapshot.
struct Matrix {
    scene: Scene,
    replica: Replica,
    rows: Vec<String>,
}

/// The last transaction of a file.
fn end_of(key: &str) -> u64 {
    let name = key.rsplit('/').next().unwrap().trim_end_matches(".ltx");
    u64::from_str_radix(name.rsplit('-').next().unwrap(), 16).unwrap()
}

/// Makes of a file the one that another lineage would have stored: the same pages, and every sum is right.
fn foreign(bytes: &mut [u8]) {
    let outline = Outline::read(Cursor::new(&bytes[..]), |_| {}).unwrap();
    let lineage = 1 << 40;
    let header = Header {
        node: outline.header.node ^ lineage,
        ..outline.header
    };
    outline.under(&header).unwrap().lay_over(0, bytes);
}

fn copy_folder(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy_folder(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).unwrap()),
        }
    }
}

impl Matrix {
    fn new(scene: Scene) -> Self {
        let newest = scene.bucket.ltx_keys();
        let newest = newest.iter().filter(|key| key.contains("/0009/"));
        let newest = newest.map(|key| end_of(key)).max().unwrap();
        // As the bucket was then, under the name that the damaged copies have.
        let then = damaged(&scene, |copy| {
            for key in copy.ltx_keys() {
                if end_of(&key) > newest {
                    fs::remove_file(copy.file(&key)).unwrap();
                }
            }
            fs::remove_file(copy.file("a.db/manifest.json")).unwrap();
        });
        verify(&then, scene.name(), &["--fix"]).expect_success();
        let folder = scene.path().join("followed");
        fs::create_dir(&folder).unwrap();
        let replica = Replica::at(&folder.join("replica.db"), &then, scene.name());
        replica.once().expect_success();
        assert_eq!(replica.txid(), newest);
        Self {
            scene,
            replica,
            rows: Vec::new(),
        }
    }

    /// One damage against every command.
    fn cell(&self, copy: &Bucket, expected: &Expected<'_>) -> Outcome {
        let Expected {
            what,
            issues: wanted,
            mends,
        } = expected;
        let name = self.scene.name();
        let wanted: Vec<(String, String)> = wanted
            .iter()
            .map(|(kind, name)| ((*kind).to_owned(), name.clone()))
            .collect();
        let code = i32::from(!wanted.is_empty());
        let before = content(copy);
        let output = verify(copy, name, &[]);
        let report = output.json();
        assert_eq!(output.code(), code, "{what}: {report:#}");
        assert_eq!(issues(&report), wanted, "{what}: {report:#}");
        assert_eq!(report["ok"], wanted.is_empty(), "{what}");

        let exact = self.restores(copy, what);
        let deep = verify(copy, name, &["--deep"]);
        let report = deep.json();
        assert_eq!(issues(&report), wanted, "{what}: {report:#}");
        assert_eq!(report["deep"]["ran"], true, "{what}");
        assert_eq!(report["deep"]["ok"], exact, "{what}: {report:#}");
        assert_eq!(deep.code(), i32::from(code != 0 || !exact), "{what}");

        let new_replica = self.bootstraps(copy, what);
        let following = self.follows(copy, what);
        assert_eq!(content(copy), before, "{what}: reading changed something");

        let fixed = verify(copy, name, &["--fix"]).json();
        let after = content(copy);
        assert_eq!(after.0, before.0, "{what}: --fix touched an object");
        assert_eq!(after.1 != before.1, *mends, "{what}: {fixed:#}");
        let left = issues(&verify(copy, name, &[]).json());
        assert!(
            left.iter().all(|(kind, _)| kind != "orphan"),
            "{what}: {left:?}"
        );
        if !mends {
            assert_eq!(left, wanted, "{what}");
        }
        // What could be restored can still be.
        assert!(!exact || self.restores(copy, what), "{what}: after --fix");
        let mut kinds: Vec<&str> = wanted.iter().map(|(kind, _)| kind.as_str()).collect();
        kinds.dedup();
        Outcome {
            verify: kinds.join(", "),
            fix: if *mends { "writes the manifest" } else { "" },
            deep: if exact { "restores" } else { "fails" },
            restore: if exact { "exact" } else { "refused" },
            new_replica: if new_replica { "exact" } else { "refused" },
            following: if following { "exact" } else { "refused" },
        }
    }

    /// Whether the newest state is restored, exactly; or else nothing is left.
    fn restores(&self, copy: &Bucket, what: &str) -> bool {
        let output = self.scene.path().join("restored.db");
        let restored = restore(copy, self.scene.name(), &output, None);
        if restored.code() != 0 {
            assert_eq!(restored.code(), 1, "{what}: {}", restored.stderr);
            assert!(!output.exists(), "{what}");
            return false;
        }
        let oracle = self.scene.oracle();
        oracle
            .check_file(&output, oracle.last().seq)
            .unwrap_or_else(|why| panic!("{what}: restored without an error, but {why}"));
        fs::remove_file(&output).unwrap();
        true
    }

    /// Whether a replica is made, exactly; or else there is none.
    fn bootstraps(&self, copy: &Bucket, what: &str) -> bool {
        let folder = self.scene.path().join("fresh");
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir(&folder).unwrap();
        let replica = Replica::at(&folder.join("replica.db"), copy, self.scene.name());
        self.once(&replica, what) || {
            assert!(!replica.local.exists(), "{what}: a replica was made");
            false
        }
    }

    /// Whether a replica that holds an earlier state gets to the newest one; or else it is what it was, or further.
    fn follows(&self, copy: &Bucket, what: &str) -> bool {
        let folder = self.scene.path().join("following");
        copy_folder(self.replica.local.parent().unwrap(), &folder);
        let replica = Replica::at(&folder.join("replica.db"), copy, self.scene.name());
        let before = replica.commits(&self.scene.oracle());
        self.once(&replica, what) || {
            let after = replica.commits(&self.scene.oracle());
            assert!(after.last() >= before.first(), "{what}: a step back");
            false
        }
    }

    fn once(&self, replica: &Replica, what: &str) -> bool {
        let mut command = replica.command(&["--once", "--interval", "50ms"]);
        let output = Process::run(&mut command, PATIENCE * 2);
        if output.code() == 0 {
            replica.assert_newest(&self.scene.oracle());
            return true;
        }
        assert_eq!(output.code(), 1, "{what}: {}", output.stderr);
        assert!(!output.stderr.contains("panicked"), "{}", output.stderr);
        false
    }

    /// A line of the table: what these damages of one kind lead to, which is the same for all of them.
    fn row(&mut self, file: &str, damage: &str, outcomes: &BTreeSet<Outcome>) {
        for outcome in outcomes {
            let Outcome {
                verify,
                fix,
                deep,
                restore,
                new_replica,
                following,
            } = outcome;
            let row = format!(
                "{file:20} | {damage:15} | {verify:13} | {fix:19} | {deep:8} | {restore:7} | {new_replica:11} | {following}"
            );
            self.rows.push(row.trim_end().to_owned());
        }
    }

    /// All damages of one file.
    fn damage_file(&mut self, file: &str, key: &str) {
        let at = place(key);
        let size = fs::metadata(self.scene.bucket.file(key)).unwrap().len() as usize;
        let dropped = damaged(&self.scene, |copy| {
            fs::remove_file(copy.file(key)).unwrap();
        });
        let expected = Expected {
            what: &format!("{key} dropped"),
            issues: &[("orphan", at.clone())],
            mends: true,
        };
        let outcome = self.cell(&dropped, &expected);
        self.row(file, "dropped", &BTreeSet::from([outcome]));
        let issues = [("error", at)];
        let changed = |what: &str, change: &dyn Fn(&mut Vec<u8>)| {
            let copy = damaged(&self.scene, |copy| {
                let mut bytes = fs::read(copy.file(key)).unwrap();
                change(&mut bytes);
                fs::write(copy.file(key), bytes).unwrap();
            });
            let expected = Expected {
                what: &format!("{key} {what}"),
                issues: &issues,
                mends: false,
            };
            self.cell(&copy, &expected)
        };
        let cut = BTreeSet::from([
            changed("emptied", &|bytes| bytes.clear()),
            changed("cut in half", &|bytes| bytes.truncate(size / 2)),
            changed("cut by a byte", &|bytes| bytes.truncate(size - 1)),
        ]);
        let flips = [
            ("header", 85),
            ("a frame's head", 107),
            ("a page", 115),
            ("the index", size - 27),
            ("the checksum", size - 12),
            ("the trailer", size - 1),
        ];
        let flip = |(place, at): (&str, usize)| {
            changed(&format!("flipped in {place}"), &|bytes| bytes[at] ^= 2)
        };
        let flipped: BTreeSet<Outcome> = flips.into_iter().map(flip).collect();
        let foreign = changed("of another lineage", &|bytes| foreign(bytes));
        self.row(file, "cut", &cut);
        self.row(file, "flipped", &flipped);
        self.row(file, "foreign lineage", &BTreeSet::from([foreign]));
    }

    fn swap(&mut self, files: &str, one: &str, other: &str) {
        let copy = damaged(&self.scene, |copy| {
            let (a, b) = (copy.file(one), copy.file(other));
            let (x, y) = (fs::read(&a).unwrap(), fs::read(&b).unwrap());
            fs::write(a, y).unwrap();
            fs::write(b, x).unwrap();
        });
        let expected = Expected {
            what: &format!("{one} and {other} exchanged"),
            issues: &[("error", place(one)), ("error", place(other))],
            mends: false,
        };
        let outcome = self.cell(&copy, &expected);
        self.row(files, "exchanged", &BTreeSet::from([outcome]));
    }

    fn damage_manifest(&mut self, damage: &str, mends: bool, change: &dyn Fn(&Path)) {
        let copy = damaged(&self.scene, |copy| change(&copy.file("a.db/manifest.json")));
        let error = [("error", "manifest.json".to_owned())];
        let expected = Expected {
            what: damage,
            issues: if mends { &error } else { &[] },
            mends,
        };
        let outcome = self.cell(&copy, &expected);
        if mends {
            // What was written is as good as what a watcher writes.
            let report = verify(&copy, self.scene.name(), &[]).expect_success();
            let report = report.json();
            assert_eq!(report["files"], report["verified"], "{report:#}");
            assert_eq!(report["behind"], 0, "{report:#}");
        }
        self.row("manifest", damage, &BTreeSet::from([outcome]));
    }
}

/// What is expected of each damage: which issue `verify` tells (and `--fix` leaves all others alone), whether the newest
/// state still restores, and whether a new replica and one that held the state of the newest snapshot get to it.
const TABLE: &str = "\
file                 | damage          | verify        | --fix               | --deep   | restore | new replica | following
nothing              |                 |               |                     | restores | exact   | exact       | exact
older snapshot       | dropped         | orphan        | writes the manifest | restores | exact   | exact       | exact
older snapshot       | cut             | error         |                     | restores | exact   | exact       | exact
older snapshot       | flipped         | error         |                     | restores | exact   | exact       | exact
older snapshot       | foreign lineage | error         |                     | restores | exact   | exact       | exact
newest snapshot      | dropped         | orphan        | writes the manifest | restores | exact   | exact       | exact
newest snapshot      | cut             | error         |                     | restores | exact   | exact       | exact
newest snapshot      | flipped         | error         |                     | restores | exact   | exact       | exact
newest snapshot      | foreign lineage | error         |                     | restores | exact   | exact       | exact
merged file          | dropped         | orphan        | writes the manifest | restores | exact   | exact       | exact
merged file          | cut             | error         |                     | restores | exact   | exact       | exact
merged file          | flipped         | error         |                     | restores | exact   | exact       | exact
merged file          | foreign lineage | error         |                     | restores | exact   | exact       | exact
first incremental    | dropped         | orphan        | writes the manifest | restores | exact   | exact       | exact
first incremental    | cut             | error         |                     | restores | exact   | exact       | exact
first incremental    | flipped         | error         |                     | restores | exact   | exact       | exact
first incremental    | foreign lineage | error         |                     | restores | exact   | exact       | exact
an incremental       | dropped         | orphan        | writes the manifest | fails    | refused | refused     | refused
an incremental       | cut             | error         |                     | fails    | refused | refused     | refused
an incremental       | flipped         | error         |                     | fails    | refused | refused     | refused
an incremental       | foreign lineage | error         |                     | fails    | refused | refused     | refused
newest incremental   | dropped         | orphan        | writes the manifest | fails    | refused | refused     | refused
newest incremental   | cut             | error         |                     | fails    | refused | refused     | refused
newest incremental   | flipped         | error         |                     | fails    | refused | refused     | refused
newest incremental   | foreign lineage | error         |                     | fails    | refused | refused     | refused
both snapshots       | exchanged       | error         |                     | fails    | refused | refused     | exact
two incrementals     | exchanged       | error         |                     | fails    | refused | refused     | refused
snapshot, increm.    | exchanged       | error         |                     | fails    | refused | refused     | refused
manifest             | missing         | error         | writes the manifest | restores | exact   | exact       | exact
manifest             | emptied         | error         | writes the manifest | restores | exact   | exact       | exact
manifest             | cut             | error         | writes the manifest | restores | exact   | exact       | exact
manifest             | another         | error         | writes the manifest | restores | exact   | exact       | exact
manifest             | stale           |               |                     | restores | exact   | exact       | exact";

#[test]
fn v1_the_damage_matrix() {
    let scene = stored("matrix", 1, true);
    let stale = fs::read(scene.bucket.file("a.db/manifest.json")).unwrap();
    let mut writer = scene.writer(Spec {
        page_size: 512,
        ..scene.spec(1)
    });
    let flags = ["--sync-interval", "10ms"];
    let watch = Watch::ready(&scene.bucket, &[&scene.database()], &flags);
    watch.wait_attached(&scene);
    ship_rows(&watch, &scene, &mut writer, 3);
    watch.drain();

    let keys = scene.bucket.ltx_keys();
    let of = |level: &str| -> Vec<String> {
        let keys = keys.iter().filter(|key| key.contains(level));
        keys.cloned().collect()
    };
    let (snapshots, merged, incrementals) = (of("/0009/"), of("/0001/"), of("/0000/"));
    assert_eq!(snapshots.len(), 2, "{keys:?}");
    let mut matrix = Matrix::new(scene);
    let nothing = damaged(&matrix.scene, |_| {});
    let expected = Expected {
        what: "nothing",
        issues: &[],
        mends: false,
    };
    let outcome = matrix.cell(&nothing, &expected);
    matrix.row("nothing", "", &BTreeSet::from([outcome]));
    let last = incrementals.len() - 1;
    for (file, key) in [
        ("older snapshot", &snapshots[0]),
        ("newest snapshot", &snapshots[1]),
        ("merged file", &merged[0]),
        ("first incremental", &incrementals[0]),
        ("an incremental", &incrementals[last - 4]),
        ("newest incremental", &incrementals[last]),
    ] {
        matrix.damage_file(file, key);
    }
    matrix.swap("both snapshots", &snapshots[0], &snapshots[1]);
    matrix.swap(
        "two incrementals",
        &incrementals[last - 4],
        &incrementals[last - 3],
    );
    matrix.swap("snapshot, increm.", &snapshots[1], &incrementals[last - 3]);
    matrix.damage_manifest("missing", true, &|path| fs::remove_file(path).unwrap());
    matrix.damage_manifest("emptied", true, &|path| fs::write(path, b"").unwrap());
    matrix.damage_manifest("cut", true, &|path| fs::write(path, b"{\"v\":1,").unwrap());
    matrix.damage_manifest("another", true, &|path| fs::write(path, b"[]").unwrap());
    matrix.damage_manifest("stale", false, &|path| fs::write(path, &stale).unwrap());
    let rows: Vec<&str> = TABLE.lines().skip(1).collect();
    eprintln!("{}", matrix.rows.join("\n"));
    assert_eq!(matrix.rows, rows);
}

#[test]
fn v1_r26_a_watch_that_runs_is_left_its_manifest() {
    let scene = stored("manifest", 3, false);
    let key = "a.db/manifest.json";
    let copy = damaged(&scene, |copy| fs::remove_file(copy.file(key)).unwrap());
    let lease = fs::read_to_string(copy.file("a.db/lease.json")).unwrap();
    let held = lease.replace("\"released\":true", "\"released\":false");
    assert_ne!(held, lease);
    fs::write(copy.file("a.db/lease.json"), &held).unwrap();
    let report = verify(&copy, scene.name(), &["--fix"]);
    assert_eq!(report.code(), 1);
    assert!(
        report.stdout.contains("holds the lease"),
        "{}",
        report.stdout
    );
    assert!(!copy.file(key).exists());
    assert_eq!(
        fs::read_to_string(copy.file("a.db/lease.json")).unwrap(),
        held
    );
}

#[test]
fn v1_several_damages_at_once() {
    let scene = stored("several", 4, false);
    let keys = scene.bucket.ltx_keys();
    let incrementals: Vec<&String> = keys.iter().filter(|key| key.contains("/0000/")).collect();
    let (first, second) = (incrementals[2], incrementals[3]);
    let last = incrementals[incrementals.len() - 1];
    let copy = damaged(&scene, |copy| {
        fs::remove_file(copy.file(first)).unwrap();
        let mut bytes = fs::read(copy.file(last)).unwrap();
        bytes[120] ^= 1;
        fs::write(copy.file(last), bytes).unwrap();
    });
    let both = [("orphan", place(first)), ("error", place(last))];
    let report = verify(&copy, scene.name(), &[]).json();
    let both = both.map(|(kind, name)| (kind.to_owned(), name));
    assert_eq!(issues(&report), both, "{report:#}");
    // With --fix the gap shows, the damaged file stays as it is.
    let report = verify(&copy, scene.name(), &["--fix"]).json();
    let kinds: Vec<String> = issues(&report).into_iter().map(|(kind, _)| kind).collect();
    assert_eq!(kinds, ["orphan", "gap", "error"], "{report:#}");
    let gap = &report["issues"].as_array().unwrap()[1];
    let message = gap["message"].as_str().unwrap();
    assert!(message.starts_with("TXID gap: expected "), "{message}");
    assert!(
        gap["key"]
            .as_str()
            .unwrap()
            .ends_with(second.rsplit('/').next().unwrap())
    );
}

#[test]
fn v1_a_file_of_another_lineage_behind_the_manifest() {
    let scene = stored("stranger", 12, false);
    let other = stored("stranger-other", 13, false);
    let mut writer = other.writer(Spec {
        page_size: 512,
        ..other.spec(13)
    });
    let flags = ["--sync-interval", "10ms"];
    let watch = Watch::ready(&other.bucket, &[&other.database()], &flags);
    watch.wait_attached(&other);
    ship_rows(&watch, &other, &mut writer, 2);
    watch.drain();
    let ours = scene.bucket.ltx_keys();
    let theirs = other.bucket.ltx_keys();
    let next = theirs
        .iter()
        .find(|key| key.contains("/0000/") && !ours.contains(key))
        .unwrap();
    let matrix = Matrix::new(scene);
    let copy = damaged(&matrix.scene, |copy| {
        fs::copy(other.bucket.file(next), copy.file(next)).unwrap();
    });
    let stranger = [("error", place(next))];
    let expected = Expected {
        what: "a stranger",
        issues: &stranger,
        mends: false,
    };
    // It may be what somebody stored last: nobody pretends that the newest state is an older one.
    let outcome = matrix.cell(&copy, &expected);
    let made_of_it = (outcome.restore, outcome.new_replica, outcome.following);
    assert_eq!(made_of_it, ("refused", "refused", "refused"));
}
