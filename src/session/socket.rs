//! The two halves of a connection's socket, each with the bytes between it and the session.
//!
//! Always true: a connection whose socket has nothing to give and nothing to take holds no large buffer, and what one
//! holds beyond [`FREE_BYTES`] counts in the term's memory (R31).
//! On failure: an [`End`] says what became of the peer.

use std::{
    future::poll_fn,
    io,
    pin::pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Buf as _;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf},
    time::timeout,
};

use super::{Buffers, End, SessionOptions, output::Output};
use crate::{
    broker::CloseReason,
    codec::stomp::{DecodeError, Decoder, Frame},
    types::{Charge, Meter},
};

/// What may lie in a buffer without being counted: every connection needs that much, and `limits.memory_bytes_max` is
/// checked to leave room for it. Unit: bytes.
const FREE_BYTES: usize = 8 << 10;

/// The reading half, and what was read of a frame that is not all there.
#[derive(Debug)]
pub(super) struct Reads<S> {
    pub(super) half: ReadHalf<S>,
    pub(super) decoder: Decoder,
    buffers: Arc<Buffers>,
    charge: BufferCharge,
}

impl<S: AsyncRead> Reads<S> {
    pub(super) fn new(half: ReadHalf<S>, decoder: Decoder, options: &SessionOptions) -> Self {
        Self { half, decoder, buffers: options.buffers.clone(), charge: BufferCharge::new(&options.meter) }
    }

    /// The next frame that is all there.
    pub(super) fn next_frame(&mut self) -> Result<Option<Frame<'_>>, DecodeError> {
        self.decoder.next_frame()
    }

    /// Reads once. 0: the peer sends nothing more. Cancel safe.
    pub(super) async fn read(&mut self) -> io::Result<usize> {
        poll_fn(|context| self.poll_read(context)).await
    }

    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if !self.decoder.has_buffer() {
            self.decoder.use_buffer(self.buffers.take_for_reading());
        }
        let read = pin!(self.half.read_buf(&mut self.decoder.room())).poll(context);
        if read.is_pending() {
            self.return_buffer();
        }
        read
    }

    /// Others may have the buffer until bytes come.
    pub(super) fn return_buffer(&mut self) {
        if let Some(buffer) = self.decoder.return_buffer() {
            self.buffers.keep_for_reading(buffer);
        }
    }

    /// Counts what the buffer takes, once all frames were taken out of it.
    pub(super) fn count(&mut self) {
        self.charge.follow(self.decoder.held_bytes());
    }

    /// Whether so much of a frame is there that it counts, and more is to come.
    pub(super) fn is_within_large_frame(&self) -> bool {
        self.decoder.unfinished_bytes() > FREE_BYTES
    }

    /// Drops what was read: no frame follows.
    pub(super) fn give_up(&mut self) {
        self.decoder.give_up();
        self.count();
    }
}

/// The writing half, and what waits for it.
#[derive(Debug)]
pub(super) struct Writes<S> {
    pub(super) half: WriteHalf<S>,
    output: Output,
    buffers: Arc<Buffers>,
    charge: BufferCharge,
    /// How long the peer may take nothing.
    patience: Duration,
}

impl<S: AsyncWrite> Writes<S> {
    pub(super) fn new(half: WriteHalf<S>, options: &SessionOptions) -> Self {
        Self {
            half,
            output: Output::default(),
            buffers: options.buffers.clone(),
            charge: BufferCharge::new(&options.meter),
            patience: options.limits.slow_consumer_timeout,
        }
    }

    /// Where frames are rendered.
    pub(super) fn output(&mut self) -> &mut Output {
        if !self.output.has_buffer() {
            self.output.use_buffer(self.buffers.take_for_writing());
        }
        &mut self.output
    }

    /// Puts everything into the kernel.
    pub(super) async fn flush(&mut self) -> Result<(), End> {
        self.charge.follow(self.output.held_bytes());
        while self.output.has_remaining() {
            match timeout(self.patience, self.half.write_buf(&mut self.output)).await {
                Ok(Ok(0)) => return Err(End::PeerGone),
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return Err(lost(&error)),
                Err(_) => return Err(self.slow()),
            }
        }
        self.buffers.keep_for_writing(self.output.finish());
        self.charge.follow(0);
        // TLS keeps records back until it is told.
        match timeout(self.patience, self.half.flush()).await {
            Ok(flushed) => flushed.map_err(|error| lost(&error)),
            Err(_) => Err(self.slow()),
        }
    }

    fn slow(&self) -> End {
        let why = format!("its socket took nothing for {:?}", self.patience);
        End::Closed(CloseReason::SlowConsumer(why))
    }
}

/// The socket failed.
pub(super) fn lost(error: &io::Error) -> End {
    End::Lost(error.to_string())
}

/// A charge that follows a buffer.
#[derive(Debug)]
struct BufferCharge(Charge);

impl BufferCharge {
    fn new(meter: &Meter) -> Self {
        Self(meter.charge(0))
    }

    /// The buffer takes so many bytes now.
    fn follow(&mut self, bytes: usize) {
        let counted = bytes.saturating_sub(FREE_BYTES);
        if counted != self.0.bytes() {
            self.0.resize(counted);
        }
    }
}
