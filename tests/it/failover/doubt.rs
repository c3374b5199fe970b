//! The connection dies while a batch is on its way, and what it asked for arrives when the batch was repeated and its
//! messages are settled, or was done although nobody heard of it. Nothing is lost, doubled, or back from the dead, and
//! clients keep their connections (R11).

use tokio::runtime::Runtime;

use super::{
    Brokers, DOUBTS,
    network::{network, through},
    wait_for,
};
use crate::harness::{DatabaseServer, Proxy, Raw, encode};

on_each_database! {
    r11_an_insert_that_arrives_after_its_message_was_settled_writes_nothing
    r11_a_commit_that_arrives_after_its_message_was_settled_writes_nothing
    r11_a_commit_whose_answer_is_lost_is_repeated_and_is_there_once
}

const ORDERS: &str = "/queue/orders";
const RESULTS: &str = "/queue/results";
const RESULT: &str = "whose outcome is in doubt";

/// A master whose way to the database can be cut, and two clients of it.
struct Scene<D: DatabaseServer> {
    server: &'static D,
    /// Carries the proxy.
    network: Runtime,
    proxy: Proxy,
    brokers: Brokers,
    /// It has an order, which is stored.
    worker: Raw,
    order: String,
    /// It takes results.
    taker: Raw,
}

impl<D: DatabaseServer> Scene<D> {
    fn new() -> Self {
        let (server, network) = (D::shared(), network());
        let proxy = network.block_on(Proxy::to(server.port()));
        let mut brokers = Brokers::start(server, 1, |settings| through(&proxy, server, settings));
        brokers.announce(&DOUBTS);
        brokers.announce(&["still held the baton", "the row of the baton is held"]);
        let ((_, mut worker), (_, taker)) = (brokers.master(), brokers.master());
        worker.publish(ORDERS, "order");
        worker.subscribe(ORDERS, "client-individual", &[]);
        let order = worker.expect("MESSAGE").header("ack").to_owned();
        Self { server, network, proxy, brokers, worker, order, taker }
    }

    /// One batch: the order goes, and its result comes.
    fn work(&mut self) {
        let headers = [("destination", RESULTS), ("persistent", "true"), ("receipt", "sent")];
        let sent = encode("SEND", &headers, RESULT.as_bytes());
        self.worker.send([encode("ACK", &[("id", &self.order)], b""), sent].concat());
    }

    /// The result is confirmed and settled, over connections that were there before.
    fn is_taken(&mut self) {
        let result = self.taker.expect("MESSAGE");
        assert_eq!(result.text(), RESULT);
        self.taker.ack(&result);
        assert_eq!(self.worker.expect("RECEIPT").header("receipt-id"), "sent");
    }

    fn count(&self, of: &str) -> String {
        self.server.ask(&self.brokers.group, &format!("SELECT count(*) FROM {of}"))
    }

    fn stored(&self) -> String {
        self.count("{group}message")
    }

    /// Nothing is there but what is sent now, in this term and in the next.
    fn ends(mut self) {
        assert_eq!(self.stored(), "0");
        assert_eq!(self.brokers.baton(self.server, "term"), "1");
        for queue in [ORDERS, RESULTS] {
            self.worker.publish(queue, "last");
        }
        assert_eq!(
            [self.worker.expect("MESSAGE"), self.taker.expect("MESSAGE")].map(|m| m.text().to_owned()),
            ["last"; 2]
        );
        self.brokers.brokers[0].kill_9();
        self.brokers.brokers[0].restart();
        assert_eq!(self.stored(), "2");
        let (_, mut client) = self.brokers.master();
        for (id, queue) in [("orders", ORDERS), ("results", RESULTS)] {
            client.subscribe(queue, "client-individual", &[("id", id)]);
            let message = client.expect("MESSAGE");
            assert_eq!((message.header("subscription"), message.text()), (id, "last"));
            client.ack(&message);
        }
        assert_eq!(self.stored(), "0");
        drop(client);
        self.brokers.stop();
    }
}

fn r11_an_insert_that_arrives_after_its_message_was_settled_writes_nothing<D: DatabaseServer>() {
    let mut scene = Scene::<D>::new();
    scene.taker.subscribe(RESULTS, "client-individual", &[]); // it has the message while that is in doubt
    scene.proxy.hold_back(RESULT);
    scene.work();
    scene.network.block_on(scene.proxy.holds_something_back());
    scene.is_taken();
    scene.network.block_on(scene.proxy.deliver());
    scene.ends();
}

/// The batch makes a queue, which takes a COMMIT on each database.
fn r11_a_commit_that_arrives_after_its_message_was_settled_writes_nothing<D: DatabaseServer>() {
    let mut scene = Scene::<D>::new();
    scene.proxy.hold_back(D::COMMIT);
    scene.work();
    scene.network.block_on(scene.proxy.holds_something_back());
    scene.taker.subscribe(RESULTS, "client-individual", &[]);
    scene.is_taken();
    scene.network.block_on(scene.proxy.deliver());
    scene.ends();
}

fn r11_a_commit_whose_answer_is_lost_is_repeated_and_is_there_once<D: DatabaseServer>() {
    let mut scene = Scene::<D>::new();
    scene.proxy.lose_answers_after(D::COMMIT);
    scene.work();
    let results = "{group}message AS m JOIN {group}destination AS d ON d.id = m.queue AND d.name = 'results'";
    wait_for(|| scene.count(results) == "1");
    scene.proxy.cut();
    scene.taker.subscribe(RESULTS, "client-individual", &[]);
    scene.is_taken();
    scene.ends();
}
