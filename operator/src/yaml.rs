//! YAML in and out; the only module that names the library.

use serde::{Deserialize, Serialize};

/// YAML that is none, or a value that has no form in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Error(String);

/// `value` as one document. Strings that some reader would take for something else are quoted.
///
/// # Errors
/// Where the value has keys that are no strings.
pub fn to_string(value: &impl Serialize) -> Result<String, Error> {
    // The rules of Kubernetes' objects stand in strings; folding would hide where their lines end.
    let options =
        serde_saphyr::ser_options! { prefer_block_scalars: true, folded_wrap_chars: 1_000_000 };
    serde_saphyr::to_string_with_options(value, options).map_err(|error| Error(error.to_string()))
}

/// The documents of `text`, without the empty ones, read as Kubernetes' own tools do: `yes` is true, 0440 octal.
///
/// # Errors
/// Says where.
pub fn documents(text: &str) -> Result<Vec<serde_json::Value>, Error> {
    let options = serde_saphyr::options! { legacy_octal_numbers: true, with_snippet: false };
    serde_saphyr::from_multiple_with_options(text, options).map_err(|error| Error(one_line(&error)))
}

/// The one document of `text`.
///
/// # Errors
/// Says where, and what is unknown.
pub fn one<T: for<'de> Deserialize<'de>>(text: &str) -> Result<T, Error> {
    let options = serde_saphyr::options! { legacy_octal_numbers: true, with_snippet: false };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| Error(one_line(&error)))
}

fn one_line(error: &impl std::fmt::Display) -> String {
    let text = error.to_string();
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    lines.join(", ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn strings_stay_strings_for_every_reader() {
        let text = to_string(
            &json!({"a": "yes", "b": "0440", "c": "1e3", "d": "null", "e": "1:30", "f": "~"}),
        )
        .unwrap();
        assert_eq!(
            documents(&text).unwrap(),
            [json!({"a": "yes", "b": "0440", "c": "1e3", "d": "null", "e": "1:30", "f": "~"})]
        );
        assert!(
            text.lines().all(|line| line.contains(['"', '\''])),
            "{text}"
        );
    }

    #[test]
    fn documents_are_read_as_kubernetes_reads_them() {
        let read =
            documents("---\n# nothing\n---\nmode: 0440\non: yes\n---\nb: &x {c: 1}\nd: *x\n")
                .unwrap();
        assert_eq!(
            read,
            [
                json!({"mode": 288, "on": true}),
                json!({"b": {"c": 1}, "d": {"c": 1}})
            ]
        );
        let error = documents("a: 1\nb: [\n").unwrap_err().to_string();
        assert!(!error.contains('\n') && !error.is_empty(), "{error}");
        assert!(documents("a: 1\na: 2\n").is_err());
    }

    #[test]
    fn long_lines_and_line_ends_survive() {
        let value = json!({"a": "x ".repeat(500), "b": "one\ntwo\n", "c": "one\n\n", "d": " lead\n", "e": "tab\there"});
        assert_eq!(documents(&to_string(&value).unwrap()).unwrap(), [value]);
    }
}
