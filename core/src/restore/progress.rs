//! What a restore says while it runs.

/// Gets told how far a restore is. Called from several threads, briefly and often.
pub trait Progress: Send + Sync {
    /// The plan is made: so many bytes of a snapshot, and so many in `segments` further files. Called again
    /// where the plan had to be changed; counting starts anew then.
    fn planned(&self, snapshot_bytes: u64, segments: u64, segment_bytes: u64) {
        let _ = (snapshot_bytes, segments, segment_bytes);
    }

    /// So many more bytes have arrived.
    fn downloaded(&self, bytes: u64) {
        let _ = bytes;
    }

    /// All bytes have arrived and are proved; the database is being checked and put in place.
    fn checking(&self) {}
}

/// Says nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Silent;

impl Progress for Silent {}
