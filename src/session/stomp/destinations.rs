//! What a client calls destinations, and what they are.
//!
//! Always true: a temporary destination's real name begins with the name of the session that owns it, so that two
//! connections never mean the same one by `/temp-queue/x`, and its owner is known by its name alone.

use std::collections::HashMap;

use compact_str::CompactString;

use super::{REQUEST_OVERHEAD_BYTES, claims::Claim, unsupported};
use crate::{
    broker::{Command, Refusal, Request},
    codec::stomp::{FrameWriter, put_destination},
    types::{Destination, DestinationKind},
};

/// How many names a session remembers; at the end of it, it begins anew.
const KNOWN_MAX: usize = 1_024;

/// A session's names. A name that was seen before costs one look-up and no allocation.
#[derive(Debug)]
pub(super) struct Names {
    own: OwnNames,
    known: HashMap<CompactString, Destination, foldhash::fast::RandomState>,
    /// Whether the session lives on when a temporary destination of its own is declined.
    lenient: bool,
}

impl Names {
    /// For the session of this name.
    pub(super) fn new(session: &str, lenient: bool) -> Self {
        Self { own: OwnNames::new(session), known: HashMap::default(), lenient }
    }

    /// Forgets all names: the next use of a temporary destination asks for it again.
    pub(super) fn forget(&mut self) {
        self.known.clear();
    }

    /// What `text` means. The first use of a temporary destination of this session's own makes it.
    pub(super) fn resolve(&mut self, text: &str, requests: &mut Vec<Request>) -> Result<Destination, Refusal> {
        if let Some(known) = self.known.get(text) {
            return Ok(known.clone());
        }
        let destination = self.parse(text)?;
        if self.own.owns(&destination) {
            let command = Command::CreateTemporary(destination.clone());
            let receipt = self.lenient.then(|| Claim::Temporary.around(None).into());
            requests.push(Request { command, receipt, bytes: REQUEST_OVERHEAD_BYTES });
        }
        if self.known.len() >= KNOWN_MAX {
            self.known.clear();
        }
        self.known.insert(text.into(), destination.clone());
        Ok(destination)
    }

    /// Whether this session may consume from `destination`.
    pub(super) fn may_consume(&self, destination: &Destination) -> bool {
        !destination.kind().is_temporary() || self.own.owns(destination)
    }

    fn parse(&self, text: &str) -> Result<Destination, Refusal> {
        let Some((kind, is_own, name)) = split_prefix(text) else { return Err(no_prefix(text)) };
        if name.is_empty() || name.contains(char::is_control) {
            return Err(no_prefix(text));
        }
        unsupported::check_name(text, name, !kind.is_queue())?;
        if is_own {
            Ok(Destination::new(kind, &[&*self.own.prefix, name].concat()))
        } else {
            Ok(Destination::new(kind, name))
        }
    }
}

/// Tells a session's own temporary destinations from others.
#[derive(Clone, Debug)]
pub(super) struct OwnNames {
    prefix: String,
}

impl OwnNames {
    /// For the session of this name.
    pub(super) fn new(session: &str) -> Self {
        Self { prefix: format!("{session}-") }
    }

    fn owns(&self, destination: &Destination) -> bool {
        destination.kind().is_temporary() && destination.name().starts_with(&self.prefix)
    }

    /// Writes `reply-to` as this session would write it: its own temporary destinations by its own names.
    pub(super) fn put_reply_to(&self, frame: &mut FrameWriter<'_>, reply_to: &Destination) {
        let own = reply_to.name().strip_prefix(&self.prefix);
        let prefix = match reply_to.kind() {
            DestinationKind::TemporaryQueue => "/temp-queue/",
            _ => "/temp-topic/",
        };
        match own.filter(|_| reply_to.kind().is_temporary()) {
            Some(own) => _ = frame.prefixed("reply-to", prefix, own),
            None => put_destination(frame, "reply-to", reply_to),
        }
    }
}

/// Kind, whether the name is the session's own, and the name.
fn split_prefix(text: &str) -> Option<(DestinationKind, bool, &str)> {
    use DestinationKind::{Queue, TemporaryQueue, TemporaryTopic, Topic};
    const PREFIXES: [(&str, DestinationKind, bool); 10] = [
        ("/queue/", Queue, false),
        ("/topic/", Topic, false),
        ("/temp-queue/", TemporaryQueue, true),
        ("/temp-topic/", TemporaryTopic, true),
        ("/remote-temp-queue/", TemporaryQueue, false),
        ("/remote-temp-topic/", TemporaryTopic, false),
        ("queue://", Queue, false),
        ("topic://", Topic, false),
        ("temp-queue://", TemporaryQueue, false),
        ("temp-topic://", TemporaryTopic, false),
    ];
    PREFIXES.iter().find_map(|&(prefix, kind, own)| Some((kind, own, text.strip_prefix(prefix)?)))
}

fn no_prefix(text: &str) -> Refusal {
    Refusal::new(
        format!("Illegal destination name: [{text}]"),
        "Destinations begin with one of /queue/ /topic/ /temp-queue/ /temp-topic/ /remote-temp-queue/ \
         /remote-temp-topic/, and a name without control characters follows.",
    )
}
