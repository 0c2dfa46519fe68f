//! Settings that are one of a few words.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

/// Text that is none of the words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is none of {words}")]
pub struct ChoiceError {
    found: String,
    words: String,
}

macro_rules! choice {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)+
        }

        impl $name {
            /// All the words, in the order of the documentation.
            pub const WORDS: &'static [&'static str] = &[$($word),+];

            /// The word for this choice.
            pub const fn word(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }
        }

        impl FromStr for $name {
            type Err = ChoiceError;

            fn from_str(text: &str) -> Result<Self, ChoiceError> {
                match text {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(ChoiceError {
                        found: text.chars().take(40).collect(),
                        words: Self::WORDS.join(", "),
                    }),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.word())
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.word())
            }
        }
    };
}

choice! {
    /// Where the bucket's name stands in a request.
    PathStyle {
        /// In the path where an endpoint is set, else in the host.
        Auto = "auto",
        /// In the path.
        Path = "true",
        /// In the host.
        Host = "false",
    }
}

choice! {
    /// What the single-writer lease does.
    LeaseMode {
        /// Nobody writes without it.
        Enforce = "enforce",
        /// It is kept, and who breaks it is only reported.
        Observe = "observe",
        /// There is none.
        Off = "off",
    }
}

choice! {
    /// Whether a pod's application is held until its streams are ours.
    GateStartup {
        /// Each time a pod starts.
        Always = "always",
        /// Where a database of the pod was restored, and nobody has followed it since.
        Restored = "restored",
        /// Never.
        Never = "never",
    }
}

choice! {
    /// Whether writers may be held for at most 20 ms where checkpoints never catch up.
    Barrier {
        /// Where it is needed.
        Auto = "auto",
        /// Never.
        Off = "off",
    }
}

choice! {
    /// How log lines look.
    LogFormat {
        /// For people.
        Text = "text",
        /// One JSON object a line.
        Json = "json",
    }
}
