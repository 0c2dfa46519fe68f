//! V13: what the exit status says, through the real binary.

use super::Shell;

/// Wrong in different ways, each before any request goes out.
const CASES: [(&str, i32); 14] = [
    ("", 2),
    ("xyzzy", 2),
    ("--xyzzy", 2),
    ("snapshot", 2),
    ("snapshot app.db", 2),
    ("watch --bucket my-backups", 2),
    ("watch app.db --bucket my-backups --on-startup maybe", 2),
    ("watch app.db app.db --bucket my-backups", 2),
    ("restore app.db --bucket my-backups", 2),
    ("restore .. --bucket my-backups --output o.db", 2),
    ("restore --all --bucket my-backups", 2),
    ("list", 2),
    ("--config missing.toml list", 3),
    ("watch *.nothing --bucket my-backups", 3),
];

#[test]
fn v13_any_error_is_1_and_finer_only_on_request() {
    let shell = Shell::new();
    shell.write("app.db", "");
    for (line, fine) in CASES {
        let ran = shell.run(line);
        assert_eq!(ran.status, 1, "{line}: {}", ran.stderr);
        assert_eq!(ran.stdout, "", "{line}");
        assert!(ran.stderr.starts_with("walrust"), "{line}: {}", ran.stderr);
        let before = shell.run(&format!("--exit-codes fine {line}"));
        assert_eq!(before.status, fine, "{line}: {}", before.stderr);
        if line.contains(' ') {
            let behind = shell.run(&format!("{line} --exit-codes=fine"));
            assert_eq!(behind.status, fine, "{line}: {}", behind.stderr);
        }
    }
}

#[test]
fn errors_are_one_line_with_command_object_cause_and_next_step() {
    let shell = Shell::new();
    shell.write("app.db", "");
    shell.run("list").fails_with(
        "walrust list: no bucket is named (give --bucket, or set `bucket` in [s3] of walrust.toml)",
    );
    shell
        .run("xyzzy")
        .fails_with("walrust: unrecognized subcommand 'xyzzy' (see: walrust --help)");
    shell.run("restore").fails_with(
        "walrust restore: the following required arguments were not provided: --output <OUTPUT> <NAME> \
         (see: walrust restore --help)",
    );
    shell.run("watch -b my-backups").fails_with(
        "walrust watch: no database is named (name one, or add [[databases]] to walrust.toml)",
    );
    shell
        .run("watch app.db ./app.db -b my-backups")
        .fails_with("walrust watch: app.db and ./app.db are the same file (name it once)");
    shell
        .run("list -b my-backups --endpoint https://user:hunter2@host")
        .fails_with(
            "walrust list: --endpoint: an endpoint has no user or password in it; \
             credentials come from the environment",
        );
}

#[test]
fn as_json_an_error_is_an_object_on_stdout_too() {
    let shell = Shell::new();
    for (line, kind) in [
        ("list --json", "invalid"),
        ("--json xyzzy", "invalid"),
        ("--json --config missing.toml list", "not_found"),
    ] {
        let ran = shell.run(line);
        assert_eq!(ran.status, 1);
        let value: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
        assert_eq!(value["v"], 1, "{line}");
        assert_eq!(value["error"]["kind"], kind, "{line}");
        assert!(value["error"]["message"].is_string());
        assert!(value["error"].get("object").is_some() && value["error"].get("hint").is_some());
        assert!(
            ran.stdout.ends_with("}\n") && ran.stdout.starts_with("{\"v\":1,"),
            "{}",
            ran.stdout
        );
        assert!(ran.stderr.starts_with("walrust"), "{}", ran.stderr);
    }
}
