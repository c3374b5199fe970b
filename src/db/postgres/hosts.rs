//! The hosts of a URL, each with all that the URL says.

use tokio_postgres::{Config, config::Host};

/// In the order of the URL; one at least.
///
/// # Errors
/// What is wrong with the URL.
pub(super) fn each_host(config: &Config) -> Result<Vec<Config>, &'static str> {
    let count = config.get_hosts().len().max(config.get_hostaddrs().len());
    if count == 0 {
        return Err("it names no host");
    }
    if config.get_ports().len() > 1 && config.get_ports().len() != count {
        return Err("it names several ports, but not one for each host");
    }
    Ok((0..count).map(|at| alone(config, at)).collect())
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

    fn names(url: &str) -> Result<Vec<String>, &'static str> {
        let name = |config: Config| match &config.get_hosts()[0] {
            Host::Tcp(name) => format!("{name}:{}", config.get_ports()[0]),
            Host::Unix(path) => path.display().to_string(),
        };
        Ok(each_host(&Config::from_str(url).unwrap())?.into_iter().map(name).collect())
    }

    #[test]
    fn one_port_serves_for_all_hosts_and_several_belong_to_one_each() {
        assert_eq!(names("host=a,b port=7 user=me").unwrap(), ["a:7", "b:7"]);
        assert_eq!(names("postgres://me@a:1,b:2,c:3/orders").unwrap(), ["a:1", "b:2", "c:3"]);
        assert!(names("host=a,b,c port=1,2 user=me").unwrap_err().contains("ports"));
        assert!(names("user=me").unwrap_err().contains("no host"));
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
