//! The doors: listeners with their limits and TLS, and the way from an accepted socket to a session.
//!
//! Owns every listening socket and the number of connections behind each.
//! Always true: TLS files are read before the election, so that a standby that takes over can open its doors; a
//! connector never has more than its maximum of connections.
//! On failure: a door that can't be opened is a [`ServerError`] that names the connector; a socket that can't be
//! accepted costs a pause, never the door.

mod addresses;
mod listener;
mod open_files;
mod service;
#[cfg(feature = "tls")]
mod subject;
#[cfg_attr(not(feature = "tls"), path = "tls_absent.rs")]
mod tls;

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc};

use crate::{
    config::{Config, Connector, Scheme},
    tasks::Tasks,
};

pub use addresses::{LISTENERS_FILE, PublishedAddresses};
pub use open_files::raise_open_files_limit;
pub use service::{Peer, Service};

/// Why a door can't be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// The address is taken, not ours, or not to be had.
    #[error("cannot listen on {address} for connector {connector}")]
    Listen {
        /// The connector's name.
        connector: String,
        /// Where it was to listen.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// A file for TLS can't be read or used.
    #[error("cannot use {path}, named by {option}")]
    Tls {
        /// The option that names it.
        option: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl ServerError {
    /// What a human can do about it.
    #[must_use]
    pub fn fix(&self) -> &'static str {
        let denied = |error: &io::Error| {
            matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
        };
        match self {
            Self::Listen { source, .. } if denied(source) => {
                "choose a port from 1024 in the connector's uri, or grant CAP_NET_BIND_SERVICE"
            }
            Self::Listen { source, .. } if source.kind() == io::ErrorKind::AddrInUse => {
                "stop the program that has it, or choose another port in the connector's uri"
            }
            Self::Listen { .. } => "choose an address of this machine in the connector's uri",
            Self::Tls { source, .. } if source.downcast_ref::<io::Error>().is_some_and(denied) => {
                "give the user that runs the broker access to it"
            }
            Self::Tls { .. } => "name a good PEM file there",
        }
    }
}

/// Every connector, ready to be opened; no port is open yet.
#[derive(Debug)]
pub struct Doors {
    doors: Vec<Door>,
}

#[derive(Debug)]
struct Door {
    connector: Connector,
    tls: Option<tls::Acceptor>,
}

impl Doors {
    /// Reads what TLS needs.
    ///
    /// # Errors
    /// [`ServerError::Tls`] names the option whose file can't be used.
    pub fn prepare(config: &Config) -> Result<Self, ServerError> {
        let prepare = |connector: &Connector| {
            let tls = match (connector.uri.scheme, &config.tls) {
                (Scheme::StompTls, Some(options)) => {
                    let client_cert = connector.uri.options.client_cert.unwrap_or(options.client_cert);
                    Some(tls::Acceptor::load(options, client_cert)?)
                }
                (Scheme::StompTls, None) | (Scheme::Stomp, _) => None,
            };
            Ok(Door { connector: connector.clone(), tls })
        };
        Ok(Self { doors: config.connectors.iter().map(prepare).collect::<Result<_, ServerError>>()? })
    }

    /// Where clients are to find them: the URIs as they are configured.
    #[must_use]
    pub fn configured(&self) -> String {
        let uri = |door: &Door| format!("{}://{}", door.connector.uri.scheme.as_str(), door.connector.uri.address());
        self.doors.iter().map(uri).collect::<Vec<_>>().join(" ")
    }

    /// Opens every port, or none. Connections wait in the kernel until [`OpenDoors::serve`].
    ///
    /// # Errors
    /// [`ServerError::Listen`] names the first connector whose address can't be had.
    pub async fn open(&self) -> Result<OpenDoors, ServerError> {
        let mut open = Vec::with_capacity(self.doors.len());
        for Door { connector, tls } in &self.doors {
            let socket = listener::listen(connector).await?;
            open.push((connector.clone(), tls.clone(), socket));
        }
        Ok(OpenDoors { open })
    }
}

/// Every connector, with its port open.
#[derive(Debug)]
pub struct OpenDoors {
    open: Vec<(Connector, Option<tls::Acceptor>, listener::Socket)>,
}

impl OpenDoors {
    /// Each connector's name and URI, with the port that it really has.
    #[must_use]
    pub fn addresses(&self) -> Vec<(String, String)> {
        let uri = |connector: &Connector, address: SocketAddr| format!("{}://{address}", connector.uri.scheme.as_str());
        self.open
            .iter()
            .map(|(connector, _, socket)| (connector.name.clone(), uri(connector, socket.address)))
            .collect()
    }

    /// Accepts connections, as tasks of `listeners`, and serves each, as a task of `sessions`.
    pub fn serve(self, service: &Service, listeners: &Tasks, sessions: &Tasks) {
        for (connector, tls, socket) in self.open {
            let service = Arc::new(service.for_connector(&connector));
            let listener = listener::Listener::new(&connector, tls, socket, service, sessions.clone());
            listeners.spawn_essential("listener", listener.run(listeners.stop_token()));
        }
    }
}
