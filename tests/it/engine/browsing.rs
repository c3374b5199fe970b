//! Browsing through the engine: a backlog beyond memory is shown whole and left as it was, and nobody waits for whoever
//! looks at it.

use std::path::Path;

use batonmq::{
    broker::{AckMode, Browse, Command, Outgoing, Request},
    persistence::{
        MemoryAdapter, MemoryStore, PersistenceAdapter,
        journal::{JournalAdapter, JournalOptions},
    },
    types::{Charge, ConsumerNo, Destination, Meter},
};

use super::{
    broker::{Broker, Client, ack, asking, options, plain, quiet, send},
    pages::Pages,
    store::Store,
};

const BACKLOG: usize = 2_000;

/// What a step takes, and one message more. Unit: bytes.
const STEP: usize = 257 << 10;

fn browse(consumer: u32, queue: &str) -> Request {
    let (consumer, destination) = (ConsumerNo(consumer), Destination::queue(queue));
    plain(Command::Browse(Browse { consumer, destination, ack: AckMode::Auto, prefetch: 500 }))
}

/// A broker whose memory is scarce, with a backlog in `q`.
struct Scene {
    broker: Broker,
    pages: Pages,
    meter: Meter,
    _scarce: Charge,
}

impl Scene {
    async fn on(adapter: impl PersistenceAdapter) -> Self {
        let (pages, meter) = (Pages::default(), Meter::new(4 << 20));
        let scarce = meter.charge(3_500 << 10);
        let broker = Broker::start_on(pages.of(adapter), MemoryAdapter::new(), options(), meter.clone()).await;
        let mut producer = broker.client().await;
        for first in (0..BACKLOG).step_by(100) {
            let last = first + 99;
            let all = (first..last).map(|number| send("q", &number.to_string()));
            producer.submit(all.chain([asking("stored", send("q", &last.to_string()))])).await;
            producer.gets_receipts(&["stored"]).await;
            quiet().await; // what was changed in this millisecond does not leave memory yet
        }
        producer.link.close().await;
        Self { broker, pages, meter, _scarce: scarce }
    }
}

/// Reads what a browser is shown, to the end; the message-ids.
async fn all_shown(browser: &mut Client) -> Vec<String> {
    let mut shown = Vec::new();
    loop {
        match browser.next().await {
            Outgoing::Delivery(delivery) => {
                shown.push(delivery.message.id.to_string());
                browser.took(&delivery).await;
            }
            Outgoing::BrowseEnd(_) => return shown,
            other => panic!("{other:?} instead of a message or the end"),
        }
    }
}

fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

async fn a_backlog_is_shown_whole_and_left_as_it_was(adapter: impl PersistenceAdapter) {
    let scene = Scene::on(adapter).await;
    let (mut holds, mut browser) = (scene.broker.client().await, scene.broker.client().await);
    holds.subscribe_for(1, "q", 3).await;
    for number in numbers(0..3) {
        holds.gets(&number).await;
    }
    for _ in 0..2 {
        browser.submit([browse(1, "q")]).await;
        assert_eq!(all_shown(&mut browser).await, numbers(0..BACKLOG));
        browser.link.close().await;
        browser = scene.broker.client().await;
    }
    assert!(scene.pages.came_back() > 0, "it had left memory");
    holds.link.close().await;
    let mut consumer = scene.broker.client().await;
    consumer.subscribe_for(1, "q", 10).await;
    for number in 0..BACKLOG {
        let delivery = consumer.gets(&number.to_string()).await;
        let once = (number < 3, if number < 3 { 2 } else { 1 });
        assert_eq!((delivery.redelivered, delivery.deliveries), once, "{number} was shown, not delivered");
        consumer.submit([ack(&delivery)]).await;
    }
    scene.broker.stopped().await;
}

#[tokio::test]
async fn a_backlog_in_memory_is_shown_whole() {
    a_backlog_is_shown_whole_and_left_as_it_was(MemoryAdapter::open(&MemoryStore::default())).await;
}

#[tokio::test]
async fn a_backlog_in_a_journal_is_shown_whole() {
    let data = tempfile::tempdir().unwrap();
    a_backlog_is_shown_whole_and_left_as_it_was(journal(data.path())).await;
}

fn journal(data: &Path) -> JournalAdapter {
    let options = JournalOptions { segment_bytes: 256 << 10, ..JournalOptions::default() };
    JournalAdapter::open(data, options).unwrap()
}

#[tokio::test(start_paused = true)]
async fn nothing_is_written_for_a_browser() {
    let store = Store::default();
    let scene = Scene::on(store.clone()).await;
    quiet().await;
    let written = store.commits().len();
    let mut browser = scene.broker.client().await;
    browser.submit([asking("there", browse(1, "q"))]).await;
    browser.gets_receipts(&["there"]).await; // before all that is shown
    assert_eq!(all_shown(&mut browser).await, numbers(0..BACKLOG));
    quiet().await;
    assert_eq!(store.commits().len(), written);
    scene.broker.crash().await;
}

/// A journal gives what was read a body of its own.
#[tokio::test]
async fn r31_who_does_not_read_holds_one_step() {
    let data = tempfile::tempdir().unwrap();
    let scene = Scene::on(journal(data.path())).await;
    let before = scene.meter.in_use();
    let mut browsers = Vec::new();
    for _ in 0..3 {
        let mut browser = scene.broker.client().await;
        browser.submit([browse(1, "q")]).await;
        browser.something_arrives().await;
        browsers.push(browser);
    }
    let held = scene.meter.in_use() - before;
    assert!(held > 0 && held <= browsers.len() * STEP, "{held}");
    let shown = browsers[0].arrived().await;
    assert!(shown.len() < BACKLOG / 2 && !shown.iter().any(|outgoing| matches!(outgoing, Outgoing::BrowseEnd(_))));
    browsers[0].gets_nothing().await;
    drop(shown);
    for browser in browsers {
        browser.link.close().await;
    }
    scene.broker.handle.overview().await.unwrap();
    assert!(scene.meter.in_use() <= before, "it is given back");
    scene.broker.stopped().await;
}

#[tokio::test(start_paused = true)]
async fn a_consumer_is_served_while_browsers_wait_for_the_store() {
    let scene = Scene::on(Store::default()).await;
    scene.pages.hold();
    let mut browsers = Vec::new();
    for _ in 0..10 {
        let mut browser = scene.broker.client().await;
        browser.submit([browse(1, "q")]).await;
        browsers.push(browser);
    }
    quiet().await;
    assert_eq!(scene.pages.under_way(), 2, "so many reads are for browsers");
    let mut consumer = scene.broker.client().await;
    consumer.subscribe(1, "q").await;
    quiet().await;
    assert_eq!(scene.pages.under_way(), 3);
    scene.pages.let_go();
    consumer.gets("0").await;
    for browser in &mut browsers {
        assert_eq!(all_shown(browser).await, numbers(0..BACKLOG));
    }
    scene.broker.crash().await;
}

#[tokio::test(start_paused = true)]
async fn r29_a_purge_ends_a_browse_whose_page_is_under_way() {
    let scene = Scene::on(Store::default()).await;
    scene.pages.hold();
    let mut browser = scene.broker.client().await;
    browser.submit([browse(1, "q")]).await;
    quiet().await;
    assert_eq!(scene.pages.under_way(), 1);
    assert_eq!(scene.broker.handle.purge(Destination::queue("q")).await.unwrap(), Some(BACKLOG));
    assert!(all_shown(&mut browser).await.is_empty());
    scene.pages.let_go();
    browser.gets_nothing().await;
    scene.broker.crash().await;
}
