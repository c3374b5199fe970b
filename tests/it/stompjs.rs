//! stompjs against the real binary.

use crate::harness::{Broker, Script, Settings};
use crate::stomp_py::with_policy;

macro_rules! scenarios {
    ($($version:ident $text:literal: $($scenario:ident)*;)*) => {
        $(mod $version {
            $(#[test]
            fn $scenario() {
                super::run(concat!(stringify!($scenario), ".mjs"), $text);
            })*
        })*
    };
}

scenarios! {
    v1_1 "1.1": acks browse nacks transactions durable temporary bodies expiry priorities receipts heart_beats;
    v1_2 "1.2": acks browse nacks transactions durable temporary bodies expiry priorities receipts heart_beats;
}

fn run(script: &str, version: &str) {
    let broker = Broker::start_with(with_policy());
    Script::node(script, broker.address(), &["--version", version]).finish();
}

#[test]
fn tls() {
    let broker = Broker::start_with(Settings::new().tls());
    let certificate = broker.certificate();
    for version in ["1.1", "1.2"] {
        let arguments = ["--version", version, "--ca", certificate.to_str().unwrap()];
        Script::node("tls.mjs", broker.tls_address(), &arguments).finish();
    }
}

#[test]
fn reconnects_after_a_restart() {
    for version in ["1.1", "1.2"] {
        let mut broker = Broker::start();
        let mut script = Script::node("reconnect.mjs", broker.address(), &["--version", version]);
        script.wait_for("restart the broker");
        broker.kill_9();
        broker.restart();
        script.finish();
    }
}
