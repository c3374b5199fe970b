//! The port: connections are counted, each brings one request and is over in time.

use std::{convert::Infallible, io, net::TcpListener, sync::Arc, time::Duration};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::TcpStream,
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::answer::Answerer;
use crate::tasks::Tasks;

/// Connections at a time; further ones wait in the kernel. A few load balancers and a Prometheus need a handful.
const CONNECTIONS_MAX: usize = 64;

/// How long a request's head may take.
const HEAD_PATIENCE: Duration = Duration::from_secs(5);

/// How long all of a connection may take: a page of metrics for a slow reader.
const CONNECTION_PATIENCE: Duration = Duration::from_secs(15);

/// A request's head may be this large, which is the least that hyper takes. Unit: bytes.
const HEAD_BYTES_MAX: usize = 8 << 10;

/// A request may have so many headers.
const HEADERS_MAX: usize = 64;

/// How long nothing is accepted after the system had no room for a socket.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Answers requests until `stop`.
pub(super) async fn serve(listener: TcpListener, answerer: Answerer, stop: CancellationToken) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let (answerer, places) = (Arc::new(answerer), Arc::new(Semaphore::new(CONNECTIONS_MAX)));
    let connections = Tasks::new();
    connections.spawn("upkeep", Arc::clone(&answerer).keep_up());
    let accept = async {
        while let Ok(place) = Arc::clone(&places).acquire_owned().await {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let answerer = Arc::clone(&answerer);
                    connections.spawn("request", async move {
                        converse(stream, answerer).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::debug!(%error, "the console cannot accept a connection; pausing");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    };
    stop.run_until_cancelled(accept).await;
    connections.abort();
    Ok(())
}

/// One request and its answer.
async fn converse(stream: TcpStream, answerer: Arc<Answerer>) {
    let service = service_fn(move |request| {
        let answerer = Arc::clone(&answerer);
        async move { Ok::<_, Infallible>(answerer.answer(&request).await) }
    });
    let connection = http1::Builder::new()
        .keep_alive(false)
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(stream), service);
    match timeout(CONNECTION_PATIENCE, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a connection to the console failed"),
        Err(_) => tracing::debug!("a connection to the console took too long"),
    }
}
