//! SUBSCRIBE, which may ask for a browser, and UNSUBSCRIBE.

use std::{collections::BTreeMap, collections::HashMap, sync::Arc};

use compact_str::CompactString;

use super::{
    Translator, claims::Claim, is_true, non_empty, number, subscribers::Subscriber, subscribers::Subscribers,
    unsupported,
};
use crate::{
    broker::{AckMode, Browse, Command, Refusal, Request, Subscribe, Unsubscribe},
    codec::stomp::{Headers, Version},
    types::{ConsumerNo, DestinationKind, Text},
};

/// ActiveMQ's prefetch of a queue's consumer. Unit: messages.
const PREFETCH_QUEUE: u32 = 1_000;
/// Of a topic's.
const PREFETCH_TOPIC: u32 = 32_767;
/// Of a durable subscription.
const PREFETCH_DURABLE: u32 = 100;
/// Of a browser.
const PREFETCH_BROWSER: u32 = 500;
/// More can't be asked for: what a client holds is memory of the broker. Source: the widest that ActiveMQ's clients
/// use.
const PREFETCH_MAX: u32 = 65_535;
/// JMS' consumer priorities end here.
const PRIORITY_MAX: u8 = 127;

/// How RabbitMQ's clients ask for a durable subscription of the name that is its `id`.
const DURABLE_FLAGS: [&str; 2] = ["durable", "persistent"];

/// How clients spell the name of a durable subscription.
const DURABLE_NAMES: [&str; 3] = ["activemq.subscriptionName", "durable-subscription-name", "durable-subscriber-name"];

/// A session's subscriptions as its reader sees them.
#[derive(Debug)]
pub(super) struct Subscriptions {
    by_id: HashMap<CompactString, ConsumerNo, foldhash::fast::RandomState>,
    all: BTreeMap<ConsumerNo, Subscription>,
    /// The next consumer's number. None is ever used again, whatever became of its consumer: what the engine still
    /// hears of an earlier one (its deliveries are in the kernel) would settle the deliveries of a later one.
    next: u32,
    subscribers: Arc<Subscribers>,
}

/// One of them.
#[derive(Debug)]
struct Subscription {
    id: Option<CompactString>,
    /// As the client wrote it: 1.0 may end a subscription by it.
    destination: CompactString,
    durable: Option<Text>,
}

impl Subscriptions {
    pub(super) fn new(subscribers: Arc<Subscribers>) -> Self {
        Self { by_id: HashMap::default(), all: BTreeMap::new(), next: 1, subscribers }
    }

    /// The consumer behind a client's subscription id.
    pub(super) fn of_id(&self, id: &str) -> Option<ConsumerNo> {
        self.by_id.get(id).copied()
    }

    /// The consumer, if there is exactly one.
    pub(super) fn only(&self) -> Option<ConsumerNo> {
        let mut consumers = self.all.keys();
        consumers.next().copied().filter(|_| consumers.next().is_none())
    }

    fn of_destination(&self, destination: &str) -> Option<ConsumerNo> {
        self.all
            .iter()
            .find_map(|(consumer, subscription)| (subscription.destination == destination).then_some(*consumer))
    }

    fn of_durable(&self, name: &Text) -> Option<ConsumerNo> {
        self.all
            .iter()
            .find_map(|(consumer, subscription)| (subscription.durable.as_ref() == Some(name)).then_some(*consumer))
    }

    /// What the core declined since the last time.
    pub(super) fn take_declined(&self) -> Vec<Claim> {
        self.subscribers.take_declined()
    }

    fn add(&mut self, subscription: Subscription, subscriber: Subscriber) -> Result<ConsumerNo, Refusal> {
        let consumer = ConsumerNo(self.next);
        self.next = self.next.checked_add(1).ok_or_else(|| {
            let message = format!("A connection cannot subscribe more than {} times", u32::MAX);
            Refusal::fatal(message, "Connect again.")
        })?;
        if let Some(id) = &subscription.id {
            self.by_id.insert(id.clone(), consumer);
        }
        self.all.insert(consumer, subscription);
        self.subscribers.add(consumer, subscriber);
        Ok(consumer)
    }

    pub(super) fn remove(&mut self, consumer: ConsumerNo) {
        if let Some(id) = self.all.remove(&consumer).and_then(|subscription| subscription.id) {
            self.by_id.remove(&id);
        }
        self.subscribers.remove(consumer);
    }
}

impl Translator {
    /// SUBSCRIBE.
    pub(super) fn subscribe(&mut self, headers: Headers<'_>, requests: &mut Vec<Request>) -> Result<Command, Refusal> {
        let id = self.new_subscription_id(headers)?;
        let Some(written) = non_empty(headers, "destination") else {
            return Err(Refusal::new("Invalid empty or null Destination header", "SUBSCRIBE names a destination."));
        };
        unsupported::check_subscribe(headers)?;
        let destination = self.names.resolve(written, requests)?;
        if !self.names.may_consume(&destination) {
            let message = format!("Cannot subscribe to the temporary destination [{written}] of another connection");
            return Err(Refusal::new(message, "Only the connection that made it may consume from it."));
        }
        let ack = ack_mode(headers)?;
        let durable = self.durable(headers, id, written, destination.kind())?;
        let browses = self.browses(headers, written, destination.kind())?;
        let prefetch = match wanted_prefetch(headers)? {
            Some(wanted) => wanted,
            None if browses => PREFETCH_BROWSER,
            None => default_prefetch(destination.kind(), durable.is_some()),
        };
        let priority = priority(headers)?;
        let with_ack = self.version == Version::V1_2 && ack != AckMode::Auto;
        let subscriber = Subscriber::new(self.version, id, written, with_ack);
        let subscription =
            Subscription { id: id.map(CompactString::from), destination: written.into(), durable: durable.clone() };
        let consumer = self.subscriptions.add(subscription, subscriber)?;
        Ok(match browses {
            true => Command::Browse(Browse { consumer, destination, ack, prefetch }),
            false => Command::Subscribe(Subscribe { consumer, destination, ack, prefetch, priority, durable }),
        })
    }

    /// Whether a SUBSCRIBE asks to look at a queue only. What says neither yes nor no is refused: a consumer would take
    /// what its client meant to leave there.
    fn browses(&self, headers: Headers<'_>, written: &str, kind: DestinationKind) -> Result<bool, Refusal> {
        let Some(value) = headers.find("browser").filter(|value| !unsupported::means_off(value)) else {
            return Ok(false);
        };
        if !is_true(value) {
            return Err(Refusal::new(format!("Invalid browser header: [{value}]"), "browser is true or false."));
        }
        if self.version == Version::V1_0 {
            return Err(Refusal::new(
                "Queue Browser feature only valid for Stomp v1.1+ clients!",
                "Connect with accept-version:1.1 or 1.2 to browse.",
            ));
        }
        if !kind.is_queue() {
            return Err(Refusal::new(
                format!("Cannot browse [{written}]: it is no queue"),
                "Only queues keep what could be looked at; subscribe to a topic to get what is sent to it.",
            ));
        }
        Ok(true)
    }

    fn new_subscription_id<'a>(&self, headers: Headers<'a>) -> Result<Option<&'a str>, Refusal> {
        let id = non_empty(headers, "id");
        let limit = self.options.limits.subscriptions_per_connection_max;
        if self.subscriptions.all.len() >= limit {
            let message = format!("The maximum number of subscriptions of a connection was exceeded: {limit}");
            return Err(Refusal::new(
                message,
                "Use more connections, or raise limits.subscriptions_per_connection_max.",
            ));
        }
        match id {
            None if self.version != Version::V1_0 => Err(Refusal::new(
                "SUBSCRIBE received without a subscription id!",
                "From STOMP 1.1 on, the header id names a subscription within its connection.",
            )),
            Some(id) if self.subscriptions.of_id(id).is_some() => Err(Refusal::new(
                format!("There already is a subscription with the id [{id}]"),
                "Each subscription of a connection has an id of its own; UNSUBSCRIBE frees it.",
            )),
            id => Ok(id),
        }
    }

    /// The durable subscription that a SUBSCRIBE is to consume from, if it names one.
    fn durable(
        &self,
        headers: Headers<'_>,
        id: Option<&str>,
        written: &str,
        kind: DestinationKind,
    ) -> Result<Option<Text>, Refusal> {
        let durable = match self.durable_name(headers)? {
            None => self.durable_by_flag(headers, id, kind)?,
            named => named,
        };
        if durable.is_some() && kind != DestinationKind::Topic {
            let message = format!("Cannot durably subscribe to a Queue or temporary destination: [{written}]");
            return Err(Refusal::new(
                message,
                "Durable subscriptions are for topics; a queue keeps its messages anyway.",
            ));
        }
        Ok(durable)
    }

    fn durable_name(&self, headers: Headers<'_>) -> Result<Option<Text>, Refusal> {
        let Some((header, name)) = DURABLE_NAMES.iter().find_map(|header| Some((header, non_empty(headers, header)?)))
        else {
            return Ok(None);
        };
        self.owned_durable(name, header).map(Some)
    }

    /// RabbitMQ's way to a durable subscription. Of a queue it says what is so anyway.
    fn durable_by_flag(
        &self,
        headers: Headers<'_>,
        id: Option<&str>,
        kind: DestinationKind,
    ) -> Result<Option<Text>, Refusal> {
        let Some(flag) = durable_flag(headers) else { return Ok(None) };
        if headers.find("auto-delete").is_some_and(is_true) {
            return Err(unsupported::header("auto-delete", "what is durable and ends with its consumer"));
        }
        match id {
            _ if kind == DestinationKind::Queue => Ok(None),
            Some(id) => self.owned_durable(id, flag).map(Some),
            None => Err(Refusal::new(
                "A durable subscription needs a name",
                "Give it with activemq.subscriptionName, or as the subscription's id.",
            )),
        }
    }

    /// A durable subscription belongs to a client-id.
    fn owned_durable(&self, name: &str, header: &str) -> Result<Text, Refusal> {
        if self.client_id.is_none() {
            let message = format!("The durable subscription [{name}] needs a client-id");
            return Err(Refusal::new(message, format!("Send the header client-id with CONNECT to use {header}.")));
        }
        Ok(Text::from(name))
    }

    /// The durable subscription that an UNSUBSCRIBE deletes: the one named, or with RabbitMQ's flag the one behind the
    /// id, live or not.
    fn durable_to_delete(&self, headers: Headers<'_>) -> Result<Option<Text>, Refusal> {
        let named = self.durable_name(headers)?;
        let (Some(flag), Some(id), None) = (durable_flag(headers), non_empty(headers, "id"), &named) else {
            return Ok(named);
        };
        match self.subscriptions.of_id(id).and_then(|consumer| self.subscriptions.all.get(&consumer)) {
            Some(live) => Ok(live.durable.clone()),
            None => self.owned_durable(id, flag).map(Some),
        }
    }

    /// UNSUBSCRIBE. Plain, on a durable subscription, it only detaches; with its name it deletes it.
    ///
    /// Always true: what is removed here the core removes too, because it declines neither the end of a consumer that
    /// it has nor the deletion of the durable subscription behind one.
    pub(super) fn unsubscribe(&mut self, headers: Headers<'_>) -> Result<Command, Refusal> {
        let durable = self.durable_to_delete(headers)?;
        let of_id = non_empty(headers, "id").and_then(|id| self.subscriptions.of_id(id));
        let consumer = match &durable {
            None => self.plain_consumer(headers, of_id)?,
            Some(name) => {
                let of_durable = self.subscriptions.of_durable(name);
                if of_id.is_some() && of_id != of_durable {
                    return Err(Refusal::new(
                        format!("The subscription of this id does not consume from the durable subscription [{name}]"),
                        "Give the id of its subscription, or its name alone.",
                    ));
                }
                of_durable
            }
        };
        if let Some(consumer) = consumer {
            self.subscriptions.remove(consumer);
        }
        Ok(Command::Unsubscribe(Unsubscribe { consumer, durable }))
    }

    /// The consumer that an UNSUBSCRIBE without a durable subscription's name is about.
    fn plain_consumer(&self, headers: Headers<'_>, of_id: Option<ConsumerNo>) -> Result<Option<ConsumerNo>, Refusal> {
        let consumer = match (non_empty(headers, "id"), non_empty(headers, "destination")) {
            (None, Some(destination)) => self.subscriptions.of_destination(destination),
            _ => of_id,
        };
        if consumer.is_none() { Err(no_subscription(headers)) } else { Ok(consumer) }
    }
}

/// The header by which RabbitMQ's clients say that a subscription is durable.
fn durable_flag(headers: Headers<'_>) -> Option<&'static str> {
    DURABLE_FLAGS.into_iter().find(|flag| headers.find(flag).is_some_and(is_true))
}

fn no_subscription(headers: Headers<'_>) -> Refusal {
    if non_empty(headers, "id").is_none() && non_empty(headers, "destination").is_none() {
        return Refusal::new(
            "Must specify the subscriptionId or the destination you are unsubscribing from",
            "The header id names the subscription; STOMP 1.0 may use destination.",
        );
    }
    Refusal::new("No subscription matched.", "No subscription of this connection has that id or destination.")
}

/// ActiveMQ takes an unknown mode for `auto`, and then loses what the client meant to acknowledge.
fn ack_mode(headers: Headers<'_>) -> Result<AckMode, Refusal> {
    match headers.find("ack") {
        None | Some("" | "auto") => Ok(AckMode::Auto),
        Some("client") => Ok(AckMode::Cumulative),
        Some("client-individual") => Ok(AckMode::Individual),
        Some(other) => Err(Refusal::new(
            format!("Invalid ack header: [{other}]"),
            "ack is one of auto, client and client-individual.",
        )),
    }
}

/// What a client asks for, by whichever header.
fn wanted_prefetch(headers: Headers<'_>) -> Result<Option<u32>, Refusal> {
    for header in ["activemq.prefetchSize", "prefetch-count"] {
        let Some(value) = non_empty(headers, header) else { continue };
        let wanted: u32 = number(header, value)?;
        if !(1..=PREFETCH_MAX).contains(&wanted) {
            let message = format!("Invalid {header} header: [{value}]");
            return Err(Refusal::new(message, format!("{header} is 1 to {PREFETCH_MAX} messages.")));
        }
        return Ok(Some(wanted));
    }
    Ok(None)
}

/// Of a consumer that does not ask.
fn default_prefetch(kind: DestinationKind, durable: bool) -> u32 {
    match (kind.is_queue(), durable) {
        (true, _) => PREFETCH_QUEUE,
        (false, false) => PREFETCH_TOPIC,
        (false, true) => PREFETCH_DURABLE,
    }
}

fn priority(headers: Headers<'_>) -> Result<u8, Refusal> {
    let Some(value) = non_empty(headers, "activemq.priority") else { return Ok(0) };
    let wanted: u8 = number("activemq.priority", value)?;
    if wanted > PRIORITY_MAX {
        let message = format!("Invalid activemq.priority header: [{value}]");
        return Err(Refusal::new(message, format!("activemq.priority is 0 to {PRIORITY_MAX}.")));
    }
    Ok(wanted)
}
