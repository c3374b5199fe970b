//! The inner form of a record: the protobuf message `Record` of `proto/store.proto`.
//!
//! Writing is by hand, straight from a batch into one buffer that is used again; reading an operation is by the
//! generated code, with bodies as slices of what was read (`skim.rs` reads less of more). Bytes are checked before they
//! are believed: what can't be read is an error with a reason, never a panic.

use std::sync::Arc;

use bytes::{BufMut, Bytes};
use prost::{Message as _, encoding::encode_varint};
use smallvec::SmallVec;

use super::segment::{FRAME_HEAD, SegmentNumber, seal_frame};
use crate::types::{
    BatchNumber, BodyKind, Catalog, Destination, DestinationId, DestinationKind, Durable, DurableId, Held, Holder,
    Message, MessageDraft, Op, Priority, Properties, Sequence, Stored, Tenure, Text, Timestamp,
};

pub(super) mod wire {
    #![allow(missing_docs, unreachable_pub, reason = "generated; proto/store.proto is its documentation")]
    #![allow(dead_code, reason = "properties are kept as raw bytes, see types/properties.rs")]
    include!(concat!(env!("OUT_DIR"), "/batonmq.store.rs"));
}

/// A buffer that grew beyond this for one record is not kept. Unit: bytes.
const BUFFER_KEPT_BYTES_MAX: usize = 16 << 20;

/// What every record says beside its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RecordHead {
    pub(super) incarnation: u64,
    pub(super) number: u64,
    pub(super) durable: u64,
    pub(super) tenure: Tenure,
    pub(super) batch: BatchNumber,
    /// The oldest segment that has to be there; 0: the record does not tell.
    pub(super) oldest: SegmentNumber,
}

/// Where an operation lies in its frame, and what its bytes add up to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slice {
    /// From the frame's first byte.
    pub(super) offset: u32,
    pub(super) length: u32,
    /// CRC32C, so that one message can be read and checked without its whole record.
    pub(super) checksum: u32,
}

/// Writes records into one buffer.
#[derive(Debug, Default)]
pub(super) struct Encoder {
    buffer: Vec<u8>,
}

impl Encoder {
    /// Begins a record.
    pub(super) fn begin(&mut self, head: RecordHead) {
        if self.buffer.capacity() > BUFFER_KEPT_BYTES_MAX {
            self.buffer = Vec::new();
        }
        self.buffer.clear();
        self.buffer.resize(FRAME_HEAD, 0);
        put_number(&mut self.buffer, 1, head.incarnation); // first, so that `leads` finds it
        put_number(&mut self.buffer, 2, head.number);
        put_number(&mut self.buffer, 3, head.durable);
        put_number(&mut self.buffer, 4, u64::from(head.tenure.term.0));
        put_number(&mut self.buffer, 5, head.tenure.token.0);
        put_number(&mut self.buffer, 6, head.batch.0);
        put_number(&mut self.buffer, 9, u64::from(head.oldest.0));
    }

    /// Adds an operation. `None`: the record would be too long for its own offsets.
    pub(super) fn push(&mut self, op: &Op) -> Option<Slice> {
        self.push_nested(|out| put_op(out, op))
    }

    /// Adds a message that is live, written again as it lies, with those who hold it now (R34).
    pub(super) fn push_copy(&mut self, copy: &Copy) -> Option<Slice> {
        self.push_nested(|out| {
            put_nested(out, 2, |out| {
                put_stored_head(out, copy.sequence, copy.destination, &copy.holders);
                put_present(out, 4, &copy.message);
            });
        })
    }

    fn push_nested(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Option<Slice> {
        let begin = put_nested(&mut self.buffer, 7, write);
        let bytes = self.buffer.get(begin..)?;
        let checksum = crc32c::crc32c(bytes);
        Some(Slice { offset: u32::try_from(begin).ok()?, length: u32::try_from(bytes.len()).ok()?, checksum })
    }

    /// Adds the catalog.
    pub(super) fn push_catalog(&mut self, catalog: &Catalog) {
        put_nested(&mut self.buffer, 8, |out| put_catalog(out, catalog));
    }

    /// How long the frame is now. Unit: bytes.
    pub(super) fn bytes(&self) -> usize {
        self.buffer.len()
    }

    /// Completes the frame. `None`: it is too long for its own length.
    pub(super) fn seal(&mut self) -> Option<()> {
        seal_frame(&mut self.buffer)
    }

    /// The frame, followed by zeros up to `bytes`.
    pub(super) fn padded(&mut self, bytes: usize) -> &[u8] {
        self.buffer.resize(bytes.max(self.buffer.len()), 0);
        &self.buffer
    }
}

/// How every record of this incarnation begins.
pub(super) fn leads(incarnation: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    put_number(&mut bytes, 1, incarnation);
    bytes
}

/// A message that is written again (R34).
#[derive(Clone, Debug)]
pub(super) struct Copy {
    pub(super) sequence: Sequence,
    pub(super) destination: DestinationId,
    /// Who holds it now, and how often it returned.
    pub(super) holders: SmallVec<[Held; 1]>,
    pub(super) priority: Priority,
    pub(super) expires: Option<Timestamp>,
    /// As it lies.
    pub(super) message: Bytes,
}

/// Reads an operation that holds a message; its body and texts are slices of `bytes`.
pub(super) fn decode_message(bytes: Bytes) -> Option<Stored> {
    match wire::Op::decode(bytes).ok()?.op? {
        wire::op::Op::Insert(stored) | wire::op::Op::Copy(stored) => stored_of(stored),
        _ => None,
    }
}

/// Reads one operation; its bodies and texts are slices of `bytes`.
pub(super) fn decode_op(bytes: Bytes) -> Result<Op, &'static str> {
    let op = wire::Op::decode(bytes).map_err(|_| "an operation can't be read")?;
    op.op.and_then(op_of).ok_or("an operation is not one that this version knows")
}

/// `None` for a copy, which is no operation of a batch, too.
fn op_of(op: wire::op::Op) -> Option<Op> {
    use wire::op::Op as Wire;
    Some(match op {
        Wire::Insert(stored) => Op::Insert(stored_of(stored)?),
        Wire::Copy(_) => return None,
        Wire::Settle(settle) => Op::Settle {
            sequence: Sequence::from_u64(settle.sequence),
            holder: holder_of(settle.queue, settle.durable),
        },
        Wire::Return(returned) => {
            Op::Return { sequence: Sequence::from_u64(returned.sequence), held: held_of(returned.held?) }
        }
        Wire::Mark(mark) => {
            Op::Mark { holder: holder_of(mark.queue, mark.durable), upto: Sequence::from_u64(mark.upto) }
        }
        Wire::CreateDestination(created) => {
            Op::CreateDestination { id: DestinationId(created.id), destination: destination_of(created.destination?)? }
        }
        Wire::CreateDurable(created) => Op::CreateDurable { id: DurableId(created.id), durable: durable_of(created)? },
        Wire::DeleteDurable(id) => Op::DeleteDurable { id: DurableId(id) },
        Wire::Purge(purge) => {
            Op::Purge { holder: holder_of(purge.queue, purge.durable), upto: Sequence::from_u64(purge.upto) }
        }
    })
}

fn stored_of(stored: wire::Stored) -> Option<Stored> {
    let holders: SmallVec<[Held; 1]> = stored.holders.into_iter().map(held_of).collect();
    let message = Arc::new(Message::new(draft_of(stored.message?)?));
    let sequence = Sequence::from_u64(stored.sequence);
    Some(Stored { sequence, destination: DestinationId(stored.destination), holders, message })
}

fn draft_of(message: wire::Message) -> Option<MessageDraft> {
    let body_kind = match wire::BodyKind::try_from(message.body_kind).ok()? {
        wire::BodyKind::None => BodyKind::None,
        wire::BodyKind::Text => BodyKind::Text,
        wire::BodyKind::Bytes => BodyKind::Bytes,
        wire::BodyKind::Map => BodyKind::Map,
        wire::BodyKind::Stream => BodyKind::Stream,
        wire::BodyKind::Object => BodyKind::Object,
    };
    let optional_text = |text: Option<Bytes>| match text {
        Some(text) => Text::from_utf8(text).map(Some),
        None => Some(None),
    };
    let optional_destination = |destination: Option<wire::Destination>| match destination {
        Some(destination) => destination_of(destination).map(Some),
        None => Some(None),
    };
    Some(MessageDraft {
        id: Text::from_utf8(message.id)?,
        persistent: message.persistent,
        priority: Priority::clamped(u8::try_from(message.priority).ok()?),
        timestamp: Timestamp(message.timestamp),
        expires: time_of(message.expires),
        reply_to: optional_destination(message.reply_to)?,
        correlation_id: optional_text(message.correlation_id)?,
        message_type: optional_text(message.message_type)?,
        original_destination: optional_destination(message.original_destination)?,
        body_kind,
        properties: Properties::from_bytes(message.properties),
        body: message.body,
    })
}

fn destination_of(destination: wire::Destination) -> Option<Destination> {
    let kind = match wire::DestinationKind::try_from(destination.kind).ok()? {
        wire::DestinationKind::Queue => DestinationKind::Queue,
        wire::DestinationKind::Topic => DestinationKind::Topic,
        wire::DestinationKind::TemporaryQueue => DestinationKind::TemporaryQueue,
        wire::DestinationKind::TemporaryTopic => DestinationKind::TemporaryTopic,
    };
    Some(Destination::new(kind, &destination.name))
}

fn durable_of(created: wire::CreateDurable) -> Option<Durable> {
    let client_id = Text::from_utf8(created.client_id)?;
    Some(Durable { client_id, name: Text::from_utf8(created.name)?, topic: DestinationId(created.topic) })
}

fn held_of(held: wire::Held) -> Held {
    let holder = holder_of(held.queue, held.durable);
    Held { holder, deliveries: held.deliveries, failures: held.failures, due: time_of(held.due) }
}

fn holder_of(queue: u64, durable: u64) -> Holder {
    if durable == 0 { Holder::Queue(DestinationId(queue)) } else { Holder::Durable(DurableId(durable)) }
}

pub(super) fn time_of(millis: u64) -> Option<Timestamp> {
    (millis != 0).then_some(Timestamp(millis))
}

pub(super) fn catalog_of(body: wire::Catalog) -> Option<Catalog> {
    let mut catalog = Catalog::default();
    for created in body.destinations {
        catalog.destinations.insert(DestinationId(created.id), destination_of(created.destination?)?);
    }
    for created in body.durables {
        catalog.durables.insert(DurableId(created.id), durable_of(created)?);
    }
    for mark in body.marks {
        catalog.marks.insert(holder_of(mark.queue, mark.durable), Sequence::from_u64(mark.upto));
    }
    catalog.last_destination = DestinationId(body.last_destination);
    catalog.last_durable = DurableId(body.last_durable);
    Some(catalog)
}

fn put_op(out: &mut Vec<u8>, op: &Op) {
    match op {
        Op::Insert(stored) => _ = put_nested(out, 1, |out| put_stored(out, stored)),
        Op::Settle { sequence, holder } => put_small(out, 3, |out| {
            put_number(out, 1, sequence.as_u64());
            put_holder(out, 2, *holder);
        }),
        Op::Return { sequence, held } => put_small(out, 4, |out| {
            put_number(out, 1, sequence.as_u64());
            put_small(out, 2, |out| put_held(out, held));
        }),
        Op::Mark { holder, upto } => put_small(out, 5, |out| put_upto(out, *holder, *upto)),
        Op::CreateDestination { id, destination } => {
            put_nested(out, 6, |out| put_create_destination(out, *id, destination));
        }
        Op::CreateDurable { id, durable } => _ = put_nested(out, 7, |out| put_create_durable(out, *id, durable)),
        Op::DeleteDurable { id } => {
            out.put_u8(8 << 3); // written even if it is zero: the oneof's choice is in it
            encode_varint(id.0, out);
        }
        Op::Purge { holder, upto } => put_small(out, 9, |out| put_upto(out, *holder, *upto)),
    }
}

fn put_stored(out: &mut Vec<u8>, stored: &Stored) {
    put_stored_head(out, stored.sequence, stored.destination, &stored.holders);
    put_nested(out, 4, |out| put_message(out, &stored.message));
}

fn put_stored_head(out: &mut Vec<u8>, sequence: Sequence, destination: DestinationId, holders: &[Held]) {
    put_number(out, 1, sequence.as_u64());
    put_number(out, 2, destination.0);
    for held in holders {
        put_small(out, 3, |out| put_held(out, held));
    }
}

fn put_message(out: &mut Vec<u8>, message: &Message) {
    let body_kind = match message.body_kind {
        BodyKind::None => wire::BodyKind::None,
        BodyKind::Text => wire::BodyKind::Text,
        BodyKind::Bytes => wire::BodyKind::Bytes,
        BodyKind::Map => wire::BodyKind::Map,
        BodyKind::Stream => wire::BodyKind::Stream,
        BodyKind::Object => wire::BodyKind::Object,
    };
    put_bytes(out, 1, message.id.as_bytes());
    put_number(out, 2, u64::from(message.persistent));
    put_number(out, 3, u64::from(message.priority.level()));
    put_number(out, 4, message.timestamp.0);
    put_number(out, 5, message.expires.unwrap_or_default().0);
    if let Some(reply_to) = &message.reply_to {
        put_nested(out, 6, |out| put_destination(out, reply_to));
    }
    if let Some(correlation_id) = &message.correlation_id {
        put_present(out, 7, correlation_id.as_bytes());
    }
    if let Some(message_type) = &message.message_type {
        put_present(out, 8, message_type.as_bytes());
    }
    if let Some(original) = &message.original_destination {
        put_nested(out, 9, |out| put_destination(out, original));
    }
    put_number(out, 10, u64::from((body_kind as i32).cast_unsigned()));
    put_bytes(out, 11, message.properties.as_bytes());
    put_bytes(out, 12, &message.body);
}

fn put_destination(out: &mut Vec<u8>, destination: &Destination) {
    let kind = match destination.kind() {
        DestinationKind::Queue => wire::DestinationKind::Queue,
        DestinationKind::Topic => wire::DestinationKind::Topic,
        DestinationKind::TemporaryQueue => wire::DestinationKind::TemporaryQueue,
        DestinationKind::TemporaryTopic => wire::DestinationKind::TemporaryTopic,
    };
    put_number(out, 1, u64::from((kind as i32).cast_unsigned()));
    put_bytes(out, 2, destination.name().as_bytes());
}

fn put_create_destination(out: &mut Vec<u8>, id: DestinationId, destination: &Destination) {
    put_number(out, 1, id.0);
    put_nested(out, 2, |out| put_destination(out, destination));
}

fn put_create_durable(out: &mut Vec<u8>, id: DurableId, durable: &Durable) {
    put_number(out, 1, id.0);
    put_bytes(out, 2, durable.client_id.as_bytes());
    put_bytes(out, 3, durable.name.as_bytes());
    put_number(out, 4, durable.topic.0);
}

/// A mark, or a purge.
fn put_upto(out: &mut Vec<u8>, holder: Holder, upto: Sequence) {
    put_number(out, 1, upto.as_u64());
    put_holder(out, 2, holder);
}

fn put_held(out: &mut Vec<u8>, held: &Held) {
    put_holder(out, 1, held.holder);
    put_number(out, 3, u64::from(held.deliveries));
    put_number(out, 4, u64::from(held.failures));
    put_number(out, 5, held.due.unwrap_or_default().0);
}

fn put_catalog(out: &mut Vec<u8>, catalog: &Catalog) {
    for (id, destination) in &catalog.destinations {
        put_nested(out, 1, |out| put_create_destination(out, *id, destination));
    }
    for (id, durable) in &catalog.durables {
        put_nested(out, 2, |out| put_create_durable(out, *id, durable));
    }
    for (holder, upto) in &catalog.marks {
        put_small(out, 3, |out| put_upto(out, *holder, *upto));
    }
    put_number(out, 4, catalog.last_destination.0);
    put_number(out, 5, catalog.last_durable.0);
}

/// The field `queue` at `field`, or `durable` right behind it.
fn put_holder(out: &mut Vec<u8>, field: u8, holder: Holder) {
    match holder {
        Holder::Queue(DestinationId(id)) => put_number(out, field, id),
        Holder::Durable(DurableId(id)) => {
            debug_assert_ne!(id, 0, "ids begin at one");
            put_number(out, field + 1, id);
        }
    }
}

fn put_number(out: &mut Vec<u8>, field: u8, number: u64) {
    if number != 0 {
        out.put_u8(field << 3);
        encode_varint(number, out);
    }
}

fn put_bytes(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    if !bytes.is_empty() {
        put_present(out, field, bytes);
    }
}

fn put_present(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    out.put_u8(field << 3 | 2);
    encode_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

/// A message within a message. Its length is written as a varint of five bytes, whatever it is: legal in protobuf, and
/// nothing has to be measured before it is written. Returns where it begins.
fn put_nested(out: &mut Vec<u8>, field: u8, write: impl FnOnce(&mut Vec<u8>)) -> usize {
    const LENGTH_BYTES: usize = 5;
    out.put_u8(field << 3 | 2);
    let length_at = out.len();
    let begin = length_at + LENGTH_BYTES;
    out.resize(begin, 0);
    write(out);
    let mut length = out.len() - begin;
    for (index, byte) in out.iter_mut().skip(length_at).take(LENGTH_BYTES).enumerate() {
        let more = if index + 1 < LENGTH_BYTES { 0x80 } else { 0 };
        *byte = low_seven_bits(length) | more;
        length >>= 7;
    }
    debug_assert_eq!(length, 0, "a record's bytes are bounded far below 2^35");
    begin
}

/// A message within a message that is known to be short: its length takes one byte.
fn put_small(out: &mut Vec<u8>, field: u8, write: impl FnOnce(&mut Vec<u8>)) {
    out.put_u8(field << 3 | 2);
    let length_at = out.len();
    out.put_u8(0);
    write(out);
    let length = out.len() - length_at - 1;
    assert!(length < 0x80, "nine numbers of ten bytes at most");
    if let Some(byte) = out.get_mut(length_at) {
        *byte = low_seven_bits(length);
    }
}

#[expect(clippy::cast_possible_truncation, reason = "seven bits are left")]
fn low_seven_bits(number: usize) -> u8 {
    (number & 0x7f) as u8
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{
        super::skim::{Record, Skimmed, Written, skim_op},
        *,
    };
    use crate::types::{Batch, FencingToken, PropertiesBuilder, PropertyValue, Term};

    const HEAD: RecordHead = RecordHead {
        incarnation: 1 << 61,
        number: 300,
        durable: 299,
        tenure: Tenure { term: Term(3), token: FencingToken(9) },
        batch: BatchNumber(70_000),
        oldest: SegmentNumber(41),
    };

    fn message() -> Arc<Message> {
        let mut properties = PropertiesBuilder::default();
        properties.push("colour", PropertyValue::Text("größe"));
        Arc::new(Message::new(MessageDraft {
            id: "ID:a-1".into(),
            persistent: true,
            priority: Priority::clamped(9),
            timestamp: Timestamp(1_700_000_000_000),
            expires: Some(Timestamp(1_800_000_000_000)),
            reply_to: Some(Destination::new(DestinationKind::TemporaryQueue, "answers")),
            correlation_id: Some("".into()),
            message_type: Some("order".into()),
            original_destination: Some(Destination::queue("orders")),
            body_kind: BodyKind::Text,
            properties: properties.build(),
            body: Bytes::from(vec![7; 3_000]),
        }))
    }

    fn encode_batch(encoder: &mut Encoder, head: RecordHead, batch: &Batch) -> Vec<Slice> {
        encoder.begin(head);
        let slices = batch.ops.iter().map(|op| encoder.push(op).unwrap()).collect();
        encoder.seal().unwrap();
        slices
    }

    fn every_op() -> Batch {
        let queue = Holder::Queue(DestinationId(u64::MAX));
        let durable = Holder::Durable(DurableId(u64::MAX));
        let held = Held { holder: durable, deliveries: u32::MAX, failures: 1, due: Some(Timestamp(u64::MAX)) };
        let stored = Stored {
            sequence: Sequence::MAX,
            destination: DestinationId(2),
            holders: SmallVec::from_slice(&[Held::fresh(queue), held]),
            message: message(),
        };
        let ops = vec![
            Op::Insert(stored),
            Op::Settle { sequence: Sequence::MAX, holder: queue },
            Op::Return { sequence: Sequence::MAX, held },
            Op::Mark { holder: durable, upto: Sequence::MAX },
            Op::CreateDestination { id: DestinationId(1), destination: Destination::topic(&"x".repeat(300)) },
            Op::CreateDurable {
                id: DurableId(4),
                durable: Durable { client_id: "c".into(), name: "n".into(), topic: DestinationId(1) },
            },
            Op::DeleteDurable { id: DurableId(0) },
            Op::Purge { holder: durable, upto: Sequence::MAX },
        ];
        Batch { number: HEAD.batch, ops }
    }

    fn frame_of(batch: &Batch) -> (Bytes, Vec<Slice>) {
        let mut encoder = Encoder::default();
        let slices = encode_batch(&mut encoder, HEAD, batch);
        (Bytes::copy_from_slice(encoder.padded(0)), slices)
    }

    #[test]
    fn what_was_encoded_is_decoded_the_same() {
        let batch = every_op();
        let (frame, slices) = frame_of(&batch);
        let record = Record::skim(&frame[FRAME_HEAD..]).unwrap();
        assert_eq!(record.head, HEAD);
        assert!(frame[FRAME_HEAD..].starts_with(&leads(HEAD.incarnation)));
        assert_eq!(record.ops().len(), batch.ops.len());
        for ((slice, bytes), (written, op)) in record.ops().zip(slices.iter().zip(&batch.ops)) {
            assert_eq!(slice, Some(*written));
            let begin = written.offset as usize;
            assert_eq!(bytes, &frame[begin..begin + written.length as usize]);
            assert_eq!(decode_op(Bytes::copy_from_slice(bytes)).as_ref(), Ok(op));
            assert_eq!(skim_op(bytes).unwrap(), skimmed(op, bytes));
        }
    }

    /// What skimming has to find.
    fn skimmed<'a>(op: &Op, bytes: &'a [u8]) -> Skimmed<'a> {
        match op {
            Op::Insert(stored) => Skimmed::Insert(written(stored, bytes)),
            Op::Settle { sequence, holder } => Skimmed::Settle { sequence: *sequence, holder: *holder },
            Op::Return { sequence, held } => Skimmed::Return { sequence: *sequence, held: *held },
            _ => Skimmed::Other,
        }
    }

    fn written<'a>(stored: &Stored, bytes: &'a [u8]) -> Written<'a> {
        let mut message = Vec::new();
        put_message(&mut message, &stored.message);
        Written {
            sequence: stored.sequence,
            destination: stored.destination,
            holders: stored.holders.clone(),
            priority: stored.message.priority,
            expires: stored.message.expires,
            message: bytes.split_at(bytes.len() - message.len()).1,
        }
    }

    #[test]
    fn the_generated_code_reads_the_same() {
        let (frame, _) = frame_of(&every_op());
        let record = wire::Record::decode(frame.slice(FRAME_HEAD..)).unwrap();
        assert_eq!((record.incarnation, record.number, record.ops.len()), (HEAD.incarnation, HEAD.number, 8));
    }

    #[test]
    fn r34_a_copy_is_the_message_as_it_lay_with_those_who_hold_it_now() {
        let Batch { ops, .. } = every_op();
        let Some(Op::Insert(stored)) = ops.first() else { unreachable!() };
        let (frame, slices) = frame_of(&Batch { ops: ops[..1].to_vec(), number: HEAD.batch });
        let Skimmed::Insert(lying) = skim_op(&frame[slices[0].offset as usize..]).unwrap() else { unreachable!() };
        let holders: SmallVec<[Held; 1]> = SmallVec::from_slice(&[Held::fresh(Holder::Durable(DurableId(5)))]);
        let mut encoder = Encoder::default();
        encoder.begin(HEAD);
        let copy = Copy {
            sequence: lying.sequence,
            destination: lying.destination,
            holders: holders.clone(),
            priority: lying.priority,
            expires: lying.expires,
            message: Bytes::copy_from_slice(lying.message),
        };
        let slice = encoder.push_copy(&copy).unwrap();
        let frame = Bytes::copy_from_slice(encoder.padded(0));
        let op = frame.slice(slice.offset as usize..(slice.offset + slice.length) as usize);
        assert!(matches!(skim_op(&op).unwrap(), Skimmed::Copy(_)));
        assert_eq!(decode_message(op), Some(Stored { holders, ..stored.clone() }));
    }

    #[test]
    fn a_catalog_comes_back_whole() {
        let mut catalog = Catalog { tenure: HEAD.tenure, ..Catalog::default() };
        for op in &every_op().ops {
            catalog.apply(op);
        }
        catalog.marks.insert(Holder::Queue(DestinationId(1)), Sequence::MAX);
        let mut encoder = Encoder::default();
        encoder.begin(HEAD);
        encoder.push_catalog(&catalog);
        assert_eq!(Record::skim(&encoder.padded(0)[FRAME_HEAD..]).unwrap().catalog, Some(catalog));
    }

    #[test]
    fn a_record_cut_anywhere_is_an_error_or_shorter_and_never_panics() {
        let (frame, _) = frame_of(&every_op());
        let record = &frame[FRAME_HEAD..];
        for length in 0..record.len() {
            if let Ok(cut) = Record::skim(&record[..length]) {
                assert!(cut.ops().len() < 8, "cut at {length}");
                assert!(cut.ops().all(|(_, op)| skim_op(op).is_ok()), "cut at {length}");
            }
        }
    }

    fn any_held() -> impl Strategy<Value = Held> {
        let holder = prop_oneof![
            any::<u64>().prop_map(|id| Holder::Queue(DestinationId(id))),
            (1..=u64::MAX).prop_map(|id| Holder::Durable(DurableId(id))),
        ];
        let due = proptest::option::of((1..=u64::MAX).prop_map(Timestamp));
        (holder, any::<u32>(), any::<u32>(), due).prop_map(|(holder, deliveries, failures, due)| Held {
            holder,
            deliveries,
            failures,
            due,
        })
    }

    proptest! {
        #[test]
        fn skimming_finds_what_the_generated_code_finds(
            (sequence, destination) in any::<(u64, u64)>(),
            holders in proptest::collection::vec(any_held(), 0..4),
            priority in 0..10_u8,
            expires in proptest::option::of(1..=u64::MAX),
            body in proptest::collection::vec(any::<u8>(), 0..300),
            text in proptest::option::of(".{0,20}"),
        ) {
            let message = Arc::new(Message::new(MessageDraft {
                priority: Priority::clamped(priority),
                expires: expires.map(Timestamp),
                correlation_id: text.as_deref().map(Into::into),
                body: body.into(),
                ..MessageDraft::default()
            }));
            let stored = Stored {
                sequence: Sequence::from_u64(sequence),
                destination: DestinationId(destination),
                holders: holders.into(),
                message,
            };
            let (frame, slices) = frame_of(&Batch { number: HEAD.batch, ops: vec![Op::Insert(stored)] });
            let op = frame.slice(slices[0].offset as usize..);
            let generated = decode_message(op.clone()).unwrap();
            prop_assert_eq!(skim_op(&op).unwrap(), Skimmed::Insert(written(&generated, &op)));
        }

        #[test]
        fn skimming_other_bytes_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(record) = Record::skim(&bytes) {
                prop_assert!(record.ops().all(|(_, op)| op.len() <= bytes.len()));
            }
            drop(skim_op(&bytes));
        }
    }
}
