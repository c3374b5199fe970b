//! STOMP 1.0, 1.1 and 1.2: an incremental decoder and an encoder that allocates nothing.
//!
//! Always true: how the bytes of a frame are cut into reads changes nothing about what is decoded; no memory is taken
//! for a peer's number before it was held against [`DecodeLimits`]; a body is copied at most once between the socket
//! and its message.
//! On failure: a [`DecodeError`] ends the decoder. What follows in the stream can't be told apart from the bad frame,
//! so the connection ends too, even for a lenient session.

mod decoder;
mod encoder;
mod error;
mod escaping;
mod frame;
mod limits;
mod message;
mod version;

pub use decoder::{Decoder, Sender};
pub use encoder::{FrameWriter, put_decimal};
pub use error::DecodeError;
pub use frame::{Body, Frame, Headers, Verb};
pub use limits::DecodeLimits;
pub use message::{SEPARATE_BODY_MIN, body_is_separate, put_destination, put_message_rest};
pub use version::{SUPPORTED_VERSIONS, Version};
