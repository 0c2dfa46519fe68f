//! The one error of the library's surface, and the one table of what each kind means.

use std::fmt;

/// A `Result` with this library's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What an error means for whoever meets it.
///
/// | kind | meaning | retried | fine exit status |
/// |---|---|---|---|
/// | `Unavailable` | store or network does not answer, or asks to come again | yes, with backoff | 1 |
/// | `Denied` | the store or the file system refuses us | slowly | 1 |
/// | `NotFound` | no such database, object, file or restore point | no | 3 |
/// | `Exists` | something stands where we would write | no | 1 |
/// | `Fenced` | another writer owns this history | no | 5 |
/// | `Corrupt` | bytes contradict themselves or each other | no | 4 |
/// | `Invalid` | a wrong argument or configuration | no | 2 |
/// | `Unsupported` | a format, journal mode or file system that walrust does not take | no | 1 |
/// | `Busy` | somebody holds a lock | yes | 1 |
/// | `Exhausted` | disk or spool full | slowly | 1 |
/// | `NotDurable` | asked to end before everything was stored | no | 6 |
/// | `Cancelled` | asked to stop | no | 1 |
/// | `Internal` | a defect of walrust | no | 1 |
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[allow(missing_docs, reason = "the table above says what each means")]
pub enum ErrorKind {
    Unavailable,
    Denied,
    NotFound,
    Exists,
    Fenced,
    Corrupt,
    Invalid,
    Unsupported,
    Busy,
    Exhausted,
    NotDurable,
    Cancelled,
    Internal,
}

impl ErrorKind {
    /// The kind's name in JSON, metrics and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unavailable => "unavailable",
            Self::Denied => "denied",
            Self::NotFound => "not_found",
            Self::Exists => "exists",
            Self::Fenced => "fenced",
            Self::Corrupt => "corrupt",
            Self::Invalid => "invalid",
            Self::Unsupported => "unsupported",
            Self::Busy => "busy",
            Self::Exhausted => "exhausted",
            Self::NotDurable => "not_durable",
            Self::Cancelled => "cancelled",
            Self::Internal => "internal",
        }
    }

    /// The kind of this name, as another process says it.
    pub fn named(name: &str) -> Option<Self> {
        const ALL: [ErrorKind; 13] = [
            ErrorKind::Unavailable,
            ErrorKind::Denied,
            ErrorKind::NotFound,
            ErrorKind::Exists,
            ErrorKind::Fenced,
            ErrorKind::Corrupt,
            ErrorKind::Invalid,
            ErrorKind::Unsupported,
            ErrorKind::Busy,
            ErrorKind::Exhausted,
            ErrorKind::NotDurable,
            ErrorKind::Cancelled,
            ErrorKind::Internal,
        ];
        ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// The exit status under `--exit-codes fine`; without it every error is 1 (R133).
    pub const fn fine_exit_status(self) -> u8 {
        match self {
            Self::Invalid => 2,
            Self::NotFound => 3,
            Self::Corrupt => 4,
            Self::Fenced => 5,
            Self::NotDurable => 6,
            Self::Unavailable
            | Self::Denied
            | Self::Exists
            | Self::Unsupported
            | Self::Busy
            | Self::Exhausted
            | Self::Cancelled
            | Self::Internal => 1,
        }
    }

    /// Whether trying again, later, may help without anybody's hands.
    pub const fn is_transient(self) -> bool {
        match self {
            Self::Unavailable | Self::Denied | Self::Busy | Self::Exhausted => true,
            Self::NotFound
            | Self::Exists
            | Self::Fenced
            | Self::Corrupt
            | Self::Invalid
            | Self::Unsupported
            | Self::NotDurable
            | Self::Cancelled
            | Self::Internal => false,
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An error that names the object, the cause and, where there is one, the next step; never a secret.
#[derive(Debug)]
pub struct Error(Box<Inner>);

#[derive(Debug)]
struct Inner {
    kind: ErrorKind,
    object: Option<String>,
    message: String,
    hint: Option<String>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error of `kind`; `message` is lower case, without a full stop, and carries the values.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            object: None,
            message: message.into(),
            hint: None,
            source: None,
        }))
    }

    /// What an operating system's error on `object` (a path, say) means.
    pub fn io(object: impl fmt::Display, error: std::io::Error) -> Self {
        use std::io::ErrorKind as Io;
        let kind = match error.kind() {
            Io::NotFound => ErrorKind::NotFound,
            Io::PermissionDenied | Io::ReadOnlyFilesystem => ErrorKind::Denied,
            Io::AlreadyExists => ErrorKind::Exists,
            Io::StorageFull | Io::QuotaExceeded | Io::FileTooLarge => ErrorKind::Exhausted,
            Io::WouldBlock | Io::ResourceBusy => ErrorKind::Busy,
            _ => ErrorKind::Unavailable,
        };
        Self::new(kind, error.to_string()).on(object).because(error)
    }

    /// Names the object that the error is about: a path, a key, a database.
    #[must_use]
    pub fn on(mut self, object: impl fmt::Display) -> Self {
        self.0.object.get_or_insert_with(|| object.to_string());
        self
    }

    /// Says what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// Keeps the cause for logs; the message must already say what people need.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// What the error means.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The object that the error is about.
    pub fn object(&self) -> Option<&str> {
        self.0.object.as_deref()
    }

    /// The cause, without object and hint.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The next step, where there is one.
    pub fn next_step(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }
}

impl fmt::Display for Error {
    /// One line: object, cause, next step.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(object) = &self.0.object {
            write!(f, "{object}: ")?;
        }
        f.write_str(&self.0.message)?;
        match &self.0.hint {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_line_with_object_cause_and_next_step() {
        let error = Error::new(ErrorKind::NotFound, "no backup of this name")
            .on("app.db")
            .hint("see: walrust list");
        assert_eq!(
            error.to_string(),
            "app.db: no backup of this name (see: walrust list)"
        );
        assert_eq!(
            error.on("other").object(),
            Some("app.db"),
            "the innermost object stays"
        );
    }
}
