//! `${NAME}` and `${NAME:-default}` in strings of the configuration file.

use std::borrow::Cow;

use super::Environment;

/// Why a string cannot be expanded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum ExpandError {
    #[error("environment variable {0} is not set (give a default with ${{{0}:-…}})")]
    Unset(String),
    #[error("`${{` without its `}}`")]
    Open,
    #[error("`${{{0}}}` does not name an environment variable")]
    Name(String),
}

/// Replaces each `${NAME}` by the variable's value, and each `${NAME:-default}` by the value or, where
/// the variable is unset or empty, the default. `$${` stands for a plain `${`; any other `$` is itself.
/// What was put in is not searched again.
pub(super) fn expand<'t>(
    text: &'t str,
    environment: &Environment,
) -> Result<Cow<'t, str>, ExpandError> {
    if !text.contains("${") {
        return Ok(Cow::Borrowed(text));
    }
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (before, behind) = (&rest[..at], &rest[at + 2..]);
        if let Some(plain) = before.strip_suffix('$') {
            expanded.push_str(plain);
            expanded.push_str("${");
            rest = behind;
            continue;
        }
        expanded.push_str(before);
        let (inner, after) = behind.split_once('}').ok_or(ExpandError::Open)?;
        expanded.push_str(variable(inner, environment)?);
        rest = after;
    }
    expanded.push_str(rest);
    Ok(Cow::Owned(expanded))
}

fn variable<'v>(inner: &'v str, environment: &'v Environment) -> Result<&'v str, ExpandError> {
    let (name, default) = match inner.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inner, None),
    };
    let letter = |c: char| c == '_' || c.is_ascii_alphanumeric();
    if name.is_empty()
        || !name.chars().all(letter)
        || name.starts_with(|c: char| c.is_ascii_digit())
    {
        return Err(ExpandError::Name(inner.to_owned()));
    }
    match default {
        Some(default) => Ok(environment.filled(name).unwrap_or(default)),
        None => environment
            .get(name)
            .ok_or_else(|| ExpandError::Unset(name.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_defaults_and_plain_dollars() {
        let environment: Environment = [("A", "1"), ("EMPTY", ""), ("NEST", "${A}")]
            .into_iter()
            .collect();
        for (text, expanded) in [
            ("plain", "plain"),
            ("${A}", "1"),
            ("x${A}y${A}z", "x1y1z"),
            ("${EMPTY}", ""),
            ("${EMPTY:-d}", "d"),
            ("${NO:-}", ""),
            ("${NO:-a b/c}", "a b/c"),
            ("${A:-other}", "1"),
            ("${NEST}", "${A}"),
            ("$A costs $5", "$A costs $5"),
            ("$${A}", "${A}"),
            ("$$${A}", "$${A}"),
        ] {
            assert_eq!(
                expand(text, &environment).as_deref(),
                Ok(expanded),
                "{text}"
            );
        }
        for (text, error) in [
            ("${NO}", ExpandError::Unset("NO".into())),
            ("a${A", ExpandError::Open),
            ("${}", ExpandError::Name(String::new())),
            ("${1A}", ExpandError::Name("1A".into())),
            ("${A-b}", ExpandError::Name("A-b".into())),
        ] {
            assert_eq!(expand(text, &environment), Err(error), "{text}");
        }
    }
}
