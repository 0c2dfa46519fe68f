//! What a generation held that a newer one has begun to overwrite.

use std::path::PathBuf;

use super::super::*;
use super::bytes::{end_of, file};
use crate::sqlite::testing::{App, Scratch, scratch};
use crate::types::PageSize;

const PAGE: usize = 512;
const FRAME: usize = FRAME_HEADER_BYTES + PAGE;

/// A log with a long first generation, a shorter second one whose first commit is captured, and a third.
struct Sample {
    app: App,
    place: Scratch,
    /// Behind the first commit of the second generation.
    cursor: WalCursor,
    /// The end of the second generation.
    end: WalEnd,
}

impl Sample {
    fn new(first: u32) -> Self {
        let place = scratch("app.db");
        let mut app = App::with_database(&place.path, PAGE as u32);
        app.sql("a", "CREATE TABLE t(v)");
        for _ in 0..first {
            app.sql("a", "INSERT INTO t VALUES (randomblob(3000))");
        }
        app.sql("a", "PRAGMA wal_checkpoint(RESTART)");
        app.sql("a", "INSERT INTO t VALUES (randomblob(5000))");
        let cursor = end_of(&place.path).cursor(PageSize::new(PAGE as u32).unwrap());
        app.sql("a", "INSERT INTO t VALUES (randomblob(2000))");
        app.sql("a", "DELETE FROM t WHERE rowid = 1");
        let end = end_of(&place.path);
        Self {
            app,
            place,
            cursor,
            end,
        }
    }

    /// Begins a third generation.
    fn restart(&mut self, sql: &str) -> WalEnd {
        self.app.sql("a", "PRAGMA wal_checkpoint(RESTART)");
        self.app.sql("a", sql);
        end_of(&self.place.path)
    }

    fn wal(&self) -> PathBuf {
        crate::fs::with_suffix(&self.place.path, "-wal")
    }

    fn bytes(&self) -> Vec<u8> {
        std::fs::read(self.wal()).unwrap()
    }
}

/// The frames found, and the end if it is certain.
fn sealed(bytes: &[u8], cursor: &WalCursor, end: &WalEnd) -> (Vec<u32>, Option<WalCursor>) {
    let mut seen = Vec::new();
    let found = scan_sealed(&file(bytes), cursor, end, &mut |frame| {
        seen.push(frame.number);
        Ok(())
    });
    (seen, found.unwrap())
}

#[test]
fn the_rest_of_a_generation_is_read_while_the_next_one_begins() {
    let mut sample = Sample::new(20);
    let end = sample.restart("INSERT INTO t VALUES (1)");
    assert!(
        end.frames <= sample.cursor.frame(),
        "{end:?} {:?}",
        sample.cursor
    );
    let (seen, found) = sealed(&sample.bytes(), &sample.cursor, &end);
    assert_eq!(found, Some(sample.end.cursor(sample.cursor.page_size())));
    let expected: Vec<u32> = (sample.cursor.frame() + 1..=sample.end.frames).collect();
    assert_eq!(seen, expected);
    // Also where nothing is left behind the cursor.
    let last = sample.end.cursor(sample.cursor.page_size());
    assert_eq!(sealed(&sample.bytes(), &last, &end), (vec![], Some(last)));
}

#[test]
fn k12_nothing_is_certain_where_frames_may_be_missing() {
    // The file ends where the generation does: it may have been cut.
    let mut short = Sample::new(0);
    let end = short.restart("INSERT INTO t VALUES (1)");
    assert_eq!(sealed(&short.bytes(), &short.cursor, &end).1, None);

    let mut sample = Sample::new(20);
    let end = sample.restart("INSERT INTO t VALUES (1)");
    let bytes = sample.bytes();
    let (first, last) = (sample.cursor.frame(), sample.end.frames);
    assert!(sealed(&bytes, &sample.cursor, &end).1.is_some());
    let offset = |frame: u32| WAL_HEADER_BYTES + (frame as usize - 1) * FRAME;
    // Whatever is not as it was written, up to and with the salts of the frame behind the last.
    for frame in first..=last {
        for at in (0..FRAME).step_by(7) {
            let mut damaged = bytes.clone();
            damaged[offset(frame) + at] ^= 4;
            let found = sealed(&damaged, &sample.cursor, &end).1;
            // Of the cursor's own frame only the header is looked at: its sums are known.
            let own = frame == first && !(8..FRAME_HEADER_BYTES).contains(&at);
            assert!(own || found.is_none(), "frame {frame} byte {at}: {found:?}");
        }
    }
    // W14: older SQLites leave frames with zero salts in the middle of a commit.
    for frame in first + 1..=last + 1 {
        let mut spilled = bytes.clone();
        spilled[offset(frame) + 8..offset(frame) + 16].fill(0);
        assert_eq!(sealed(&spilled, &sample.cursor, &end).1, None, "{frame}");
    }
    // Of another time altogether.
    let mut later = bytes.clone();
    later[offset(last + 1) + 8] ^= 0x80;
    assert_eq!(sealed(&later, &sample.cursor, &end).1, None);

    // The new generation has taken the cursor's own frame, and none follows that shows that it stood there.
    let last = sample.end.cursor(sample.cursor.page_size());
    let reached = |cursor: &WalCursor| WalEnd {
        frames: cursor.frame(),
        ..end
    };
    let found = sealed(&bytes, &sample.cursor, &reached(&sample.cursor)).1;
    assert_eq!(found, Some(last));
    assert_eq!(sealed(&bytes, &last, &reached(&last)).1, None);

    // The new generation has passed the cursor, or is not the next one.
    let passed = sample.restart("INSERT INTO t VALUES (randomblob(6000))");
    assert_eq!(sealed(&sample.bytes(), &sample.cursor, &passed).1, None);
    let mut sample = Sample::new(20);
    sample.restart("INSERT INTO t VALUES (1)");
    let twice = sample.restart("INSERT INTO t VALUES (1)");
    assert_eq!(sealed(&sample.bytes(), &sample.cursor, &twice).1, None);
    let mut sample = Sample::new(20);
    let passed = sample.restart("INSERT INTO t VALUES (randomblob(6000))");
    assert!(passed.frames > sample.cursor.frame());
    assert_eq!(sealed(&sample.bytes(), &sample.cursor, &passed).1, None);
}
