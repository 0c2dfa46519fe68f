//! `restore` and `list` over a directory that another program wrote.

use super::Shell;

const STORE: &str = concat!(
    "file://",
    env!("CARGO_MANIFEST_DIR"),
    "/../tests/fixtures/litestream"
);

/// The fixtures' directory without `..`, as a bucket.
fn store() -> String {
    let path = std::path::Path::new(STORE.strip_prefix("file://").unwrap());
    format!("file://{}", path.canonicalize().unwrap().display())
}

#[test]
fn restore_prints_its_steps_and_refuses_to_overwrite() {
    let (shell, store) = (Shell::new(), store());
    let line = format!("restore p512 --bucket {store} --output restored.db");
    let ran = shell.run(&line);
    assert_eq!((ran.status, ran.stderr.as_str()), (0, ""), "{ran:?}");
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert_eq!(lines[0], format!("Restoring p512 from {store}/..."));
    assert!(
        lines[1].starts_with("  Downloading snapshot... done ("),
        "{}",
        lines[1]
    );
    assert_eq!(lines[2], "  Applying WAL segments... done (1 segments)");
    assert!(
        lines[3].starts_with("  Verifying checksum... ✓ "),
        "{}",
        lines[3]
    );
    assert_eq!(&lines[4..], ["✓ Restored to restored.db"]);
    let before = std::fs::read(shell.path().join("restored.db")).unwrap();

    let ran = shell.run(&line);
    assert_eq!(ran.status, 1);
    assert!(
        ran.stderr.starts_with("walrust restore: restored.db: "),
        "{}",
        ran.stderr
    );
    let missing = shell.run(&format!("{line} --point-in-time 99 --force"));
    assert_eq!(missing.status, 1);
    assert_eq!(
        std::fs::read(shell.path().join("restored.db")).unwrap(),
        before
    );

    let ran = shell.run(&format!("{line} --if-missing"));
    assert_eq!(
        (ran.status, ran.stdout.as_str()),
        (0, "✓ restored.db is there already: nothing to do\n")
    );
}

/// What the Job of a Kubernetes restore leaves for whoever made it, however it ends.
#[test]
fn a_restore_leaves_its_report_whether_it_went_well_or_not() {
    let (shell, store) = (Shell::new(), store());
    let line =
        format!("restore p512 -b {store} -o r.db --point-in-time txid:3 --report report.json");
    let report = |ok: bool| {
        let text = std::fs::read_to_string(shell.path().join("report.json")).unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (&value["task"], &value["ok"]),
            (&"restore".into(), &ok.into())
        );
        value["databases"][0].clone()
    };
    assert_eq!(shell.run(&line).status, 0);
    let entry = report(true);
    assert_eq!(
        (&entry["name"], &entry["txid"]),
        (&"p512".into(), &3.into())
    );
    let bytes = std::fs::metadata(shell.path().join("r.db")).unwrap().len();
    assert_eq!(entry["message"], format!("{bytes} bytes restored"));
    assert_eq!(shell.run(&line).status, 1, "the output exists now");
    let entry = report(false);
    assert!(
        entry["message"].as_str().unwrap().starts_with("r.db: "),
        "{entry}"
    );
}

#[test]
fn a_restore_as_json_is_one_object() {
    let (shell, store) = (Shell::new(), store());
    let ran = shell.run(&format!(
        "restore p512 -b {store} -o r.db --point-in-time txid:3 --json"
    ));
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    let value: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((&value["v"], &value["txid"]), (&1.into(), &3.into()));
    assert_eq!(value["txid_hex"], "0000000000000003");
    assert_eq!(value["format"], "litestream");
    assert_eq!(value["verified"], "quick");
    assert_eq!(value["outcome"], "restored");
}

#[test]
fn no_backup_is_an_error_that_names_near_ones_or_a_fresh_start_on_request() {
    let (shell, store) = (Shell::new(), store());
    let line = format!("restore p521 -b {store} -o r.db --exit-codes fine");
    let ran = shell.run(&line);
    assert_eq!((ran.status, ran.stderr.lines().count()), (3, 1), "{ran:?}");
    assert!(ran.stderr.contains("did you mean p512?"), "{}", ran.stderr);
    let ran = shell.run(&format!("{line} --when-no-backup start-fresh"));
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    assert!(!shell.path().join("r.db").exists());
    // A restore point that is not there is no reason to start afresh.
    let point =
        format!("restore p512 -b {store} -o r.db --point-in-time 99 --when-no-backup start-fresh");
    assert_eq!(shell.run(&point).status, 1);
    // Nor is a bucket that cannot be read.
    let lost = format!("file://{}/unmounted", shell.path().display());
    for line in [
        "list",
        "list a",
        "restore a -o r.db --when-no-backup start-fresh",
    ] {
        let ran = shell.run(&format!("{line} -b {lost}"));
        assert_eq!(ran.status, 1, "{line}");
        assert!(
            ran.stderr.contains("unmounted: No such file"),
            "{}",
            ran.stderr
        );
    }
    assert!(!shell.path().join("unmounted").exists());
}

#[test]
fn restore_all_finds_patterns_in_the_bucket() {
    let (shell, store) = (Shell::new(), store());
    shell.write(
        "walrust.toml",
        &format!(
            "[s3]\nbucket = \"{store}\"\n[[databases]]\npath = \"p4*\"\n[[databases]]\npath = \"one.db\"\nname = \"p512\"\n"
        ),
    );
    let ran = shell.run("restore --all");
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    for file in ["p4096", "p4096-frame", "one.db"] {
        assert!(shell.path().join(file).exists(), "{file}");
    }
    // One that cannot be restored does not stop the others.
    std::fs::remove_file(shell.path().join("one.db")).unwrap();
    let ran = shell.run("restore --all --json");
    assert_eq!(ran.status, 1);
    let value: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(value["ok"], false);
    assert!(shell.path().join("one.db").exists());
    assert_eq!(shell.run("restore --all --if-missing").status, 0);
    assert_eq!(
        shell
            .run("restore --all --if-missing --point-in-time 3")
            .status,
        1
    );
}

#[test]
fn list_shows_databases_and_one_databases_files() {
    let (shell, store) = (Shell::new(), store());
    let ran = shell.run(&format!("list -b {store}"));
    assert_eq!((ran.status, ran.stderr.as_str()), (0, ""));
    assert!(
        ran.stdout
            .starts_with(&format!("Databases in {store}/:\n\n  p4096 (litestream)\n")),
        "{}",
        ran.stdout
    );
    let ran = shell.run(&format!("list p512 -b {store} --json"));
    let value: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(value["points"].as_array().unwrap().len(), 5);
    let ran = shell.run(&format!("list p51 -b {store}"));
    assert_eq!(ran.status, 1);
    assert!(ran.stderr.contains("did you mean p512?"), "{}", ran.stderr);
    let ran = shell.run(&format!("list -b file://{}", shell.path().display()));
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    assert!(ran.stdout.starts_with("No databases in "), "{}", ran.stdout);
}
