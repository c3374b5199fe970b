//! The body of a message: who sent it, as which number, and a filler that proves that nothing was torn.

/// Names a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Label {
    pub(crate) lane: u8,
    pub(crate) producer: u8,
    pub(crate) number: u32,
}

impl Label {
    /// The smallest body.
    pub(crate) const BYTES: usize = 6;

    /// Appends a body of this size, at least [`Self::BYTES`].
    pub(crate) fn put(self, body_bytes: usize, out: &mut Vec<u8>) {
        let end = out.len() + body_bytes.max(Self::BYTES);
        out.extend_from_slice(&[self.lane, self.producer]);
        out.extend_from_slice(&self.number.to_le_bytes());
        out.resize(end, self.filler());
    }

    /// The label of this body; none if it is not as it was written.
    pub(crate) fn read(body: &[u8]) -> Option<Self> {
        let ([lane, producer, number @ ..], filler) = body.split_first_chunk::<{ Self::BYTES }>()?;
        let label = Self { lane: *lane, producer: *producer, number: u32::from_le_bytes(*number) };
        filler.iter().all(|byte| *byte == label.filler()).then_some(label)
    }

    fn filler(self) -> u8 {
        self.number.to_le_bytes()[0] ^ self.producer
    }
}
