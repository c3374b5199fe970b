//! A client's bytes: never a panic, and the same answer whole as in two halves.
//!
//! The first bytes of the input choose version, limits and cut, the rest is the stream. What is found becomes a file
//! of `tests/corpus/stomp`.
#![no_main]

use batonmq::codec::stomp::{DecodeError, DecodeLimits, Decoder, Sender, Verb, Version};
use bytes::BufMut;
use libfuzzer_sys::fuzz_target;

type Answer = (Vec<(Verb, Vec<(String, String)>, Vec<u8>)>, Option<DecodeError>);

fuzz_target!(|input: (u8, u8, u8, u16, Vec<u8>)| {
    let (version, line_max, headers_max, cut, stream) = input;
    let version = [None, Some(Version::V1_0), Some(Version::V1_1), Some(Version::V1_2)][usize::from(version % 4)];
    let limits = DecodeLimits {
        command_bytes_max: usize::from(line_max),
        header_bytes_max: usize::from(line_max),
        headers_max: usize::from(headers_max % 8),
        body_bytes_max: 6_000,
        frame_bytes_max: 8_000,
        ..DecodeLimits::default()
    };
    let (left, right) = stream.split_at(usize::from(cut).min(stream.len()));
    assert_eq!(decode(version, &limits, &[&stream]), decode(version, &limits, &[left, right]));
});

fn decode(version: Option<Version>, limits: &DecodeLimits, parts: &[&[u8]]) -> Answer {
    let mut decoder = Decoder::new(Sender::Client, limits.clone());
    version.into_iter().for_each(|version| decoder.speak(version));
    let mut frames = Vec::new();
    for mut part in parts.iter().copied() {
        while !part.is_empty() {
            let mut room = decoder.room();
            let (now, later) = part.split_at(part.len().min(room.remaining_mut()));
            room.put_slice(now);
            part = later;
            loop {
                match decoder.next_frame() {
                    Ok(None) => break,
                    Err(error) => return (frames, Some(error)),
                    Ok(Some(frame)) => {
                        let headers = frame.headers.iter().map(|(name, value)| (name.into(), value.into())).collect();
                        frames.push((frame.verb, headers, frame.body.as_bytes().to_vec()));
                    }
                }
            }
        }
    }
    (frames, None)
}
