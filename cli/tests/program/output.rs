//! V12: what goes where.

use std::fs::OpenOptions;
use std::process::Stdio;

use super::Shell;

#[test]
fn v12_logs_never_mix_into_stdout() {
    let shell = Shell::new();
    for line in [
        "-v list",
        "-vvv list",
        "-vvv --log-format json list",
        "--log-format json list",
    ] {
        let mut command = shell.command(line);
        command.env("RUST_LOG", "trace");
        let ran = shell.finish(&mut command);
        assert_eq!(ran.stdout, "", "{line}");
        assert_eq!(ran.status, 1);
    }
}

#[test]
fn with_a_json_log_every_line_of_stderr_is_json() {
    let shell = Shell::new();
    let ran = shell.run("--log-format json list");
    assert!(!ran.stderr.is_empty());
    for line in ran.stderr.lines() {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(value["level"], "ERROR");
        assert_eq!(value["command"], "list");
        assert_eq!(value["message"], "no bucket is named");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let shell = Shell::new();
    for line in ["help", "completions bash", "--version"] {
        let mut command = shell.command(line);
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        command.stdout(Stdio::from(writer));
        let ran = shell.finish(&mut command);
        assert_eq!((ran.status, ran.stderr.as_str()), (0, ""), "{line}");
    }
}

#[test]
fn results_that_cannot_be_written_are_an_error() {
    let shell = Shell::new();
    let mut command = shell.command("help");
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    command.stdout(Stdio::from(full));
    let ran = shell.finish(&mut command);
    assert_eq!(ran.status, 1);
    assert!(ran.stderr.contains("standard output"), "{}", ran.stderr);
}
