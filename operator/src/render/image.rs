//! Which image runs.

use super::error::Error;
use super::settings::Settings;
use crate::api::{PullPolicy, Sidecar};

/// An image and when it is pulled.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Image {
    pub(crate) name: String,
    pub(crate) pull_policy: Option<PullPolicy>,
}

impl Image {
    /// The image that `sidecar` asks for, if the operator allows it, else the operator's.
    pub(crate) fn of(sidecar: &Sidecar, settings: &Settings) -> Result<Self, Error> {
        let name = match &sidecar.image {
            Some(image) if *image != settings.image => {
                if !is_allowed(image, &settings.allowed_images) {
                    return Err(Error::Image(image.clone()));
                }
                image
            }
            _ => &settings.image,
        };
        Ok(Self {
            name: name.clone(),
            pull_policy: sidecar.image_pull_policy.or(settings.image_pull_policy),
        })
    }

    /// The word for the container.
    pub(crate) fn policy(&self) -> Option<String> {
        self.pull_policy.map(|policy| policy.word().to_owned())
    }
}

/// `*` stands for any text but a slash. A pattern that is none allows nothing.
fn is_allowed(image: &str, patterns: &[String]) -> bool {
    let options = glob::MatchOptions {
        case_sensitive: true,
        require_literal_separator: true,
        require_literal_leading_dot: false,
    };
    patterns.iter().any(|pattern| {
        glob::Pattern::new(pattern).is_ok_and(|pattern| pattern.matches_with(image, options))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_allowed_images_run() {
        let allowed = ["r.example.com/walrust/*".to_owned(), "[".to_owned()];
        assert!(is_allowed("r.example.com/walrust/sidecar:1", &allowed));
        assert!(!is_allowed("r.example.com/walrust/x/y:1", &allowed));
        assert!(!is_allowed(
            "evil.example.com/r.example.com/walrust/a",
            &allowed
        ));
        assert!(!is_allowed("r.example.com/walrust/a", &[]));
        let own = Sidecar {
            image: Some("evil:1".to_owned()),
            ..Sidecar::default()
        };
        assert!(matches!(
            Image::of(&own, &Settings::default()),
            Err(Error::Image(_))
        ));
        assert!(Image::of(&Sidecar::default(), &Settings::default()).is_ok());
    }
}
