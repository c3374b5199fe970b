//! The hosts of a URL, of which one is the primary: each is tried alone, with a limit of its own.
//!
//! Always true: a host that is dark, or that accepts a connection and says nothing more, costs its own patience and not
//! that of the others. The one that answered last is asked first.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use tokio_postgres::{Config, config::Host};

use super::super::CONNECT_PATIENCE;

/// How long one of several hosts may take until a session can be used.
const HOST_PATIENCE: Duration = Duration::from_secs(3);

/// See the module.
#[derive(Debug)]
pub(super) struct Hosts {
    /// The same but for the host, in the order of the URL.
    each: Vec<Config>,
    answered_last: AtomicUsize,
}

impl Hosts {
    /// # Errors
    /// What is wrong with the URL.
    pub(super) fn of(config: &Config) -> Result<Self, &'static str> {
        let count = config.get_hosts().len().max(config.get_hostaddrs().len());
        if count == 0 {
            return Err("it names no host");
        }
        if config.get_ports().len() > 1 && config.get_ports().len() != count {
            return Err("it names several ports, but not one for each host");
        }
        let each = (0..count).map(|at| alone(config, at)).collect();
        Ok(Self { each, answered_last: AtomicUsize::new(0) })
    }

    /// All of them, the one that answered last first; with the number to tell [`Self::answered`].
    pub(super) fn in_turn(&self) -> impl Iterator<Item = (usize, &Config)> {
        let first = self.answered_last.load(Ordering::Relaxed);
        self.each.iter().enumerate().cycle().skip(first).take(self.each.len())
    }

    /// The one that answered last.
    pub(super) fn last_good(&self) -> Config {
        self.in_turn().next().map(|(_, config)| config.clone()).unwrap_or_default() // there is one
    }

    /// A session on this one can be used.
    pub(super) fn answered(&self, at: usize) {
        self.answered_last.store(at, Ordering::Relaxed);
    }

    /// How long each may take: connection, TLS, password, settings.
    pub(super) fn patience(&self) -> Duration {
        if self.each.len() > 1 { HOST_PATIENCE } else { CONNECT_PATIENCE }
    }
}

/// All that `config` says, of one host.
fn alone(config: &Config, at: usize) -> Config {
    let mut alone = Config::new();
    if let Some(user) = config.get_user() {
        alone.user(user);
    }
    if let Some(password) = config.get_password() {
        alone.password(password);
    }
    if let Some(name) = config.get_dbname() {
        alone.dbname(name);
    }
    if let Some(options) = config.get_options() {
        alone.options(options);
    }
    match config.get_hosts().get(at) {
        Some(Host::Tcp(name)) => alone.host(name),
        Some(Host::Unix(path)) => alone.host_path(path),
        None => &mut alone,
    };
    if let Some(address) = config.get_hostaddrs().get(at) {
        alone.hostaddr(*address);
    }
    if let Some(port) = config.get_ports().get(at).or(config.get_ports().first()) {
        alone.port(*port);
    }
    if let Some(patience) = config.get_connect_timeout() {
        alone.connect_timeout(*patience);
    }
    if let Some(patience) = config.get_tcp_user_timeout() {
        alone.tcp_user_timeout(*patience);
    }
    if let Some(interval) = config.get_keepalives_interval() {
        alone.keepalives_interval(interval);
    }
    if let Some(retries) = config.get_keepalives_retries() {
        alone.keepalives_retries(retries);
    }
    alone
        .keepalives(config.get_keepalives())
        .keepalives_idle(config.get_keepalives_idle())
        .ssl_mode(config.get_ssl_mode())
        .ssl_negotiation(config.get_ssl_negotiation())
        .channel_binding(config.get_channel_binding())
        .target_session_attrs(config.get_target_session_attrs());
    alone
}

#[cfg(test)]
mod tests {
    use std::str::FromStr as _;

    use super::*;

    fn hosts(url: &str) -> Result<Hosts, &'static str> {
        Hosts::of(&Config::from_str(url).unwrap())
    }

    fn names(hosts: &Hosts) -> Vec<String> {
        let name = |config: &Config| match &config.get_hosts()[0] {
            Host::Tcp(name) => format!("{name}:{}", config.get_ports()[0]),
            Host::Unix(path) => path.display().to_string(),
        };
        hosts.in_turn().map(|(_, config)| name(config)).collect()
    }

    #[test]
    fn the_host_that_answered_last_is_asked_first() {
        let hosts = hosts("postgres://me@a:1,b:2,c:3/orders").unwrap();
        assert_eq!(names(&hosts), ["a:1", "b:2", "c:3"]);
        hosts.answered(1);
        assert_eq!(names(&hosts), ["b:2", "c:3", "a:1"]);
        assert_eq!(hosts.last_good().get_ports(), [2]);
    }

    #[test]
    fn one_port_serves_for_all_hosts_and_several_belong_to_one_each() {
        let one = hosts("host=a,b port=7 user=me").unwrap();
        assert_eq!(names(&one), ["a:7", "b:7"]);
        assert!(hosts("host=a,b,c port=1,2 user=me").unwrap_err().contains("ports"));
        assert!(hosts("user=me").unwrap_err().contains("no host"));
    }

    #[test]
    fn a_host_alone_is_asked_for_everything_that_the_url_says() {
        let url = "postgres://me:secret@a,b/orders?options=-c%20work_mem%3D4MB&connect_timeout=7&keepalives_idle=9\
                   &channel_binding=require&target_session_attrs=read-write&sslmode=require";
        let all = Config::from_str(url).unwrap();
        let expected = Config::from_str(&url.replace("a,b", "b")).unwrap();
        assert_eq!(alone(&all, 1), expected);
    }
}
