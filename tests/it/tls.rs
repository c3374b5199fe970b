//! `stomp+ssl`: versions of TLS, client certificates, and what goes wrong with either.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    net::TcpStream,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, pem::PemObject},
    version::{TLS12, TLS13},
};
use tempfile::TempDir;

use crate::process::{PATIENCE, Running, assert_fails, published, run};

/// A certificate authority of one test's own, and the files of a broker that it has signed.
struct Authority {
    directory: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "an authority for a test");
        let key = KeyPair::generate().unwrap();
        fs::write(directory.path().join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        let authority = Self { directory, issuer: Issuer::new(params, key) };
        authority.sign("broker", "localhost");
        authority
    }

    /// Writes `NAME.pem` and `NAME.key`.
    fn sign(&self, name: &str, subject: &str) {
        let mut params = CertificateParams::new(vec![subject.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, subject);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        fs::write(self.path().join(format!("{name}.pem")), certificate.pem()).unwrap();
        fs::write(self.path().join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    /// A broker with one `stomp+ssl` connector, and where it listens.
    fn broker(&self, query: &str) -> (Running, String) {
        let files = "tls.cert_file = \"broker.pem\"\ntls.key_file = \"broker.key\"\ntls.client_ca_file = \"ca.pem\"\n";
        fs::write(self.path().join("batonmq.toml"), files).unwrap();
        let uri = format!("stomp+ssl://127.0.0.1:0?{query}");
        let running = Running::ready(&self.directory, &["--listen", &uri]);
        let address = published(&self.path().join("data")).unwrap();
        (running, address)
    }

    fn client(&self, version: &'static SupportedProtocolVersion, certificate: Option<(&Self, &str)>) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.path().join("ca.pem")).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[version]).unwrap();
        let builder = builder.with_root_certificates(roots);
        let Some((authority, name)) = certificate else { return builder.with_no_client_auth() };
        let file = |ending: &str| authority.path().join(format!("{name}.{ending}"));
        let chain = vec![CertificateDer::from_pem_file(file("pem")).unwrap()];
        let key = PrivatePkcs8KeyDer::from_pem_file(file("key")).unwrap();
        builder.with_client_auth_cert(chain, PrivateKeyDer::Pkcs8(key)).unwrap()
    }
}

/// Connects and says CONNECT; the first bytes of the answer.
fn greet(address: &str, config: ClientConfig) -> io::Result<String> {
    let socket = TcpStream::connect(address)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let name = ServerName::try_from("localhost").unwrap();
    let connection = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
    let mut stream = StreamOwned::new(connection, socket);
    stream.write_all(b"CONNECT\naccept-version:1.2\nhost:localhost\n\n\0")?;
    let mut answer = [0; 10];
    stream.read_exact(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[test]
fn tls_1_2_and_1_3_are_spoken() {
    let authority = Authority::new();
    let (_running, address) = authority.broker("");
    for version in [&TLS12, &TLS13] {
        let answer = greet(&address, authority.client(version, None)).unwrap();
        assert!(answer.starts_with("CONNECTED\n"), "{answer}");
    }
}

#[test]
fn a_needed_client_certificate_is_asked_for() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    authority.sign("client", "orders");
    stranger.sign("client", "orders");
    let (_running, address) = authority.broker("transport.needClientAuth=true");
    for version in [&TLS12, &TLS13] {
        let answer = greet(&address, authority.client(version, Some((&authority, "client")))).unwrap();
        assert!(answer.starts_with("CONNECTED\n"), "{answer}");
        greet(&address, authority.client(version, None)).unwrap_err();
        greet(&address, authority.client(version, Some((&stranger, "client")))).unwrap_err();
    }
}

#[test]
fn a_wanted_client_certificate_is_good_or_absent() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    authority.sign("client", "orders");
    stranger.sign("client", "orders");
    let (_running, address) = authority.broker("wantClientAuth=true");
    for certificate in [None, Some((&authority, "client"))] {
        let answer = greet(&address, authority.client(&TLS13, certificate)).unwrap();
        assert!(answer.starts_with("CONNECTED\n"), "{answer}");
    }
    greet(&address, authority.client(&TLS13, Some((&stranger, "client")))).unwrap_err();
}

#[test]
fn a_silent_handshake_has_a_deadline() {
    let authority = Authority::new();
    let (_running, address) = authority.broker("transport.connectAttemptTimeout=200");
    let mut silent = TcpStream::connect(address).unwrap();
    let since = Instant::now();
    silent.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(silent.read_to_end(&mut Vec::new()).unwrap(), 0, "closed without a word");
    assert!(since.elapsed() >= Duration::from_millis(200));
}

#[test]
fn plain_text_on_a_tls_port_harms_nobody_else() {
    let authority = Authority::new();
    let (_running, address) = authority.broker("");
    let mut plain = TcpStream::connect(&address).unwrap();
    plain.write_all(b"CONNECT\naccept-version:1.2\n\n\0").unwrap();
    let mut said = Vec::new();
    // An alert, and then the end; that the end is a reset is fine.
    if let Err(error) = plain.read_to_end(&mut said) {
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }
    assert!(greet(&address, authority.client(&TLS13, None)).unwrap().starts_with("CONNECTED\n"));
}

#[test]
fn bad_files_are_told_before_anything_starts() {
    let authority = Authority::new();
    let with = |cert: &str, key: &str| {
        let text = format!("tls.cert_file = \"{cert}\"\ntls.key_file = \"{key}\"\n");
        fs::write(authority.path().join("batonmq.toml"), text).unwrap();
        run(&authority.directory, &["check-config", "--listen", "stomp+ssl://127.0.0.1:0"])
    };
    assert_eq!(with("broker.pem", "broker.key").status.code(), Some(0));
    assert_fails(&with("nowhere.pem", "broker.key"), 3, &["tls.cert_file", "nowhere.pem"]);
    assert_fails(&with("broker.key", "broker.key"), 3, &["tls.cert_file"]);
    assert_fails(&with("broker.pem", "broker.pem"), 3, &["tls.key_file"]);
    authority.sign("other", "localhost");
    assert_fails(&with("broker.pem", "other.key"), 3, &["tls.key_file", "other.key"]);
    let needs_ca = ["check-config", "--listen", "stomp+ssl://127.0.0.1:0?needClientAuth=true"];
    assert_fails(&run(&authority.directory, &needs_ca), 3, &["tls.client_ca_file"]);
}
