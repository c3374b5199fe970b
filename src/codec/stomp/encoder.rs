//! Writes frames at the end of a buffer that its caller uses again: no allocation per frame.

use super::{
    Verb, Version,
    escaping::{put_escaped, put_name},
};

/// A frame that is being written: headers, then one of the ends.
///
/// Always true: an unfinished frame is never left in the buffer, because both ends take the writer and are the only
/// way to give the buffer back.
#[derive(Debug)]
#[must_use = "a frame has an end"]
pub struct FrameWriter<'a> {
    out: &'a mut Vec<u8>,
    version: Version,
}

impl<'a> FrameWriter<'a> {
    /// Begins a frame. CONNECT and CONNECTED are never escaped, so that a peer of 1.0 understands them
    /// (STOMP 1.2, "Value Encoding"): they are written as 1.0 writes.
    pub fn begin(out: &'a mut Vec<u8>, version: Version, verb: Verb) -> Self {
        let plain = matches!(verb, Verb::Connect | Verb::Stomp | Verb::Connected);
        out.extend_from_slice(verb.as_str().as_bytes());
        out.push(b'\n');
        Self { out, version: if plain { Version::V1_0 } else { version } }
    }

    /// Goes on with a frame whose beginning is in the buffer.
    pub fn resume(out: &'a mut Vec<u8>, version: Version) -> Self {
        Self { out, version }
    }

    /// One header.
    pub fn header(&mut self, name: &str, value: &str) -> &mut Self {
        put_name(self.out, name, self.version);
        self.out.push(b':');
        put_escaped(self.out, value, self.version);
        self.out.push(b'\n');
        self
    }

    /// One header whose name and `prefix` need no escapes.
    pub fn prefixed(&mut self, name: &'static str, prefix: &'static str, value: &str) -> &mut Self {
        self.out.extend_from_slice(name.as_bytes());
        self.out.push(b':');
        self.out.extend_from_slice(prefix.as_bytes());
        put_escaped(self.out, value, self.version);
        self.out.push(b'\n');
        self
    }

    /// One header whose name needs no escapes, with a number.
    pub fn number(&mut self, name: &'static str, value: u64) -> &mut Self {
        self.out.extend_from_slice(name.as_bytes());
        self.out.push(b':');
        put_decimal(self.out, value);
        self.out.push(b'\n');
        self
    }

    /// Ends the frame with this body.
    pub fn body(self, body: &[u8]) {
        self.out.push(b'\n');
        self.out.extend_from_slice(body);
        self.out.push(0);
    }

    /// Ends the headers only; the caller sees to the body and to NUL.
    pub fn end_of_headers(self) {
        self.out.push(b'\n');
    }
}

/// Appends a number in decimal digits.
pub fn put_decimal(out: &mut Vec<u8>, number: u64) {
    let mut digits = [0; 20]; // u64::MAX has 20
    let (mut rest, mut unused) = (number, digits.len());
    for digit in digits.iter_mut().rev() {
        let [low, ..] = (rest % 10).to_le_bytes();
        *digit = b'0' + low;
        unused -= 1;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(unused..).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_format_does() {
        for number in [0, 7, 10, 99, 100, 65_535, 1_700_000_000_000, u64::MAX] {
            let mut out = Vec::new();
            put_decimal(&mut out, number);
            assert_eq!(String::from_utf8(out).unwrap(), number.to_string());
        }
    }

    #[test]
    fn connected_is_never_escaped() {
        let mut out = Vec::new();
        let mut frame = FrameWriter::begin(&mut out, Version::V1_2, Verb::Connected);
        frame.header("session", "a:b\\c");
        frame.body(b"");
        assert_eq!(out, b"CONNECTED\nsession:a:b\\c\n\n\0");
    }

    #[test]
    fn a_name_of_a_property_can_not_forge_a_header() {
        let mut out = Vec::new();
        let mut frame = FrameWriter::begin(&mut out, Version::V1_0, Verb::Receipt);
        frame.header("destination:/queue/x\nack", "v");
        frame.body(b"");
        assert_eq!(out, b"RECEIPT\ndestination /queue/x ack:v\n\n\0");
    }
}
