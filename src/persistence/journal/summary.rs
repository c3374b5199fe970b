//! What one segment says, without its messages: all that a start needs of it (R36).
//!
//! A start takes in the summaries in the order of their segments: what is held is then what was inserted less what was
//! settled. Only settles, returns and deletions that changed something are in a summary, and every purge as its mark.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use bytes::{Buf, BufMut};
use prost::encoding::{decode_varint, encode_varint};

use super::{line::Line, record::RecordHead, scattered::Scattered, segment::RECORDS_AT, sequences::Sequences};
use crate::types::{
    BatchNumber, DestinationId, DurableId, FencingToken, Held, Holder, Priority, Sequence, Tenure, Term, Timestamp,
};

/// What a segment says.
#[derive(Debug)]
pub(super) struct Summary {
    /// The numbers of its records.
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) records: u64,
    /// How many of them hold a batch, and which was the last.
    pub(super) batches: u64,
    pub(super) last_batch: Option<(Term, BatchNumber)>,
    /// The highest tenure.
    pub(super) tenure: Tenure,
    /// Where the last record begins and ends, and where the next one would begin.
    pub(super) last_begins: u64,
    pub(super) last_ends: u64,
    pub(super) next: u64,
    /// Which messages lie in it, copies too, and what they take. Unit: bytes.
    pub(super) placed: Sequences,
    pub(super) placed_bytes: u64,
    /// Who was to hold them.
    pub(super) inserted: BTreeMap<Holder, Line>,
    pub(super) settled: BTreeMap<Holder, Scattered>,
    /// The last of each part.
    pub(super) returned: BTreeMap<(Holder, Sequence), Held>,
    pub(super) deleted: BTreeSet<DurableId>,
    /// Up to where a holder was purged: nothing that it was to hold there is left, because nothing comes there later.
    pub(super) purged: BTreeMap<Holder, Sequence>,
}

impl Default for Summary {
    fn default() -> Self {
        Self {
            first: 0,
            last: 0,
            records: 0,
            batches: 0,
            last_batch: None,
            tenure: Tenure::default(),
            last_begins: RECORDS_AT,
            last_ends: RECORDS_AT,
            next: RECORDS_AT,
            placed: Sequences::default(),
            placed_bytes: 0,
            inserted: BTreeMap::new(),
            settled: BTreeMap::new(),
            returned: BTreeMap::new(),
            deleted: BTreeSet::new(),
            purged: BTreeMap::new(),
        }
    }
}

impl Summary {
    /// A record lies between these places, and the next one would begin at `next`.
    pub(super) fn wrote(&mut self, head: RecordHead, holds_batch: bool, (begins, ends, next): (u64, u64, u64)) {
        if self.records == 0 {
            self.first = head.number;
        }
        self.records += 1;
        self.last = head.number;
        self.tenure = self.tenure.max(head.tenure);
        if holds_batch {
            self.batches += 1;
            self.last_batch = Some((head.tenure.term, head.batch));
        }
        (self.last_begins, self.last_ends, self.next) = (begins, ends, next);
    }

    /// A message of `bytes` lies here.
    pub(super) fn place(
        &mut self,
        sequence: Sequence,
        destination: DestinationId,
        priority: Priority,
        holders: &[Held],
        bytes: u32,
    ) {
        self.placed.insert(sequence);
        self.placed_bytes += u64::from(bytes);
        for held in holders {
            let line = self.inserted.entry(held.holder).or_insert_with(|| Line::new(destination));
            line.insert(sequence, priority, bytes);
            if *held != Held::fresh(held.holder) {
                self.returned.insert((held.holder, sequence), *held);
            }
        }
    }

    pub(super) fn settle(&mut self, sequence: Sequence, holder: Holder) {
        self.settled.entry(holder).or_default().insert(sequence);
        self.returned.remove(&(holder, sequence));
    }

    pub(super) fn give_back(&mut self, sequence: Sequence, held: Held) {
        self.returned.insert((held.holder, sequence), held);
    }

    pub(super) fn delete_durable(&mut self, id: DurableId) {
        let holder = Holder::Durable(id);
        self.deleted.insert(id);
        self.inserted.remove(&holder);
        self.settled.remove(&holder);
        self.returned.retain(|(other, _), _| *other != holder);
    }

    pub(super) fn purge(&mut self, holder: Holder, upto: Sequence) {
        let purged = self.purged.entry(holder).or_default();
        *purged = (*purged).max(upto);
    }

    /// Which messages somebody was to hold who is not deleted.
    pub(super) fn held(&self) -> Cow<'_, Sequences> {
        if self.deleted.is_empty() {
            return Cow::Borrowed(&self.placed);
        }
        let mut held = Sequences::default();
        self.inserted.values().flat_map(Line::sets).for_each(|set| set.add_to(&mut held));
        Cow::Owned(held)
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let (term, batch) = self.last_batch.unwrap_or_default();
        for number in [
            self.first,
            self.last,
            self.records,
            self.batches,
            u64::from(term.0),
            batch.0,
            u64::from(self.tenure.term.0),
            self.tenure.token.0,
            self.last_begins,
            self.last_ends,
            self.next,
            self.placed_bytes,
        ] {
            encode_varint(number, &mut out);
        }
        self.placed.encode(&mut out);
        put_all(&mut out, self.inserted.iter(), |out, (holder, line)| {
            put_holder(out, *holder);
            line.encode(out);
        });
        put_all(&mut out, self.settled.iter(), |out, (holder, set)| {
            put_holder(out, *holder);
            set.encode(out);
        });
        put_all(&mut out, self.returned.iter(), |out, ((holder, sequence), held)| {
            put_holder(out, *holder);
            let due = held.due.unwrap_or_default().0;
            for number in [sequence.as_u64(), held.deliveries.into(), held.failures.into(), due] {
                encode_varint(number, out);
            }
        });
        put_all(&mut out, self.deleted.iter(), |out, id| encode_varint(id.0, out));
        put_all(&mut out, self.purged.iter(), |out, (holder, upto)| {
            put_holder(out, *holder);
            encode_varint(upto.as_u64(), out);
        });
        out
    }

    /// Reads what `encode` wrote. `None`: these bytes are something else.
    pub(super) fn decode(mut bytes: &[u8]) -> Option<Self> {
        let bytes = &mut bytes;
        let mut summary = Self { first: number(bytes)?, last: number(bytes)?, ..Self::default() };
        (summary.records, summary.batches) = (number(bytes)?, number(bytes)?);
        let last_batch = (Term(u32::try_from(number(bytes)?).ok()?), BatchNumber(number(bytes)?));
        summary.last_batch = (summary.batches > 0).then_some(last_batch);
        let term = Term(u32::try_from(number(bytes)?).ok()?);
        summary.tenure = Tenure { term, token: FencingToken(number(bytes)?) };
        (summary.last_begins, summary.last_ends) = (number(bytes)?, number(bytes)?);
        (summary.next, summary.placed_bytes) = (number(bytes)?, number(bytes)?);
        summary.placed = Sequences::decode(bytes)?;
        for _ in 0..number(bytes)? {
            let holder = take_holder(bytes)?;
            summary.inserted.insert(holder, Line::decode(bytes)?);
        }
        for _ in 0..number(bytes)? {
            let holder = take_holder(bytes)?;
            summary.settled.insert(holder, Scattered::decode(bytes)?);
        }
        for _ in 0..number(bytes)? {
            let (holder, sequence) = (take_holder(bytes)?, Sequence::from_u64(number(bytes)?));
            let (deliveries, failures) = (u32::try_from(number(bytes)?).ok()?, u32::try_from(number(bytes)?).ok()?);
            let due = Some(Timestamp(number(bytes)?)).filter(|due| due.0 != 0);
            summary.returned.insert((holder, sequence), Held { holder, deliveries, failures, due });
        }
        for _ in 0..number(bytes)? {
            summary.deleted.insert(DurableId(number(bytes)?));
        }
        for _ in 0..number(bytes)? {
            summary.purged.insert(take_holder(bytes)?, Sequence::from_u64(number(bytes)?));
        }
        bytes.is_empty().then_some(summary)
    }
}

fn put_all<T>(out: &mut Vec<u8>, items: impl ExactSizeIterator<Item = T>, put: impl Fn(&mut Vec<u8>, T)) {
    encode_varint(items.len() as u64, out);
    items.for_each(|item| put(out, item));
}

fn number(bytes: &mut &[u8]) -> Option<u64> {
    decode_varint(bytes).ok()
}

fn put_holder(out: &mut Vec<u8>, holder: Holder) {
    let (kind, id) = match holder {
        Holder::Queue(DestinationId(id)) => (0, id),
        Holder::Durable(DurableId(id)) => (1, id),
    };
    out.put_u8(kind);
    encode_varint(id, out);
}

fn take_holder(bytes: &mut &[u8]) -> Option<Holder> {
    match bytes.try_get_u8().ok()? {
        0 => Some(Holder::Queue(DestinationId(number(bytes)?))),
        1 => Some(Holder::Durable(DurableId(number(bytes)?))),
        _ => None,
    }
}
