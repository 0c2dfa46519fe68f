//! Pages of the documentation: what they tell a reader to type, or to write into a file.
//!
//! What cannot be typed as it stands is marked with an HTML comment in the line above its block (and a blank line, if
//! you like): `<!-- not run: WHY -->`, or `<!-- file: NAME -->` for the text of a file that lines use.

use std::fs;
use std::path::{Path, PathBuf};

/// A block of a page that is set as code.
#[derive(Debug, PartialEq, Eq)]
pub struct Block {
    /// Of its first line in the page.
    pub line: usize,
    /// `sh`, `toml`, `json`, ...; `sh` where none is named.
    pub language: String,
    /// What is said above it.
    pub mark: Option<Mark>,
    /// Without its indentation.
    pub text: String,
}

/// What is said above a block.
#[derive(Debug, PartialEq, Eq)]
pub enum Mark {
    /// Cannot be run here.
    NotRun,
    /// The text of this file.
    File(String),
}

impl Mark {
    fn of(line: &str) -> Option<Self> {
        let text = line.strip_prefix("<!-- ")?.strip_suffix(" -->")?;
        match text.split_once(": ")? {
            ("not run", _) => Some(Self::NotRun),
            ("file", name) => Some(Self::File(name.to_owned())),
            _ => None,
        }
    }
}

/// The checkout's folder.
pub fn checkout() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().expect("tests/ lies in it").to_owned()
}

/// The README and the pages of `docs/`, below [`checkout`].
pub fn pages() -> Vec<String> {
    let folder = fs::read_dir(checkout().join("docs")).unwrap();
    let mut pages: Vec<String> = folder
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".md"))
        .map(|name| format!("docs/{name}"))
        .collect();
    pages.push("README.md".to_owned());
    pages.sort();
    pages
}

/// The blocks of a page: fenced ones, and those that are indented by four spaces or more behind a blank line.
pub fn blocks(text: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut lines = (1..).zip(text.lines()).peekable();
    let (mut mark, mut blank) = (None, true);
    while let Some((number, line)) = lines.next() {
        let indent = indent_of(line);
        let (language, body) = if let Some(language) = line.trim_start().strip_prefix("```") {
            let body = lines.by_ref().map(|(_, line)| line);
            let body = body.take_while(|line| !line.trim_start().starts_with("```"));
            (
                language,
                body.map(|line| unindented(line, indent)).collect(),
            )
        } else if blank && indent >= 4 {
            let mut body = vec![unindented(line, indent)];
            let goes_on = |line: &str| line.trim().is_empty() || indent_of(line) >= indent;
            while let Some((_, line)) = lines.next_if(|(_, line)| goes_on(line)) {
                body.push(unindented(line, indent));
            }
            ("", body)
        } else {
            let found = Mark::of(line.trim());
            blank = line.trim().is_empty() || found.is_some();
            if !line.trim().is_empty() {
                mark = found;
            }
            continue;
        };
        let body: Vec<&str> = body;
        blocks.push(Block {
            line: number,
            language: if language.is_empty() { "sh" } else { language }.to_owned(),
            mark: mark.take(),
            text: format!("{}\n", body.join("\n").trim_end()),
        });
        blank = true;
    }
    blocks
}

fn indent_of(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

fn unindented(line: &str, by: usize) -> &str {
    line.get(by.min(indent_of(line))..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_found_with_their_marks() {
        let page = "Text\n    goes on\n\n    one\n\n    two\n\n* item\n\n      three\n\n<!-- not run: no systemd -->\n\n    \
                    four\n\n<!-- file: a.toml -->\n```toml\n[s3]\n\n  x = 1\n```\nend\n\n    five\n";
        let block = |line, language: &str, mark, text: &str| Block {
            line,
            language: language.to_owned(),
            mark,
            text: text.to_owned(),
        };
        let file = Mark::File("a.toml".to_owned());
        assert_eq!(
            blocks(page),
            [
                block(4, "sh", None, "one\n\ntwo\n"),
                block(10, "sh", None, "three\n"),
                block(14, "sh", Some(Mark::NotRun), "four\n"),
                block(17, "toml", Some(file), "[s3]\n\n  x = 1\n"),
                block(24, "sh", None, "five\n"),
            ]
        );
    }
}
