//! What a replica is made from, as people write it: `s3://bucket/name` or `s3://bucket/prefix/name` (R21).
//!
//! How much of the path is prefix and how much is name makes no difference to where the objects are: the whole
//! path is the folder that holds the manifest. So the last part counts as the name here, whatever the writer's
//! `--bucket` was.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, ErrorKind};
use crate::store::StoreLocation;
use crate::types::DatabaseName;

/// A database in a bucket or directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Source {
    /// Bucket and prefix, or the directory.
    pub location: StoreLocation,
    /// The name there.
    pub name: DatabaseName,
}

impl FromStr for Source {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = |message: String| {
            Error::new(ErrorKind::Invalid, message)
                .on(format_args!("source {text:?}"))
                .hint("write s3://BUCKET/NAME, s3://BUCKET/PREFIX/NAME or file:///DIR/NAME")
        };
        let path = text.trim_end_matches('/');
        let split = path.rsplit_once('/').filter(|(place, _)| {
            // `s3://bucket` names no database.
            !place.is_empty() && !place.ends_with('/')
        });
        let (place, name) = split.ok_or_else(|| wrong("no database is named".to_owned()))?;
        let location: StoreLocation = place
            .parse()
            .map_err(|error: Error| wrong(error.message().to_owned()))?;
        let name = name.parse().map_err(|error| wrong(format!("{error}")))?;
        Ok(Self { location, name })
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.location, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_part_is_the_name_and_the_rest_the_place() {
        for (text, location, name) in [
            ("s3://my-bucket/mydb", "s3://my-bucket", "mydb"),
            (
                "s3://my-bucket/prefix/mydb",
                "s3://my-bucket/prefix",
                "mydb",
            ),
            (
                "s3://my-bucket/a/b/my db.sqlite/",
                "s3://my-bucket/a/b",
                "my db.sqlite",
            ),
            ("my-bucket/mydb", "s3://my-bucket", "mydb"),
            ("file:///mnt/nas/app.db", "file:///mnt/nas", "app.db"),
        ] {
            let source: Source = text.parse().unwrap();
            assert_eq!(source.location.to_string(), location, "{text}");
            assert_eq!(source.name.as_str(), name);
        }
    }

    #[test]
    fn x4_a_source_without_a_name_or_out_of_its_place_is_refused() {
        for bad in [
            "",
            "mydb",
            "s3://my-bucket",
            "s3://my-bucket/",
            "s3:///mydb",
            "file:///app.db",
            "file://dir/app.db",
            "gs://bucket/mydb",
            "s3://my-bucket/..",
            "s3://my-bucket/../mydb",
            "s3://my-bucket/a//b",
            "s3://my-bucket/0000",
            "s3://My-Bucket/mydb",
        ] {
            let error = bad.parse::<Source>().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{bad}: {error}");
            assert!(error.next_step().is_some(), "{bad}");
        }
    }
}
