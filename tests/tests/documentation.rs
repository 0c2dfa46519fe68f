//! The examples of the README and of the pages in `docs/`, typed as they are written into an empty directory.
//!
//! SeaweedFS stands in for every endpoint, its keys for those of the examples, and absolute paths lie below the
//! directory; times and TXIDs of restore points are exchanged for ones that there are. A watch that a line starts runs
//! until a line starts the next one.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "test code"
)]

use std::fs;
use std::time::Duration;

use serde_json::Value;
use walrust_tests::page::{Block, Mark, blocks, checkout, pages};
use walrust_tests::process::Signal;
use walrust_tests::shell::Shell;
use walrust_tests::support::{PATIENCE, until};
use walrust_tests::weed::Weed;

/// A page while it is read.
struct Reader {
    shell: Shell,
}

#[test]
fn v14_the_examples_of_the_documentation() {
    let weed = Weed::start();
    let only = std::env::var("WALRUST_TEST_PAGE").ok();
    for page in pages() {
        if only.as_ref().is_some_and(|only| *only != page) {
            continue;
        }
        let text = fs::read_to_string(checkout().join(&page)).unwrap();
        let blocks = blocks(&text);
        if blocks.is_empty() {
            continue;
        }
        eprintln!("WALRUST_TEST_PAGE={page}");
        for bucket in ["my-backups", "my-bucket"] {
            weed.fresh_bucket(bucket);
        }
        let mut reader = Reader {
            shell: Shell::new("documentation", &weed),
        };
        reader.write_files(&blocks);
        reader.prepare(&page);
        for block in &blocks {
            if let Err(error) = reader.read(block) {
                panic!("{page}:{}: {error}\n{}", block.line, block.text);
            }
        }
        if page == "docs/operations.md" {
            let unit = fs::read_to_string(checkout().join("docs/walrust.service")).unwrap();
            reader.serve(&unit).unwrap();
        }
        reader.close();
    }
}

impl Reader {
    /// Databases, streams and programs that a page takes for granted.
    fn prepare(&mut self, page: &str) {
        match page {
            "docs/cli.md" => {
                for database in ["app.db", "users.db", "/var/lib/app/orders.db"] {
                    self.shell.database(database);
                }
                let configuration =
                    "[s3]\nbucket = \"my-backups\"\n[[databases]]\npath = \"/var/lib/app/*.db\"\n";
                for file in [
                    "walrust.toml",
                    "/etc/walrust.toml",
                    "/etc/walrust/walrust.toml",
                ] {
                    self.write(file, configuration);
                }
                self.shell.script("myapp", "exec sleep 1");
                self.good("mkdir -p /mnt/scratch");
                self.stored_elsewhere();
            }
            "docs/replicas.md" => self.stored_elsewhere(),
            "docs/operations.md" => {
                self.shell.database("/var/lib/app/app.db");
                self.good("walrust watch --once --config /etc/walrust/walrust.toml");
            }
            "docs/migrating-from-litestream.md" => {
                self.shell.with_litestream();
                self.shell.database("/var/lib/app/app.db");
                self.good("export LITESTREAM_ACCESS_KEY_ID=x LITESTREAM_SECRET_ACCESS_KEY=x");
                self.litestream("litestream replicate -config litestream.yml", "litestream");
            }
            "README.md" => {
                // Both build what is built here already.
                self.shell.script("cargo", "");
                self.good(
                    "mkdir -p target/debug && ln -s \"$(command -v walrust)\" target/debug/walrust",
                );
                fs::copy(checkout().join("demo.sh"), self.shell.file("demo.sh")).unwrap();
            }
            _ => {}
        }
    }

    /// Streams for replicas: `mydb` in a bucket, below a prefix, and in a directory.
    fn stored_elsewhere(&mut self) {
        self.shell.database("/opt/mydb");
        for bucket in ["my-bucket", "my-bucket/prefix", "file:///mnt/nas"] {
            self.good(&format!("walrust watch /opt/mydb --once --bucket {bucket}"));
            self.good("rm -r /opt/.mydb-walrust");
        }
        self.good("mkdir -p /var/lib/app");
    }

    fn write(&self, name: &str, text: &str) {
        let file = self.shell.file(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, self.shell.exchanged(text)).unwrap();
    }

    /// The files that a page shows are there before anything is typed.
    fn write_files(&self, blocks: &[Block]) {
        for block in blocks {
            if let Some(Mark::File(name)) = &block.mark {
                self.write(name, &block.text);
            }
        }
    }

    /// Runs a line of ours.
    #[track_caller]
    fn good(&self, line: &str) {
        self.shell.run(line).expect_success();
    }

    fn read(&mut self, block: &Block) -> Result<(), String> {
        match (&block.mark, block.language.as_str()) {
            (Some(Mark::NotRun), _) => {
                let walrust = |line: &&str| line.starts_with("walrust ");
                match block.text.lines().find(walrust) {
                    Some(line) => Err(format!("why not run {line:?}?")),
                    None => Ok(()),
                }
            }
            (_, "toml") => self.explain(&block.text),
            (_, "json") => serde_json::from_str::<Value>(&block.text)
                .map(|_| ())
                .map_err(|error| error.to_string()),
            (_, "ini") => self.serve(&block.text),
            (None, "sh") => {
                let text = block.text.replace("\\\n", " ");
                text.lines().try_for_each(|line| {
                    let typed = self.type_in(line.trim());
                    typed.map_err(|error| format!("{line}: {error}"))
                })
            }
            _ => Ok(()),
        }
    }

    /// A configuration is taken as it is; one of databases alone belongs to some bucket.
    fn explain(&mut self, text: &str) -> Result<(), String> {
        let bucket = match text.contains("[s3]") {
            true => "",
            false => "[s3]\nbucket = \"my-backups\"\n",
        };
        self.write("explained.toml", &format!("{bucket}{text}"));
        let explained = self.shell.run("walrust explain --config explained.toml");
        self.good("rm explained.toml");
        explained
            .status
            .success()
            .then_some(())
            .ok_or(explained.stderr)
    }

    /// What a unit starts, with its environment.
    fn serve(&mut self, unit: &str) -> Result<(), String> {
        let of = |key: &str| -> Vec<&str> {
            unit.lines()
                .filter_map(|line| line.strip_prefix(key))
                .collect()
        };
        for variable in of("Environment=") {
            self.good(&format!("export {variable}"));
        }
        for file in of("EnvironmentFile=") {
            self.good(&format!("set -a; . {file}; set +a"));
        }
        let start = of("ExecStart=").concat();
        let line = start
            .strip_prefix("/usr/local/bin/")
            .ok_or("no ExecStart")?;
        self.type_in(line)
    }

    fn type_in(&mut self, line: &str) -> Result<(), String> {
        let words: Vec<&str> = line
            .split_whitespace()
            .take_while(|word| !word.starts_with('#'))
            .collect();
        let has = |word: &str| words.contains(&word);
        match words[..] {
            [] => Ok(()),
            ["walrust", "watch", ..] if !has("--once") && !has("--exec") => {
                self.watch(line, &words)
            }
            ["walrust", "replicate", ..] if !has("--once") => self.replicate(line, &words),
            ["walrust", "status" | "sync" | "detach", ..] => {
                self.need_watch(&words);
                self.run(line)?;
                if has("detach") {
                    // Or the end of the watch would have to say that it may have missed something.
                    let again = line.replace("5m", "0s");
                    self.run(&again)?;
                }
                Ok(())
            }
            // The page tells to write another path into the configuration for these.
            ["litestream", "restore", ..] => {
                self.good("sed -i 's|path: litestream.*/app.db|path: back/app.db|' litestream.yml");
                self.run(line)
            }
            ["litestream", "replicate", ..] => {
                self.shell.stop("walrust watch");
                self.good("sed -i 's|path: back/app.db|path: litestream-2/app.db|' litestream.yml");
                self.litestream(line, "litestream-2");
                Ok(())
            }
            // What systemd does is done by hand.
            ["systemctl", _, "litestream"] => {
                self.end_litestream();
                Ok(())
            }
            _ => self.run(line),
        }
    }

    /// Runs one line to its end. Each example stands for itself: what an earlier one left at its output goes.
    fn run(&mut self, line: &str) -> Result<(), String> {
        if line.starts_with("walrust watch") {
            self.shell.stop("walrust watch");
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        let after = |flag: &str| {
            let at = words.iter().position(|word| *word == flag)?;
            words.get(at + 1).copied()
        };
        if let (Some(output), false) = (after("--output"), line.contains("--if-missing")) {
            let _ = fs::remove_file(self.shell.file(output));
        }
        if let Some(local) = after("--local") {
            self.forget_replica(local);
        }
        let output = self.shell.run(&self.with_a_point(line));
        match output.status.success() {
            true => Ok(()),
            false => Err(format!(
                "{}\n{}{}",
                output.status, output.stdout, output.stderr
            )),
        }
    }

    /// `line` with a restore point that there is.
    fn with_a_point(&self, line: &str) -> String {
        let Some((before, target)) = line.split_once("--point-in-time ") else {
            return line.to_owned();
        };
        let target = target.split(" #").next().unwrap_or_default().trim();
        let listed = self
            .shell
            .run("walrust list app.db --bucket my-backups --json");
        let point = &listed.expect_success().json()["latest"];
        let ours = match target.parse::<u64>() {
            Ok(_) => point["txid"].to_string(),
            Err(_) => point["time"].to_string(),
        };
        format!("{before}--point-in-time {ours}")
    }

    /// Starts a watch in the place of the one that runs, and waits until everything is stored.
    fn watch(&mut self, line: &str, words: &[&str]) -> Result<(), String> {
        self.shell.stop("walrust watch");
        self.shell
            .start(line)
            .wait_for(PATIENCE, |line| line.starts_with("Watching "));
        let named = words.iter().filter(|word| word.ends_with(".db"));
        let mut named: Vec<String> = named.map(|word| (*word).to_owned()).collect();
        if named.is_empty() {
            named = ["/var/lib/app/orders.db", "/var/lib/app/app.db"]
                .map(str::to_owned)
                .into_iter()
                .filter(|path| self.shell.file(path).exists())
                .collect();
        }
        for database in named {
            until("the watch has stored it", PATIENCE, || {
                let sync = format!("walrust sync --state {database} --timeout 30s");
                self.shell.run(&sync).status.success().then_some(())
            });
        }
        Ok(())
    }

    fn need_watch(&mut self, words: &[&str]) {
        let running = self.shell.in_background();
        let database = words.last().copied().unwrap_or_default();
        let database = words
            .iter()
            .position(|word| *word == "--state")
            .map_or(database, |at| words[at + 1]);
        let watches = |line: &&str| line.starts_with("walrust watch") && line.contains(database);
        if !running.iter().any(watches) {
            let line = format!("walrust watch {database} --bucket my-backups");
            let words: Vec<&str> = line.split_whitespace().collect();
            self.watch(&line, &words).unwrap();
        }
    }

    fn replicate(&mut self, line: &str, words: &[&str]) -> Result<(), String> {
        self.shell.stop("walrust replicate");
        let local = words.iter().position(|word| *word == "--local");
        self.forget_replica(words[local.ok_or("no --local")? + 1]);
        let process = self.shell.start(line);
        process.wait_for(PATIENCE, |line| line.starts_with("Bootstrapped"));
        Ok(())
    }

    fn forget_replica(&self, local: &str) {
        for left in ["", "-wal", "-shm", "-replica-state"] {
            let _ = fs::remove_file(self.shell.file(&format!("{local}{left}")));
        }
    }

    fn litestream(&mut self, line: &str, path: &str) {
        let process = self.shell.start(line);
        process.wait_for(PATIENCE, |line| line.contains("replicating to"));
        // It says nothing of what is stored.
        let ready = || {
            let list = format!("walrust list --json --bucket my-backups/{path}");
            let listed = self.shell.run(&list);
            listed.stdout.contains("app.db").then_some(())
        };
        until("Litestream has stored something", PATIENCE, ready);
    }

    fn end_litestream(&mut self) {
        let running = self.shell.in_background();
        if running.iter().any(|line| line.starts_with("litestream")) {
            let mut process = self.shell.take("litestream");
            process.signal(Signal::INT);
            process.wait(Duration::from_secs(30));
        }
    }

    /// Everything that a page left running ends well.
    fn close(&mut self) {
        self.end_litestream();
        self.shell.stop("");
    }
}
