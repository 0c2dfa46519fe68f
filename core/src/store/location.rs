//! Where backups are kept, as people write it: `[s3://]bucket[/prefix]` or `file:///DIR` (R12).

use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use crate::error::{Error, ErrorKind};
use crate::types::KeyPrefix;

/// A bucket, or a directory that serves as one.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum StoreLocation {
    /// A bucket of an S3-compatible store, and the prefix in it that holds the databases.
    S3 {
        /// The bucket's name.
        bucket: String,
        /// What stands before the databases' names; often empty.
        prefix: KeyPrefix,
    },
    /// A directory. Databases lie directly in it.
    File {
        /// Absolute, without `.` and `..`.
        root: PathBuf,
    },
}

impl StoreLocation {
    /// The prefix under which [`Layout`](super::Layout) puts the databases; empty for a directory.
    pub fn prefix(&self) -> KeyPrefix {
        match self {
            Self::S3 { prefix, .. } => prefix.clone(),
            Self::File { .. } => KeyPrefix::default(),
        }
    }

    /// The bucket without the prefix: `s3://bucket` or `file:///dir`.
    pub fn store(&self) -> String {
        match self {
            Self::S3 { bucket, .. } => format!("s3://{bucket}"),
            Self::File { root } => format!("file://{}", root.display()),
        }
    }
}

impl fmt::Display for StoreLocation {
    /// The form that [`StoreLocation::from_str`] reads, with its scheme.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.store())?;
        match self.prefix().as_str() {
            "" => Ok(()),
            prefix => write!(f, "/{prefix}"),
        }
    }
}

fn invalid(text: &str, message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Invalid, message).on(format_args!("bucket {text:?}"))
}

impl FromStr for StoreLocation {
    type Err = Error;

    /// Reads a bucket argument. Nothing is decoded: what stands behind `file://` is the path, byte for
    /// byte. Errors: `Invalid`, before anything goes over a network.
    fn from_str(text: &str) -> Result<Self, Error> {
        if let Some(path) = text.strip_prefix("file://") {
            return directory(text, path);
        }
        let rest = match text.split_once("://") {
            Some(("s3", rest)) => rest,
            Some((scheme, _)) => {
                return Err(invalid(text, format!("scheme {scheme:?} is not known"))
                    .hint("use s3:// or file:///"));
            }
            None => text,
        };
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        check_bucket(bucket).map_err(|message| invalid(text, message))?;
        let prefix = prefix
            .parse()
            .map_err(|error| invalid(text, format!("prefix {prefix:?}: {error}")).because(error))?;
        Ok(Self::S3 {
            bucket: bucket.to_owned(),
            prefix,
        })
    }
}

fn directory(text: &str, path: &str) -> Result<StoreLocation, Error> {
    if !path.starts_with('/') {
        return Err(invalid(text, "the directory is not absolute")
            .hint("write file:///DIR, with three slashes"));
    }
    if path.chars().any(char::is_control) {
        return Err(invalid(text, "the path has a control character"));
    }
    let path = Path::new(path);
    if path.components().any(|part| part == Component::ParentDir) {
        return Err(invalid(text, "the path has a component \"..\""));
    }
    // Rebuilt from its components: doubled and final slashes go.
    let root: PathBuf = path.components().collect();
    if root == Path::new("/") {
        return Err(invalid(text, "the root directory cannot hold backups"));
    }
    Ok(StoreLocation::File { root })
}

/// The rules that all S3-compatible stores share, and the underscore, which some take.
fn check_bucket(bucket: &str) -> Result<(), String> {
    if bucket.is_empty() {
        return Err("the bucket's name is empty".to_owned());
    }
    if !(3..=63).contains(&bucket.len()) {
        return Err(format!(
            "a bucket's name has 3 to 63 characters, not {}",
            bucket.chars().count()
        ));
    }
    let allowed =
        |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.' | '_');
    if let Some(bad) = bucket.chars().find(|&c| !allowed(c)) {
        return Err(format!("{bad:?} cannot stand in a bucket's name"));
    }
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    if !edge(bucket.chars().next()) || !edge(bucket.chars().last()) {
        return Err("a bucket's name begins and ends with a letter or a digit".to_owned());
    }
    if bucket.contains("..") {
        return Err("a bucket's name has no two dots in a row".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s3(bucket: &str, prefix: &str) -> StoreLocation {
        StoreLocation::S3 {
            bucket: bucket.to_owned(),
            prefix: prefix.parse().unwrap(),
        }
    }

    #[test]
    fn all_forms_of_the_bucket_argument_are_read() {
        for (text, location, shown) in [
            ("my-backups", s3("my-backups", ""), "s3://my-backups"),
            ("my-backups/", s3("my-backups", ""), "s3://my-backups"),
            ("s3://my-backups", s3("my-backups", ""), "s3://my-backups"),
            (
                "s3://my-backups/prod",
                s3("my-backups", "prod"),
                "s3://my-backups/prod",
            ),
            (
                "my-backups/prod/eu/",
                s3("my-backups", "prod/eu"),
                "s3://my-backups/prod/eu",
            ),
            (
                "s3://b.u.c/a b #1",
                s3("b.u.c", "a b #1"),
                "s3://b.u.c/a b #1",
            ),
            (
                "file:///mnt/nas//backups/",
                StoreLocation::File {
                    root: "/mnt/nas/backups".into(),
                },
                "file:///mnt/nas/backups",
            ),
            (
                "file:///a b%20c",
                StoreLocation::File {
                    root: "/a b%20c".into(),
                },
                "file:///a b%20c",
            ),
        ] {
            let read: StoreLocation = text.parse().unwrap();
            assert_eq!(read, location, "{text}");
            assert_eq!(read.to_string(), shown);
            assert_eq!(shown.parse::<StoreLocation>().unwrap(), location, "{shown}");
        }
    }

    #[test]
    fn x4_bucket_arguments_that_cannot_be_are_refused_before_any_request() {
        let long = "x".repeat(64);
        for bad in [
            "",
            "s3://",
            "/",
            "s3:///prod",
            "ab",
            "my backups",
            "My-Backups",
            "b!cket",
            "-abc",
            "abc.",
            "a..b",
            "my-backups//prod",
            "my-backups/../x",
            "my-backups/a/..",
            "my-backups/a//",
            "my-backups/\u{1}",
            "my-backups/0000",
            "gs://bucket",
            "https://host/bucket",
            "file://",
            "file:///",
            "file://dir",
            "file:///a/../b",
            "file:///a\0b",
            "arn:aws:s3:::x",
            long.as_str(),
        ] {
            let error = bad.parse::<StoreLocation>().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{bad}: {error}");
        }
    }
}
