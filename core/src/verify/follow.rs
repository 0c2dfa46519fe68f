//! Follows the state of the database from file to file.

use std::collections::BTreeMap;
use std::path::Path;

use super::chain::Road;
use super::check::{Claim, against_entry, against_outcome, against_state, pre_apply};
use super::contents::{Contents, Unread};
use super::inventory::{Inventory, Item};
use super::report::{Issue, IssueKind};
use super::table::{Outcome, State, SumTable};
use super::walk::Walked;
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::FileKey;
use crate::restore::{Arrived, Source, joined};
use crate::types::{PageCount, Txid};

/// Objects that could not be fetched, after which the store is taken to be out of reach.
const MOST_FAILURES: u32 = 3;

/// A file that leads on from the state in the table.
struct Held {
    key: FileKey,
    contents: Contents,
    outcome: Outcome,
}

/// What a file said of the state at its end, and which one it was.
struct End {
    key: FileKey,
    claim: Claim,
}

/// The way along the chain.
pub(super) struct Walk<'a> {
    scratch: &'a Path,
    inventory: &'a Inventory,
    road: &'a Road,
    /// Where the files that come now are applied.
    anchor: Option<Txid>,
    /// The state in the table.
    state: Option<State>,
    /// Nothing only while a blocking call has it.
    table: Option<SumTable>,
    /// The file that takes us on once all others at this state are read.
    held: Option<Held>,
    /// What coarser files lead to, by the state at which it must show.
    expected: BTreeMap<Txid, Vec<(FileKey, Claim)>>,
    /// What was said of the states from here on.
    ends: BTreeMap<Txid, End>,
    /// Failures to fetch.
    failures: u32,
    walked: Walked,
}

impl<'a> Walk<'a> {
    /// At the beginning, where no state is known.
    pub(super) fn new(scratch: &'a Path, inventory: &'a Inventory, road: &'a Road) -> Self {
        Self {
            scratch,
            inventory,
            road,
            anchor: None,
            state: None,
            table: Some(SumTable::new(scratch)),
            held: None,
            expected: BTreeMap::new(),
            ends: BTreeMap::new(),
            failures: 0,
            walked: Walked::default(),
        }
    }

    /// The next file in the order of the chain.
    pub(super) async fn next(
        &mut self,
        item: &Item,
        source: &Source,
        arrived: Result<Arrived>,
    ) -> Result<()> {
        let anchor = Some(self.road.anchor(item.key));
        if self.anchor != anchor {
            self.advance().await?;
            self.anchor = anchor;
        }
        if let Some(message) = wrong_size(item) {
            self.blame(item, format!("Manifest mismatch: {message}"));
            return Ok(());
        }
        let contents = match Contents::read(source, arrived, item.key.range(), self.scratch).await {
            Ok(contents) => contents,
            Err(unread) => return self.unread(item, unread),
        };
        if let Some(message) = item
            .entry
            .as_deref()
            .and_then(|entry| against_entry(&contents.verified, entry))
        {
            self.blame(item, format!("Manifest mismatch: {message}"));
            return Ok(());
        }
        match self.place(item, contents).await? {
            None => {
                let size = item.listed.unwrap_or(0);
                self.walked.good.insert(item.key, size);
            }
            Some(message) => self.blame(item, format!("Chain broken: {message}")),
        }
        Ok(())
    }

    fn blame(&mut self, item: &Item, message: String) {
        let object = item.object.clone();
        let issue = Issue::of_file(IssueKind::Error, item.key, object, message);
        self.walked.issues.push(issue);
    }

    fn unread(&mut self, item: &Item, unread: Unread) -> Result<()> {
        match unread {
            // Trouble on our side is no finding about the bucket.
            Unread::Failed(error) => return Err(error),
            Unread::Unfetched(error) => match error.kind() {
                ErrorKind::NotFound => {
                    self.walked.gone.insert(item.key);
                }
                ErrorKind::Unavailable | ErrorKind::Denied | ErrorKind::Busy => {
                    return self.unfetched(item, error);
                }
                _ => return Err(error),
            },
            Unread::Header(error) => {
                self.blame(
                    item,
                    format!("Header cannot be decoded: {}", error.message()),
                );
            }
            Unread::Data(error) => self.blame(
                item,
                format!("Checksum verification failed: {}", error.message()),
            ),
        }
        Ok(())
    }

    fn unfetched(&mut self, item: &Item, error: Error) -> Result<()> {
        self.failures += 1;
        if self.failures >= MOST_FAILURES {
            return Err(error);
        }
        let object = item.object.clone();
        let message = format!("Not checked: {}", error.message());
        let issue = Issue::of_file(IssueKind::Error, item.key, object, message);
        self.walked.issues.push(issue.unread(error.kind()));
        Ok(())
    }

    /// Holds a file that is right in itself against the states that it stands between. Gives what does not
    /// fit.
    async fn place(&mut self, item: &Item, contents: Contents) -> Result<Option<String>> {
        let claim = Claim::of(&contents.verified, item.entry.as_deref());
        let misfit = match contents.verified.header.holds_every_page() {
            true => self.place_start(item.key, contents, &claim).await?,
            false => self.place_delta(item.key, contents, &claim).await?,
        };
        if misfit.is_none() {
            let (max, key) = (item.key.range().max(), item.key);
            self.ends.entry(max).or_insert(End { key, claim });
        }
        Ok(misfit)
    }

    /// A snapshot or base: its own pages prove what it leads to.
    async fn place_start(
        &mut self,
        key: FileKey,
        contents: Contents,
        claim: &Claim,
    ) -> Result<Option<String>> {
        let (contents, outcome) = self.predict(None, contents).await?;
        if let Some(what) = claim.contradiction(&outcome.state) {
            return Ok(Some(format!("its own pages give {what}")));
        }
        let (at, own) = (key.range().max(), Claim::proved(&outcome.state));
        match self.state {
            Some(state) if state.txid == at => {
                let what = own.contradiction(&state);
                return Ok(
                    what.map(|what| format!("the files before it lead to another state: {what}"))
                );
            }
            // We went past it by a coarser file.
            Some(state) if state.txid > at => return Ok(None),
            Some(_) | None => {}
        }
        if let Some(end) = self.ends.get(&at)
            && let Some(what) = end.claim.differs(&own)
        {
            let wrong = end.key;
            self.ends.remove(&at);
            self.revoke(
                wrong,
                format!("it leads to another state than {key}: {what}"),
            );
        }
        if key.range().is_snapshot() {
            self.apply(contents).await?;
            self.arrive(outcome.state);
        } else {
            self.hold(key, contents, outcome);
        }
        Ok(None)
    }

    /// Compares with what other files say of the states before and after.
    fn against_ends(&self, key: FileKey, contents: &Contents, claim: &Claim) -> Option<String> {
        let range = key.range();
        if let Some(pre) = pre_apply(&contents.verified)
            && let Some(before) = range.min().previous().and_then(|at| self.ends.get(&at))
            && let Some(post) = before.claim.checksum
            && pre != post
        {
            return Some(format!(
                "it was made over a state with checksum {pre}, {} leads to {post}",
                before.key
            ));
        }
        let same = self.ends.get(&range.max())?;
        let what = same.claim.differs(claim)?;
        Some(format!(
            "it leads to another state than {}: {what}",
            same.key
        ))
    }

    /// A file that seemed right is not.
    fn revoke(&mut self, key: FileKey, message: String) {
        self.walked.good.remove(&key);
        if let Some(item) = self.inventory.items.get(&key) {
            self.blame(item, format!("Chain broken: {message}"));
        }
    }

    /// A file that holds what changed.
    async fn place_delta(
        &mut self,
        key: FileKey,
        contents: Contents,
        claim: &Claim,
    ) -> Result<Option<String>> {
        if let Some(message) = self.against_ends(key, &contents, claim) {
            return Ok(Some(message));
        }
        let Some(before) = self.state.filter(|state| key.range().extends(state.txid)) else {
            return Ok(None);
        };
        if let Some(message) = against_state(&contents.verified, &before) {
            return Ok(Some(message));
        }
        let (contents, outcome) = self.predict(Some(before), contents).await?;
        if let Some(message) = against_outcome(claim, &outcome) {
            return Ok(Some(message));
        }
        self.hold(key, contents, outcome);
        Ok(None)
    }

    /// The finest file takes us on; what a coarser one leads to must show when we get there.
    fn hold(&mut self, key: FileKey, contents: Contents, outcome: Outcome) {
        if self.held.is_none() {
            self.held = Some(Held {
                key,
                contents,
                outcome,
            });
            return;
        }
        let state = outcome.state;
        let claim = Claim::proved(&state);
        let waiting = self.expected.entry(state.txid).or_default();
        waiting.push((key, claim));
    }

    /// Goes on to the next state, if a file leads there.
    async fn advance(&mut self) -> Result<()> {
        if let Some(Held {
            key,
            contents,
            outcome,
        }) = self.held.take()
        {
            tracing::trace!(%key, "the chain goes on");
            self.apply(contents).await?;
            self.arrive(outcome.state);
        }
        Ok(())
    }

    /// The table holds `state` now: whoever said something of it was right, or not.
    fn arrive(&mut self, state: State) {
        self.state = Some(state);
        let later = self.expected.split_off(&state.txid.next());
        let here = std::mem::replace(&mut self.expected, later);
        let here = here.into_iter().filter(|(txid, _)| *txid == state.txid);
        for (key, claim) in here.flat_map(|(_, waiting)| waiting) {
            if let Some(what) = claim.contradiction(&state) {
                let message =
                    format!("it leads to another state than the files that it covers: {what}");
                self.revoke(key, message);
            }
        }
        self.ends = self.ends.split_off(&state.txid);
        if let Some(claim) = self.head_claim(state.txid, state.commit)
            && let Some(what) = claim.contradiction(&state)
        {
            self.blame_head(&what);
        }
    }

    /// What the manifest says of its head.
    fn head_claim(&self, at: Txid, commit: PageCount) -> Option<Claim> {
        let head = self.inventory.head().filter(|head| head.txid == at)?;
        Some(Claim {
            commit,
            checksum: head.checksum,
            digest: head.digest,
        })
    }

    fn blame_head(&mut self, what: &str) {
        let object = self.inventory.layout.manifest();
        let message = format!("The files lead to another state than the manifest names: {what}");
        let issue = Issue::new(IssueKind::Error, object, None, message);
        self.walked.issues.push(issue);
    }

    /// After the last file.
    pub(super) async fn end(mut self) -> Result<Walked> {
        self.advance().await?;
        // The head, where damage kept us from getting there: what its file says must do.
        if let Some(head) = self.inventory.head()
            && self.state.is_none_or(|state| state.txid < head.txid)
            && let Some(end) = self.ends.get(&head.txid)
            && let Some(claim) = self.head_claim(head.txid, end.claim.commit)
            && let Some(what) = claim.differs(&end.claim)
        {
            self.blame_head(&what);
        }
        Ok(self.walked)
    }

    async fn predict(
        &mut self,
        before: Option<State>,
        contents: Contents,
    ) -> Result<(Contents, Outcome)> {
        self.with_table(contents, move |table, contents| {
            table.predict(before.as_ref(), contents)
        })
        .await
    }

    async fn apply(&mut self, contents: Contents) -> Result<()> {
        self.with_table(contents, SumTable::apply).await.map(drop)
    }

    async fn with_table<T: Send + 'static>(
        &mut self,
        mut contents: Contents,
        work: impl FnOnce(&mut SumTable, &mut Contents) -> Result<T> + Send + 'static,
    ) -> Result<(Contents, T)> {
        let lost = || Error::new(ErrorKind::Internal, "the table of sums is lost");
        let mut table = self.table.take().ok_or_else(lost)?;
        let worked = tokio::task::spawn_blocking(move || {
            let done = work(&mut table, &mut contents);
            (table, contents, done)
        });
        let (table, contents, done) = joined(worked.await)?;
        self.table = Some(table);
        Ok((contents, done?))
    }
}

fn wrong_size(item: &Item) -> Option<String> {
    let (entry, listed) = (item.entry.as_ref()?, item.listed?);
    let (named, found) = (entry.size, listed);
    (named != found).then(|| format!("the object has {found} bytes, the manifest says {named}"))
}
