//! The STOMP codec from outside: one answer however the bytes are cut, what is written is read again, and a corpus of
//! streams whose answers are kept beside them.

use std::{fs, path::PathBuf};

use batonmq::codec::stomp::{DecodeError, DecodeLimits, Decoder, FrameWriter, Sender, Verb, Version};
use bytes::BufMut;
use proptest::{prelude::*, test_runner::RngSeed};

/// A frame that owns what it says.
#[derive(Clone, Debug, PartialEq)]
struct Owned {
    verb: Verb,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    counted: bool,
    bytes: usize,
}

/// What a stream says, and how it ends.
type Answer = (Vec<Owned>, Option<DecodeError>);

/// Decodes `parts` one after the other. After CONNECT (or CONNECTED) the version it settles on is spoken.
fn decode<'a>(sender: Sender, limits: &DecodeLimits, parts: impl IntoIterator<Item = &'a [u8]>) -> Answer {
    let mut decoder = Decoder::new(sender, limits.clone());
    let mut frames = Vec::new();
    for mut part in parts {
        while !part.is_empty() {
            let mut room = decoder.room();
            let (now, later) = part.split_at(part.len().min(room.remaining_mut()));
            room.put_slice(now);
            part = later;
            loop {
                let version = match decoder.next_frame() {
                    Ok(None) => break,
                    Err(error) => return (frames, Some(error)),
                    Ok(Some(frame)) => {
                        let headers =
                            frame.headers.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
                        let body = frame.body.as_bytes().to_vec();
                        let version = match frame.verb {
                            Verb::Connect | Verb::Stomp => Version::negotiate(frame.headers.find("accept-version")),
                            Verb::Connected => Version::negotiate(frame.headers.find("version")),
                            _ => None,
                        };
                        let (verb, counted, bytes) = (frame.verb, frame.counted, frame.bytes);
                        frames.push(Owned { verb, headers, body, counted, bytes });
                        version
                    }
                };
                if let Some(version) = version {
                    decoder.speak(version);
                }
            }
        }
    }
    (frames, None)
}

/// Decodes whole, in two parts cut at each byte, and byte by byte: one answer.
fn decode_every_way(sender: Sender, limits: &DecodeLimits, stream: &[u8]) -> Answer {
    let whole = decode(sender, limits, [stream]);
    for at in 0..=stream.len() {
        let (left, right) = stream.split_at(at);
        assert_eq!(decode(sender, limits, [left, right]), whole, "cut at byte {at}");
    }
    assert_eq!(decode(sender, limits, stream.chunks(1)), whole, "byte by byte");
    whole
}

fn connect(version: Version) -> Vec<u8> {
    format!("CONNECT\naccept-version:{version}\n\n\0").into_bytes()
}

fn stream(version: Version, frames: &[u8]) -> Vec<u8> {
    [&connect(version), frames].concat()
}

#[test]
fn each_stream_of_the_corpus_has_one_answer_however_it_is_cut() {
    let corpus = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/stomp");
    let mut seen = 0;
    for entry in fs::read_dir(&corpus).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "stomp") {
            continue;
        }
        seen += 1;
        let bytes = fs::read(&path).unwrap();
        let answer = described(&decode_every_way(Sender::Client, &DecodeLimits::default(), &bytes));
        let expected = path.with_extension("txt");
        if std::env::var_os("BATONMQ_BLESS").is_some() {
            fs::write(&expected, &answer).unwrap();
        }
        let kept = fs::read_to_string(&expected).unwrap_or_else(|_| panic!("{} is missing", expected.display()));
        assert_eq!(answer, kept, "{}", path.display());
    }
    assert!(seen >= 20, "the corpus was found");
}

/// An answer as it is kept beside its stream.
fn described((frames, error): &Answer) -> String {
    let mut lines = Vec::new();
    for frame in frames {
        lines.push(format!("{} counted={} bytes={}", frame.verb.as_str(), frame.counted, frame.bytes));
        lines.extend(frame.headers.iter().map(|(name, value)| format!("  {name:?}: {value:?}")));
        lines.push(format!("  body {:?}", String::from_utf8_lossy(&frame.body)));
    }
    lines.push(error.as_ref().map_or_else(|| "ends well".to_owned(), |error| format!("ERROR {error}")));
    lines.join("\n") + "\n"
}

#[test]
fn a_large_body_arrives_whole_however_it_is_cut() {
    let body = vec![0xabu8; 20_000];
    let mut frame = format!("SEND\ndestination:/queue/a\ncontent-length:{}\n\n", body.len()).into_bytes();
    frame.extend_from_slice(&body);
    frame.extend_from_slice(b"\0BEGIN\ntransaction:t\n\n\0");
    let bytes = stream(Version::V1_2, &frame);
    let limits = DecodeLimits::default();
    let whole = decode(Sender::Client, &limits, [&*bytes]);
    assert_eq!(whole.0.len(), 3);
    assert_eq!(whole.0[1].body, body);
    for size in [1, 7, 100, 1_000, 4_095, 4_096, 4_097, 19_999] {
        assert_eq!(decode(Sender::Client, &limits, bytes.chunks(size)), whole, "in parts of {size}");
    }
}

#[test]
fn a_long_text_without_content_length_arrives_whole() {
    let body = "x".repeat(300_000);
    let frame = format!("SEND\ndestination:/queue/a\n\n{body}\0SEND\ndestination:/queue/b\n\nshort\0");
    let bytes = stream(Version::V1_1, frame.as_bytes());
    for size in [10_000, 65_536, bytes.len()] {
        let (frames, error) = decode(Sender::Client, &DecodeLimits::default(), bytes.chunks(size));
        assert_eq!(error, None);
        assert_eq!((frames[1].body.len(), &*frames[2].body), (300_000, &b"short"[..]));
    }
}

#[test]
fn each_limit_stops_a_frame_and_names_itself() {
    let limits = DecodeLimits {
        command_bytes_max: 12,
        header_bytes_max: 40,
        headers_max: 3,
        body_bytes_max: 10,
        frame_bytes_max: 100,
        connect_bytes_max: 60,
    };
    let cases: [(&[u8], DecodeError); 8] = [
        (b"SENDSENDSENDSEND\n", DecodeError::CommandTooLong { limit: 12 }),
        (b"SENDSENDSENDSEND", DecodeError::CommandTooLong { limit: 12 }),
        (b"SEND\nx:0123456789012345678901234567890123456789", DecodeError::HeaderTooLong { limit: 40 }),
        (b"SEND\na:1\nb:2\nc:3\nd:4\n\n\0", DecodeError::TooManyHeaders { limit: 3 }),
        (b"SEND\na:1\n\n01234567890\0", DecodeError::BodyTooLong { limit: 10 }),
        (b"SEND\ncontent-length:11\n\n", DecodeError::BodyTooLong { limit: 10 }),
        (b"SEND\ncontent-length:99999999999999999999999\n\n", DecodeError::BodyTooLong { limit: 10 }),
        (
            b"SEND\na:012345678901234567890123456789\nb:012345678901234567890123456789\nc:0123456789012345678901234567",
            DecodeError::FrameTooLong { limit: 100 },
        ),
    ];
    for (frames, expected) in cases {
        let bytes = stream(Version::V1_2, frames);
        let (_, error) = decode_every_way(Sender::Client, &limits, &bytes);
        assert_eq!(error.as_ref(), Some(&expected), "{}", String::from_utf8_lossy(frames));
        assert!(expected.to_string().starts_with("The maximum "), "ActiveMQ's wording: {expected}");
        assert!(expected.to_string().contains("was exceeded"), "ActiveMQ's wording: {expected}");
    }
}

#[test]
fn what_just_fits_its_limits_is_taken_and_one_byte_more_is_not() {
    let limits = DecodeLimits {
        command_bytes_max: 5,
        header_bytes_max: 3,
        headers_max: 2,
        body_bytes_max: 10,
        frame_bytes_max: "SEND\na:1\nb:2\n\n0123456789".len(),
        connect_bytes_max: "STOMP\r\n\n".len(),
    };
    let answer = |frame: &str| {
        let bytes = ["STOMP\r\n\n\0", frame].concat(); // 1.0, where CR may stand before LF; it counts for the frame only
        decode_every_way(Sender::Client, &limits, bytes.as_bytes()).1
    };
    assert_eq!(answer("SEND\na:1\nb:2\n\n0123456789\0"), None);
    assert_eq!(answer("SEND\na:1\nb:2\r\n\n012345678\0"), None);
    assert_eq!(answer("SEND\na:12\n\n\0"), Some(DecodeError::HeaderTooLong { limit: 3 }));
    assert_eq!(answer("SEND\na:1\nb:2\nc:3\n\n\0"), Some(DecodeError::TooManyHeaders { limit: 2 }));
    assert_eq!(answer("SEND\na:1\n\n01234567890\0"), Some(DecodeError::BodyTooLong { limit: 10 }));
    let limit = limits.frame_bytes_max;
    assert_eq!(answer("SEND\na:1\nb:2\r\n\n0123456789\0"), Some(DecodeError::FrameTooLong { limit }));
}

#[test]
fn an_unknown_peer_is_held_to_a_small_frame() {
    let mut bytes = b"CONNECT\n".to_vec();
    for _ in 0..100 {
        bytes.extend_from_slice(&[b"padding:".as_slice(), &[b'x'; 2_000], b"\n"].concat());
    }
    let (_, error) = decode(Sender::Client, &DecodeLimits::default(), [&*bytes]);
    assert_eq!(error, Some(DecodeError::FrameTooLong { limit: 64 << 10 }));
}

#[test]
fn no_memory_is_taken_for_a_number_alone() {
    let limits = DecodeLimits { body_bytes_max: usize::MAX, ..DecodeLimits::default() };
    let frame = format!("CONNECT\ncontent-length:{}\n\n", usize::MAX);
    let (_, error) = decode(Sender::Client, &limits, [frame.as_bytes()]);
    assert_eq!(error, Some(DecodeError::BodyNotAllowed { command: "CONNECT" }));
}

#[test]
fn the_receipt_of_a_failed_frame_is_known() {
    let mut decoder = Decoder::new(Sender::Client, DecodeLimits::default());
    decoder.speak(Version::V1_2);
    decoder.room().put_slice(b"SEND\nreceipt:r-7\ncontent-length:1\n\nabc\0");
    assert_eq!(decoder.next_frame().unwrap_err(), DecodeError::MissingNul);
    assert_eq!(decoder.receipt_of_failed(), Some("r-7"));
    assert!(decoder.next_frame().unwrap().is_none(), "after an error nothing follows");
}

fn version() -> impl Strategy<Value = Version> {
    prop_oneof![Just(Version::V1_0), Just(Version::V1_1), Just(Version::V1_2)]
}

/// Text that a version can say in a header.
fn header_text(version: Version) -> impl Strategy<Value = String> {
    let parts = prop::collection::vec(
        prop_oneof![
            "[a-z0-9 /.-]{1,8}",
            Just(":".to_owned()),
            Just("\\".to_owned()),
            Just("\\n".to_owned()),
            Just("\n".to_owned()),
            Just("\r".to_owned()),
            Just("größe".to_owned()),
        ],
        0..6,
    );
    parts.prop_map(move |parts| {
        let text = parts.concat();
        if version == Version::V1_0 { text.replace(['\n', '\r'], "").trim().to_owned() } else { text }
    })
}

/// A frame of a broker, and how its headers and body must be read again.
fn broker_frame() -> impl Strategy<Value = (Version, Vec<(String, String)>, Vec<u8>, bool)> {
    version().prop_flat_map(|version| {
        let name = header_text(version).prop_map(move |name| {
            let name = if version == Version::V1_0 { name.replace(':', "") } else { name };
            format!("n{name}n")
        });
        let headers = prop::collection::vec((name, header_text(version)), 0..8);
        (Just(version), headers, prop::collection::vec(any::<u8>(), 0..200), any::<bool>())
    })
}

/// `BATONMQ_SEED` repeats the cases; there are as many as without it.
fn seeded() -> ProptestConfig {
    let seed = std::env::var("BATONMQ_SEED").ok().map(|seed| seed.parse().expect("BATONMQ_SEED is a number"));
    ProptestConfig { rng_seed: seed.map_or(RngSeed::Random, RngSeed::Fixed), ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(seeded())]

    #[test]
    fn what_is_encoded_is_decoded_again((version, headers, body, counted) in broker_frame()) {
        let counted = counted || body.contains(&0);
        let mut out = Vec::new();
        let mut connected = FrameWriter::begin(&mut out, version, Verb::Connected);
        connected.header("version", version.as_str());
        connected.body(b"");
        let mut frame = FrameWriter::begin(&mut out, version, Verb::Message);
        for (name, value) in &headers {
            frame.header(name, value);
        }
        if counted {
            frame.number("content-length", body.len() as u64);
        }
        frame.body(&body);
        let (frames, error) = decode_every_way(Sender::Broker, &DecodeLimits::default(), &out);
        prop_assert_eq!(error, None);
        let read = frames.last().unwrap();
        prop_assert_eq!(read.headers.get(..headers.len()).unwrap(), &*headers);
        prop_assert_eq!(&read.body, &body);
        prop_assert_eq!(read.counted, counted);
    }

    #[test]
    fn random_bytes_have_one_answer_however_they_are_cut(
        version in version(),
        junk in prop::collection::vec(fragment(), 0..24),
        limits in small_limits(),
    ) {
        decode_every_way(Sender::Client, &limits, &stream(version, &junk.concat()));
        decode_every_way(Sender::Client, &limits, &junk.concat());
    }
}

/// Pieces of which random streams get far into the decoder.
fn fragment() -> impl Strategy<Value = Vec<u8>> {
    let words: &[&[u8]] = &[
        b"SEND\n",
        b"SUBSCRIBE\n",
        b"CONNECT\n",
        b"MESSAGE\n",
        b"a:b\n",
        b"content-length:3\n",
        b"content-length:0\n",
        b"content-length:x\n",
        b"receipt:1\n",
        b"\n",
        b"\r\n",
        b"\r",
        b"\0",
        b":",
        b"\\n",
        b"\\t",
        b"\\",
        b"\n\nabc\0",
        b"\n\n\0",
        b"SEND\na:b\n\nbody\0",
        b"\xff",
        b"abc\0",
        b"SEND",
        b"destination:/queue/a\n",
    ];
    prop_oneof![
        8 => prop::sample::select(words).prop_map(<[u8]>::to_vec),
        1 => prop::collection::vec(any::<u8>(), 0..12),
    ]
}

fn small_limits() -> impl Strategy<Value = DecodeLimits> {
    (1..40usize, 1..40usize, 0..5usize, 0..40usize, 1..120usize, 1..120usize).prop_map(
        |(command_bytes_max, header_bytes_max, headers_max, body_bytes_max, frame_bytes_max, connect_bytes_max)| {
            DecodeLimits {
                command_bytes_max,
                header_bytes_max,
                headers_max,
                body_bytes_max,
                frame_bytes_max,
                connect_bytes_max,
            }
        },
    )
}
