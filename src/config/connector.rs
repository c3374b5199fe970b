//! Connectors, written as ActiveMQ's users know them: `stomp://0.0.0.0:61613?maximumConnections=1000`.
//!
//! Always true: an option that is not understood is an error that names it, never silence.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{TlsClientCert, units};

/// One listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Connector {
    /// Its name in the log; unique.
    pub name: String,
    /// Where it listens, and how.
    pub uri: ConnectorUri,
}

/// Where a connector listens, and how. Parsed from its text, which it keeps for messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectorUri {
    text: String,
    /// What is spoken there.
    pub scheme: Scheme,
    /// An IP address or a host name, without brackets.
    pub host: String,
    /// Zero: the system chooses.
    pub port: u16,
    /// What its query says.
    pub options: ConnectorOptions,
}

/// What is spoken at a connector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// STOMP over TCP.
    Stomp,
    /// STOMP over TLS.
    StompTls,
}

/// What a connector's query can say; `None`: the broker's own option counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectorOptions {
    /// Connections at a time; one more gets an ERROR and is closed.
    pub connections_max: Option<usize>,
    /// Instead of `stomp.frame_bytes_max`. Unit: bytes.
    pub frame_bytes_max: Option<usize>,
    /// Instead of `stomp.body_bytes_max`. Unit: bytes.
    pub body_bytes_max: Option<usize>,
    /// Instead of `stomp.connect_timeout`.
    pub connect_timeout: Option<Duration>,
    /// Instead of `tls.client_cert`.
    pub client_cert: Option<TlsClientCert>,
}

impl Scheme {
    /// As it is written in front of `://`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stomp => "stomp",
            Self::StompTls => "stomp+ssl",
        }
    }
}

impl ConnectorUri {
    /// Whether only this machine can reach it.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        let ip = self.host.parse::<std::net::IpAddr>();
        ip.map_or_else(|_| self.host.eq_ignore_ascii_case("localhost"), |ip| ip.is_loopback())
    }

    /// Host and port as one text, with brackets where an IPv6 address needs them.
    #[must_use]
    pub fn address(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    fn parse(text: &str) -> Result<Self, String> {
        let shape = "write it as stomp://HOST:PORT or stomp+ssl://HOST:PORT";
        let (scheme, rest) = text.split_once("://").ok_or_else(|| format!("{text:?} is not a URI; {shape}"))?;
        let scheme = match scheme {
            "stomp" | "stomp+nio" => Scheme::Stomp,
            "stomp+ssl" | "stomp+nio+ssl" => Scheme::StompTls,
            other => {
                return Err(format!(
                    "the scheme {other:?} is not supported; use stomp, stomp+nio, stomp+ssl or stomp+nio+ssl"
                ));
            }
        };
        let (authority, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (host, port) =
            parse_authority(authority).ok_or_else(|| format!("{text:?} has no host and port; {shape}"))?;
        let options = ConnectorOptions::parse(query, scheme)?;
        Ok(Self { text: text.to_owned(), scheme, host, port, options })
    }
}

fn parse_authority(authority: &str) -> Option<(String, u16)> {
    let authority = authority.strip_suffix('/').unwrap_or(authority);
    let (host, port) = authority.rsplit_once(':')?;
    let host = match host.strip_prefix('[') {
        Some(bracketed) => {
            let ip = bracketed.strip_suffix(']')?;
            ip.parse::<std::net::Ipv6Addr>().ok()?;
            ip
        }
        None if host.contains([':', '/', '@']) => return None,
        None => host,
    };
    (!host.is_empty()).then_some((host.to_owned(), port.parse().ok()?))
}

impl ConnectorOptions {
    fn parse(query: &str, scheme: Scheme) -> Result<Self, String> {
        let mut options = Self::default();
        // An ActiveMQ configuration is XML, and `&amp;` survives many a copy.
        let query = query.replace("&amp;", "&");
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            options.set(name, value, scheme).map_err(|problem| format!("{name}: {problem}"))?;
        }
        Ok(options)
    }

    fn set(&mut self, name: &str, value: &str, scheme: Scheme) -> Result<(), String> {
        match name {
            "maximumConnections" | "transport.maximumConnections" => self.connections_max = Some(parse_count(value)?),
            "wireFormat.maxFrameSize" => self.frame_bytes_max = Some(parse_positive_size(value)?),
            "wireFormat.maxDataLength" => self.body_bytes_max = Some(parse_positive_size(value)?),
            "transport.connectAttemptTimeout" => self.connect_timeout = Some(parse_millis(value)?),
            "needClientAuth" | "transport.needClientAuth" => {
                self.set_client_cert(TlsClientCert::Need, value, scheme)?
            }
            "wantClientAuth" | "transport.wantClientAuth" => {
                self.set_client_cert(TlsClientCert::Want, value, scheme)?
            }
            _ => {
                return Err(
                    "this option is not supported; supported are maximumConnections, wireFormat.maxFrameSize, \
                            wireFormat.maxDataLength, transport.connectAttemptTimeout, transport.needClientAuth and \
                            transport.wantClientAuth"
                        .to_owned(),
                );
            }
        }
        Ok(())
    }

    /// Need is stronger than want, in whatever order they stand.
    fn set_client_cert(&mut self, asked: TlsClientCert, value: &str, scheme: Scheme) -> Result<(), String> {
        if scheme != Scheme::StompTls {
            return Err("only stomp+ssl connectors see client certificates".to_owned());
        }
        match value {
            "true" if self.client_cert != Some(TlsClientCert::Need) => self.client_cert = Some(asked),
            "true" => {}
            "false" if self.client_cert.is_none() => self.client_cert = Some(TlsClientCert::None),
            "false" => {}
            _ => return Err(format!("{value:?} is neither true nor false")),
        }
        Ok(())
    }
}

fn parse_count(value: &str) -> Result<usize, String> {
    value.parse().ok().filter(|count| *count > 0).ok_or_else(|| format!("{value:?} is not a number from 1"))
}

fn parse_positive_size(value: &str) -> Result<usize, String> {
    units::parse_size(value).and_then(|size| if size > 0 { Ok(size) } else { Err("must be above zero".to_owned()) })
}

/// ActiveMQ writes milliseconds without a unit; a human duration is taken too.
fn parse_millis(value: &str) -> Result<Duration, String> {
    let duration = value.parse().map(Duration::from_millis).or_else(|_| units::parse_duration(value))?;
    if duration.is_zero() { Err("must be above zero".to_owned()) } else { Ok(duration) }
}

impl FromStr for ConnectorUri {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::parse(text)
    }
}

impl fmt::Display for ConnectorUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for ConnectorUri {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for ConnectorUri {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_activemq_connector_is_understood() {
        let uri: ConnectorUri =
            "stomp+nio://0.0.0.0:61613?maximumConnections=1000&amp;wireFormat.maxFrameSize=104857600".parse().unwrap();
        assert_eq!((uri.scheme, uri.address().as_str()), (Scheme::Stomp, "0.0.0.0:61613"));
        assert_eq!(uri.options.connections_max, Some(1000));
        assert_eq!(uri.options.frame_bytes_max, Some(104_857_600));
        assert!(!uri.is_loopback());
    }

    #[test]
    fn ipv6_hosts_and_port_zero_work() {
        let uri: ConnectorUri = "stomp://[::1]:0".parse().unwrap();
        assert_eq!((uri.host.as_str(), uri.port, uri.is_loopback()), ("::1", 0, true));
        assert_eq!(uri.address(), "[::1]:0");
        assert!("stomp://localhost:61613".parse::<ConnectorUri>().unwrap().is_loopback());
        assert!(!"stomp://[::]:61613".parse::<ConnectorUri>().unwrap().is_loopback());
    }

    #[test]
    fn client_certificates_are_wanted_or_needed() {
        let asked =
            |query: &str| format!("stomp+ssl://h:1?{query}").parse::<ConnectorUri>().unwrap().options.client_cert;
        assert_eq!(asked("needClientAuth=true"), Some(TlsClientCert::Need));
        assert_eq!(asked("transport.wantClientAuth=true"), Some(TlsClientCert::Want));
        assert_eq!(asked("transport.needClientAuth=true&wantClientAuth=true"), Some(TlsClientCert::Need));
        assert_eq!(asked("needClientAuth=false"), Some(TlsClientCert::None));
        assert_eq!(asked(""), None);
    }

    #[test]
    fn what_is_not_understood_is_named() {
        for (text, named) in [
            ("61613", "is not a URI"),
            ("openwire://0.0.0.0:61616", "openwire"),
            ("stomp://0.0.0.0", "host and port"),
            ("stomp://:61613", "host and port"),
            ("stomp://::1:61613", "host and port"),
            ("stomp://[nonsense]:61613", "host and port"),
            ("stomp://h:99999", "host and port"),
            ("stomp://h:1?wireFormat.maxFrameSzie=5", "wireFormat.maxFrameSzie"),
            ("stomp://h:1?maximumConnections=0", "maximumConnections"),
            ("stomp://h:1?maximumConnections=many", "maximumConnections"),
            ("stomp://h:1?needClientAuth=true", "stomp+ssl"),
            ("stomp+ssl://h:1?needClientAuth=yes", "needClientAuth"),
        ] {
            let problem = text.parse::<ConnectorUri>().unwrap_err();
            assert!(problem.contains(named), "{text}: {problem}");
        }
    }
}
