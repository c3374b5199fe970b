//! A batch as columns: one array for each, so that one prepared statement takes any number of messages.

use tokio_postgres::types::ToSql;

use crate::{
    persistence::sql::{self, CatalogChange, Unfit, big, headers_to_json, holder_columns, millis},
    types::{Batch, DurableId, Held, Holder, Op, Sequence, Stored},
};

/// One statement takes so many bytes of messages at most, and one message at least. A larger batch becomes a
/// transaction of several statements: the server holds each of them in memory several times. Unit: bytes.
const STATEMENT_BYTES_MAX: usize = 16 << 20;

/// Stands for "no queue" and "no durable subscription": ids begin with 1.
const NOBODY: i64 = 0;

/// Stands for "nothing to settle": sequences begin above it.
const NO_MESSAGE: i64 = 0;

/// What a statement takes.
type Parameter<'p> = &'p (dyn ToSql + Sync);

/// What a batch does, cut for the database.
#[derive(Debug, Default)]
pub(super) struct Statements<'a> {
    /// What goes first, in order; rare.
    pub(super) catalog: Vec<CatalogChange<'a>>,
    /// Then these, each within [`STATEMENT_BYTES_MAX`]; never empty.
    pub(super) columns: Vec<Columns<'a>>,
}

impl<'a> Statements<'a> {
    /// Cuts a batch.
    pub(super) fn of(batch: &'a Batch) -> Result<Self, Unfit> {
        let mut statements = Self { catalog: Vec::new(), columns: vec![Columns::default()] };
        let mut marks = sql::Marks::default();
        for op in &batch.ops {
            marks.note(op);
            match op {
                Op::Insert(stored) => statements.columns_for(stored.message.size()).insert(stored)?,
                Op::Settle { sequence, holder } => statements.last().settle(*sequence, *holder),
                Op::Return { sequence, held } => statements.last().returned.push(*sequence, *held, false),
                _ => statements.catalog.extend(CatalogChange::of(op)),
            }
        }
        marks.all().for_each(|(holder, upto)| statements.last().mark(holder, upto));
        Ok(statements)
    }

    /// Settles beside those of the batch.
    pub(super) fn settle_too(&mut self, settles: &[(Sequence, Holder)]) {
        settles.iter().for_each(|(sequence, holder)| self.last().settle(*sequence, *holder));
    }

    /// How many rows these settle.
    pub(super) fn settled(&self) -> usize {
        self.columns.iter().map(|columns| columns.settles.sequence.len()).sum()
    }

    fn columns_for(&mut self, bytes: usize) -> &mut Columns<'a> {
        if self.last().bytes > 0 && self.last().bytes.saturating_add(bytes) > STATEMENT_BYTES_MAX {
            self.columns.push(Columns::default());
        }
        let columns = self.last();
        columns.bytes += bytes;
        columns
    }

    fn last(&mut self) -> &mut Columns<'a> {
        self.columns.last_mut().expect("it is never empty")
    }
}

/// What `commit.sql` and its two short forms take, but the token.
#[derive(Debug, Default)]
pub(super) struct Columns<'a> {
    settles: Settles,
    messages: Messages<'a>,
    held: Parts,
    returned: Returns,
    marks: Marks,
    bytes: usize,
}

#[derive(Debug, Default)]
struct Settles {
    sequence: Vec<i64>,
    queue: Vec<i64>,
    durable: Vec<i64>,
}

#[derive(Debug, Default)]
struct Messages<'a> {
    sequence: Vec<i64>,
    queue: Vec<Option<i64>>,
    destination: Vec<i64>,
    priority: Vec<i16>,
    persistent: Vec<bool>,
    created: Vec<i64>,
    expires: Vec<Option<i64>>,
    size: Vec<i32>,
    message_id: Vec<&'a str>,
    reply_to: Vec<Option<String>>,
    correlation_id: Vec<Option<&'a str>>,
    message_type: Vec<Option<&'a str>>,
    original_destination: Vec<Option<String>>,
    body_kind: Vec<&'static str>,
    headers: Vec<String>,
    body: Vec<&'a [u8]>,
}

impl Messages<'_> {
    fn parameters(&self) -> [Parameter<'_>; 16] {
        [
            &self.sequence,
            &self.queue,
            &self.destination,
            &self.priority,
            &self.persistent,
            &self.created,
            &self.expires,
            &self.size,
            &self.message_id,
            &self.reply_to,
            &self.correlation_id,
            &self.message_type,
            &self.original_destination,
            &self.body_kind,
            &self.headers,
            &self.body,
        ]
    }

    /// Nothing, if it is not one.
    fn only(&self) -> Option<[Parameter<'_>; 16]> {
        let [sequence] = self.sequence.as_slice() else { return None };
        Some([
            sequence,
            self.queue.first()?,
            self.destination.first()?,
            self.priority.first()?,
            self.persistent.first()?,
            self.created.first()?,
            self.expires.first()?,
            self.size.first()?,
            self.message_id.first()?,
            self.reply_to.first()?,
            self.correlation_id.first()?,
            self.message_type.first()?,
            self.original_destination.first()?,
            self.body_kind.first()?,
            self.headers.first()?,
            self.body.first()?,
        ])
    }
}

#[derive(Debug, Default)]
struct Parts {
    sequence: Vec<i64>,
    durable: Vec<i64>,
    priority: Vec<i16>,
    size: Vec<i32>,
}

#[derive(Debug, Default)]
struct Returns {
    sequence: Vec<i64>,
    queue: Vec<i64>,
    durable: Vec<i64>,
    deliveries: Vec<i32>,
    failures: Vec<i32>,
    due: Vec<Option<i64>>,
    is_new: Vec<bool>,
}

#[derive(Debug, Default)]
struct Marks {
    holder_kind: Vec<&'static str>,
    holder: Vec<i64>,
    upto: Vec<i64>,
}

impl<'a> Columns<'a> {
    /// Whether nothing but messages that queues hold comes and goes.
    pub(super) fn are_of_queues(&self) -> bool {
        self.held.sequence.is_empty()
            && !self.has_returns()
            && self.marks.holder.is_empty()
            && self.settles.durable.iter().all(|&durable| durable == NOBODY)
    }

    /// Whether something came back.
    pub(super) fn has_returns(&self) -> bool {
        !self.returned.sequence.is_empty()
    }

    /// The first and the last sequence of the messages.
    pub(super) fn inserted(&self) -> Option<(i64, i64)> {
        let sequences = &self.messages.sequence;
        Some((*sequences.iter().min()?, *sequences.iter().max()?))
    }

    /// The parameters of `commit.sql`, in its order.
    pub(super) fn parameters<'p>(&'p self, token: &'p i64) -> Vec<Parameter<'p>> {
        let Self { settles, messages, held, returned, marks, bytes: _ } = self;
        let settles: [Parameter<'_>; 4] = [token, &settles.sequence, &settles.queue, &settles.durable];
        let held: [Parameter<'_>; 4] = [&held.sequence, &held.durable, &held.priority, &held.size];
        let returned: [Parameter<'_>; 7] = [
            &returned.sequence,
            &returned.queue,
            &returned.durable,
            &returned.deliveries,
            &returned.failures,
            &returned.due,
            &returned.is_new,
        ];
        let marks: [Parameter<'_>; 3] = [&marks.holder_kind, &marks.holder, &marks.upto];
        [&settles[..], &messages.parameters(), &held, &returned, &marks].concat()
    }

    /// The parameters of `commit_of_queues.sql`, in its order.
    pub(super) fn parameters_of_queues<'p>(&'p self, token: &'p i64) -> Vec<Parameter<'p>> {
        let settles: [Parameter<'_>; 3] = [token, &self.settles.sequence, &self.settles.queue];
        [&settles[..], &self.messages.parameters()].concat()
    }

    /// The parameters of `commit_of_one.sql`, in its order; nothing, unless there is one message and at most one settle.
    pub(super) fn parameters_of_one<'p>(&'p self, token: &'p i64) -> Option<Vec<Parameter<'p>>> {
        let (sequence, queue) = match (self.settles.sequence.as_slice(), self.settles.queue.as_slice()) {
            ([], _) => (&NO_MESSAGE, &NOBODY),
            ([sequence], [queue]) => (sequence, queue),
            _ => return None,
        };
        let settle: [Parameter<'_>; 3] = [token, sequence, queue];
        Some([&settle[..], &self.messages.only()?].concat())
    }

    fn insert(&mut self, stored: &'a Stored) -> Result<(), Unfit> {
        let Stored { sequence, destination, holders, message } = stored;
        let size = i32::try_from(message.size()).unwrap_or(i32::MAX);
        let mut queue = None;
        for held in holders {
            match held.holder {
                Holder::Queue(id) => queue = Some(big(id.0)),
                Holder::Durable(id) => self.held.push(*sequence, id, message.priority.level(), size),
            }
            if *held != Held::fresh(held.holder) {
                self.returned.push(*sequence, *held, true);
            }
        }
        if queue.is_some() && holders.len() > 1 {
            return Err(Unfit::Holders(*sequence));
        }
        let messages = &mut self.messages;
        messages.sequence.push(big(sequence.as_u64()));
        messages.queue.push(queue);
        messages.destination.push(big(destination.0));
        messages.priority.push(message.priority.level().into());
        messages.persistent.push(message.persistent);
        messages.created.push(millis(message.timestamp));
        messages.expires.push(message.expires.map(millis));
        messages.size.push(size);
        messages.message_id.push(message.id.as_str());
        messages.reply_to.push(message.reply_to.as_ref().map(ToString::to_string));
        messages.correlation_id.push(message.correlation_id.as_ref().map(|text| text.as_str()));
        messages.message_type.push(message.message_type.as_ref().map(|text| text.as_str()));
        messages.original_destination.push(message.original_destination.as_ref().map(ToString::to_string));
        messages.body_kind.push(message.body_kind.name());
        let headers = headers_to_json(&message.properties).map_err(|error| Unfit::Headers(*sequence, error))?;
        messages.headers.push(headers);
        messages.body.push(&message.body);
        Ok(())
    }

    fn settle(&mut self, sequence: Sequence, holder: Holder) {
        let (queue, durable) = queue_or_durable(holder);
        self.settles.sequence.push(big(sequence.as_u64()));
        self.settles.queue.push(queue);
        self.settles.durable.push(durable);
    }

    fn mark(&mut self, holder: Holder, upto: Sequence) {
        let (kind, id) = holder_columns(holder);
        self.marks.holder_kind.push(kind);
        self.marks.holder.push(id);
        self.marks.upto.push(big(upto.as_u64()));
    }
}

impl Parts {
    fn push(&mut self, sequence: Sequence, durable: DurableId, priority: u8, size: i32) {
        self.sequence.push(big(sequence.as_u64()));
        self.durable.push(big(durable.0));
        self.priority.push(priority.into());
        self.size.push(size);
    }
}

impl Returns {
    fn push(&mut self, sequence: Sequence, held: Held, is_new: bool) {
        let count = |number: u32| i32::try_from(number).unwrap_or(i32::MAX);
        let (queue, durable) = queue_or_durable(held.holder);
        self.sequence.push(big(sequence.as_u64()));
        self.queue.push(queue);
        self.durable.push(durable);
        self.deliveries.push(count(held.deliveries));
        self.failures.push(count(held.failures));
        self.due.push(held.due.map(millis));
        self.is_new.push(is_new);
    }
}

fn queue_or_durable(holder: Holder) -> (i64, i64) {
    match holder {
        Holder::Queue(id) => (big(id.0), NOBODY),
        Holder::Durable(id) => (NOBODY, big(id.0)),
    }
}
