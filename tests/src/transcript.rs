//! What somebody types and what they then see, written down: commands with the output that they must have.
//!
//! A line of a transcript begins with what it is:
//!
//! | | |
//! |---|---|
//! | `## NAME` | a chapter: a new shell, empty buckets |
//! | `@ WORD ...` | what the test itself does, by name |
//! | `@ file NAME` | a file, with what follows up to `@ end` in it |
//! | `% LINE` | a command line that only has to succeed |
//! | `$ LINE` | a command line; what follows is its standard output, to the last line. With ` &` at the end it stays in the background, and the lines are waited for in their order |
//! | `> LINE` | goes on with the command line above |
//! | `2> TEXT` | what standard error holds |
//! | `? CODE` | the exit status, unless 0 |
//! | `^C WORD` | Ctrl-C to what runs in the background and holds the word |
//! | `#` | a remark |
//!
//! In the output runs of spaces count as one, `...` alone stands for any lines, and `{KIND}` for a value: see
//! [`Pattern`]. A value with a name, `{sum:hex16}`, is the same everywhere in its chapter.

use std::collections::BTreeMap;

use regex_lite::Regex;

/// One chapter.
#[derive(Debug)]
pub struct Chapter {
    /// Its name.
    pub name: String,
    /// What happens in it, with the number of its line.
    pub steps: Vec<(usize, Step)>,
}

/// One thing that happens.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// The test does it.
    Do(Vec<String>),
    /// A file and its text.
    File(String, String),
    /// Has to succeed.
    Prepare(String),
    /// Is compared.
    Run(Run),
    /// Ctrl-C.
    Stop(String),
}

/// A command and what it must print.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Run {
    /// As typed.
    pub line: String,
    /// Standard output.
    pub output: Vec<String>,
    /// Parts of standard error.
    pub errors: Vec<String>,
    /// Exit status.
    pub status: i32,
}

/// The chapters of a transcript.
pub fn chapters(text: &str) -> Vec<Chapter> {
    let mut chapters: Vec<Chapter> = Vec::new();
    let mut lines = (1..).zip(text.lines());
    while let Some((number, line)) = lines.next() {
        if let Some(name) = line.strip_prefix("## ") {
            let (name, steps) = (name.to_owned(), Vec::new());
            chapters.push(Chapter { name, steps });
            continue;
        }
        if line == "#" || line.starts_with("# ") {
            continue;
        }
        match chapters.last_mut() {
            Some(chapter) if line.starts_with("@ file ") => {
                let text = lines.by_ref().map(|(_, line)| line);
                let text = text.take_while(|line| *line != "@ end");
                let text = text.map(|line| format!("{line}\n")).collect();
                let name = line["@ file ".len()..].to_owned();
                chapter.steps.push((number, Step::File(name, text)));
            }
            Some(chapter) => chapter.add(number, line),
            None => assert!(line.is_empty(), "line {number} is in no chapter"),
        }
    }
    let steps = chapters.iter_mut().flat_map(|chapter| &mut chapter.steps);
    for (_, step) in steps {
        if let Step::Run(run) = step {
            let blank = |line: &String| line.is_empty();
            while run.output.last().is_some_and(blank) {
                run.output.pop();
            }
        }
    }
    chapters
}

impl Chapter {
    fn add(&mut self, number: usize, line: &str) {
        let word = line.split(' ').next().unwrap_or_default();
        let rest = line.get(word.len() + 1..).unwrap_or_default().to_owned();
        let step = match word {
            "@" => Step::Do(rest.split(' ').map(str::to_owned).collect()),
            "%" => Step::Prepare(rest),
            "^C" => Step::Stop(rest),
            "$" => Step::Run(Run {
                line: rest,
                ..Run::default()
            }),
            _ => return self.add_to_run(number, word, &rest, line),
        };
        self.steps.push((number, step));
    }

    fn add_to_run(&mut self, number: usize, word: &str, rest: &str, line: &str) {
        let Some((_, Step::Run(run))) = self.steps.last_mut() else {
            assert!(line.is_empty(), "line {number} belongs to no command");
            return;
        };
        match word {
            ">" => run.line = format!("{}\n{rest}", run.line),
            "2>" => run.errors.push(rest.to_owned()),
            "?" => run.status = rest.parse().unwrap(),
            _ => run.output.push(line.to_owned()),
        }
    }
}

/// What stands for a value of each kind.
const KINDS: [(&str, &str); 14] = [
    ("n", r"\d+"),
    ("size", r"(?:\d+ B|\d+ KB|\d+\.\d [MGT]B)"),
    ("mb", r"\d+\.\d\d MB"),
    ("kb", r"\d+(?:\.\d)?KB"),
    ("took", r"(?:\d+ms|\d+\.\ds)"),
    ("hex12", r"[0-9a-f]{12}"),
    ("hex16", r"[0-9a-f]{16}"),
    ("hex32", r"[0-9a-f]{32}"),
    ("time", r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d{3})?"),
    ("utc", r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z"),
    ("clock", r"\d\d:\d\d:\d\d"),
    ("ltx", r"[0-9a-f]{16}-[0-9a-f]{16}\.ltx"),
    ("age", r"\d+ (?:minute|hour|day|week|month)s? ago"),
    ("any", r".*"),
];

/// The values that have a name.
pub type Values = BTreeMap<String, String>;

/// A line of output with its values left open.
pub struct Pattern(Regex);

impl Pattern {
    /// `line` with the values that are known.
    pub fn new(line: &str, known: &Values) -> Self {
        let hole = Regex::new(r"\{(?:(\w+):)?(\w+)\}").unwrap();
        let mut pattern = "^".to_owned();
        let mut end = 0;
        let line = collapsed(line);
        for found in hole.captures_iter(&line) {
            let whole = found.get(0).unwrap();
            let kind = KINDS.iter().find(|(kind, _)| *kind == &found[2]);
            let name = found.get(1).map(|name| name.as_str());
            let value = known.get(name.unwrap_or(&found[2]));
            let stands_for = match (value, kind, name) {
                (Some(value), _, _) => regex_lite::escape(value),
                (None, Some((_, kind)), Some(name)) => format!("(?P<{name}>{kind})"),
                (None, Some((_, kind)), None) => (*kind).to_owned(),
                (None, None, _) => continue,
            };
            pattern += &regex_lite::escape(&line[end..whole.start()]);
            pattern += &stands_for;
            end = whole.end();
        }
        pattern += &regex_lite::escape(&line[end..]);
        Self(Regex::new(&format!("{pattern}$")).unwrap())
    }

    /// Whether `line` is this, and the values with names in it.
    pub fn matches(&self, line: &str) -> Option<Values> {
        let line = collapsed(line);
        let found = self.0.captures(&line)?;
        let names = self.0.capture_names().flatten();
        let values = names.map(|name| (name.to_owned(), found[name].to_owned()));
        Some(values.collect())
    }
}

/// `line` with its runs of spaces as one.
fn collapsed(line: &str) -> String {
    let words: Vec<&str> = line.split_whitespace().collect();
    words.join(" ")
}

/// Checks that `output` is `expected`; takes up values with names.
///
/// # Errors
/// The first line that is not as expected.
pub fn compare(expected: &[String], output: &str, values: &mut Values) -> Result<(), String> {
    let mut lines = output.trim_end().lines();
    let mut any = false;
    for wanted in expected {
        if wanted == "..." {
            any = true;
            continue;
        }
        let pattern = Pattern::new(wanted, values);
        let found = match any {
            true => lines.find_map(|line| pattern.matches(line)),
            false => lines.next().and_then(|line| pattern.matches(line)),
        };
        any = false;
        match found {
            Some(found) => values.extend(found),
            None => return Err(format!("not as expected: {wanted:?}, in\n{output}")),
        }
    }
    match lines.next() {
        Some(line) if !any => Err(format!("not expected: {line:?}, in\n{output}")),
        _ => Ok(()),
    }
}

/// `line` with the values that have a name put in: `{when}`.
pub fn filled(line: &str, values: &Values) -> String {
    values.iter().fold(line.to_owned(), |line, (name, value)| {
        line.replace(&format!("{{{name}}}"), value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_compared_line_by_line_but_for_spaces_and_values() {
        let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
        let expected = lines("a  {n} b\n{sum:hex12}...\n\nend {other}");
        let is =
            |text: &str, expected: &[String]| compare(expected, text, &mut Values::new()).is_ok();
        let good = "a 17   b\n0123456789ab...\n\nend {other}\n";
        assert!(is(good, &expected));
        for bad in [
            good.replace("17", "x"),
            good.replace("9ab", "9a"),
            good.replace("\n\n", "\n"),
            format!("{good}more"),
            good.replace("end {other}\n", ""),
        ] {
            assert!(!is(&bad, &expected), "{bad}");
        }
        let twice = lines("{sum:n}\n...\n{sum}");
        assert!(is("1\n2\n3\n1", &twice) && !is("1\n2\n3\n4", &twice));
        assert!(is("1\n1", &twice) && !is("1\n1\n5", &twice));
    }

    #[test]
    fn a_transcript_has_chapters_and_steps() {
        let text =
            "# remark\n\n## one\n@ make a.db\n$ cat \\\n> a.db\nx\n\ny\n\n? 1\n2> no\n^C cat\n";
        let chapters = chapters(text);
        let run = Run {
            line: "cat \\\na.db".to_owned(),
            output: ["x", "", "y"].map(str::to_owned).to_vec(),
            errors: vec!["no".to_owned()],
            status: 1,
        };
        let steps: Vec<&Step> = chapters[0].steps.iter().map(|(_, step)| step).collect();
        let make = Step::Do(vec!["make".to_owned(), "a.db".to_owned()]);
        assert_eq!(
            steps,
            [&make, &Step::Run(run), &Step::Stop("cat".to_owned())]
        );
    }
}
