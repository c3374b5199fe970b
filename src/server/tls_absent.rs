//! TLS in a program that was built without it: the configuration refuses connectors that would need it.

use std::{convert::Infallible, io};

use tokio::net::TcpStream;

use super::ServerError;
use crate::config::{TlsClientCert, TlsOptions};

/// There is none.
#[derive(Clone, Debug)]
pub(super) struct Acceptor(Infallible);

impl Acceptor {
    pub(super) fn load(options: &TlsOptions, _client_cert: TlsClientCert) -> Result<Self, ServerError> {
        let source = "this program was built without TLS (feature tls)".into();
        Err(ServerError::Tls { option: "tls.cert_file", path: options.cert_file.clone(), source })
    }

    pub(super) async fn accept(&self, _stream: TcpStream) -> io::Result<(TcpStream, Option<String>)> {
        match self.0 {}
    }
}
