//! What a verification found, as people and scripts read it (R129 to R132).

use serde::Serialize;

use crate::error::ErrorKind;
use crate::manifest::FileKey;
use crate::types::{PageSize, Txid, TxidRange};

/// What sort of finding.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum IssueKind {
    /// The manifest names an object that is not there.
    Orphan,
    /// An object is damaged, or contradicts the manifest or its neighbours.
    Error,
    /// Transactions are missing.
    Gap,
    /// Something to know; nothing is wrong with what a restore gives.
    Note,
}

/// One finding.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Issue {
    /// What sort.
    pub kind: IssueKind,
    /// The object that it is about.
    pub key: String,
    /// The first transaction concerned.
    pub min_txid: Option<u64>,
    /// The last one.
    pub max_txid: Option<u64>,
    /// What is wrong, for people.
    pub message: String,
    /// Whether `--fix` mends it.
    pub fixable: bool,
    /// Whether it was mended.
    pub fixed: bool,
    /// Why the object could not be looked at; nothing where it was, and is wrong.
    #[serde(skip)]
    pub unread: Option<ErrorKind>,
}

impl Issue {
    /// A finding about the file `key`, which lies at `object`.
    pub(super) fn of_file(
        kind: IssueKind,
        key: FileKey,
        object: String,
        message: impl Into<String>,
    ) -> Self {
        Self::new(kind, object, Some(key.range()), message)
    }

    /// A finding about an object that is no LTX file, or about transactions.
    pub(super) fn new(
        kind: IssueKind,
        object: String,
        range: Option<TxidRange>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            kind,
            key: object,
            min_txid: range.map(|range| range.min().get()),
            max_txid: range.map(|range| range.max().get()),
            message: message.into(),
            fixable: false,
            fixed: false,
            unread: None,
        }
    }

    /// The same, mended by `--fix`.
    #[must_use]
    pub(super) fn fixable(mut self) -> Self {
        self.fixable = true;
        self
    }

    /// The same, about an object that could not be looked at.
    #[must_use]
    pub(super) fn unread(mut self, why: ErrorKind) -> Self {
        self.unread = Some(why);
        self
    }

    /// Whether something is wrong still.
    pub fn is_open(&self) -> bool {
        self.kind != IssueKind::Note && !self.fixed
    }
}

/// What the deep check did: a restore of the newest state, and SQLite's opinion of it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Deep {
    /// Whether it was asked for.
    pub ran: bool,
    /// Whether the restored database is sound.
    pub ok: Option<bool>,
    /// What was checked, or what is wrong.
    pub message: Option<String>,
    /// The kind of error that it ended in.
    #[serde(skip)]
    pub failure: Option<ErrorKind>,
}

/// One database, verified.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct VerifyReport {
    /// Its name in the bucket.
    pub name: String,
    /// Whether nothing is wrong (any more).
    pub ok: bool,
    /// LTX files that the manifest names.
    pub files: u64,
    /// Files that the manifest does not name yet, as its writer has stored them since.
    pub behind: u64,
    /// Size of the verified files.
    pub bytes: u64,
    /// The newest transaction that anything names.
    pub txid: Option<Txid>,
    /// Size of a page there.
    pub page_size: Option<PageSize>,
    /// Files of which everything was read and is right.
    pub verified: u64,
    /// What was found, by place in the chain; notes last.
    pub issues: Vec<Issue>,
    /// The deep check.
    pub deep: Deep,
    /// `walrust` or `litestream`.
    pub format: &'static str,
    /// Whether there is a manifest that can be read.
    pub manifest: bool,
    /// From start to end.
    pub duration_ms: u64,
}

impl VerifyReport {
    /// What is wrong still.
    pub fn open_issues(&self) -> impl Iterator<Item = &Issue> {
        self.issues.iter().filter(|issue| issue.is_open())
    }

    /// The kind of error that this ends in, if anything is wrong: damage, unless all that is wrong is that
    /// something could not be looked at.
    pub fn failure(&self) -> Option<ErrorKind> {
        let kinds = self.open_issues().map(|issue| issue.unread);
        let kinds = kinds.map(|unread| unread.unwrap_or(ErrorKind::Corrupt));
        kinds
            .chain(self.deep.failure)
            .reduce(|first, next| match next {
                ErrorKind::Corrupt => next,
                _ => first,
            })
    }

    /// The first thing that is wrong, in one line, or that nothing is.
    pub fn summary(&self) -> String {
        let open = self.open_issues().count();
        let first = self.open_issues().next();
        let deep = self
            .deep
            .message
            .as_deref()
            .filter(|_| self.deep.ok == Some(false));
        match (first, deep) {
            (Some(first), _) => {
                let (key, message) = (&first.key, &first.message);
                match open - 1 {
                    0 => format!("{key}: {message}"),
                    more => format!("{key}: {message} (and {more} more issues)"),
                }
            }
            (None, Some(deep)) => deep.to_owned(),
            (None, None) => format!("{} files verified", self.verified),
        }
    }
}
