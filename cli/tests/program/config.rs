//! The configuration file, from the outside.

use super::Shell;

#[test]
fn every_fault_is_a_line_with_its_place() {
    let shell = Shell::new();
    shell.write(
        "bad.toml",
        "[s3]\nbucket = 7\nregoin = \"x\"\n\n[log]\nheartbeat_url = 3\n",
    );
    shell.run("--config bad.toml list").fails_with(
        "walrust list: bad.toml:2:10: `bucket`: wants a string, found a whole number\n\
         walrust list: bad.toml:3:1: unknown key in [s3]: `regoin` (did you mean `region`?)\n\
         walrust list: bad.toml:6:17: `heartbeat_url`: wants a string, found a whole number",
    );
    shell.write("broken.toml", "[s3]\nbucket = \"a");
    let ran = shell.run("list --config broken.toml");
    assert_eq!(ran.status, 1);
    assert!(
        ran.stderr.starts_with("walrust list: broken.toml:2:"),
        "{}",
        ran.stderr
    );
    assert_eq!(ran.stderr.lines().count(), 1, "{}", ran.stderr);
}

#[test]
fn an_explicit_file_must_be_there_and_the_default_need_not() {
    let shell = Shell::new();
    for line in ["--config no.toml list", "list --config no.toml"] {
        let ran = shell.run(line);
        assert_eq!(ran.status, 1);
        assert!(
            ran.stderr
                .starts_with("walrust list: no.toml: No such file"),
            "{}",
            ran.stderr
        );
    }
    // Without a file the error is about the bucket; with one, about what is in it.
    assert!(shell.run("list").stderr.contains("no bucket is named"));
    shell.write("walrust.toml", "[s4]\n");
    shell
        .run("list")
        .fails_with("walrust list: ./walrust.toml:1:2: unknown section `s4` (did you mean `s3`?)");
    // A broken file in the directory is no reason to refuse help.
    assert_eq!(shell.run("completions bash").status, 0);
}

#[test]
fn variables_are_replaced_and_their_absence_is_told() {
    let shell = Shell::new();
    shell.write("walrust.toml", "[s3]\nbucket = \"${WALRUST_BUCKET}\"\n");
    shell.run("list").fails_with(
        "walrust list: ./walrust.toml:2:10: `bucket`: environment variable WALRUST_BUCKET is not set \
         (give a default with ${WALRUST_BUCKET:-…})",
    );
}

#[test]
fn v8_colliding_names_are_refused_before_anything_is_sent() {
    let shell = Shell::new();
    for directory in ["a", "b"] {
        std::fs::create_dir(shell.path().join(directory)).unwrap();
        shell.write(&format!("{directory}/app.db"), "");
    }
    shell
        .run("watch a/app.db b/app.db -b my-backups")
        .fails_with(
            "walrust watch: a/app.db and b/app.db would both be stored as `app.db` \
         (give one of them another `prefix`)",
        );
}

#[test]
fn an_unusable_endpoint_in_the_environment_is_named_without_its_secret() {
    let shell = Shell::new();
    let mut command = shell.command("list -b my-backups");
    command.env("AWS_ENDPOINT_URL_S3", "https://user:hunter2@host");
    shell.finish(&mut command).fails_with(
        "walrust list: AWS_ENDPOINT_URL_S3: an endpoint has no user or password in it; \
         credentials come from the environment",
    );
}
