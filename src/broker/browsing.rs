//! Browsing: somebody is shown what lies in a queue, and nothing of it changes.
//!
//! A browse goes through its queue in the order in which that hands out, and ends where the queue ended when the
//! browse began. It goes in steps. For a step everything is found that is in memory, whether it lies in the queue,
//! waits for a time or is out; what lies in the store or the spool alone is read, and laid between. When the kernel
//! has all that a step showed, the next one is due: who does not read holds one step's messages, and keeps nobody
//! waiting.
//!
//! Always true: what is in the queue from the beginning to the end is shown once, and nothing twice. Once, because at
//! the moment in which a step looks at memory everything else is durable (R25), so that the read which begins then
//! brings it; not twice, because a message keeps its priority and its sequence (R6), and a browse never goes back.
//! What a read brings beside that is in memory too, or was settled (R26).

use std::collections::{HashMap, VecDeque};

use slotmap::SlotMap;

use super::{
    Ack, AckMode, AckTarget, Browse, BrowseKey, Core, Delivery, Effects, Outgoing, Pending, QueueKey, Read, Refusal,
    Verdict,
    core::PlaceRole,
    entry::{Entry, Storage},
    reading::brought,
    settling::unexpected,
    step::Step,
};
use crate::types::{ConsumerNo, DeliveryTag, Page, PageRange, Priority, Sequence, SessionId, Timestamp, Window};

/// So many queues are browsed at once.
const BROWSES_MAX: usize = 64;

/// A step shows no more than this, unless one message is larger. Unit: bytes.
const STEP_BYTES_MAX: usize = 256 << 10;

/// So many steps are taken in one turn; the others follow in the next.
const STEPS_A_TURN_MAX: usize = 16;

/// A browser as its session knows it; it stays when its browse is over.
#[derive(Debug)]
pub(super) struct Browser {
    ack: AckMode,
    last_tag: DeliveryTag,
    /// Its browse, unless that is over.
    browse: Option<BrowseKey>,
}

/// All browses that are not over.
#[derive(Debug, Default)]
pub(super) struct Browses {
    running: SlotMap<BrowseKey, Running>,
    /// Those whose next step is due, and some that have ended since.
    due: VecDeque<BrowseKey>,
}

/// A browse that is not over.
#[derive(Debug)]
struct Running {
    session: SessionId,
    consumer: ConsumerNo,
    queue: QueueKey,
    /// How many messages a step may show.
    prefetch: usize,
    /// What came behind this was sent later.
    upto: Sequence,
    /// The priority that it has come to, and how far in that.
    priority: Priority,
    after: Sequence,
    stage: Stage,
}

/// What a browse waits for.
#[derive(Debug)]
enum Stage {
    /// Its turn.
    Due,
    /// A read of what this step needs and memory does not have.
    Reading(Step),
    /// The kernel, which does not have all that was shown.
    Showing,
    /// A read that nobody wants any more: until it is over the browse counts among those that are running, so that no
    /// more reads are under way than these may have.
    Abandoned,
}

impl Browses {
    /// Whether a step is due.
    pub(super) fn is_due(&self) -> bool {
        !self.due.is_empty()
    }

    fn begin(&mut self, running: Running) -> BrowseKey {
        let key = self.running.insert(running);
        self.due.push_back(key);
        key
    }

    /// Its next step is due.
    fn goes_on(&mut self, key: BrowseKey) {
        if let Some(running) = self.running.get_mut(key) {
            running.stage = Stage::Due;
            self.due.push_back(key);
        }
    }

    /// Nobody waits for it any more.
    fn end(&mut self, key: BrowseKey) {
        match self.running.get_mut(key).map(|running| &mut running.stage) {
            Some(stage @ (Stage::Reading(_) | Stage::Abandoned)) => *stage = Stage::Abandoned,
            Some(Stage::Due | Stage::Showing) | None => drop(self.running.remove(key)),
        }
    }

    /// The step that a read was for; `None`: nobody wants it any more.
    fn end_read(&mut self, key: BrowseKey) -> Option<(&mut Running, Step)> {
        if matches!(self.running.get(key)?.stage, Stage::Abandoned) {
            self.running.remove(key);
            return None;
        }
        let running = self.running.get_mut(key)?;
        match std::mem::replace(&mut running.stage, Stage::Due) {
            Stage::Reading(step) => Some((running, step)),
            Stage::Due | Stage::Showing | Stage::Abandoned => None,
        }
    }

    fn of_queue(&self, queue: QueueKey) -> Vec<BrowseKey> {
        let of_queue = |running: &Running| running.queue == queue && !matches!(running.stage, Stage::Abandoned);
        self.running.iter().filter(|(_, running)| of_queue(running)).map(|(key, _)| key).collect()
    }
}

impl Core {
    /// Begins a browse; its first step is taken in the same turn.
    pub(super) fn browse(&mut self, id: SessionId, browse: &Browse, effects: &mut Effects) -> Result<(), Refusal> {
        self.admit_consumer(id, browse.consumer)?;
        if !browse.destination.kind().is_queue() {
            return Err(Refusal::new(
                format!("Cannot browse {}: it is no queue.", browse.destination),
                "Only queues keep what could be looked at; subscribe to a topic to get what is sent to it.",
            ));
        }
        if self.browses.running.len() >= BROWSES_MAX {
            return Err(Refusal::new(
                format!("The maximum number of browsers at once ({BROWSES_MAX}) was exceeded."),
                "Try again when others have come to their end; who does not read what it is shown never does.",
            ));
        }
        let PlaceRole::Queue(queue) = self.place_for_consumer(id, &browse.destination, effects)? else { return Ok(()) };
        let running = Running {
            session: id,
            consumer: browse.consumer,
            queue,
            prefetch: usize::try_from(browse.prefetch).unwrap_or(usize::MAX).max(1),
            upto: self.sequences.peek().before(),
            priority: Priority::HIGHEST,
            after: Sequence::ZERO,
            stage: Stage::Due,
        };
        let key = self.browses.begin(running);
        let browser = Browser { ack: browse.ack, last_tag: DeliveryTag(0), browse: Some(key) };
        self.session(id)?.browsers.insert(browse.consumer, browser);
        Ok(())
    }

    /// Takes steps that are due, a bounded number of them.
    pub(super) fn browse_on(&mut self, now: Timestamp, effects: &mut Effects) {
        for _ in 0..STEPS_A_TURN_MAX {
            let Some(key) = self.browses.due.pop_front() else { return };
            self.begin_step(now, key, effects);
        }
    }

    /// Finds the next messages of a browse, and shows them if none has to be read.
    fn begin_step(&mut self, now: Timestamp, key: BrowseKey, effects: &mut Effects) {
        let Some(running) = self.browses.running.get(key) else { return };
        let (queue, priority) = (running.queue, running.priority);
        let range = PageRange { after: running.after, upto: running.upto };
        let bytes = self.memory.read_window().min(STEP_BYTES_MAX);
        let window = Window { messages: running.prefetch, bytes };
        let mut step = Step::new(priority, range, window);
        self.entries_out(queue).for_each(|entry| step.offer_out(entry));
        let Some(queue) = self.queues.get(queue) else { return self.end_browse(key, effects) };
        queue.show(&mut step);
        let range = step.range();
        let Some(cold) = queue.cold_within(priority, range).filter(|_| range.after < range.upto) else {
            return self.show(now, key, step, effects);
        };
        effects.reads.push(Read::Browse {
            browse: key,
            stored: queue.holder.filter(|_| cold.lies_in.store),
            spooled: queue.spool_holder().filter(|_| cold.lies_in.spool),
            priority,
            range: PageRange { after: cold.after, upto: cold.upto },
            window,
        });
        self.memory.promise(bytes);
        if let Some(running) = self.browses.running.get_mut(key) {
            running.stage = Stage::Reading(step);
        }
    }

    /// Takes in what was read for a step. `pending` has what was settled or came back and was not durable when the read
    /// began.
    pub(super) fn browse_read(
        &mut self,
        now: Timestamp,
        read: &Read,
        page: &Page,
        pending: &HashMap<Sequence, Pending>,
        effects: &mut Effects,
    ) {
        let Read::Browse { browse: key, stored: in_store, spooled: in_spool, window, .. } = read else { return };
        self.memory.keep_promise(window.bytes);
        let Some((running, mut step)) = self.browses.end_read(*key) else { return };
        let Some(queue) = self.queues.get(running.queue) else { return self.end_browse(*key, effects) };
        if let Some(last) = page.messages.last().filter(|_| !page.complete) {
            step.end_at(last.sequence);
        }
        for stored in &page.messages {
            if let Some((storage, part)) = brought(stored, *in_store, *in_spool, pending) {
                let redelivered = storage == Storage::Stored && queue.mark.was_passed(stored.sequence);
                step.offer(&Entry::read(storage, stored, &part, redelivered));
            }
        }
        self.show(now, *key, step, effects);
    }

    /// Shows what a step has found, and the end if nothing follows.
    fn show(&mut self, now: Timestamp, key: BrowseKey, step: Step, effects: &mut Effects) {
        let Some(running) = self.browses.running.get_mut(key) else { return };
        let Some(session) = self.sessions.get_mut(&running.session) else { return };
        let Some(browser) = session.browsers.get_mut(&running.consumer) else { return };
        running.after = step.range().upto;
        let shown_before = browser.last_tag;
        for shown in step.into_shown(now) {
            browser.last_tag = DeliveryTag(browser.last_tag.0 + 1);
            session.outbox_bytes += shown.message.size();
            let delivery = Delivery {
                consumer: running.consumer,
                tag: browser.last_tag,
                message: shown.message,
                redelivered: shown.redelivered,
                deliveries: shown.deliveries,
                shared: shown.shared,
            };
            effects.outgoing.push((running.session, Outgoing::Delivery(delivery)));
        }
        if running.after >= running.upto {
            let lower = self.queues.get(running.queue).and_then(|queue| queue.priority_below(running.priority));
            let Some(lower) = lower else { return self.end_browse(key, effects) };
            (running.priority, running.after) = (lower, Sequence::ZERO);
        }
        if browser.last_tag == shown_before {
            return self.browses.goes_on(key);
        }
        running.stage = Stage::Showing;
    }

    /// The kernel has what a browser was shown, up to `tag`.
    pub(super) fn was_shown(&mut self, id: SessionId, number: ConsumerNo, tag: DeliveryTag) {
        let browser = self.sessions.get(&id).and_then(|session| session.browsers.get(&number));
        let Some(key) = browser.filter(|browser| browser.last_tag <= tag).and_then(|browser| browser.browse) else {
            return;
        };
        if self.browses.running.get(key).is_some_and(|running| matches!(running.stage, Stage::Showing)) {
            self.browses.goes_on(key);
        }
    }

    /// Tells a browser that it has seen everything.
    fn end_browse(&mut self, key: BrowseKey, effects: &mut Effects) {
        let Some(running) = self.browses.running.get(key) else { return };
        let (id, number) = (running.session, running.consumer);
        self.browses.end(key);
        if let Some(browser) = self.sessions.get_mut(&id).and_then(|session| session.browsers.get_mut(&number)) {
            browser.browse = None;
            effects.outgoing.push((id, Outgoing::BrowseEnd(number)));
        }
    }

    /// Nothing is left of what lay in a queue.
    pub(super) fn end_browses_of(&mut self, queue: QueueKey, effects: &mut Effects) {
        for key in self.browses.of_queue(queue) {
            self.end_browse(key, effects);
        }
    }

    /// A browser is gone, whether it had seen everything or not.
    pub(super) fn remove_browser(&mut self, browser: &Browser) {
        if let Some(key) = browser.browse {
            self.browses.end(key);
        }
    }

    /// Whether an ACK is about something that a browser was shown; nothing comes of it. A NACK is refused, as ActiveMQ
    /// does.
    pub(super) fn is_of_browser(&mut self, id: SessionId, ack: &Ack) -> Result<bool, Refusal> {
        let (AckTarget::Tag { consumer, .. } | AckTarget::MessageId { consumer: Some(consumer), .. }) = &ack.target
        else {
            return Ok(false);
        };
        let Some(browser) = self.session(id)?.browsers.get(consumer) else { return Ok(false) };
        if ack.verdict == Verdict::Rejected {
            return Err(Refusal::new(
                "Cannot Nack a message on a Queue Browser Subscription.",
                "A browser is shown what lies in a queue, and consumes nothing of it.",
            ));
        }
        let was_shown = !matches!(&ack.target, AckTarget::Tag { tag, .. } if *tag > browser.last_tag);
        if browser.ack == AckMode::Auto || !was_shown {
            return Err(unexpected(ack));
        }
        if let Some(name) = &ack.transaction {
            self.open_transaction(id, name, 0)?;
        }
        Ok(true)
    }
}
