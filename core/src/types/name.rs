//! Names in the bucket: of databases, and of the prefix that holds them (R17 to R22).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why a name cannot stand in a bucket.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing was given.
    #[error("a name must not be empty")]
    Empty,
    /// Two slashes in a row, or one at an end.
    #[error("name {0:?} has an empty component")]
    EmptyComponent(String),
    /// A component that would lead elsewhere or that walrust keeps for itself.
    #[error("name {name:?}: {component:?} cannot be a component of a name")]
    Reserved {
        /// The whole name.
        name: String,
        /// The component at fault.
        component: String,
    },
    /// A control character.
    #[error("name {0:?} has a control character")]
    Control(String),
    /// More bytes than an object key can take.
    #[error("name {name:?} is longer than {limit} bytes")]
    TooLong {
        /// The beginning of the name.
        name: String,
        /// The bound that it exceeds.
        limit: usize,
    },
}

/// An object key may have 1,024 bytes; this leaves room for what stands behind a prefix and a name.
const LONGEST: usize = 450;
/// File systems end names at 255 bytes.
const LONGEST_COMPONENT: usize = 255;

fn check(name: &str) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    let shown = || name.chars().take(60).collect::<String>();
    if name.len() > LONGEST {
        return Err(NameError::TooLong {
            name: shown(),
            limit: LONGEST,
        });
    }
    if name.chars().any(char::is_control) {
        return Err(NameError::Control(shown()));
    }
    for component in name.split('/') {
        if component.is_empty() {
            return Err(NameError::EmptyComponent(shown()));
        }
        if component.len() > LONGEST_COMPONENT {
            return Err(NameError::TooLong {
                name: shown(),
                limit: LONGEST_COMPONENT,
            });
        }
        if is_reserved(component) {
            return Err(NameError::Reserved {
                name: shown(),
                component: component.to_owned(),
            });
        }
    }
    Ok(())
}

/// Components that would escape the prefix, or that name something inside a database's folder.
fn is_reserved(component: &str) -> bool {
    let level = component.len() == 4
        && component.starts_with("000")
        && component
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    level
        || matches!(
            component,
            "." | ".." | "index" | "ltx" | ".walrust" | "manifest.json" | "lease.json"
        )
}

/// The name of a database in the bucket: one or more components joined by `/`, none of them empty,
/// reserved or leading elsewhere. Usually the file's name with its extension (R17).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DatabaseName(String);

impl DatabaseName {
    /// The name as text, without slashes at its ends.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for DatabaseName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        check(text).map(|()| Self(text.to_owned()))
    }
}

impl TryFrom<String> for DatabaseName {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        check(&text).map(|()| Self(text))
    }
}

impl From<DatabaseName> for String {
    fn from(name: DatabaseName) -> Self {
        name.0
    }
}

impl fmt::Display for DatabaseName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The part of a bucket that holds databases: empty, or components joined by `/` without slashes at the
/// ends.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyPrefix(String);

impl KeyPrefix {
    /// The prefix as text: empty, or without slashes at its ends.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether databases lie at the top of the bucket.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `rest` behind this prefix.
    pub fn join(&self, rest: &str) -> String {
        if self.0.is_empty() {
            rest.to_owned()
        } else {
            format!("{}/{rest}", self.0)
        }
    }
}

impl FromStr for KeyPrefix {
    type Err = NameError;

    /// One slash at the end is ignored (R12).
    fn from_str(text: &str) -> Result<Self, NameError> {
        let text = text.strip_suffix('/').unwrap_or(text);
        if text.is_empty() {
            return Ok(Self::default());
        }
        check(text).map(|()| Self(text.to_owned()))
    }
}

impl TryFrom<String> for KeyPrefix {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<KeyPrefix> for String {
    fn from(prefix: KeyPrefix) -> Self {
        prefix.0
    }
}

impl fmt::Display for KeyPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn x4_names_that_lead_elsewhere_or_are_ours_are_refused() {
        for good in [
            "app.db",
            "a b.db",
            "#1",
            "über.sqlite",
            ".hidden",
            "users/app.db",
            "a",
            "00010",
            "000g",
        ] {
            assert!(good.parse::<DatabaseName>().is_ok(), "{good}");
        }
        let long = "x".repeat(256);
        for bad in [
            "",
            "/",
            "a/",
            "/a",
            "a//b",
            "..",
            "a/../b",
            ".",
            "a\0b",
            "a\nb",
            "0000",
            "x/000f/y",
            "index",
            "ltx",
            ".walrust",
            "manifest.json",
            "a/lease.json",
            long.as_str(),
        ] {
            assert!(bad.parse::<DatabaseName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_prefix_may_be_empty_and_end_in_a_slash() {
        assert_eq!("".parse(), Ok(KeyPrefix::default()));
        assert_eq!("/".parse(), Ok(KeyPrefix::default()));
        let prefix: KeyPrefix = "prod/eu/".parse().unwrap();
        assert_eq!(prefix.join("app.db"), "prod/eu/app.db");
        assert!("a//b".parse::<KeyPrefix>().is_err());
    }
}
