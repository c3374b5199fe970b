//! A producer on a connection of its own, which asks for a receipt with the last SEND of each batch.

use std::{collections::VecDeque, io, net::SocketAddr, time::Duration};

use super::{Client, Label, Ledger, put_send};

/// A full store holds a SEND for ten seconds before it answers with an ERROR; a topic may hold one for longer.
const RECEIPT_PATIENCE: Duration = Duration::from_secs(60);

/// Where a batch goes, and who is told.
#[derive(Clone, Copy)]
pub(crate) struct Outlet<'h, 'a> {
    pub(crate) destination: &'h str,
    /// Further headers of each SEND, each line ended.
    pub(crate) headers: &'h str,
    /// One for each holder: a queue has one, a topic one for each durable subscription.
    pub(crate) ledgers: &'a [&'a Ledger],
}

/// A producer at work.
pub(crate) struct Producer<'a> {
    client: Client,
    number: u8,
    out: Vec<u8>,
    /// Batches whose receipts are still to come; these come in order.
    unconfirmed: VecDeque<(&'a [&'a Ledger], Vec<Label>)>,
}

impl<'a> Producer<'a> {
    pub(crate) fn connect(address: SocketAddr, number: u8) -> io::Result<Self> {
        let client = Client::connect(address, None)?;
        Ok(Self { client, number, out: Vec::new(), unconfirmed: VecDeque::new() })
    }

    /// Sends a message for each of these sizes.
    pub(crate) fn send(&mut self, outlet: Outlet<'_, 'a>, sizes: &[usize]) -> io::Result<()> {
        let mut labels = Vec::with_capacity(sizes.len());
        self.out.clear();
        for (index, body_bytes) in sizes.iter().enumerate() {
            let receipt = if index + 1 == sizes.len() { "receipt:batch\n" } else { "" };
            let headers = format!("{}{receipt}", outlet.headers);
            let label = self.next_label(outlet);
            put_send(&mut self.out, outlet.destination, &headers, *body_bytes, |out| label.put(*body_bytes, out));
            labels.push(label);
        }
        self.unconfirmed.push_back((outlet.ledgers, labels));
        self.client.write(&self.out)
    }

    /// Batches under way.
    pub(crate) fn unconfirmed(&self) -> usize {
        self.unconfirmed.len()
    }

    /// Waits for the next receipt; how many messages it confirms.
    pub(crate) fn confirmed(&mut self) -> io::Result<u64> {
        self.client.expect("RECEIPT", RECEIPT_PATIENCE)?;
        let (ledgers, labels) = self.unconfirmed.pop_front().unwrap_or_default();
        for ledger in ledgers {
            ledger.confirmed(&labels);
        }
        Ok(labels.len() as u64)
    }

    fn next_label(&self, outlet: Outlet<'_, '_>) -> Label {
        let (first, others) = outlet.ledgers.split_first().expect("somebody keeps account of every message");
        for ledger in others {
            ledger.next(self.number);
        }
        first.next(self.number)
    }
}
