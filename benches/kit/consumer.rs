//! A subscription on a connection of its own, which acknowledges cumulatively and asks for a receipt each time.

use std::{collections::HashMap, collections::VecDeque, io, mem, net::SocketAddr, time::Duration};

use super::{Client, Label, Witness};

/// How long the rest may take to be confirmed when a consumer leaves.
const LEAVE_PATIENCE: Duration = Duration::from_secs(20);

/// What a consumer asks for.
#[derive(Clone, Copy)]
pub(crate) struct Subscription<'a> {
    pub(crate) destination: &'a str,
    /// The name of a durable subscription to a topic; its client-id too.
    pub(crate) durable: Option<&'a str>,
    pub(crate) prefetch: usize,
    /// So many messages are acknowledged by one ACK.
    pub(crate) ack_every: usize,
    /// Whether each producer's messages come in its order. Those that come again may be late.
    pub(crate) is_ordered: bool,
}

/// A consumer at work. Dropping it leaves without a word.
pub(crate) struct Consumer<'a> {
    client: Client,
    witness: &'a dyn Witness,
    subscription: Subscription<'a>,
    /// The newest message of each lane and producer.
    newest: HashMap<(u8, u8), u32>,
    received: Vec<Label>,
    /// What the next ACK names.
    ack_id: String,
    /// ACKs whose receipts are still to come; these come in order.
    unconfirmed: VecDeque<Vec<Label>>,
}

/// What a step saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Message,
    Receipt,
    Nothing,
}

impl<'a> Consumer<'a> {
    pub(crate) fn subscribe(
        address: SocketAddr,
        subscription: Subscription<'a>,
        witness: &'a dyn Witness,
    ) -> io::Result<Self> {
        let mut client = Client::connect(address, subscription.durable)?;
        let Subscription { destination, prefetch, .. } = subscription;
        let durable = subscription.durable.map(|name| format!("activemq.subscriptionName:{name}\n"));
        let durable = durable.unwrap_or_default();
        client.say(
            "SUBSCRIBE",
            &format!("id:1\ndestination:{destination}\nack:client\nactivemq.prefetchSize:{prefetch}\n{durable}"),
        )?;
        let (newest, received, unconfirmed) = (HashMap::new(), Vec::new(), VecDeque::new());
        Ok(Self { client, witness, subscription, newest, received, ack_id: String::new(), unconfirmed })
    }

    /// Takes what comes next, for at most so long, and acknowledges when it is time.
    pub(crate) fn step(&mut self, patience: Duration) -> io::Result<Step> {
        let step = self.take(patience)?;
        if self.received.len() >= self.subscription.ack_every || step == Step::Nothing {
            self.acknowledge()?;
        }
        Ok(step)
    }

    /// Acknowledges everything, waits until that is confirmed, and closes.
    pub(crate) fn leave(mut self) -> io::Result<()> {
        self.acknowledge()?;
        while !self.unconfirmed.is_empty() {
            if self.take(LEAVE_PATIENCE)? == Step::Nothing {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
        self.client.say("DISCONNECT", "")
    }

    fn take(&mut self, patience: Duration) -> io::Result<Step> {
        let Some(frame) = self.client.frame(patience)? else { return Ok(Step::Nothing) };
        match frame.command {
            "MESSAGE" => {
                let Some(label) = Label::read(frame.body) else {
                    self.witness.wrong(format!("a torn body of {} bytes came", frame.body.len()));
                    return Err(io::ErrorKind::InvalidData.into());
                };
                frame.header("ack").clone_into(&mut self.ack_id);
                let is_redelivered = frame.is_redelivered();
                self.received.push(label);
                self.note(label, is_redelivered);
                Ok(Step::Message)
            }
            "RECEIPT" => {
                let settled = self.unconfirmed.pop_front().unwrap_or_default();
                self.witness.settled(&settled);
                Ok(Step::Receipt)
            }
            other => Err(io::Error::other(format!("an unexpected {other}"))),
        }
    }

    fn note(&mut self, label: Label, is_redelivered: bool) {
        self.witness.delivered(label, is_redelivered);
        if is_redelivered || !self.subscription.is_ordered {
            return;
        }
        if let Some(newest) = self.newest.insert((label.lane, label.producer), label.number)
            && newest >= label.number
        {
            self.witness.wrong(format!("{label:?} came after number {newest}"));
        }
    }

    fn acknowledge(&mut self) -> io::Result<()> {
        if self.received.is_empty() {
            return Ok(());
        }
        self.witness.acked(&self.received);
        let id = &self.ack_id;
        self.client.say("ACK", &format!("id:{id}\nreceipt:{id}\n"))?;
        self.unconfirmed.push_back(mem::take(&mut self.received));
        Ok(())
    }
}
