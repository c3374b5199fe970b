//! Large buffers, for connections that are at work. A connection has one while bytes lie in it; idle ones have none.
//!
//! Always true: a buffer is either here or with one connection. At most [`KEPT_MAX`] of a kind wait here, the one that
//! was used last on top, because it is the one that the processor's caches know.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::BytesMut;

/// Buffers of a kind that wait to be used again; sessions share one thread, so few are in use at a time.
const KEPT_MAX: usize = 8;

/// Room for what is rendered at once, and for the frame that goes beyond it. Unit: bytes.
const WRITE_BYTES: usize = 80 << 10;

/// A buffer that grew beyond this is not kept. Unit: bytes.
const KEPT_BYTES_MAX: usize = 128 << 10;

/// The buffers that the connections of a term lend each other.
#[derive(Debug, Default)]
pub struct Buffers {
    reads: Mutex<Vec<BytesMut>>,
    writes: Mutex<Vec<Vec<u8>>>,
}

impl Buffers {
    /// An empty buffer to read into; it may have no room yet.
    pub(super) fn take_for_reading(&self) -> BytesMut {
        lock(&self.reads).pop().unwrap_or_default()
    }

    /// Takes a buffer back.
    pub(super) fn keep_for_reading(&self, mut buffer: BytesMut) {
        buffer.clear();
        let grew = buffer.try_reclaim(KEPT_BYTES_MAX + 1);
        keep(&self.reads, !grew, buffer);
    }

    /// An empty buffer to render into.
    pub(super) fn take_for_writing(&self) -> Vec<u8> {
        lock(&self.writes).pop().unwrap_or_else(|| Vec::with_capacity(WRITE_BYTES))
    }

    /// Takes a buffer back.
    pub(super) fn keep_for_writing(&self, mut buffer: Vec<u8>) {
        buffer.clear();
        keep(&self.writes, buffer.capacity() <= KEPT_BYTES_MAX, buffer);
    }
}

fn keep<T>(kept: &Mutex<Vec<T>>, worthy: bool, buffer: T) {
    let mut kept = lock(kept);
    if worthy && kept.len() < KEPT_MAX {
        kept.push(buffer);
    }
}

fn lock<T>(kept: &Mutex<Vec<T>>) -> MutexGuard<'_, Vec<T>> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}
