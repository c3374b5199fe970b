//! Reads of a record only what has to be known of it at the start: not the messages themselves.
//!
//! A walk over protobuf's fields by hand, without an allocation for each operation; the property test below holds it
//! against the generated code. Bytes are checked before they are believed.

use bytes::Buf;
use prost::{
    Message as _,
    encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field},
};
use smallvec::SmallVec;

use super::{
    record::{RecordHead, Slice, catalog_of, time_of, wire},
    segment::{FRAME_HEAD, SegmentNumber},
};
use crate::types::{
    BatchNumber, Catalog, DestinationId, DurableId, FencingToken, Held, Holder, Priority, Sequence, Tenure, Term,
    Timestamp,
};

const MALFORMED: &str = "the record is not what this version calls a record";

/// A record whose operations are still to be skimmed.
#[derive(Debug)]
pub(super) struct Record<'a> {
    pub(super) head: RecordHead,
    /// The catalog at the head of a segment; its tenure is the record's.
    pub(super) catalog: Option<Catalog>,
    ops: Vec<(usize, &'a [u8])>,
}

/// What has to be known of an operation.
#[derive(Debug, PartialEq)]
pub(super) enum Skimmed<'a> {
    Insert(Written<'a>),
    /// A message written again (R34).
    Copy(Written<'a>),
    Settle {
        sequence: Sequence,
        holder: Holder,
    },
    Return {
        sequence: Sequence,
        held: Held,
    },
    /// One of the few others: decode it whole.
    Other,
}

/// What has to be known of a message that was written.
#[derive(Debug, PartialEq)]
pub(super) struct Written<'a> {
    pub(super) sequence: Sequence,
    pub(super) destination: DestinationId,
    pub(super) holders: SmallVec<[Held; 1]>,
    pub(super) priority: Priority,
    pub(super) expires: Option<Timestamp>,
    /// The message itself, as it lies.
    pub(super) message: &'a [u8],
}

impl<'a> Record<'a> {
    /// The record of a frame whose checksum is right.
    pub(super) fn skim(record: &'a [u8]) -> Result<Self, &'static str> {
        let mut numbers = [0; 7];
        let mut oldest = 0;
        let mut catalog = None;
        let mut ops = Vec::new();
        let mut fields = Fields(record);
        while let Some(field) = fields.next()? {
            match field {
                (7, Value::Bytes(op)) => ops.push((FRAME_HEAD + record.len() - fields.0.len() - op.len(), op)),
                (8, Value::Bytes(bytes)) => {
                    let body = wire::Catalog::decode(bytes).map_err(|_| MALFORMED)?;
                    catalog = Some(catalog_of(body).ok_or(MALFORMED)?);
                }
                (9, Value::Number(number)) => oldest = number,
                (field, Value::Number(number)) => {
                    numbers.get_mut(field as usize).into_iter().for_each(|slot| *slot = number);
                }
                _ => {}
            }
        }
        let [_, incarnation, number, durable, term, token, batch] = numbers;
        let term = u32::try_from(term).map(Term).ok().filter(|term| *term <= Term::MAX).ok_or(MALFORMED)?;
        let tenure = Tenure { term, token: FencingToken(token) };
        if let Some(catalog) = &mut catalog {
            catalog.tenure = tenure;
        }
        let oldest = SegmentNumber(u32::try_from(oldest).map_err(|_| MALFORMED)?);
        let head = RecordHead { incarnation, number, durable, tenure, batch: BatchNumber(batch), oldest };
        Ok(Self { head, catalog, ops })
    }

    /// Its operations, with where each lies in the frame.
    pub(super) fn ops(&self) -> impl ExactSizeIterator<Item = (Option<Slice>, &'a [u8])> {
        self.ops.iter().map(|(offset, bytes)| (slice_of(*offset, bytes), *bytes))
    }
}

fn slice_of(offset: usize, bytes: &[u8]) -> Option<Slice> {
    let (offset, length) = (u32::try_from(offset).ok()?, u32::try_from(bytes.len()).ok()?);
    Some(Slice { offset, length, checksum: crc32c::crc32c(bytes) })
}

/// Skims one operation.
pub(super) fn skim_op(op: &[u8]) -> Result<Skimmed<'_>, &'static str> {
    let mut found = Err("an operation is not one that this version knows");
    let mut fields = Fields(op);
    while let Some(field) = fields.next()? {
        found = Ok(match field {
            (1, Value::Bytes(stored)) => Skimmed::Insert(skim_stored(stored)?),
            (2, Value::Bytes(stored)) => Skimmed::Copy(skim_stored(stored)?),
            (3, Value::Bytes(settle)) => {
                let [_, sequence, queue, durable] = numbers(settle)?;
                Skimmed::Settle { sequence: Sequence::from_u64(sequence), holder: holder_of(queue, durable) }
            }
            (4, Value::Bytes(returned)) => skim_return(returned)?,
            (5..=7 | 9, Value::Bytes(_)) | (8, Value::Number(_)) => Skimmed::Other,
            _ => continue,
        });
    }
    found
}

fn skim_stored(stored: &[u8]) -> Result<Written<'_>, &'static str> {
    let (mut sequence, mut destination, mut holders, mut message) = (0, 0, SmallVec::new(), None);
    let mut fields = Fields(stored);
    while let Some(field) = fields.next()? {
        match field {
            (1, Value::Number(number)) => sequence = number,
            (2, Value::Number(number)) => destination = number,
            (3, Value::Bytes(held)) => holders.push(skim_held(held)?),
            (4, Value::Bytes(bytes)) => message = Some(bytes),
            _ => {}
        }
    }
    let message = message.ok_or(MALFORMED)?;
    let [_, _, _, priority, _, expires] = numbers(message)?;
    Ok(Written {
        sequence: Sequence::from_u64(sequence),
        destination: DestinationId(destination),
        holders,
        priority: Priority::clamped(u8::try_from(priority).map_err(|_| MALFORMED)?),
        expires: time_of(expires),
        message,
    })
}

fn skim_return(returned: &[u8]) -> Result<Skimmed<'static>, &'static str> {
    let (mut sequence, mut held) = (0, None);
    let mut fields = Fields(returned);
    while let Some(field) = fields.next()? {
        match field {
            (1, Value::Number(number)) => sequence = number,
            (2, Value::Bytes(bytes)) => held = Some(skim_held(bytes)?),
            _ => {}
        }
    }
    Ok(Skimmed::Return { sequence: Sequence::from_u64(sequence), held: held.ok_or(MALFORMED)? })
}

fn skim_held(held: &[u8]) -> Result<Held, &'static str> {
    let [_, queue, durable, deliveries, failures, due] = numbers(held)?;
    let count = |number| u32::try_from(number).map_err(|_| MALFORMED);
    let holder = holder_of(queue, durable);
    Ok(Held { holder, deliveries: count(deliveries)?, failures: count(failures)?, due: time_of(due) })
}

fn holder_of(queue: u64, durable: u64) -> Holder {
    if durable == 0 { Holder::Queue(DestinationId(queue)) } else { Holder::Durable(DurableId(durable)) }
}

/// The numbers among the first fields of a message, by field; what is not there is zero.
fn numbers<const FIELDS: usize>(message: &[u8]) -> Result<[u64; FIELDS], &'static str> {
    let mut numbers = [0; FIELDS];
    let mut fields = Fields(message);
    while let Some((field, value)) = fields.next()? {
        if let (Some(slot), Value::Number(number)) = (numbers.get_mut(field as usize), value) {
            *slot = number;
        }
    }
    Ok(numbers)
}

/// The fields of a protobuf message that are still to be read.
struct Fields<'a>(&'a [u8]);

enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    /// Of a kind that is not used here; skipped.
    Else,
}

impl<'a> Fields<'a> {
    fn next(&mut self) -> Result<Option<(u32, Value<'a>)>, &'static str> {
        if !self.0.has_remaining() {
            return Ok(None);
        }
        let (field, wire_type) = decode_key(&mut self.0).map_err(|_| MALFORMED)?;
        let value = match wire_type {
            WireType::Varint => Value::Number(decode_varint(&mut self.0).map_err(|_| MALFORMED)?),
            WireType::LengthDelimited => {
                let length = decode_varint(&mut self.0).ok().and_then(|length| usize::try_from(length).ok());
                let (bytes, rest) = length.and_then(|length| self.0.split_at_checked(length)).ok_or(MALFORMED)?;
                self.0 = rest;
                Value::Bytes(bytes)
            }
            _ => {
                skip_field(wire_type, field, &mut self.0, DecodeContext::default()).map_err(|_| MALFORMED)?;
                Value::Else
            }
        };
        Ok(Some((field, value)))
    }
}
