//! A network that fails on demand, between something and a server.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use batonmq::tasks::Tasks;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf, ReadHalf, WriteHalf},
    },
    sync::watch,
};

/// What becomes of connections.
#[derive(Clone, Copy, Debug, Default)]
struct Network {
    /// What the server says does not arrive any more on a connection that asked this.
    lost_after: Option<&'static str>,
    /// The next thing that is asked with this text is held back, and the connection it came from is over.
    held_after: Option<&'static str>,
    late: Late,
    /// Connections that were made before this many cuts are over.
    cuts: u32,
    /// The same on the server's side only: the client hears nothing of it.
    server_cuts: u32,
    /// On connections that began with this text, what goes there and back is counted.
    counted: Option<&'static str>,
}

/// What became of what is held back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Late {
    #[default]
    Nothing,
    Held,
    /// It may arrive.
    Delivered,
    /// The server has done with it what it will.
    Done,
}

/// Carries connections to a server; ends with the value.
pub(crate) struct Proxy {
    port: u16,
    network: watch::Sender<Network>,
    round_trips: Arc<AtomicU64>,
    tasks: Tasks,
}

impl Proxy {
    /// A proxy of a server on this machine.
    pub(crate) async fn to(server: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (network, tasks) = (watch::Sender::new(Network::default()), Tasks::new());
        let round_trips = Arc::<AtomicU64>::default();
        let (shared, counter, carriers) = (network.clone(), Arc::clone(&round_trips), tasks.clone());
        tasks.spawn("proxy", async move {
            let server = SocketAddr::from((Ipv4Addr::LOCALHOST, server));
            while let Ok((client, _)) = listener.accept().await {
                carriers.spawn("carrier", carry(client, server, shared.clone(), counter.clone()));
            }
        });
        Self { port, network, round_trips, tasks }
    }

    /// Where it listens.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Counts round trips from now on, of connections whose client says this text when it introduces itself.
    pub(crate) fn count_for(&self, introduction: &'static str) {
        self.network.send_modify(|network| network.counted = Some(introduction));
    }

    /// How often somebody asked something, and waited for the answer.
    pub(crate) fn round_trips(&self) -> u64 {
        self.round_trips.load(Ordering::SeqCst)
    }

    /// On a connection that asks something with this text nothing arrives any more that the server says; others asked
    /// for nothing of the kind, and go on. [`Self::cut`] ends them all.
    pub(crate) fn lose_answers_after(&self, text: &'static str) {
        self.network.send_modify(|network| network.lost_after = Some(text));
    }

    /// When somebody asks something with this text, the connection is over, and what was asked arrives later: when
    /// [`Self::deliver`] says so. Whoever asks it again is not held back.
    pub(crate) fn hold_back(&self, text: &'static str) {
        self.network.send_modify(|network| network.held_after = Some(text));
    }

    /// Waits until something is held back.
    pub(crate) async fn holds_something_back(&self) {
        self.network.subscribe().wait_for(|network| network.late >= Late::Held).await.unwrap();
    }

    /// What was held back arrives at the server; waits until that has done with it what it will.
    pub(crate) async fn deliver(&self) {
        self.network.send_modify(|network| network.late = Late::Delivered);
        self.network.subscribe().wait_for(|network| network.late == Late::Done).await.unwrap();
    }

    /// Ends all connections as far as the server knows; the clients' ends stay open, and silent, until [`Self::cut`].
    pub(crate) fn cut_on_servers_side(&self) {
        self.network.send_modify(|network| network.server_cuts += 1);
    }

    /// Ends all connections; new ones are carried.
    pub(crate) fn cut(&self) {
        self.network.send_modify(|network| {
            network.lost_after = None;
            network.cuts += 1;
        });
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.tasks.abort();
    }
}

async fn carry(client: TcpStream, server: SocketAddr, network: watch::Sender<Network>, counter: Arc<AtomicU64>) {
    let Ok(mut server) = TcpStream::connect(server).await else { return };
    let (mut watched, mut watched_server) = (network.subscribe(), network.subscribe());
    let Network { cuts, server_cuts, .. } = *watched.borrow();
    let (mut from_client, mut to_client) = client.into_split();
    let (held_back, is_servers_end) = {
        let (answers_are_lost, answered) = (AtomicBool::new(false), AtomicBool::new(true));
        let asking = Asking { network: &network, answers_are_lost: &answers_are_lost, answered: &answered };
        let (from_server, to_server) = server.split();
        tokio::select! {
            held_back = carry_requests(&mut from_client, to_server, &asking, &counter) => (held_back, false),
            () = carry_answers(from_server, &mut to_client, &asking) => (None, false),
            _ = watched.wait_for(|network| network.cuts > cuts) => (None, false),
            _ = watched_server.wait_for(|network| network.server_cuts > server_cuts) => (None, true),
        }
    };
    if is_servers_end {
        drop(server);
        watched.wait_for(|network| network.cuts > cuts).await.unwrap();
        return;
    }
    drop((from_client, to_client));
    if let Some(request) = held_back {
        network.send_modify(|network| network.late = Late::Held);
        watched.wait_for(|network| network.late == Late::Delivered).await.unwrap();
        deliver(server, &request).await;
        network.send_modify(|network| network.late = Late::Done);
    }
}

/// The server does what was asked, and ends the connection; it may have ended it before.
async fn deliver(mut server: TcpStream, request: &[u8]) {
    if server.write_all(request).await.is_ok() && server.shutdown().await.is_ok() {
        while let Ok(1..) = server.read(&mut [0; 1 << 10]).await {} // its answer, which nobody hears
    }
}

/// What both directions of a connection know.
struct Asking<'a> {
    network: &'a watch::Sender<Network>,
    answers_are_lost: &'a AtomicBool,
    /// Since the client last said something.
    answered: &'a AtomicBool,
}

/// Until the client ends, or asks what is to be held back: then that.
async fn carry_requests(
    from: &mut OwnedReadHalf,
    mut to: WriteHalf<'_>,
    asking: &Asking<'_>,
    counter: &AtomicU64,
) -> Option<Vec<u8>> {
    let mut buffer = vec![0; 64 << 10];
    let mut is_counted = false;
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        let asked = &buffer[..length];
        let Network { held_after, lost_after, counted, .. } = *asking.network.borrow();
        let holds = |network: &mut Network| network.held_after.take().is_some();
        is_counted |= contains(asked, counted);
        if asking.answered.swap(false, Ordering::SeqCst) && is_counted {
            counter.fetch_add(1, Ordering::SeqCst);
        }
        if contains(asked, held_after) && asking.network.send_if_modified(holds) {
            return Some(asked.to_vec());
        }
        if contains(asked, lost_after) {
            asking.answers_are_lost.store(true, Ordering::Relaxed);
        }
        to.write_all(asked).await.ok()?;
    }
    None
}

fn contains(asked: &[u8], text: Option<&str>) -> bool {
    text.is_some_and(|text| asked.windows(text.len()).any(|part| part == text.as_bytes()))
}

async fn carry_answers(mut from: ReadHalf<'_>, to: &mut OwnedWriteHalf, asking: &Asking<'_>) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        asking.answered.store(true, Ordering::SeqCst);
        if !asking.answers_are_lost.load(Ordering::Relaxed) && to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}
