//! What the examples become, to the last character. `WALRUST_UPDATE_GOLDEN=1` writes the results anew; read the difference.
#![allow(clippy::unwrap_used, reason = "test code")]

use std::path::{Path, PathBuf};

use walrust_operator::offline::{self, Source};
use walrust_operator::render::Settings;
use walrust_operator::yaml;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name)
}

fn source(name: &str) -> Source {
    Source {
        file: name.to_owned(),
        text: std::fs::read_to_string(golden(name)).unwrap(),
    }
}

/// The version is in images and annotations, and is not what is tested here.
fn settings() -> Settings {
    Settings {
        image: "registry.example.test/walrust:0.1.0".to_owned(),
        ..Settings::default()
    }
}

fn compare(name: &str, found: &str) {
    let path = golden(name);
    if std::env::var_os("WALRUST_UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, found).unwrap();
    }
    let wanted = std::fs::read_to_string(&path).unwrap_or_default();
    let different = wanted
        .lines()
        .zip(found.lines())
        .position(|(wanted, found)| wanted != found);
    assert!(
        wanted == found,
        "{} differs from line {:?} on; found:\n{found}",
        path.display(),
        different.map(|at| at + 1),
    );
}

#[test]
fn a_backup_becomes_its_config_map_and_cron_jobs_and_a_restore_its_job() {
    let rendered = offline::render(&[source("backup.yaml")], "default", &settings()).unwrap();
    compare("backup.rendered.yaml", &rendered);
}

#[test]
fn identity_and_keys_of_jobs_lead_to_two_configurations() {
    let rendered = offline::render(&[source("identity.yaml")], "default", &settings()).unwrap();
    compare("identity.rendered.yaml", &rendered);
}

#[test]
fn labelled_workloads_get_the_sidecar_and_others_stay() {
    let sources = [source("backup.yaml"), source("workloads.yaml")];
    let injected = offline::inject(&sources, "default", &settings()).unwrap();
    compare("workloads.injected.yaml", &injected);
    let again = Source {
        file: "again".to_owned(),
        text: injected.clone(),
    };
    let again = offline::inject(&[source("backup.yaml"), again], "default", &settings()).unwrap();
    assert_eq!(again, injected, "what is injected is left alone");
}

#[test]
fn what_is_printed_is_read_back_as_it_was_meant() {
    let sources = [source("backup.yaml"), source("workloads.yaml")];
    let injected = offline::inject(&sources, "default", &settings()).unwrap();
    let before = yaml::documents(&source("workloads.yaml").text).unwrap();
    let after = yaml::documents(&injected).unwrap();
    assert_eq!(after.len(), before.len());
    assert_eq!(after.last(), before.last(), "the Service is not ours");
    let app = "/spec/template/spec/containers";
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(
            after.pointer(app),
            before.pointer(app),
            "containers of the application stay as they are"
        );
    }
}

#[test]
fn faults_name_the_file_the_object_and_the_field() {
    let text = |text: &str| Source {
        file: "b.yaml".to_owned(),
        text: text.to_owned(),
    };
    let backup = source("backup.yaml").text;
    for (sources, message) in [
        (vec![text("a: [")], "b.yaml: "),
        (
            vec![text("a: 1")],
            "no WalrustBackup or WalrustRestore in the files",
        ),
        (
            vec![text(&backup.replace("syncInterval", "syncIntervall"))],
            "b.yaml: WalrustBackup notes: unknown field spec.databases.1.syncIntervall",
        ),
        (
            vec![text(&backup.replace("30m", "30d"))],
            "\"30d\" is not a duration",
        ),
        (
            vec![text(&backup.replace("name: notes-s3", "nam: notes-s3"))],
            "WalrustBackup notes: ",
        ),
        (
            vec![text(&backup.replace("\"17 3 * * *\"", "\"17 3 * *\""))],
            "WalrustBackup notes: spec.schedules: verify:",
        ),
        (
            vec![text(&backup.replace("database: main", "database: mian"))],
            "\"mian\" is none of the databases of the backup (main, tenants/<file name>)",
        ),
        (
            vec![text(&backup.replace("duration: 30s", "duration: 1s"))],
            "walrust.toml: ",
        ),
    ] {
        let error = offline::render(&sources, "default", &settings())
            .unwrap_err()
            .to_string();
        assert!(
            error.contains(message) && !error.contains('\n'),
            "{message}: {error}"
        );
    }
    let error = offline::inject(&[source("workloads.yaml")], "default", &settings()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "StatefulSet notes: no WalrustBackup apps/notes in the files: give its file with -f too"
    );
}
