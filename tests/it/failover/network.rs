//! The connection between a master and its database fails, and its clients' connections do not.

use std::cell::Cell;

use super::{Brokers, DOUBTS, short_lease};
use crate::harness::{DatabaseServer, Proxy, Settings};

on_each_database! {
    r24_a_master_that_is_cut_off_pauses_and_goes_on_if_nobody_took_over
    a_master_that_is_cut_off_while_another_takes_over_drops_its_clients
}

/// What carries the proxy's connections.
pub(super) fn network() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

/// By way of the proxy.
pub(super) fn through(proxy: &Proxy, server: &impl DatabaseServer, settings: Settings) -> Settings {
    let url = server.url().replace(&format!(":{}/", server.port()), &format!(":{}/", proxy.port()));
    settings.option("store.url", &format!("{url:?}"))
}

/// So the first broker that is asked for; the others go straight.
pub(super) fn through_first(proxy: &Proxy, server: &impl DatabaseServer) -> impl Fn(Settings) -> Settings {
    let is_first = Cell::new(true);
    move |settings| if is_first.replace(false) { through(proxy, server, settings) } else { settings }
}

fn r24_a_master_that_is_cut_off_pauses_and_goes_on_if_nobody_took_over<D: DatabaseServer>() {
    let server = D::shared();
    let network = network();
    let proxy = network.block_on(Proxy::to(server.port()));
    let mut brokers = Brokers::start(server, 1, |settings| through(&proxy, server, settings));
    brokers.announce(&DOUBTS);
    let (master, mut client) = brokers.master();
    client.publish("/queue/kept", "before");
    // Nothing comes back, and nobody says that the connection ended.
    proxy.lose_answers_after(D::HEARTBEAT);
    brokers.brokers[master].logged("it is in doubt whether");
    proxy.cut();
    brokers.brokers[master].logged("the lock is held again");
    client.publish("/queue/kept", "between");
    // Both sides hear of the end at once.
    proxy.cut();
    client.publish("/queue/kept", "after");
    assert_eq!(brokers.baton(server, "term"), "1", "the same term, the same connection");
    brokers.stop();
}

fn a_master_that_is_cut_off_while_another_takes_over_drops_its_clients<D: DatabaseServer>() {
    let server = D::shared();
    let network = network();
    let proxy = network.block_on(Proxy::to(server.port()));
    let proxied = through_first(&proxy, server);
    let mut brokers = Brokers::start(server, 2, |settings| proxied(short_lease(settings)));
    brokers.announce(&DOUBTS);
    brokers.announce(&["the row of the baton is held", "this broker can't take part in the election"]);
    let (master, mut client) = brokers.master();
    client.publish("/queue/kept", "before");
    proxy.lose_answers_after(D::HEARTBEAT);
    brokers.brokers[master].logged("it is in doubt whether");
    let (_, mut other) = brokers.next_master(master, "cut off, a lease of 2 s");
    other.publish("/queue/kept", "after");
    proxy.cut();
    let gone = client.reader.next();
    assert!(!matches!(gone, Ok(Some(_))), "its clients are dropped: {gone:?}");
    brokers.brokers[master].logged("and this broker is a standby");
    other.subscribe("/queue/kept", "client", &[]);
    for text in ["before", "after"] {
        assert_eq!(other.expect("MESSAGE").text(), text);
    }
    drop(other);
    brokers.stop();
}
