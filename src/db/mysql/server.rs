//! What a server is like, and what of it is no good for a store.

/// The oldest versions that know all that is in `sql/mysql/`.
const MARIADB_MIN: (u32, u32) = (10, 6);

/// See [`MARIADB_MIN`].
const MYSQL_MIN: (u32, u32) = (8, 0);

/// Less is no good for messages. Unit: bytes.
const PACKET_BYTES_MIN: usize = 1 << 20;

/// So much should fit in a packet: it is what MySQL comes with. Unit: bytes.
const PACKET_BYTES_ADVISED: usize = 64 << 20;

/// What a server is like: the columns of `server.sql`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    version: String,
    read_only: bool,
    packet_bytes_max: usize,
    binlog_format: Option<String>,
    flush_at_commit: i64,
    sync_binlog: i64,
    /// Of a node of a Galera cluster: whether it has the majority with it. `None`: it is not such a node.
    cluster: Option<bool>,
}

/// [`Server`], as it is read.
type ServerRow = (String, bool, u64, Option<String>, i64, i64, Option<String>, Option<String>);

impl Server {
    pub(super) fn of(row: ServerRow) -> Self {
        let (version, read_only, packet_bytes_max, binlog_format, flush_at_commit, sync_binlog, wsrep_on, ready) = row;
        let packet_bytes_max = usize::try_from(packet_bytes_max).unwrap_or(usize::MAX);
        let is_on = |value: Option<String>| value.is_some_and(|value| value == "ON" || value == "1");
        let cluster = is_on(wsrep_on).then(|| is_on(ready));
        Self { version, read_only, packet_bytes_max, binlog_format, flush_at_commit, sync_binlog, cluster }
    }

    /// Whether it is a node of a Galera cluster: what one session does is proven there when it commits (R15).
    #[must_use]
    pub fn is_clustered(&self) -> bool {
        self.cluster.is_some()
    }

    /// Whether it can be asked anything: a node without its cluster can't.
    pub(super) fn is_ready(&self) -> bool {
        self.cluster != Some(false)
    }

    /// As it tells it, such as `10.11.6-MariaDB`.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The largest request and the largest row (`max_allowed_packet`). Unit: bytes.
    #[must_use]
    pub fn packet_bytes_max(&self) -> usize {
        self.packet_bytes_max
    }

    /// Why no store can be kept in it.
    pub(super) fn problem(&self) -> Option<(String, &'static str)> {
        let is_mariadb = self.version.contains("MariaDB");
        let (name, least) = if is_mariadb { ("MariaDB", MARIADB_MIN) } else { ("MySQL", MYSQL_MIN) };
        if self.number() < least {
            let version = &self.version;
            let problem = format!("it is {name} {version}, and {}.{} or newer is needed", least.0, least.1);
            return Some((problem, "use a newer one"));
        }
        if self.read_only {
            let problem = "it is read-only: it is a replica, or somebody set read_only".to_owned();
            return Some((problem, "name the primary in store.url, or set read_only to OFF"));
        }
        if self.packet_bytes_max < PACKET_BYTES_MIN {
            let bytes = self.packet_bytes_max;
            let problem = format!("its max_allowed_packet is {bytes}, and {PACKET_BYTES_MIN} is needed at least");
            return Some((problem, "raise it in the server's configuration"));
        }
        if self.binlog_format.as_deref() == Some("STATEMENT") {
            let problem = "its binlog_format is STATEMENT, and MIXED or ROW is needed".to_owned();
            return Some((problem, "set it to ROW in the server's configuration"));
        }
        None
    }

    fn number(&self) -> (u32, u32) {
        let mut numbers = self.version.split(|c: char| !c.is_ascii_digit()).map(|digits| digits.parse().unwrap_or(0));
        (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
    }

    /// What an operator should know: a server that keeps less than it says, or takes less than usual.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.flush_at_commit != 1 {
            warnings.push(format!(
                "innodb_flush_log_at_trx_commit is {}: when the database's machine fails, the last second of what was \
                 confirmed is lost; set it to 1",
                self.flush_at_commit
            ));
        }
        if self.binlog_format.is_some() && self.sync_binlog != 1 {
            warnings.push(format!(
                "sync_binlog is {}: when the database's machine fails, its replicas and what is restored from its \
                 binary log may lack what was confirmed; set it to 1",
                self.sync_binlog
            ));
        }
        if self.packet_bytes_max < PACKET_BYTES_ADVISED {
            warnings.push(format!(
                "max_allowed_packet is {}, so larger messages are refused; {PACKET_BYTES_ADVISED} is usual",
                self.packet_bytes_max
            ));
        }
        warnings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server() -> Server {
        Server::of(("10.11.19-MariaDB-0+deb12u1".to_owned(), false, 64 << 20, None, 1, 0, None, None))
    }

    #[test]
    fn a_server_that_will_not_do_is_refused_and_says_why() {
        assert_eq!(server().problem(), None);
        assert_eq!(Server { version: "8.0.36".to_owned(), ..server() }.problem(), None);
        for (unfit, says) in [
            (Server { version: "10.5.29-MariaDB".to_owned(), ..server() }, "MariaDB 10.5.29"),
            (Server { version: "5.7.44-log".to_owned(), ..server() }, "8.0 or newer"),
            (Server { read_only: true, ..server() }, "replica"),
            (Server { packet_bytes_max: 1 << 16, ..server() }, "max_allowed_packet"),
            (Server { binlog_format: Some("STATEMENT".to_owned()), ..server() }, "ROW"),
        ] {
            let (problem, _) = unfit.problem().unwrap();
            assert!(problem.contains(says), "{problem}");
        }
    }

    #[test]
    fn a_node_of_a_cluster_is_ready_with_its_majority_only() {
        let node = |on: Option<&str>, ready: &str| {
            let [on, ready] = [on, Some(ready)].map(|value| value.map(ToOwned::to_owned));
            let node = Server::of(("10.11.19-MariaDB".to_owned(), false, 64 << 20, None, 1, 0, on, ready));
            (node.is_clustered(), node.is_ready())
        };
        assert_eq!(node(Some("ON"), "ON"), (true, true));
        assert_eq!(node(Some("ON"), "OFF"), (true, false));
        assert_eq!(node(Some("OFF"), "OFF"), (false, true), "MariaDB alone");
        assert_eq!(node(None, "OFF"), (false, true), "MySQL");
    }

    #[test]
    fn a_server_that_keeps_less_than_it_says_is_warned_of() {
        assert_eq!(server().warnings(), [""; 0]);
        let binlog_format = Some("MIXED".to_owned());
        let lax = Server { flush_at_commit: 2, binlog_format, packet_bytes_max: 16 << 20, ..server() };
        let warnings = lax.warnings();
        assert_eq!(warnings.len(), 3, "{warnings:?}");
        for (warning, says) in
            warnings.iter().zip(["innodb_flush_log_at_trx_commit", "sync_binlog", "max_allowed_packet"])
        {
            assert!(warning.starts_with(says), "{warning}");
        }
    }
}
