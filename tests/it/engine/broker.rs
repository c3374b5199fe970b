//! An engine in this process, and clients that speak to it without a protocol.

use std::{collections::VecDeque, time::Duration};

use batonmq::{
    broker::{
        Ack, AckMode, AckTarget, CloseReason, Command, Connect, CoreOptions, Delivery, Outgoing, Refusal, Request,
        Send, Subscribe, Verdict,
    },
    config::Limits,
    engine::{self, EngineError, EngineHandle, SessionLink, Stores, Written},
    persistence::{MemoryAdapter, PersistenceAdapter, StoreError},
    types::{
        BootTime, Broken, Clock, ConsumerNo, Destination, Mandate, MandateKeeper, Message, MessageDraft, Meter,
        TermContext,
    },
};
use smallvec::smallvec;
use tokio::{task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

use super::store::{PATIENCE, Store};

/// The message that [`Broker::keep_busy`] sends.
pub(super) const BLOCKER: &str = "blocker";

/// Longer than any test.
pub(super) const LEASE: Duration = Duration::from_secs(3_600);

/// One term's engine on a store.
pub(super) struct Broker {
    pub(super) handle: EngineHandle,
    /// Says what is known of the broker's lock.
    pub(super) keeper: MandateKeeper,
    pub(super) clock: Clock,
    pub(super) stop: CancellationToken,
    engine: JoinSet<Result<(), EngineError>>,
    store: JoinSet<Result<(), StoreError>>,
}

/// A store, and a spool that holds nothing.
pub(super) fn stores<A>(store: A) -> Stores<A, MemoryAdapter> {
    Stores { store, spool: MemoryAdapter::new() }
}

impl Broker {
    pub(super) async fn start(store: &Store) -> Self {
        Self::start_with(store, options()).await
    }

    /// As the node does it: recover, raise, start.
    pub(super) async fn start_with(store: &Store, options: CoreOptions) -> Self {
        Self::start_on(store.clone(), MemoryAdapter::new(), options, Meter::unlimited()).await
    }

    /// On any store and spool.
    pub(super) async fn start_on(
        adapter: impl PersistenceAdapter,
        spool: impl PersistenceAdapter,
        options: CoreOptions,
        meter: Meter,
    ) -> Self {
        Self::start_at(Clock::start(), adapter, spool, options, meter).await
    }

    /// By this clock. The core knows the same limit of memory as the meter, as in a node.
    pub(super) async fn start_at(
        clock: Clock,
        mut adapter: impl PersistenceAdapter,
        spool: impl PersistenceAdapter,
        mut options: CoreOptions,
        meter: Meter,
    ) -> Self {
        options.limits.memory_bytes_max = meter.limit();
        let catalog = adapter.recover().await.unwrap();
        let tenure = catalog.tenure.next_above(catalog.tenure);
        adapter.raise(tenure).await.unwrap();
        let stop = CancellationToken::new();
        let (keeper, mandate) = Mandate::until(BootTime::now().after(LEASE));
        let context = TermContext { clock, mandate, meter };
        let running = engine::start(Stores { store: adapter, spool }, options, &catalog, tenure, context, stop.clone());
        let (mut engine, mut store) = (JoinSet::new(), JoinSet::new());
        engine.spawn(running.engine);
        store.spawn(running.store);
        Self { handle: running.handle, keeper, clock, stop, engine, store }
    }

    /// From now on a batch is under way, until the test lets the store go; what comes stays open meanwhile.
    pub(super) async fn keep_busy(&self, store: &Store) {
        store.hold();
        let asked = store.commits().len();
        let mut client = self.client().await;
        client.submit([asking("never", send("elsewhere", BLOCKER))]).await;
        store.asked_for(asked + 1).await;
    }

    pub(super) async fn client(&self) -> Client {
        self.client_as(None, false).await
    }

    pub(super) async fn client_as(&self, client_id: Option<&str>, lenient: bool) -> Client {
        let link = self.handle.open_session().await.unwrap();
        let mut client = Client { link, arrived: VecDeque::new() };
        let connect = Connect { user: None, client_id: client_id.map(Into::into), lenient };
        client.submit([plain(Command::Connect(connect))]).await;
        let connected = client.next().await;
        assert!(matches!(connected, Outgoing::Connected), "{connected:?}");
        client
    }

    /// Waits for the engine's end.
    pub(super) async fn ended(&mut self) -> Result<(), EngineError> {
        let ended = timeout(PATIENCE, self.engine.join_next()).await;
        ended.expect("the engine ends").expect("it ends once").expect("it does not panic")
    }

    /// Ends it politely; the store is closed then.
    pub(super) async fn stopped(mut self) {
        self.stop.cancel();
        self.ended().await.unwrap();
        self.closed().await.unwrap();
    }

    /// Waits for the end of what carries to the store and the spool.
    pub(super) async fn closed(&mut self) -> Result<(), StoreError> {
        let ended = timeout(PATIENCE, self.store.join_next()).await;
        ended.expect("the store closes").expect("it ends once").expect("it does not panic")
    }

    /// Ends it as kill -9 does; the store keeps what it has.
    pub(super) async fn crash(mut self) {
        self.engine.shutdown().await;
        self.store.shutdown().await;
    }
}

/// Default limits.
pub(crate) fn options() -> CoreOptions {
    CoreOptions {
        limits: Limits::default(),
        redelivery: Vec::new(),
        message_bytes_max: 64 << 20,
        broken: Broken::default(),
    }
}

/// Nobody works any more: paused time passes only then.
pub(super) async fn quiet() {
    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
}

/// A connection without a protocol.
pub(super) struct Client {
    pub(super) link: SessionLink,
    arrived: VecDeque<Outgoing>,
}

impl Client {
    /// Submits what one read might have brought.
    pub(super) async fn submit(&mut self, requests: impl IntoIterator<Item = Request>) {
        let submitted = timeout(PATIENCE, self.link.submit(requests.into_iter().collect())).await;
        submitted.expect("there is room in the end").expect("the engine lives");
    }

    /// The same; `false`: the engine is gone.
    pub(super) async fn try_submit(&self, requests: Vec<Request>) -> bool {
        timeout(PATIENCE, self.link.submit(requests)).await.expect("there is room in the end").is_ok()
    }

    /// Subscribes with client-individual acknowledgements.
    pub(super) async fn subscribe(&mut self, consumer: u32, queue: &str) {
        self.submit([subscribe(consumer, Destination::queue(queue))]).await;
    }

    /// The same, with so much credit.
    pub(super) async fn subscribe_for(&mut self, consumer: u32, queue: &str, prefetch: u32) {
        let mut request = subscribe(consumer, Destination::queue(queue));
        if let Command::Subscribe(subscribe) = &mut request.command {
            subscribe.prefetch = prefetch;
        }
        self.submit([request]).await;
    }

    /// Waits until there is something to take.
    pub(super) async fn something_arrives(&mut self) {
        if self.arrived.is_empty() {
            let mut taken = Vec::new();
            timeout(PATIENCE, self.link.outbox().take(&mut taken)).await.expect("something arrives");
            self.arrived.extend(taken);
        }
    }

    pub(super) async fn next(&mut self) -> Outgoing {
        self.something_arrives().await;
        self.arrived.pop_front().expect("an outbox is taken when something is there")
    }

    /// Nothing has arrived when nobody works any more.
    pub(super) async fn gets_nothing(&mut self) {
        quiet().await;
        let arrived = self.arrived().await;
        assert!(arrived.is_empty(), "{arrived:?}");
    }

    /// What has arrived by now.
    pub(super) async fn arrived(&mut self) -> Vec<Outgoing> {
        let mut taken = Vec::new();
        tokio::select! {
            biased;
            () = self.link.outbox().take(&mut taken) => self.arrived.extend(taken),
            () = std::future::ready(()) => {}
        }
        self.arrived.drain(..).collect()
    }

    pub(super) async fn gets_receipts(&mut self, expected: &[&str]) {
        for receipt in expected {
            match self.next().await {
                Outgoing::Receipt(got) => assert_eq!(got, *receipt),
                other => panic!("{other:?} instead of the receipt {receipt}"),
            }
        }
    }

    pub(super) async fn gets(&mut self, id: &str) -> Delivery {
        match self.next().await {
            Outgoing::Delivery(delivery) => {
                assert_eq!(delivery.message.id.as_str(), id);
                delivery
            }
            other => panic!("{other:?} instead of the message {id}"),
        }
    }

    pub(super) async fn gets_error(&mut self) -> (Refusal, Option<String>) {
        match self.next().await {
            Outgoing::Error { refusal, receipt } => (refusal, receipt.map(|receipt| receipt.to_string())),
            other => panic!("{other:?} instead of an ERROR"),
        }
    }

    pub(super) async fn is_closed(&mut self, expected: CloseReason) {
        match self.next().await {
            Outgoing::Close(reason) => assert_eq!(reason, expected),
            other => panic!("{other:?} instead of the end"),
        }
        self.gets_nothing().await;
    }

    /// Tells that a delivery is in the kernel.
    pub(super) async fn took(&self, delivery: &Delivery) {
        let written = Written { last: smallvec![(delivery.consumer, delivery.tag)], bytes: delivery.message.size() };
        self.link.written(written).await.unwrap();
    }
}

pub(crate) fn plain(command: Command) -> Request {
    Request { command, receipt: None, bytes: 0 }
}

pub(crate) fn asking(receipt: &str, request: Request) -> Request {
    Request { receipt: Some(receipt.into()), ..request }
}

/// A persistent message for a queue.
pub(super) fn send(queue: &str, id: &str) -> Request {
    send_to(Destination::queue(queue), id, None)
}

pub(super) fn send_in(transaction: &str, queue: &str, id: &str) -> Request {
    send_to(Destination::queue(queue), id, Some(transaction))
}

pub(super) fn send_to(destination: Destination, id: &str, transaction: Option<&str>) -> Request {
    let draft = MessageDraft { id: id.into(), persistent: true, ..MessageDraft::default() };
    send_draft(destination, draft, transaction)
}

pub(crate) fn send_draft(destination: Destination, draft: MessageDraft, transaction: Option<&str>) -> Request {
    let message = Message::new(draft).into();
    let bytes = 100;
    Request { bytes, ..plain(Command::Send(Send { destination, message, transaction: transaction.map(Into::into) })) }
}

pub(super) fn subscribe(consumer: u32, destination: Destination) -> Request {
    subscribe_as(consumer, destination, AckMode::Individual, None)
}

pub(crate) fn subscribe_as(consumer: u32, destination: Destination, ack: AckMode, durable: Option<&str>) -> Request {
    plain(Command::Subscribe(Subscribe {
        consumer: ConsumerNo(consumer),
        destination,
        ack,
        prefetch: 1_000,
        priority: 0,
        durable: durable.map(Into::into),
    }))
}

pub(crate) fn ack(delivery: &Delivery) -> Request {
    answer(delivery, Verdict::Accepted, None)
}

pub(crate) fn ack_in(transaction: &str, delivery: &Delivery) -> Request {
    answer(delivery, Verdict::Accepted, Some(transaction))
}

pub(crate) fn nack(delivery: &Delivery) -> Request {
    answer(delivery, Verdict::Rejected, None)
}

pub(super) fn nack_in(transaction: &str, delivery: &Delivery) -> Request {
    answer(delivery, Verdict::Rejected, Some(transaction))
}

fn answer(delivery: &Delivery, verdict: Verdict, transaction: Option<&str>) -> Request {
    let target = AckTarget::Tag { consumer: delivery.consumer, tag: delivery.tag };
    plain(Command::Ack(Ack { target, verdict, transaction: transaction.map(Into::into) }))
}

pub(crate) fn begin(transaction: &str) -> Request {
    plain(Command::Begin(transaction.into()))
}

pub(crate) fn commit(transaction: &str) -> Request {
    plain(Command::Commit(transaction.into()))
}
