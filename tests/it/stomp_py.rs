//! stomp.py against the real binary, each scenario over each version of STOMP it makes sense for.

use crate::harness::{Broker, Script, Settings};

macro_rules! scenarios {
    ($($version:ident $text:literal: $($scenario:ident)*;)*) => {
        $(mod $version {
            $(#[test]
            fn $scenario() {
                super::run(concat!(stringify!($scenario), ".py"), $text);
            })*
        })*
    };
}

scenarios! {
    v1_0 "1.0": acks nacks transactions durable temporary bodies expiry priorities receipts;
    v1_1 "1.1": acks browse nacks transactions durable temporary bodies expiry priorities receipts heart_beats;
    v1_2 "1.2": acks browse nacks transactions durable temporary bodies expiry priorities receipts heart_beats;
}

fn run(script: &str, version: &str) {
    let broker = Broker::start_with(with_policy());
    Script::python(script, broker.address(), &["--version", version]).finish();
}

/// Two redeliveries for what the NACK scenarios call `tried.again`.
pub(crate) fn with_policy() -> Settings {
    Settings::new().table("[[redelivery]]\ndestination = \"tried.>\"\nattempts = 2\ndelay = \"10ms\"")
}

#[test]
fn tls() {
    let broker = Broker::start_with(Settings::new().tls());
    let certificate = broker.certificate();
    for version in ["1.0", "1.1", "1.2"] {
        let arguments = ["--version", version, "--ca", certificate.to_str().unwrap()];
        Script::python("tls.py", broker.tls_address(), &arguments).finish();
    }
}

#[test]
fn reconnects_after_a_restart() {
    for version in ["1.0", "1.1", "1.2"] {
        let mut broker = Broker::start();
        let mut script = Script::python("reconnect.py", broker.address(), &["--version", version]);
        script.wait_for("restart the broker");
        broker.kill_9();
        broker.restart();
        script.finish();
    }
}

#[test]
fn knows_its_users() {
    let broker = Broker::start_with(Settings::new().user("ann", "correct horse"));
    let arguments = ["--login", "ann", "--passcode", "correct horse"];
    Script::python("acks.py", broker.address(), &arguments).finish();
}
