//! What the codec costs: a stream of SENDs with bodies of 1 KiB decoded, and MESSAGEs of the same size rendered.
//!
//! `cargo bench --bench decoder` prints bytes and frames a second and the time of one frame, the best of several runs.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use batonmq::{
    codec::stomp::{DecodeLimits, Decoder, FrameWriter, Sender, Verb, Version, put_message_rest},
    types::{Message, MessageDraft, PropertiesBuilder, PropertyValue, Timestamp},
};
use bytes::{BufMut, Bytes};

/// Frames of one run.
const FRAMES: usize = 200_000;
/// Runs; the best one counts, because others can only be disturbed.
const RUNS: usize = 7;

fn main() {
    for counted in [true, false] {
        let stream = sends(counted);
        let best = best_of(|| decode(&stream));
        let kind = if counted { "content-length" } else { "text" };
        report(&format!("decode SEND, {kind}"), FRAMES, stream.len(), best);
    }
    let message = message();
    let mut bytes = 0;
    let best = best_of(|| bytes = encode(&message));
    report("render MESSAGE", FRAMES, bytes, best);
}

fn report(what: &str, frames: usize, bytes: usize, took: Duration) {
    let seconds = took.as_secs_f64();
    let (frames, bytes) = (frames as f64, bytes as f64);
    println!(
        "{what:28} {:8.0} MB/s {:10.0} frames/s {:6.0} ns/frame",
        bytes / seconds / 1e6,
        frames / seconds,
        seconds / frames * 1e9
    );
}

fn best_of(mut run: impl FnMut()) -> Duration {
    let timed = (0..RUNS).map(|_| {
        let started = Instant::now();
        run();
        started.elapsed()
    });
    timed.min().unwrap_or_default()
}

fn sends(counted: bool) -> Vec<u8> {
    let length = if counted { "content-length:1024\n" } else { "" };
    let body = "b".repeat(1_024);
    let frame = format!(
        "SEND\ndestination:/queue/orders.incoming\npersistent:true\nreceipt:message-1234\ncontent-type:text/plain\n\
         {length}customer:4711\n\n{body}\0"
    );
    frame.repeat(FRAMES).into_bytes()
}

/// Reads the stream as a socket gives it: into the decoder's room, as much as fits.
fn decode(stream: &[u8]) {
    let mut decoder = Decoder::new(Sender::Client, DecodeLimits::default());
    decoder.speak(Version::V1_2);
    let (mut rest, mut frames) = (stream, 0);
    while !rest.is_empty() {
        let mut room = decoder.room();
        let (now, later) = rest.split_at(rest.len().min(room.remaining_mut()));
        room.put_slice(now);
        rest = later;
        while let Some(frame) = decoder.next_frame().expect("the stream is well formed") {
            black_box((frame.headers.find("destination"), frame.body.as_bytes().len()));
            frames += 1;
        }
    }
    assert_eq!(frames, FRAMES);
}

fn message() -> Message {
    let mut properties = PropertiesBuilder::default();
    properties.push("customer", PropertyValue::Text("4711"));
    properties.push("content-type", PropertyValue::Text("text/plain"));
    Message::new(MessageDraft {
        id: "ID-broker-1700000000000-17-123456".into(),
        persistent: true,
        timestamp: Timestamp(1_700_000_000_000),
        properties: properties.build(),
        body: Bytes::from(vec![b'b'; 1_024]),
        ..MessageDraft::default()
    })
}

/// Renders into one buffer that is emptied every 64 KiB, as a session's writer does.
fn encode(message: &Message) -> usize {
    let (mut out, mut bytes) = (Vec::new(), 0);
    for number in 0..FRAMES as u64 {
        let mut frame = FrameWriter::begin(&mut out, Version::V1_2, Verb::Message);
        frame.header("subscription", "sub-0");
        frame.header("destination", "/queue/orders.incoming");
        frame.number("ack", number);
        frame.header("redelivered", "false");
        put_message_rest(&mut out, Version::V1_2, message);
        if out.len() > 64 << 10 {
            bytes += black_box(&out).len();
            out.clear();
        }
    }
    bytes + out.len()
}
