//! `walrust-operator`: what a cluster runs, and the same without a cluster.

mod args;

use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;
use walrust_operator::offline::{self, Source};
use walrust_operator::render::Settings;
use walrust_operator::{api, yaml};

use crate::args::{Cli, Command, OfflineArgs};

fn main() -> ExitCode {
    let Cli { command } = Cli::parse();
    let result = match command {
        Command::Crds => crds(),
        Command::Render(args) => without_cluster(&args, offline::render),
        Command::Inject(args) => without_cluster(&args, offline::inject),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "walrust-operator: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn crds() -> anyhow::Result<()> {
    let documents: Result<Vec<String>, yaml::Error> = api::all().iter().map(api::to_yaml).collect();
    print(&documents.context("write the definitions")?.join("---\n"))
}

fn without_cluster(
    args: &OfflineArgs,
    work: fn(&[Source], &str, &Settings) -> Result<String, offline::Error>,
) -> anyhow::Result<()> {
    let mut settings = match &args.settings {
        Some(path) => Settings::parse(&read(path)?).with_context(|| path.display().to_string())?,
        None => Settings::default(),
    };
    if let Some(image) = &args.image {
        settings.image.clone_from(image);
    }
    let sources = args.files.iter().map(|path| {
        Ok(Source {
            file: path.display().to_string(),
            text: read(path)?,
        })
    });
    let sources = sources.collect::<anyhow::Result<Vec<Source>>>()?;
    print(&work(&sources, &args.namespace, &settings)?)
}

/// A file of text; `-` is stdin.
fn read(path: &Path) -> anyhow::Result<String> {
    if path == Path::new("-") {
        let mut text = String::new();
        let read = io::stdin().lock().read_to_string(&mut text);
        return read.map(|_| text).context("read stdin");
    }
    std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))
}

/// Prints a result. A reader who has seen enough is no error.
fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        done => done.context("write to stdout"),
    }
}
