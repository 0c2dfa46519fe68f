//! How a watcher finds its place when it starts: what proves that the local database continues the
//! remote chain, and what to do where nothing does (invariants 4 and 14). Pure.

use crate::error::{Error, ErrorKind};
use crate::state::{Head, Saved};
use crate::types::{DatabaseName, DatabaseSum, StreamId, Txid};

/// What the user allows where a database is not known to the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Permission {
    /// Put an unknown database onto the chain, by a rebase.
    pub adopt: bool,
    /// Begin a new lineage.
    pub new_chain: bool,
    /// As `adopt`, while the head is exactly this.
    pub adopt_at: Option<Txid>,
}

/// The remote head, as far as a decision needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RemoteHead {
    pub(super) txid: Txid,
    pub(super) stream: Option<StreamId>,
    pub(super) sum: Option<DatabaseSum>,
}

impl RemoteHead {
    pub(super) fn is(&self, seen: &Head) -> bool {
        self.txid == seen.txid && self.stream == seen.stream && self.sum == seen.sum
    }
}

/// Where to begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Anchor {
    /// Nothing is known anywhere: TXID 1 and a base.
    Fresh,
    /// The saved state is the chain's: prove that the database continues it, else rebase.
    Resume,
    /// The page table is not the head's: every page goes into the next file.
    Base,
    /// Only equal content may go on.
    Compare,
}

/// How what waits in the spool lies between the remote head and the saved state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spooled {
    /// There is nothing.
    Nothing,
    /// It leads from exactly the head to the saved state.
    Bridges,
    /// It leads from another state than the head.
    Astray,
}

/// Decides from the saved state, what the spool holds, and the remote head.
pub(super) fn anchor(saved: Option<&Saved>, spooled: Spooled, head: Option<&RemoteHead>) -> Anchor {
    match (saved, head) {
        (None, None) => Anchor::Fresh,
        (None, Some(_)) => Anchor::Compare,
        // A bucket that is new or was emptied: the chain goes on there, with a new base.
        (Some(_), None) => Anchor::Resume,
        (Some(saved), Some(head)) => known(saved, spooled, head),
    }
}

fn known(saved: &Saved, spooled: Spooled, head: &RemoteHead) -> Anchor {
    let place = &saved.place;
    let is_place = head.txid == place.txid && head.sum.is_none_or(|sum| sum == place.sum);
    if let Some(seen) = &saved.restored_head {
        return match head.is(seen) {
            // It was captured since, before the store answered.
            true if is_place || spooled == Spooled::Bridges => Anchor::Resume,
            // The directory is older than what was restored over its database.
            true => Anchor::Base,
            false => Anchor::Compare,
        };
    }
    if let Some(seen) = &saved.rewind_from
        && head.is(seen)
    {
        return Anchor::Base;
    }
    if !counts(saved, head) {
        return Anchor::Compare;
    }
    if is_place || spooled == Spooled::Bridges {
        return Anchor::Resume;
    }
    // At the cursor a later epoch counts only by its sums.
    let ours = saved.stream().zip(head.stream);
    let ours = ours.is_some_and(|(ours, theirs)| theirs.epoch <= ours.epoch);
    if head.txid == place.txid && (spooled == Spooled::Nothing || !ours) {
        return Anchor::Compare;
    }
    // The bucket lost what we stored, a huge file never arrived, or our own state is older than what we
    // stored (after a power loss, say), and was captured on from there before the store answered: lawful, and
    // rebased with every page.
    Anchor::Base
}

/// Whether the saved state shows that this database goes on from the head, so that it may have changed.
pub(super) fn continues(saved: &Saved, head: &RemoteHead) -> bool {
    let anchor = anchor(Some(saved), Spooled::Nothing, Some(head));
    matches!(anchor, Anchor::Resume | Anchor::Base)
}

/// Whether a state directory counts: it is of the head's lineage, and no later epoch than its own last one
/// wrote since. (At the cursor the sums decide.)
pub(super) fn counts(saved: &Saved, head: &RemoteHead) -> bool {
    let (Some(ours), Some(theirs)) = (saved.stream(), head.stream) else {
        return false;
    };
    let at_cursor = head.txid == saved.place.txid;
    ours.lineage == theirs.lineage && (at_cursor || theirs.epoch <= ours.epoch)
}

/// What may happen to a database whose content is not the head's.
pub(super) fn permitted(
    permission: Permission,
    head: &RemoteHead,
    name: &DatabaseName,
) -> Result<(), Error> {
    if permission.adopt || permission.new_chain || permission.adopt_at == Some(head.txid) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Fenced,
        format!(
            "the bucket already has a history of this name up to TXID {}, and this database is not its newest state",
            head.txid.get()
        ),
    )
    .on(name)
    .hint("restore it first, or: --adopt to go on from this database, --new-chain to begin a new history"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Place;
    use crate::types::{Checksum, Digest, Epoch, Lineage, PageCount, PageSize};

    fn txid(value: u64) -> Txid {
        Txid::new(value).unwrap()
    }

    fn sum(value: u128) -> DatabaseSum {
        DatabaseSum {
            checksum: Checksum::EMPTY,
            digest: Digest::new(value),
        }
    }

    fn stream(epoch: u32) -> StreamId {
        StreamId {
            lineage: Lineage::new(7).unwrap(),
            epoch: Epoch::new(epoch).unwrap(),
        }
    }

    fn saved() -> Saved {
        Saved {
            lineage: Lineage::new(7).unwrap(),
            epoch: Epoch::new(3),
            place: Place {
                txid: txid(10),
                sum: sum(10),
                page_size: PageSize::new(4096).unwrap(),
                page_count: PageCount(2),
                wal: None,
            },
            restored_head: None,
            rewind_from: None,
            last_snapshot: None,
        }
    }

    fn head(at: u64, epoch: u32) -> RemoteHead {
        RemoteHead {
            txid: txid(at),
            stream: Some(stream(epoch)),
            sum: Some(sum(at.into())),
        }
    }

    #[test]
    fn continuity_is_proven_never_assumed() {
        let ours = saved();
        let cases = [
            (
                "nothing anywhere",
                None,
                Spooled::Nothing,
                None,
                Anchor::Fresh,
            ),
            (
                "an unknown database over a stream",
                None,
                Spooled::Nothing,
                Some(head(5, 1)),
                Anchor::Compare,
            ),
            (
                "an emptied bucket",
                Some(&ours),
                Spooled::Nothing,
                None,
                Anchor::Resume,
            ),
            (
                "our head",
                Some(&ours),
                Spooled::Nothing,
                Some(head(10, 3)),
                Anchor::Resume,
            ),
            (
                "our head, of our epoch before",
                Some(&ours),
                Spooled::Nothing,
                Some(head(10, 2)),
                Anchor::Resume,
            ),
            (
                "our head, taken over by one who wrote nothing",
                Some(&ours),
                Spooled::Nothing,
                Some(head(10, 4)),
                Anchor::Resume,
            ),
            (
                "another epoch went on",
                Some(&ours),
                Spooled::Nothing,
                Some(head(12, 4)),
                Anchor::Compare,
            ),
            (
                "power loss: we stored more than we know",
                Some(&ours),
                Spooled::Nothing,
                Some(head(12, 3)),
                Anchor::Base,
            ),
            (
                "the spool bridges",
                Some(&ours),
                Spooled::Bridges,
                Some(head(7, 3)),
                Anchor::Resume,
            ),
            (
                "the bucket lost files",
                Some(&ours),
                Spooled::Nothing,
                Some(head(7, 3)),
                Anchor::Base,
            ),
            (
                "a later epoch wrote over the spool's range",
                Some(&ours),
                Spooled::Bridges,
                Some(head(7, 4)),
                Anchor::Compare,
            ),
            (
                "power loss, and captured on before the store answered",
                Some(&ours),
                Spooled::Astray,
                Some(head(12, 3)),
                Anchor::Base,
            ),
            (
                "a later epoch wrote what was captured on",
                Some(&ours),
                Spooled::Astray,
                Some(head(12, 4)),
                Anchor::Compare,
            ),
        ];
        for (what, saved, spooled, head, expected) in cases {
            assert_eq!(anchor(saved, spooled, head.as_ref()), expected, "{what}");
        }
        let wrong = RemoteHead {
            sum: Some(sum(99)),
            ..head(10, 3)
        };
        assert_eq!(
            anchor(Some(&ours), Spooled::Nothing, Some(&wrong)),
            Anchor::Compare,
            "same TXID, other content"
        );
        for (epoch, expected) in [(3, Anchor::Base), (4, Anchor::Compare)] {
            let wrong = RemoteHead {
                stream: Some(stream(epoch)),
                ..wrong
            };
            assert_eq!(
                anchor(Some(&ours), Spooled::Astray, Some(&wrong)),
                expected,
                "the same TXID, reached by what was captured before the store answered"
            );
        }
    }

    #[test]
    fn a_restored_directory_counts_only_while_its_head_stands() {
        let seen = Head {
            txid: txid(10),
            stream: Some(stream(3)),
            sum: Some(sum(10)),
        };
        let restored = Saved {
            epoch: None,
            restored_head: Some(seen),
            ..saved()
        };
        assert_eq!(
            anchor(Some(&restored), Spooled::Nothing, Some(&head(10, 3))),
            Anchor::Resume
        );
        let further = Saved {
            place: Place {
                txid: txid(12),
                sum: sum(12),
                ..restored.place
            },
            ..restored.clone()
        };
        for (spooled, expected) in [
            (Spooled::Bridges, Anchor::Resume),
            (Spooled::Astray, Anchor::Base),
        ] {
            let found = anchor(Some(&further), spooled, Some(&head(10, 3)));
            assert_eq!(found, expected, "captured on before the store answered");
        }
        assert_eq!(
            anchor(Some(&restored), Spooled::Nothing, Some(&head(11, 3))),
            Anchor::Compare
        );
        assert_eq!(
            anchor(Some(&restored), Spooled::Nothing, Some(&head(10, 4))),
            Anchor::Compare
        );
        let rewound = Saved {
            epoch: None,
            rewind_from: Some(seen),
            ..saved()
        };
        assert_eq!(
            anchor(Some(&rewound), Spooled::Nothing, Some(&head(10, 3))),
            Anchor::Base
        );
        assert_eq!(
            anchor(Some(&rewound), Spooled::Nothing, Some(&head(11, 3))),
            Anchor::Compare
        );
    }

    #[test]
    fn an_unknown_database_needs_permission() {
        let name = "app.db".parse().unwrap();
        let at = |adopt_at| Permission {
            adopt_at,
            ..Permission::default()
        };
        assert!(permitted(Permission::default(), &head(5, 1), &name).is_err());
        assert!(
            permitted(
                Permission {
                    adopt: true,
                    ..Permission::default()
                },
                &head(5, 1),
                &name
            )
            .is_ok()
        );
        assert!(permitted(at(Some(txid(5))), &head(5, 1), &name).is_ok());
        assert!(permitted(at(Some(txid(4))), &head(5, 1), &name).is_err());
    }
}
