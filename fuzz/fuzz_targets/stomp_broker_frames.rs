//! What the broker writes is read again, whatever the texts: `decode(encode(x)) == x`.
#![no_main]

use batonmq::codec::stomp::{DecodeLimits, Decoder, FrameWriter, Sender, Verb, Version};
use bytes::BufMut;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (bool, Vec<(String, String)>, Vec<u8>)| {
    let (newest, headers, body) = input;
    let version = if newest { Version::V1_2 } else { Version::V1_1 };
    let says = |text: &str| !text.contains('\0'); // NUL can't be said
    let headers: Vec<_> =
        headers.into_iter().filter(|(name, value)| !name.is_empty() && says(name) && says(value)).collect();
    if headers.len() > 1_000 || headers.iter().any(|(name, _)| name == "content-length") {
        return;
    }
    let mut out = Vec::new();
    let mut frame = FrameWriter::begin(&mut out, version, Verb::Message);
    for (name, value) in &headers {
        frame.header(name, value);
    }
    frame.number("content-length", body.len() as u64);
    frame.body(&body);

    let limits = DecodeLimits { header_bytes_max: usize::MAX, headers_max: 1_001, ..DecodeLimits::default() };
    let mut decoder = Decoder::new(Sender::Broker, limits);
    decoder.speak(version);
    let mut rest = &out[..];
    loop {
        match decoder.next_frame().expect("what we write is well formed") {
            None => {
                let mut room = decoder.room();
                let (now, later) = rest.split_at(rest.len().min(room.remaining_mut()));
                assert!(!now.is_empty(), "the frame is there and was not read");
                room.put_slice(now);
                rest = later;
            }
            Some(frame) => {
                let read: Vec<_> =
                    frame.headers.iter().take(headers.len()).map(|(n, v)| (n.into(), v.into())).collect();
                assert_eq!(read, headers);
                assert_eq!(frame.body.as_bytes(), body);
                return;
            }
        }
    }
});
