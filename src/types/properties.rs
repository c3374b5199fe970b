//! A message's typed properties, kept as raw bytes until somebody asks.
//!
//! The bytes are the protobuf message `Properties` of `proto/store.proto`: one length-delimited `Property` after the
//! other. So a store writes them as they are, and a frame is rendered from them without a map in between.

use bytes::{BufMut, Bytes, BytesMut};
use prost::encoding::{decode_varint, encode_varint, encoded_len_varint};

/// `Properties.property`, field 1, length-delimited.
const PROPERTY: u8 = 0x0a;
/// `Property.name`, field 1, length-delimited.
const NAME: u8 = 0x0a;
/// `Property.text`, field 2, length-delimited.
const TEXT: u8 = 0x12;
/// `Property.boolean`, field 3, varint.
const BOOLEAN: u8 = 0x18;
/// `Property.integer`, field 4, varint.
const INTEGER: u8 = 0x20;
/// `Property.float`, field 5, 64 bits.
const FLOAT: u8 = 0x29;
/// `Property.bytes`, field 6, length-delimited.
const BYTES: u8 = 0x32;

/// One property's value. STOMP knows only text; the others are for typed protocols.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum PropertyValue<'a> {
    /// UTF-8 text.
    Text(&'a str),
    /// True or false.
    Boolean(bool),
    /// Any of JMS' whole numbers.
    Integer(i64),
    /// Either of JMS' floating-point numbers.
    Float(f64),
    /// Bytes.
    Bytes(&'a [u8]),
}

/// Named values in the order they were attached. The first of a name counts, as in STOMP.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Properties(Bytes);

impl Properties {
    /// Takes bytes that were written by [`PropertiesBuilder`] or read from a store; what is malformed in them reads as
    /// the end.
    #[must_use]
    pub fn from_bytes(bytes: Bytes) -> Self {
        Self(bytes)
    }

    /// As a store keeps them.
    #[must_use]
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    /// All properties in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, PropertyValue<'_>)> {
        Reader(&self.0)
    }

    /// The first property of this name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<PropertyValue<'_>> {
        self.iter().find_map(|(found, value)| (found == name).then_some(value))
    }
}

/// Writes properties into a buffer that its caller owns, so that a message's bytes need one allocation.
#[derive(Debug, Default)]
pub struct PropertiesBuilder(BytesMut);

impl PropertiesBuilder {
    /// Attaches one more.
    pub fn push(&mut self, name: &str, value: PropertyValue<'_>) {
        append_property(&mut self.0, name, value);
    }

    /// The finished properties.
    #[must_use]
    pub fn build(self) -> Properties {
        Properties(self.0.freeze())
    }
}

/// Appends one property in the stored form to `out`.
pub(crate) fn append_property(out: &mut BytesMut, name: &str, value: PropertyValue<'_>) {
    let length = 1 + encoded_len_varint(name.len() as u64) + name.len() + value_length(value);
    out.put_u8(PROPERTY);
    encode_varint(length as u64, out);
    put_delimited(out, NAME, name.as_bytes());
    match value {
        PropertyValue::Text(text) => put_delimited(out, TEXT, text.as_bytes()),
        PropertyValue::Boolean(boolean) => put_varint(out, BOOLEAN, u64::from(boolean)),
        PropertyValue::Integer(integer) => put_varint(out, INTEGER, integer.cast_unsigned()),
        PropertyValue::Float(float) => {
            out.put_u8(FLOAT);
            out.put_f64_le(float);
        }
        PropertyValue::Bytes(bytes) => put_delimited(out, BYTES, bytes),
    }
}

fn value_length(value: PropertyValue<'_>) -> usize {
    let delimited = |length: usize| 1 + encoded_len_varint(length as u64) + length;
    match value {
        PropertyValue::Text(text) => delimited(text.len()),
        PropertyValue::Boolean(_) => 2,
        PropertyValue::Integer(integer) => 1 + encoded_len_varint(integer.cast_unsigned()),
        PropertyValue::Float(_) => 9,
        PropertyValue::Bytes(bytes) => delimited(bytes.len()),
    }
}

fn put_delimited(out: &mut BytesMut, tag: u8, bytes: &[u8]) {
    out.put_u8(tag);
    encode_varint(bytes.len() as u64, out);
    out.put_slice(bytes);
}

fn put_varint(out: &mut BytesMut, tag: u8, number: u64) {
    out.put_u8(tag);
    encode_varint(number, out);
}

/// What is left to read.
struct Reader<'a>(&'a [u8]);

impl<'a> Iterator for Reader<'a> {
    type Item = (&'a str, PropertyValue<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        take_tag(&mut self.0, PROPERTY)?;
        let mut property = take_delimited(&mut self.0)?;
        take_tag(&mut property, NAME)?;
        let name = std::str::from_utf8(take_delimited(&mut property)?).ok()?;
        let (&tag, rest) = property.split_first()?;
        property = rest;
        let value = match tag {
            TEXT => PropertyValue::Text(std::str::from_utf8(take_delimited(&mut property)?).ok()?),
            BOOLEAN => PropertyValue::Boolean(decode_varint(&mut property).ok()? != 0),
            INTEGER => PropertyValue::Integer(decode_varint(&mut property).ok()?.cast_signed()),
            FLOAT => PropertyValue::Float(f64::from_le_bytes(property.first_chunk().copied()?)),
            BYTES => PropertyValue::Bytes(take_delimited(&mut property)?),
            _ => return None,
        };
        Some((name, value))
    }
}

fn take_tag(bytes: &mut &[u8], expected: u8) -> Option<()> {
    let (&tag, rest) = bytes.split_first()?;
    *bytes = rest;
    (tag == expected).then_some(())
}

fn take_delimited<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(decode_varint(bytes).ok()?).ok()?;
    let (taken, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_attached_is_read_in_order() {
        let mut builder = PropertiesBuilder::default();
        builder.push("colour", PropertyValue::Text("größe"));
        builder.push("paid", PropertyValue::Boolean(true));
        builder.push("amount", PropertyValue::Integer(-42));
        builder.push("weight", PropertyValue::Float(2.5));
        builder.push("key", PropertyValue::Bytes(&[0, 255]));
        let properties = builder.build();
        let read: Vec<_> = properties.iter().collect();
        assert_eq!(
            read,
            [
                ("colour", PropertyValue::Text("größe")),
                ("paid", PropertyValue::Boolean(true)),
                ("amount", PropertyValue::Integer(-42)),
                ("weight", PropertyValue::Float(2.5)),
                ("key", PropertyValue::Bytes(&[0, 255])),
            ]
        );
        assert_eq!(properties.find("amount"), Some(PropertyValue::Integer(-42)));
        assert_eq!(properties.find("absent"), None);
    }

    #[test]
    fn bytes_cut_anywhere_end_early_and_never_panic() {
        let mut builder = PropertiesBuilder::default();
        builder.push("a", PropertyValue::Float(1.0));
        builder.push("b", PropertyValue::Text("x"));
        let whole = builder.build().as_bytes().clone();
        for length in 0..whole.len() {
            assert!(Properties::from_bytes(whole.slice(..length)).iter().count() < 2);
        }
    }
}
