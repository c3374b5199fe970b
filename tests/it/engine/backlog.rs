//! A backlog that memory has no room for, from both its ends: who consumes at its head and who sends at its end do not
//! wait for each other, counted and not timed (R25, R26).

use batonmq::{persistence::MemoryAdapter, types::Meter};

use super::{
    broker::{Broker, Client, ack, asking, options, quiet, send},
    pages::Pages,
    store::Store,
};

const BACKLOG: usize = 1_000;
const AT_THE_END: usize = 400;

async fn send_all(producer: &mut Client, numbers: std::ops::Range<usize>) {
    let last = numbers.end - 1;
    let all = numbers.map(|number| match send("q", &number.to_string()) {
        request if number == last => asking("stored", request),
        request => request,
    });
    producer.submit(all).await;
}

/// Takes these, in order, each when the one before was acknowledged.
async fn take_all(consumer: &mut Client, numbers: std::ops::Range<usize>) {
    for number in numbers {
        let delivery = consumer.gets(&number.to_string()).await;
        consumer.submit([ack(&delivery)]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn r25_consumers_at_the_head_of_a_backlog_and_producers_at_its_end_do_not_wait_for_each_other() {
    let (store, pages, meter) = (Store::default(), Pages::default(), Meter::new(4 << 20));
    let _scarce = meter.charge(2_200 << 10); // over half: 64 KiB stay at the head, and all else leaves
    pages.bring_at_most(50);
    let broker = Broker::start_on(pages.of(store.clone()), MemoryAdapter::new(), options(), meter).await;
    let (mut producer, mut consumer) = (broker.client().await, broker.client().await);
    for first in (0..BACKLOG).step_by(100) {
        send_all(&mut producer, first..first + 100).await;
        producer.gets_receipts(&["stored"]).await;
        quiet().await; // what was changed in this millisecond does not leave memory yet
    }
    consumer.subscribe_for(1, "q", 1).await;
    take_all(&mut consumer, 0..100).await;

    // While what is sent at the end waits for the store, the head goes on, from the store too.
    let (asked, read) = (store.commits().len(), pages.came_back());
    store.hold();
    send_all(&mut producer, BACKLOG..BACKLOG + AT_THE_END / 2).await;
    store.asked_for(asked + 1).await;
    take_all(&mut consumer, 100..500).await;
    assert!(pages.came_back() > read, "pages were read meanwhile");
    producer.gets_nothing().await;
    store.let_go();
    producer.gets_receipts(&["stored"]).await;

    // While the head waits for a page, what is sent at the end is confirmed.
    pages.hold();
    let taken = pages.one_is_under_way_for(&mut consumer, 500).await;
    send_all(&mut producer, BACKLOG + AT_THE_END / 2..BACKLOG + AT_THE_END).await;
    producer.gets_receipts(&["stored"]).await;
    pages.let_go();
    take_all(&mut consumer, taken..BACKLOG + AT_THE_END).await;
    consumer.gets_nothing().await;
    let read = pages.came_back();
    assert!(
        read > BACKLOG / 2 && read <= BACKLOG + AT_THE_END,
        "{read}: what is sent makes nobody read anything twice"
    );
    broker.stopped().await;
}
