//! What ActiveMQ knows and this version does not: refused by name, because ignoring it would change what is delivered.

use crate::{broker::Refusal, codec::stomp::Headers};

/// A refusal that names a header and what it stands for.
pub(super) fn header(name: &str, feature: &str) -> Refusal {
    Refusal::new(
        format!("The header {name} is not supported yet ({feature})"),
        "Send the frame without it. BatonMQ refuses what it would otherwise have to ignore.",
    )
}

/// A refusal that names a kind of destination.
pub(super) fn destination(name: &str, feature: &str) -> Refusal {
    Refusal::new(
        format!("The destination [{name}] is not supported yet ({feature})"),
        "Use a plain queue or topic. BatonMQ refuses what it would otherwise have to ignore.",
    )
}

/// Refuses a CONNECT with an option of ActiveMQ's that this version would have to ignore.
pub(super) fn check_connect(headers: Headers<'_>) -> Result<(), Refusal> {
    for (name, value) in headers.iter().filter(|(name, _)| name.starts_with("activemq.")) {
        let feature = match name {
            // What a client tells of itself; nothing is delivered otherwise for it.
            "activemq.clientMaster"
            | "activemq.faultTolerant"
            | "activemq.failoverReconnect"
            | "activemq.manageable"
            | "activemq.clientIp" => continue,
            "activemq.clientId" => "its name is client-id",
            _ => "an option of ActiveMQ's connections",
        };
        if !means_off(value) {
            return Err(Refusal { fatal: true, ..header(name, feature) });
        }
    }
    Ok(())
}

/// What a SEND's header asks for, if it is one of these and asks for anything.
pub(super) fn feature_of_send(name: &str, value: &str) -> Option<&'static str> {
    let (feature, off) = match name {
        "JMSXGroupID" | "JMSXGroupSeq" => ("message groups", value.is_empty()),
        "dedup-id" | "_AMQ_DUPL_ID" => ("duplicate detection", value.is_empty()),
        "transformation" => ("transformation of bodies", value.is_empty()),
        "AMQ_SCHEDULED_CRON" => ("scheduled delivery", value.is_empty()),
        _ if name.starts_with("AMQ_SCHEDULED_") => ("scheduled delivery", means_off(value)),
        _ => return None,
    };
    (!off).then_some(feature)
}

/// Refuses a SUBSCRIBE with a header that this version would have to ignore.
pub(super) fn check_subscribe(headers: Headers<'_>) -> Result<(), Refusal> {
    for (name, value) in headers.iter() {
        let Some(feature) = feature_of_subscribe(name) else { continue };
        // These hold text, and `FALSE` is a selector: one that nothing matches.
        let off = if matches!(name, "selector" | "transformation") { value.is_empty() } else { means_off(value) };
        if !off {
            return Err(header(name, feature));
        }
    }
    Ok(())
}

fn feature_of_subscribe(name: &str) -> Option<&'static str> {
    Some(match name {
        "selector" => "selectors",
        "transformation" => "transformation of bodies",
        "activemq.exclusive" => "exclusive consumers",
        "activemq.noLocal" | "no-local" => "noLocal",
        "activemq.retroactive" => "retroactive topics",
        "activemq.maximumPendingMessageLimit" => "a limit of pending messages",
        "activemq.prefetchSize" | "activemq.priority" | "activemq.subscriptionName" => return None,
        // Hints about the client or about how the broker schedules its work; ActiveMQ itself overrides the first.
        "activemq.dispatchAsync" | "activemq.optimizedAcknowledge" | "activemq.clientId" => return None,
        _ if name.starts_with("activemq.") => "an option of ActiveMQ",
        _ => return None,
    })
}

/// A number or a switch that asks for nothing.
pub(super) fn means_off(value: &str) -> bool {
    let value = value.trim();
    value.is_empty() || value == "0" || value.eq_ignore_ascii_case("false")
}

/// Refuses a NACK with a header that this version would have to ignore.
pub(super) fn check_nack(headers: Headers<'_>) -> Result<(), Refusal> {
    if headers.find("requeue").is_some() {
        return Err(header("requeue", "a choice by NACK; redelivery policies decide"));
    }
    match headers.find("delay") {
        Some(delay) if !means_off(delay) => Err(header("delay", "a choice by NACK; redelivery policies decide")),
        _ => Ok(()),
    }
}

/// Refuses names that mean more than one destination or a destination of the broker's own.
pub(super) fn check_name(text: &str, name: &str, is_topic: bool) -> Result<(), Refusal> {
    let refuse = |feature| Err(destination(text, feature));
    if name.contains(['*', '>']) {
        return refuse("wildcards");
    }
    if name.contains(',') {
        return refuse("composite destinations");
    }
    if name.contains('?') {
        return refuse("destination options");
    }
    if is_topic && name.starts_with("VirtualTopic.") {
        return refuse("virtual topics");
    }
    if !is_topic && name.starts_with("Consumer.") && name.contains(".VirtualTopic.") {
        return refuse("virtual topics");
    }
    if name.starts_with("ActiveMQ.Advisory.") {
        return refuse("advisory messages");
    }
    if name.starts_with("ActiveMQ.Statistics.") {
        return refuse("statistics");
    }
    if name.starts_with("ActiveMQ.Scheduler.") {
        return refuse("scheduled delivery");
    }
    Ok(())
}
