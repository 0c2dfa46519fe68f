//! `sse`: encryption on the server's side.

use std::ops::Range;
use std::path::PathBuf;

use serde::Serialize;

use super::section::Section;
use crate::store;

/// How the store encrypts what we store.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(tag = "mode")]
pub enum Encryption {
    /// With keys of the store.
    #[serde(rename = "AES256")]
    Aes256,
    /// With a key of the key management service.
    #[serde(rename = "aws:kms")]
    Kms {
        /// Its id, ARN or alias; none is the bucket's default key.
        key: Option<String>,
    },
    /// With a key of ours, sent with each request.
    #[serde(rename = "customer")]
    Customer {
        /// A file with the 32 bytes of the key, plain or in base64.
        key_file: PathBuf,
    },
}

impl From<Encryption> for store::Encryption {
    fn from(encryption: Encryption) -> Self {
        match encryption {
            Encryption::Aes256 => Self::Aes256,
            Encryption::Kms { key } => Self::Kms { key },
            Encryption::Customer { key_file } => Self::Customer { key_file },
        }
    }
}

/// What the table `section`, which stands at `span`, says; nothing where it is wrong, which is then noted.
pub(super) fn read(mut section: Section<'_, '_>, span: &Range<usize>) -> Option<Encryption> {
    let mode = section.take("mode", |value| value.filled());
    let key = section.take("key", |value| value.filled());
    let key_file = section.take("key_file", |value| value.filled());
    let read = match (mode.as_deref(), key, key_file) {
        (Some("AES256"), None, None) => Ok(Encryption::Aes256),
        (Some("aws:kms"), key, None) => Ok(Encryption::Kms { key }),
        (Some("customer"), None, Some(key_file)) => Ok(Encryption::Customer {
            key_file: key_file.into(),
        }),
        (Some("customer"), _, None) => Err(("mode", "`mode`: customer wants a `key_file`")),
        (Some("AES256" | "customer"), Some(_), _) => {
            Err(("key", "`key` belongs to the mode aws:kms"))
        }
        (Some("AES256" | "aws:kms"), _, Some(_)) => {
            Err(("key_file", "`key_file` belongs to the mode customer"))
        }
        (Some(_), ..) => Err(("mode", "`mode` is none of AES256, aws:kms, customer")),
        // A wrong value was noted already.
        (None, ..) if section.has("mode") => {
            section.finish();
            return None;
        }
        (None, ..) => Err(("", "`sse` without `mode`: AES256, aws:kms or customer")),
    };
    let encryption = match read {
        Ok(encryption) => Some(encryption),
        Err((key, message)) => {
            section.fault(key, span, message);
            None
        }
    };
    section.finish();
    encryption
}
