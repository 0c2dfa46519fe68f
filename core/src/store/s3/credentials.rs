//! Credentials from a directory of files, as a mounted Secret gives them.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{self, ProvideCredentials, future};
use aws_sdk_s3::config::Credentials;

/// A value is a line; anything longer is not a credential.
const LONGEST: u64 = 64 << 10;

/// Files named like the `AWS_*` variables.
#[derive(Clone, Debug)]
pub(super) struct Directory(PathBuf);

impl Directory {
    pub(super) fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// The value of one file without the space around it, or nothing where there is no such file.
    pub(super) fn value(&self, name: &str) -> Result<Option<String>, CredentialsError> {
        let path = self.0.join(name);
        let shown = path.display().to_string();
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(CredentialsError::not_loaded(format!("{shown}: {error}"))),
        };
        let mut text = String::new();
        match file.take(LONGEST).read_to_string(&mut text) {
            Ok(_) => Ok(Some(text.trim().to_owned()).filter(|text| !text.is_empty())),
            Err(error) => Err(CredentialsError::invalid_configuration(format!(
                "{shown}: {error}"
            ))),
        }
    }

    /// The credentials as the files have them now.
    fn load(&self) -> provider::Result {
        let missing =
            |name: &str| CredentialsError::not_loaded(format!("{}: no {name}", self.0.display()));
        let required = |name: &str| self.value(name)?.ok_or_else(|| missing(name));
        let (key, secret) = (
            required("AWS_ACCESS_KEY_ID")?,
            required("AWS_SECRET_ACCESS_KEY")?,
        );
        let token = self.value("AWS_SESSION_TOKEN")?;
        if [Some(&key), Some(&secret), token.as_ref()]
            .into_iter()
            .flatten()
            .any(|value| !is_plain(value))
        {
            let message = format!(
                "{}: a value has spaces or control characters",
                self.0.display()
            );
            return Err(CredentialsError::invalid_configuration(message));
        }
        Ok(Credentials::new(key, secret, token, None, "directory"))
    }
}

/// Whether a value can stand in a header.
pub(super) fn is_plain(value: &str) -> bool {
    value.bytes().all(|byte| byte.is_ascii_graphic())
}

impl ProvideCredentials for Directory {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        // Three small files of a memory file system.
        future::ProvideCredentials::ready(self.load())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rotated_secret_counts_at_once_and_a_broken_one_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let directory = Directory::new(dir.path().to_owned());
        assert!(matches!(
            directory.load(),
            Err(CredentialsError::CredentialsNotLoaded(_))
        ));
        std::fs::write(dir.path().join("AWS_ACCESS_KEY_ID"), "one\n").unwrap();
        std::fs::write(dir.path().join("AWS_SECRET_ACCESS_KEY"), " secret \n").unwrap();
        let found = directory.load().unwrap();
        assert_eq!(
            (found.access_key_id(), found.secret_access_key()),
            ("one", "secret")
        );
        assert_eq!(found.session_token(), None);
        std::fs::write(dir.path().join("AWS_ACCESS_KEY_ID"), "two").unwrap();
        assert_eq!(directory.load().unwrap().access_key_id(), "two");
        std::fs::write(dir.path().join("AWS_SECRET_ACCESS_KEY"), "a\nb").unwrap();
        let error = directory.load().unwrap_err();
        assert!(matches!(error, CredentialsError::InvalidConfiguration(_)));
    }
}
