//! A batch as rows: lists of numbers travel as JSON, so that one prepared statement takes any number of them; messages
//! as parameters, so that bodies are copied and never escaped.

use mysql_async::Value;
use serde::Serialize;

use crate::{
    persistence::sql::{CatalogChange, Marks, Unfit, big, headers_to_json, holder_columns, millis},
    types::{Batch, Held, Holder, Op, Sequence, Stored},
};

/// Stands for "no queue" and "no durable subscription": ids begin with 1.
const NOBODY: i64 = 0;

/// What a message takes beside its texts and its body. Unit: bytes.
const ROW_BYTES: usize = 256;

/// What a batch does, cut for the database.
#[derive(Debug, Default)]
pub(super) struct Statements<'a> {
    /// What goes first, in order; rare.
    pub(super) catalog: Vec<CatalogChange<'a>>,
    /// No row of this purge is left.
    pub(super) done: Option<(Holder, Sequence)>,
    /// Message and queue.
    pub(super) settle_queues: Vec<(i64, i64)>,
    /// Message and durable subscription.
    pub(super) settle_durables: Vec<(i64, i64)>,
    pub(super) came_back: Vec<CameBack>,
    /// Message, durable subscription, priority, size.
    pub(super) hold: Vec<(i64, i64, u8, i32)>,
    pub(super) messages: Vec<MessageValues<'a>>,
    /// Kind and id of a holder, and its mark.
    pub(super) marks: Vec<(&'static str, i64, i64)>,
}

/// Message, queue, durable subscription, deliveries, failures, due, and whether the message is inserted here.
type CameBack = (i64, i64, i64, i32, i32, Option<i64>, u8);

impl<'a> Statements<'a> {
    /// Cuts a batch for a server that takes so many bytes at once.
    pub(super) fn of(batch: &'a Batch, packet_bytes_max: usize) -> Result<Self, Unfit> {
        let mut statements = Self::default();
        let mut marks = Marks::default();
        for op in &batch.ops {
            marks.note(op);
            match op {
                Op::Insert(stored) => statements.insert(stored, packet_bytes_max)?,
                Op::Settle { sequence, holder } => statements.settle(*sequence, *holder),
                Op::Return { sequence, held } => statements.come_back(*sequence, *held, false),
                _ => statements.catalog.extend(CatalogChange::of(op)),
            }
        }
        let marks = marks.all().map(|(holder, upto)| (holder_columns(holder), big(upto.as_u64())));
        statements.marks.extend(marks.map(|((kind, id), upto)| (kind, id, upto)));
        Ok(statements)
    }

    /// Notes the end of a purge, and nothing else.
    pub(super) fn of_done_purge(holder: Holder, upto: Sequence) -> Self {
        Self { done: Some((holder, upto)), ..Self::default() }
    }

    pub(super) fn settle(&mut self, sequence: Sequence, holder: Holder) {
        let sequence = big(sequence.as_u64());
        match queue_or_durable(holder) {
            (queue, NOBODY) => self.settle_queues.push((sequence, queue)),
            (_, durable) => self.settle_durables.push((sequence, durable)),
        }
    }

    fn insert(&mut self, stored: &'a Stored, packet_bytes_max: usize) -> Result<(), Unfit> {
        let Stored { sequence, holders, message, .. } = stored;
        let size = i32::try_from(message.size()).unwrap_or(i32::MAX);
        let mut queue = None;
        for held in holders {
            match held.holder {
                Holder::Queue(id) => queue = Some(big(id.0)),
                Holder::Durable(id) => {
                    self.hold.push((big(sequence.as_u64()), big(id.0), message.priority.level(), size));
                }
            }
            if *held != Held::fresh(held.holder) {
                self.come_back(*sequence, *held, true);
            }
        }
        if queue.is_some() && holders.len() > 1 {
            return Err(Unfit::Holders(*sequence));
        }
        let headers = headers_to_json(&message.properties).map_err(|error| Unfit::Headers(*sequence, error))?;
        let bytes = ROW_BYTES + message.size() + headers.len(); // the size counts the headers too: rather too much
        if bytes > packet_bytes_max {
            return Err(Unfit::Packet(*sequence, bytes, packet_bytes_max));
        }
        self.messages.push(MessageValues { stored, queue, size, headers, bytes });
        Ok(())
    }

    fn come_back(&mut self, sequence: Sequence, held: Held, is_new: bool) {
        let count = |number: u32| i32::try_from(number).unwrap_or(i32::MAX);
        let (queue, durable) = queue_or_durable(held.holder);
        let (deliveries, failures) = (count(held.deliveries), count(held.failures));
        let due = held.due.map(millis);
        self.came_back.push((big(sequence.as_u64()), queue, durable, deliveries, failures, due, is_new.into()));
    }
}

/// A message as a row.
#[derive(Debug)]
pub(super) struct MessageValues<'a> {
    stored: &'a Stored,
    queue: Option<i64>,
    size: i32,
    headers: String,
    /// What it takes in a request, rather too much.
    pub(super) bytes: usize,
}

impl MessageValues<'_> {
    /// The parameters of `insert.sql`, in its order.
    pub(super) fn values(&self) -> [Value; 16] {
        let Stored { sequence, destination, message, .. } = self.stored;
        [
            big(sequence.as_u64()).into(),
            self.queue.into(),
            big(destination.0).into(),
            message.priority.level().into(),
            message.persistent.into(),
            millis(message.timestamp).into(),
            message.expires.map(millis).into(),
            self.size.into(),
            message.id.as_str().into(),
            message.reply_to.as_ref().map(ToString::to_string).into(),
            message.correlation_id.as_ref().map(|text| text.as_str()).into(),
            message.message_type.as_ref().map(|text| text.as_str()).into(),
            message.original_destination.as_ref().map(ToString::to_string).into(),
            message.body_kind.name().into(),
            self.headers.as_str().into(),
            message.body.to_vec().into(),
        ]
    }
}

/// A list as the parameter of a statement.
pub(super) fn json(list: &[impl Serialize]) -> String {
    serde_json::to_string(list).expect("numbers and words are always JSON")
}

fn queue_or_durable(holder: Holder) -> (i64, i64) {
    match holder {
        Holder::Queue(id) => (big(id.0), NOBODY),
        Holder::Durable(id) => (NOBODY, big(id.0)),
    }
}
