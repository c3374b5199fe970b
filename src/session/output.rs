//! What was rendered and not yet written: a buffer that is lent, and large bodies beside it.
//!
//! Always true: reading it as a [`Buf`] gives the bytes in the order in which they were put; a large body is never
//! copied.

use std::{collections::VecDeque, io::IoSlice};

use bytes::{Buf, Bytes};

/// Room for bodies that is kept from chunk to chunk.
const BODIES_KEPT_MAX: usize = 8;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Output {
    buffer: Vec<u8>,
    /// How much of `buffer` was written.
    written: usize,
    /// Bodies, and where in `buffer` each belongs.
    bodies: VecDeque<(usize, Bytes)>,
    bodies_bytes: usize,
}

impl Output {
    /// Where frames are rendered.
    pub(super) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.buffer
    }

    /// Puts a body after all that is there, without a copy.
    pub(super) fn put_body(&mut self, body: Bytes) {
        self.bodies_bytes += body.len();
        self.bodies.push_back((self.buffer.len(), body));
    }

    /// What is there in all, written or not. Unit: bytes.
    pub(super) fn len(&self) -> usize {
        self.buffer.len() + self.bodies_bytes
    }

    /// The memory that the buffer takes; bodies are counted with their messages. Unit: bytes.
    pub(super) fn held_bytes(&self) -> usize {
        self.buffer.capacity()
    }

    /// Whether it has a buffer; else it makes one when it needs it.
    pub(super) fn has_buffer(&self) -> bool {
        self.buffer.capacity() > 0
    }

    /// Renders into `buffer`, which is empty, as this is.
    pub(super) fn use_buffer(&mut self, buffer: Vec<u8>) {
        debug_assert!(self.len() == 0 && buffer.is_empty(), "nothing is lost");
        self.buffer = buffer;
    }

    /// All was written: gives the buffer back.
    pub(super) fn finish(&mut self) -> Vec<u8> {
        debug_assert!(!self.has_remaining(), "all was written");
        self.written = 0;
        self.bodies.clear();
        self.bodies.shrink_to(BODIES_KEPT_MAX);
        self.bodies_bytes = 0;
        std::mem::take(&mut self.buffer)
    }

    /// The part of the buffer before the next body.
    fn before_body(&self) -> &[u8] {
        let end = self.bodies.front().map_or(self.buffer.len(), |(at, _)| *at);
        self.buffer.get(self.written..end).unwrap_or_default()
    }
}

impl Buf for Output {
    fn remaining(&self) -> usize {
        self.buffer.len() - self.written + self.bodies.iter().map(|(_, body)| body.len()).sum::<usize>()
    }

    fn chunk(&self) -> &[u8] {
        let before = self.before_body();
        match self.bodies.front() {
            Some((_, body)) if before.is_empty() => body,
            _ => before,
        }
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let end = [(self.buffer.len(), [].as_slice())];
        let bodies = self.bodies.iter().map(|(at, body)| (*at, body.as_ref())).chain(end);
        let mut free = slices.iter_mut();
        let (mut from, mut used) = (self.written, 0);
        for (at, body) in bodies {
            let before = self.buffer.get(from..at).unwrap_or_default();
            for part in [before, body].into_iter().filter(|part| !part.is_empty()) {
                let Some(slice) = free.next() else { return used };
                *slice = IoSlice::new(part);
                used += 1;
            }
            from = at;
        }
        used
    }

    fn advance(&mut self, mut count: usize) {
        while count > 0 {
            let before = self.before_body().len();
            if before > 0 {
                let step = before.min(count);
                self.written += step;
                count -= step;
                continue;
            }
            let Some((_, body)) = self.bodies.front_mut() else {
                assert_eq!(count, 0, "no more is written than was there");
                return;
            };
            let step = body.len().min(count);
            body.advance(step);
            count -= step;
            if body.is_empty() {
                self.bodies.pop_front();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled() -> (Output, Vec<u8>) {
        let mut output = Output::default();
        output.buffer().extend_from_slice(b"first ");
        output.put_body(Bytes::from_static(b"BODY"));
        output.put_body(Bytes::from_static(b"AGAIN"));
        output.buffer().extend_from_slice(b" last");
        (output, b"first BODYAGAIN last".to_vec())
    }

    #[test]
    fn however_it_is_taken_the_order_is_kept() {
        for step in 1..=20 {
            let (mut output, expected) = filled();
            let mut taken = Vec::new();
            while output.has_remaining() {
                let chunk = output.chunk();
                let count = chunk.len().min(step);
                taken.extend_from_slice(&chunk[..count]);
                output.advance(count);
            }
            assert_eq!(taken, expected);
            output.finish();
            assert_eq!((output.len(), output.remaining()), (0, 0));
        }
    }

    #[test]
    fn slices_are_the_rest_in_order() {
        for taken in 0..20 {
            let (mut output, expected) = filled();
            output.advance(taken);
            let mut slices = [IoSlice::new(&[]); 8];
            let used = output.chunks_vectored(&mut slices);
            let seen: Vec<u8> = slices[..used].iter().flat_map(|slice| slice.iter().copied()).collect();
            assert_eq!(seen, &expected[taken..]);
        }
    }
}
