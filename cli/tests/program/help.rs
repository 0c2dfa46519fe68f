//! Help, version, completions, man pages.

use super::Shell;

const COMMANDS: [&str; 14] = [
    "snapshot",
    "watch",
    "restore",
    "list",
    "compact",
    "prune",
    "explain",
    "doctor",
    "status",
    "sync",
    "detach",
    "completions",
    "man",
    "help",
];

#[test]
fn help_is_on_stdout_with_status_0_on_every_level() {
    let shell = Shell::new();
    let mut lines: Vec<String> = ["help", "-h", "--help"].map(String::from).to_vec();
    for command in COMMANDS {
        lines.extend([
            format!("help {command}"),
            format!("{command} -h"),
            format!("{command} --help"),
            // Whatever else is missing or wrong, help was asked for.
            format!("--config /nowhere {command} --help"),
        ]);
    }
    for line in lines {
        let ran = shell.run(&line);
        assert_eq!((ran.status, ran.stderr.as_str()), (0, ""), "{line}");
        assert!(
            ran.stdout.contains("Usage: walrust"),
            "{line}: {}",
            ran.stdout
        );
        assert!(!ran.stdout.contains('\u{1b}'), "{line}");
    }
}

#[test]
fn commands_are_listed_in_their_order_with_their_summaries() {
    let text = Shell::new().run("help").stdout;
    let mut rest = text.as_str();
    for line in [
        "snapshot     Take an immediate snapshot",
        "watch        Watch SQLite databases and sync WAL changes to S3",
        "restore      Restore a database from S3",
        "list         List databases in S3 bucket",
        "compact      Clean up old snapshots using retention policy [alias: prune]",
        "help         Print help for a command",
    ] {
        let at = rest
            .find(line)
            .unwrap_or_else(|| panic!("{line} in {rest}"));
        rest = &rest[at..];
    }
}

#[test]
fn usage_has_the_shapes_of_the_reference() {
    let shell = Shell::new();
    for (command, usage) in [
        (
            "snapshot",
            "walrust snapshot [OPTIONS] --bucket <BUCKET> <DATABASE>",
        ),
        (
            "watch",
            "walrust watch [OPTIONS] --bucket <BUCKET> <DATABASES>...",
        ),
        (
            "restore",
            "walrust restore [OPTIONS] --output <OUTPUT> --bucket <BUCKET> <NAME>",
        ),
        ("list", "walrust list [OPTIONS] --bucket <BUCKET>"),
        (
            "compact",
            "walrust compact [OPTIONS] --bucket <BUCKET> <NAME>",
        ),
    ] {
        let text = shell.run(&format!("{command} --help")).stdout;
        assert!(text.contains(usage), "{text}");
        for flag in [
            "-b, --bucket",
            "--endpoint",
            "--region",
            "--config",
            "--json",
            "-h, --help",
        ] {
            assert!(text.contains(flag), "{command}: {flag}");
        }
    }
}

#[test]
fn version_is_name_and_number() {
    let shell = Shell::new();
    for line in ["--version", "-V", "watch --version"] {
        let ran = shell.run(line);
        assert_eq!(ran.status, 0);
        assert_eq!(
            ran.stdout,
            concat!("walrust ", env!("CARGO_PKG_VERSION"), "\n")
        );
    }
}

#[test]
fn no_command_is_an_error_that_shows_them() {
    let ran = Shell::new().run("");
    assert_eq!((ran.status, ran.stdout.as_str()), (1, ""));
    assert!(ran.stderr.contains("snapshot     Take"), "{}", ran.stderr);
    Shell::new()
        .run("help xyzzy")
        .fails_with("walrust help: xyzzy: no such command (see: walrust help)");
}

#[test]
fn completions_and_man_pages_are_written() {
    let shell = Shell::new();
    for name in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let ran = shell.run(&format!("completions {name}"));
        assert_eq!((ran.status, ran.stderr.as_str()), (0, ""));
        assert!(ran.stdout.contains("snapshot"), "{name}");
    }
    let ran = shell.run("man pages/deep");
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    for page in ["walrust.1", "walrust-watch.1", "walrust-restore.1"] {
        assert!(
            shell.path().join("pages/deep").join(page).exists(),
            "{page}"
        );
    }
    let ran = shell.run("man --json pages");
    let value: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(value["v"], 1);
    assert!(
        value["files"]
            .as_array()
            .unwrap()
            .contains(&"walrust-list.1".into())
    );
}
