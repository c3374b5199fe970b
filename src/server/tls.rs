//! TLS 1.2 and 1.3 by rustls, with client certificates if they are asked for.

use std::{error::Error, fmt, io, path::Path, sync::Arc};

use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::{ServerError, subject};
use crate::config::{TlsClientCert, TlsOptions};

/// Makes TLS streams out of sockets. Clones share it.
#[derive(Clone)]
pub(super) struct Acceptor(TlsAcceptor);

impl Acceptor {
    /// Reads certificate, key and client CA, and checks that the first two belong together.
    pub(super) fn load(options: &TlsOptions, client_cert: TlsClientCert) -> Result<Self, ServerError> {
        let unusable = |option, path: &Path, source: Box<dyn Error + Send + Sync>| ServerError::Tls {
            option,
            path: path.to_owned(),
            source,
        };
        let certificates =
            certificates(&options.cert_file).map_err(|source| unusable("tls.cert_file", &options.cert_file, source))?;
        let key = PrivateKeyDer::from_pem_file(&options.key_file)
            .map_err(|error| unusable("tls.key_file", &options.key_file, plainly(error)))?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| unusable("tls.cert_file", &options.cert_file, error.into()))?;
        let builder = match (client_cert, &options.client_ca_file) {
            (TlsClientCert::None, _) | (_, None) => builder.with_no_client_auth(),
            (asked, Some(path)) => builder.with_client_cert_verifier(
                verifier(path, asked).map_err(|source| unusable("tls.client_ca_file", path, source))?,
            ),
        };
        let config = builder
            .with_single_cert(certificates, key)
            .map_err(|error| unusable("tls.key_file", &options.key_file, error.into()))?;
        Ok(Self(TlsAcceptor::from(Arc::new(config))))
    }

    /// The handshake; then the stream, and the subject of the client's certificate if it showed one that has a subject:
    /// a certificate without one names nobody.
    pub(super) async fn accept(&self, stream: TcpStream) -> io::Result<(TlsStream<TcpStream>, Option<String>)> {
        let stream = self.0.accept(stream).await?;
        let (_, connection) = stream.get_ref();
        let certificate = connection.peer_certificates().and_then(|chain| chain.first());
        let subject = certificate.and_then(|certificate| subject::of(certificate));
        Ok((stream, subject))
    }
}

/// A key never shows.
impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Acceptor")
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Box<dyn Error + Send + Sync>> {
    let certificates =
        CertificateDer::pem_file_iter(path).map_err(plainly)?.collect::<Result<Vec<_>, _>>().map_err(plainly)?;
    if certificates.is_empty() { Err("there is no certificate in it".into()) } else { Ok(certificates) }
}

fn verifier(path: &Path, asked: TlsClientCert) -> Result<Arc<dyn ClientCertVerifier>, Box<dyn Error + Send + Sync>> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let builder = if asked == TlsClientCert::Want { builder.allow_unauthenticated() } else { builder };
    Ok(builder.build()?)
}

/// The system's own words for an unreadable file, so that a missing permission can be told from a bad file.
fn plainly(error: rustls::pki_types::pem::Error) -> Box<dyn Error + Send + Sync> {
    match error {
        rustls::pki_types::pem::Error::Io(error) => error.into(),
        rustls::pki_types::pem::Error::NoItemsFound => "there is no such PEM section in it".into(),
        other => other.into(),
    }
}
