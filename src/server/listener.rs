//! One open port: accepts, counts, refuses what is too many, and hands over the rest.

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use socket2::{Domain, Protocol, Type};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    ServerError,
    service::{Peer, Service},
    tls,
};
use crate::{
    config::Connector,
    tasks::Tasks,
    telemetry::{ConnectorTraffic, OpenConnection},
};

/// Connections that wait to be accepted. After a failover all clients come at once; the system may hold it lower
/// (`net.core.somaxconn`).
const BACKLOG: i32 = 4_096;

/// How long nothing is accepted after the system had no room for a socket. Room comes when a connection ends.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Refusals that are being told why at a time; one more is closed without a word.
const REFUSALS_MAX: usize = 64;

/// How long telling somebody why may take.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);

/// A kind of trouble is told at most this often.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(1);

/// A port that is open.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) address: SocketAddr,
    inner: TcpListener,
}

/// Opens a connector's port. A host name stands for the first address that it resolves to.
pub(super) async fn listen(connector: &Connector) -> Result<Socket, ServerError> {
    let failed =
        |source| ServerError::Listen { connector: connector.name.clone(), address: connector.uri.address(), source };
    let (host, port) = (connector.uri.host.as_str(), connector.uri.port);
    let mut addresses = tokio::net::lookup_host((host, port)).await.map_err(failed)?;
    let address = addresses.next().ok_or_else(|| failed(io::ErrorKind::AddrNotAvailable.into()))?;
    open(address).map_err(failed)
}

fn open(address: SocketAddr) -> io::Result<Socket> {
    let socket = socket2::Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A broker that starts again must not wait for its old connections to leave TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    let inner = TcpListener::from_std(socket.into())?;
    Ok(Socket { address: inner.local_addr()?, inner })
}

/// Accepts the connections of one connector.
pub(super) struct Listener {
    name: Arc<str>,
    socket: TcpListener,
    tls: Option<tls::Acceptor>,
    connections_max: usize,
    places: Arc<Semaphore>,
    service: Arc<Service>,
    traffic: Arc<ConnectorTraffic>,
    sessions: Tasks,
    refusals: Tasks,
    complaints: Complaints,
}

impl Listener {
    pub(super) fn new(
        connector: &Connector,
        tls: Option<tls::Acceptor>,
        socket: Socket,
        service: Arc<Service>,
        sessions: Tasks,
    ) -> Self {
        let unbounded = Semaphore::MAX_PERMITS;
        let connections_max = connector.uri.options.connections_max.map_or(unbounded, |max| max.min(unbounded));
        Self {
            name: connector.name.as_str().into(),
            socket: socket.inner,
            tls,
            connections_max,
            places: Arc::new(Semaphore::new(connections_max)),
            traffic: service.traffic().connector(&connector.name),
            service,
            refusals: sessions.group(),
            sessions,
            complaints: Complaints::default(),
        }
    }

    /// Accepts until it is stopped, and then closes the port.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        loop {
            let accepted = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                accepted = self.socket.accept() => accepted,
            };
            match accepted {
                Ok((stream, address)) => self.admit(stream, address),
                Err(error) if is_of_one_connection(&error) => {
                    tracing::debug!(connector = &*self.name, %error, "a connection was gone before it was accepted");
                }
                Err(error) => {
                    if let Some(times) = self.complaints.complain(Trouble::Accept) {
                        tracing::warn!(connector = &*self.name, %error, times, "cannot accept a connection; pausing");
                    }
                    tokio::select! {
                        () = stop.cancelled() => return,
                        () = sleep(ACCEPT_PAUSE) => {}
                    }
                }
            }
        }
    }

    fn admit(&mut self, stream: TcpStream, address: SocketAddr) {
        if self.service.is_paused() {
            self.traffic.refuse();
            return self.turn_away();
        }
        let Ok(place) = self.places.clone().try_acquire_owned() else {
            self.traffic.refuse();
            return self.refuse(stream);
        };
        let open = self.traffic.accept();
        if let Err(error) = stream.set_nodelay(true) {
            // The peer is gone already; the session will find out.
            tracing::debug!(connector = &*self.name, %address, %error, "cannot set TCP_NODELAY");
        }
        let peer = Peer { address, connector: self.name.clone(), certificate: None };
        let accepted = Accepted { peer, service: self.service.clone(), stop: self.sessions.stop_token(), place, open };
        match self.tls.clone() {
            None => self.sessions.spawn("session", accepted.serve(stream)), // a task as small as can be
            Some(acceptor) => self.sessions.spawn("session", accepted.serve_tls(stream, acceptor)),
        }
    }

    /// Closes without a word, so that a client with a list of brokers tries the next at once (R24).
    fn turn_away(&mut self) {
        if let Some(times) = self.complaints.complain(Trouble::Paused) {
            tracing::warn!(
                connector = &*self.name,
                times,
                "turned a connection away: it is in doubt who the master is"
            );
        }
    }

    /// Says why, best effort, and closes.
    fn refuse(&mut self, stream: TcpStream) {
        let max = self.connections_max;
        if let Some(times) = self.complaints.complain(Trouble::TooMany) {
            tracing::warn!(
                connector = &*self.name,
                max,
                times,
                "refused a connection: maximumConnections is reached; raise it in the connector's uri if this is wanted"
            );
        }
        // Under TLS a word would cost a handshake, which is what there are too many of.
        if self.tls.is_none() && self.refusals.count() < REFUSALS_MAX {
            let goodbye = async move {
                match timeout(REFUSAL_TIMEOUT, tell_too_many(stream, max)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::debug!(%error, "a refused connection did not hear why"),
                    Err(_) => tracing::debug!("a refused connection did not hear why in time"),
                }
            };
            self.refusals.spawn("refusal", goodbye);
        }
    }
}

/// A connection that has a place, from the accepted socket to the end of its session.
struct Accepted {
    peer: Peer,
    service: Arc<Service>,
    stop: CancellationToken,
    /// Given back at the end, however it comes.
    place: OwnedSemaphorePermit,
    /// Counted until then.
    open: OpenConnection,
}

impl Accepted {
    async fn serve(self, stream: TcpStream) {
        self.service.serve(stream, self.peer, self.stop).await;
        drop((self.place, self.open));
    }

    async fn serve_tls(mut self, stream: TcpStream, acceptor: tls::Acceptor) {
        let handshake = tokio::select! {
            () = self.stop.cancelled() => return,
            handshake = timeout(self.service.connect_timeout(), acceptor.accept(stream)) => handshake,
        };
        let (connector, address) = (&*self.peer.connector, self.peer.address);
        match handshake {
            Ok(Ok((stream, certificate))) => {
                self.peer.certificate = certificate;
                self.service.serve(stream, self.peer, self.stop).await;
            }
            Ok(Err(error)) => tracing::info!(connector, %address, %error, "no TLS connection"),
            Err(_) => tracing::info!(connector, %address, "the TLS handshake took too long"),
        }
        drop((self.place, self.open));
    }
}

/// An ERROR that every version of STOMP can read, and an end of the connection that does not overtake it.
async fn tell_too_many(mut stream: TcpStream, max: usize) -> io::Result<()> {
    let message = format!("maximum number of connections ({max}) reached");
    let frame = format!("ERROR\nmessage:{message}\ncontent-type:text/plain\n\n{message}; try again later\n\0\n");
    stream.write_all(frame.as_bytes()).await?;
    stream.shutdown().await?;
    // Unread bytes at close become a reset, which would eat the ERROR: read until the peer closes.
    let mut sink = [0; 1_024];
    while stream.read(&mut sink).await? > 0 {}
    Ok(())
}

/// Errors of `accept` that concern the connection and not the door (accept(2), "Error handling").
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(
        error.kind(),
        Kind::ConnectionAborted
            | Kind::ConnectionReset
            | Kind::ConnectionRefused
            | Kind::Interrupted
            | Kind::HostUnreachable
            | Kind::NetworkUnreachable
            | Kind::NetworkDown
            | Kind::TimedOut
    )
}

/// What may be complained of.
#[derive(Clone, Copy)]
enum Trouble {
    Accept,
    TooMany,
    Paused,
}

/// Counts complaints and lets one through at a time.
#[derive(Default)]
struct Complaints {
    untold: [u64; 3],
    told: [Option<Instant>; 3],
}

impl Complaints {
    /// How often it happened since the last time, if it is to be told now.
    fn complain(&mut self, trouble: Trouble) -> Option<u64> {
        let at = trouble as usize;
        let (untold, told) = (self.untold.get_mut(at)?, self.told.get_mut(at)?);
        *untold += 1;
        if told.is_some_and(|told| told.elapsed() < COMPLAINT_INTERVAL) {
            return None;
        }
        *told = Some(Instant::now());
        Some(std::mem::take(untold))
    }
}
