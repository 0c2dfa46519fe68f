//! `walrust help`, `completions` and `man`: what the parser knows about itself.

use std::path::Path;

use clap::CommandFactory as _;
use clap_complete::Shell;
use serde::Serialize;
use walrust_core::{Error, ErrorKind, Result};

use crate::args::Cli;
use crate::exit::Failed;
use crate::output::Out;

/// Prints the help of `command`, or of the program.
pub(crate) fn help(command: Option<&str>, out: &mut Out) -> Result<(), Failed> {
    let mut program = Cli::command();
    program.build();
    let shown = match command {
        None => &mut program,
        Some(name) => program.find_subcommand_mut(name).ok_or_else(|| {
            Error::new(ErrorKind::Invalid, "no such command")
                .on(name)
                .hint("see: walrust help")
        })?,
    };
    out.raw(&shown.render_long_help().to_string());
    Ok(())
}

/// Prints the completion script of `shell`.
pub(crate) fn completions(shell: Shell, out: &mut Out) -> Result<(), Failed> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "walrust", &mut script);
    out.raw(&String::from_utf8_lossy(&script));
    Ok(())
}

#[derive(Serialize)]
struct Pages {
    files: Vec<String>,
}

/// Writes the man pages into `directory`.
pub(crate) fn man(directory: &Path, out: &mut Out) -> Result<()> {
    let fault = |error| Error::io(directory.display(), error);
    std::fs::create_dir_all(directory).map_err(fault)?;
    clap_mangen::generate_to(Cli::command(), directory).map_err(fault)?;
    let mut files: Vec<String> = std::fs::read_dir(directory)
        .map_err(fault)?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.starts_with("walrust") && name.ends_with(".1"))
        .collect();
    files.sort();
    out.line(format!(
        "Wrote {} man pages to {}",
        files.len(),
        directory.display()
    ));
    out.json(&Pages { files });
    Ok(())
}
