//! STOMP's "Value Encoding", by version.
//!
//! Always true: what [`put_escaped`] writes is one line, whatever the text holds, so that no text can forge a header
//! or end a frame early.

use std::ops::Range;

use super::Version;

/// Undoes the escapes of 1.1 or 1.2 in place, within `range` of `bytes`. The text can only get shorter: its new range
/// is given back, and what is left over becomes spaces, so that the whole stays UTF-8.
///
/// `None`: an escape that `version` does not define. STOMP 1.2: "must be treated as a fatal protocol error".
pub(super) fn unescape(bytes: &mut [u8], range: Range<usize>, version: Version) -> Option<Range<usize>> {
    let start = range.start;
    let text = bytes.get_mut(range)?;
    let Some(first) = memchr::memchr(b'\\', text) else { return Some(start..start + text.len()) };
    let (mut from, mut to) = (first, first);
    while let Some(&byte) = text.get(from) {
        from += 1;
        let meant = if byte == b'\\' {
            let escaped = *text.get(from)?;
            from += 1;
            meaning(escaped, version)?
        } else {
            byte
        };
        *text.get_mut(to)? = meant;
        to += 1;
    }
    text.get_mut(to..)?.fill(b' ');
    Some(start..start + to)
}

fn meaning(escaped: u8, version: Version) -> Option<u8> {
    match (escaped, version) {
        (b'n', _) => Some(b'\n'),
        (b'c', _) => Some(b':'),
        (b'\\', _) => Some(b'\\'),
        (b'r', Version::V1_2) => Some(b'\r'),
        _ => None,
    }
}

/// Appends a header's name or value, escaped for `version`. What a version can't say becomes a space: a line feed in
/// 1.0, a NUL in all (ActiveMQ writes them as they are, and breaks the frame).
pub(super) fn put_escaped(out: &mut Vec<u8>, text: &str, version: Version) {
    if !text.bytes().any(is_special) {
        out.extend_from_slice(text.as_bytes());
        return;
    }
    for byte in text.bytes() {
        match (byte, version) {
            (0, _) | (b'\n' | b'\r', Version::V1_0) => out.push(b' '),
            (b'\n', _) => out.extend_from_slice(b"\\n"),
            (b':', Version::V1_1 | Version::V1_2) => out.extend_from_slice(b"\\c"),
            (b'\\', Version::V1_1 | Version::V1_2) => out.extend_from_slice(b"\\\\"),
            (b'\r', Version::V1_2) => out.extend_from_slice(b"\\r"),
            _ => out.push(byte),
        }
    }
}

/// Appends a header's name. As [`put_escaped`]; in 1.0, where a colon has no escape, it becomes a space too.
pub(super) fn put_name(out: &mut Vec<u8>, name: &str, version: Version) {
    let start = out.len();
    put_escaped(out, name, version);
    if version == Version::V1_0 {
        let written = out.get_mut(start..).unwrap_or_default();
        written.iter_mut().filter(|byte| **byte == b':').for_each(|byte| *byte = b' ');
    }
}

fn is_special(byte: u8) -> bool {
    matches!(byte, b'\n' | b'\r' | b':' | b'\\' | 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unescaped(text: &str, version: Version) -> Option<String> {
        let mut bytes = text.as_bytes().to_vec();
        let length = bytes.len();
        let range = unescape(&mut bytes, 0..length, version)?;
        assert!(std::str::from_utf8(&bytes).is_ok(), "what is left over is UTF-8 too");
        Some(String::from_utf8(bytes[range].to_vec()).unwrap())
    }

    #[test]
    fn escapes_are_undone_by_version() {
        assert_eq!(unescaped("a\\nb\\cc\\\\dü", Version::V1_1).unwrap(), "a\nb:c\\dü");
        assert_eq!(unescaped("\\r\\nü", Version::V1_2).unwrap(), "\r\nü");
        assert_eq!(unescaped("plain", Version::V1_2).unwrap(), "plain");
    }

    #[test]
    fn an_undefined_escape_is_an_error() {
        assert_eq!(unescaped("\\r", Version::V1_1), None);
        assert_eq!(unescaped("\\t", Version::V1_2), None);
        assert_eq!(unescaped("ends with \\", Version::V1_2), None);
    }

    #[test]
    fn whatever_the_text_it_stays_one_line() {
        let text = "a:b\\c\nd\re\0f";
        for (version, expected) in [
            (Version::V1_0, "a:b\\c d e f"),
            (Version::V1_1, "a\\cb\\\\c\\nd\re f"),
            (Version::V1_2, "a\\cb\\\\c\\nd\\re f"),
        ] {
            let mut out = Vec::new();
            put_escaped(&mut out, text, version);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }
}
