//! Bytes that arrive asynchronously, as a [`Read`] for a thread that may block.

use std::io::{self, Read};

use bytes::{Buf, Bytes};
use tokio::sync::mpsc;

use crate::error::Error;

/// Reads what is sent through a channel; ends when the sender is gone.
pub(super) struct Feed {
    receiver: mpsc::Receiver<Result<Bytes, Error>>,
    piece: Bytes,
}

impl Feed {
    /// A sender for at most `pieces` pieces ahead, and the reader of what it sends.
    pub(super) fn new(pieces: usize) -> (mpsc::Sender<Result<Bytes, Error>>, Self) {
        let (sender, receiver) = mpsc::channel(pieces);
        let piece = Bytes::new();
        (sender, Self { receiver, piece })
    }
}

impl Read for Feed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.receiver.blocking_recv() {
                Some(Ok(piece)) => self.piece = piece,
                Some(Err(error)) => return Err(io::Error::other(error)),
                None => return Ok(0),
            }
        }
        let length = buffer.len().min(self.piece.len());
        self.piece.copy_to_slice(&mut buffer[..length]);
        Ok(length)
    }
}
