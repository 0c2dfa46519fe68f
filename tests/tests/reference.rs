//! The reference of the command line as it is written: every command line and every block of output of
//! `fixtures/reference.console`, against SeaweedFS.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "test code"
)]

use std::fs;
use std::process::Command;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};
use walrust_tests::aged::aged;
use walrust_tests::page::checkout;
use walrust_tests::process::{Process, Signal};
use walrust_tests::program::{binary, walrust};
use walrust_tests::record::each_page;
use walrust_tests::replica::MASKED;
use walrust_tests::scene::Scene;
use walrust_tests::shell::Shell;
use walrust_tests::shim::Shim;
use walrust_tests::support::{PATIENCE, until};
use walrust_tests::transcript::{Pattern, Run, Step, Values, chapters, compare, filled};
use walrust_tests::weed::Weed;

const BUCKETS: [&str; 2] = ["my-backups", "my-bucket"];

/// A chapter while it is played.
struct Stage<'w> {
    weed: &'w Weed,
    shell: Shell,
    values: Values,
    /// Databases whose histories were made elsewhere.
    scenes: Vec<Scene>,
}

#[test]
fn v14_the_reference_as_it_is_written() {
    let text = fs::read_to_string(checkout().join("tests/fixtures/reference.console")).unwrap();
    let mut errors = Vec::new();
    let weed = Weed::start();
    let only = std::env::var("WALRUST_TEST_CHAPTER").ok();
    for chapter in chapters(&text) {
        if only.as_ref().is_some_and(|only| *only != chapter.name) {
            continue;
        }
        eprintln!("WALRUST_TEST_CHAPTER={}", chapter.name);
        for bucket in BUCKETS {
            weed.fresh_bucket(bucket);
        }
        let mut stage = Stage {
            weed: &weed,
            shell: Shell::new(&chapter.name, &weed),
            values: Values::new(),
            scenes: Vec::new(),
        };
        for (line, step) in &chapter.steps {
            if let Err(error) = stage.play(step) {
                let error = format!("reference.console:{line}: {error}");
                eprintln!("{error}");
                errors.push(error);
            }
        }
        let left = stage.shell.in_background();
        assert!(left.is_empty(), "{left:?}");
    }
    assert!(errors.is_empty(), "{} steps differ", errors.len());
}

impl Stage<'_> {
    fn play(&mut self, step: &Step) -> Result<(), String> {
        match step {
            Step::Do(words) => {
                let words: Vec<&str> = words.iter().map(String::as_str).collect();
                self.act(&words)
            }
            Step::File(name, text) => {
                let text = self.shell.exchanged(text);
                fs::write(self.shell.file(name), text).map_err(|error| error.to_string())
            }
            Step::Prepare(line) => {
                let output = self.shell.run(line);
                let said = format!("{line}: {}\n{}", output.status, output.stderr);
                output.status.success().then_some(()).ok_or(said)
            }
            Step::Run(run) => match run.line.strip_suffix(" &") {
                Some(line) => self.start(line, run),
                None => self.run(run),
            },
            Step::Stop(word) => {
                let stopped = self.shell.stop(word).len();
                let nothing = format!("nothing runs that holds {word:?}");
                (stopped > 0).then_some(()).ok_or(nothing)
            }
        }
    }

    fn run(&mut self, run: &Run) -> Result<(), String> {
        let output = self.shell.run(&filled(&run.line, &self.values));
        let said = format!("{}\n{}", output.stdout, output.stderr);
        if output.code() != run.status {
            return Err(format!("{}: status {}\n{said}", run.line, output.code()));
        }
        for error in &run.errors {
            if !output.stderr.contains(error) {
                return Err(format!("{error:?} is not said:\n{said}"));
            }
        }
        if run.errors.is_empty() && !output.stderr.is_empty() {
            return Err(format!("not expected: {}", output.stderr));
        }
        let output = self.as_written(&output.stdout);
        compare(&run.output, &output, &mut self.values)
    }

    /// The first lines are those, and the others come in their order.
    fn start(&mut self, line: &str, run: &Run) -> Result<(), String> {
        let line = filled(line, &self.values);
        self.shell.start(&line);
        for wanted in run.output.iter().filter(|line| *line != "...") {
            self.wait_printed(wanted)?;
        }
        let printed = self.shell.newest().printed();
        let printed = self.as_written(&printed);
        let (Some(first), Some(shown)) = (run.output.first(), printed.lines().next()) else {
            return Ok(());
        };
        let first = Pattern::new(first, &self.values).matches(shown);
        first.map(drop).ok_or(format!("first came {shown:?}"))
    }

    fn wait_printed(&mut self, wanted: &str) -> Result<(), String> {
        let pattern = Pattern::new(wanted, &self.values);
        let back: Vec<(String, &str)> = ["/var/lib", "/etc", "/mnt"]
            .map(|path| (self.shell.exchanged(path), path))
            .to_vec();
        let mut found = None;
        self.shell.newest().wait_for(PATIENCE / 4, |line| {
            let line = back.iter().fold(line.to_owned(), |line, (here, there)| {
                line.replace(here, there)
            });
            found = pattern.matches(&line);
            found.is_some()
        });
        self.values.extend(found.unwrap_or_default());
        Ok(())
    }

    /// Output with this directory's paths and the server's endpoint as the reference has them.
    fn as_written(&self, text: &str) -> String {
        let text = text.replace(self.weed.endpoint(), "https://fly.storage.tigris.dev");
        ["/var/lib", "/etc", "/mnt"]
            .into_iter()
            .fold(text, |text, path| {
                text.replace(&self.shell.exchanged(path), path)
            })
    }

    fn act(&mut self, words: &[&str]) -> Result<(), String> {
        match words {
            ["database", path] => self.shell.database(path),
            ["row", path] => self.row(path),
            ["printed", ..] => return self.wait_printed(&words[1..].join(" ")),
            ["stored", paths @ ..] => paths.iter().for_each(|path| self.stored(path)),
            ["same", one, other] => {
                let (one, other) = (self.image(one), self.image(other));
                assert!(
                    !one.is_empty() && one == other,
                    "{words:?}: {} {}",
                    one.len(),
                    other.len()
                );
            }
            ["replica", replica, source] => self.replica(replica, source),
            ["remove", bucket, key] => self.weed.remove(bucket, key),
            ["spoil", bucket, key] => {
                let mut bytes = self.weed.get(bucket, key);
                let at = bytes.len() / 2;
                bytes[at] ^= 1;
                self.weed.put(bucket, key, &bytes);
            }
            ["watched-in-2024", name] => self.watched_in_2024(name),
            ["watched-for-200-days", name] => {
                let scene = aged("reference", name, None);
                self.weed.fill("my-backups", &scene.bucket);
                fs::copy(scene.database(), self.shell.file(name)).unwrap();
                let wal = scene.beside("-wal");
                if wal.exists() {
                    fs::copy(wal, self.shell.file(&format!("{name}-wal"))).unwrap();
                }
                self.scenes.push(scene);
            }
            ["serve", unit] => self.serve(unit),
            ["terminate"] => {
                self.shell.newest().signal(Signal::TERM);
                self.shell.newest().wait(Duration::from_secs(30));
                let ended = self.shell.take("walrust.service");
                let output = ended.output(PATIENCE).expect_success();
                // Neither a region nor a home was set, and nobody else was asked for them.
                assert_eq!(output.stderr, "");
            }
            _ => return Err(format!("{words:?}: no such thing to do")),
        }
        Ok(())
    }

    fn row(&self, path: &str) {
        let connection = Connection::open(self.shell.file(path)).unwrap();
        connection.busy_timeout(PATIENCE).unwrap();
        connection
            .execute_batch("INSERT INTO t VALUES (randomblob(900))")
            .unwrap();
    }

    /// Waits until what is committed is in the bucket.
    fn stored(&self, path: &str) {
        until("the watch answers", PATIENCE, || {
            let line = format!("walrust sync --state {path} --timeout 30s");
            self.shell.run(&line).status.success().then_some(())
        });
    }

    /// The pages, as SQLite shows them.
    fn image(&self, path: &str) -> Vec<u8> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE;
        let mut image = Vec::new();
        // Where there is no file yet, none is made.
        if let Ok(connection) = Connection::open_with_flags(self.shell.file(path), flags) {
            each_page(&connection, |_, page| image.extend_from_slice(page)).unwrap();
        }
        image
    }

    /// The replica gets there, but for the bytes of the header that are its own.
    fn replica(&self, replica: &str, source: &str) {
        let masked = |path: &str| {
            let mut image = self.image(path);
            let ranges = MASKED.into_iter();
            ranges.for_each(|range| image.get_mut(range).unwrap_or_default().fill(0));
            image
        };
        let source = masked(source);
        assert!(!source.is_empty());
        until("the replica is its source", PATIENCE, || {
            (masked(replica) == source).then_some(())
        });
    }

    /// A watch whose clock shows the 15th of January 2024, at three moments.
    fn watched_in_2024(&mut self, name: &str) {
        let scene = Scene::new("reference", name);
        self.shell.database(name);
        let shim = Shim::build(scene.path());
        // 2024-01-15T10:00:00Z
        let ten = 1_705_312_800_000_i64;
        for (moment, keep) in [(0, None), (1770, Some("at-10-30.db")), (1860, None)] {
            shim.move_clock((ten - walrust_tests::record::now()) / 1000 + moment);
            if moment > 0 {
                self.row(name);
            }
            let mut command = walrust(&scene.bucket, "watch");
            command
                .args(["--once", "--no-metrics"])
                .arg(self.shell.file(name));
            shim.apply_clock(&mut command);
            Process::run(&mut command, PATIENCE).expect_success();
            if let Some(keep) = keep {
                fs::write(self.shell.file(keep), self.image(name)).unwrap();
            }
        }
        self.weed.fill("my-backups", &scene.bucket);
        self.scenes.push(scene);
    }

    /// Starts what a unit starts, with the unit's environment and no other.
    fn serve(&mut self, unit: &str) {
        let text = fs::read_to_string(self.shell.file(unit)).unwrap();
        let text = text.replace("\\\n", " ");
        let of = |key: &str| -> Vec<String> {
            let lines = text.lines().filter_map(|line| line.strip_prefix(key));
            lines.map(str::to_owned).collect()
        };
        let start = of("ExecStart=").concat();
        let words: Vec<&str> = start.split_whitespace().collect();
        assert!(words[0].ends_with("/usr/local/bin/walrust"), "{start}");
        let mut command = Command::new(binary());
        command.env_clear().current_dir("/").args(&words[1..]);
        for variable in of("Environment=") {
            let (name, value) = variable.split_once('=').unwrap();
            command.env(name, value);
        }
        self.shell
            .keep("walrust.service", Process::spawn(&mut command));
    }
}
