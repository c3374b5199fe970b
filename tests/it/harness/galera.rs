//! A private Galera cluster of three nodes on this machine.

use std::{sync::OnceLock, thread, time::Instant};

use batonmq::types::Group;

use super::{
    PATIENCE,
    broker::Settings,
    database::{DatabaseServer as _, Stop, free_port},
    mariadb::MariadbServer,
};

/// Any ids will do, as long as each node has its own.
const IDS: [&str; 3] = [
    "00000001-1606-11e4-aa94-5255b1455aa0",
    "00000002-1606-11e4-aa94-5255b1455aa0",
    "00000003-1606-11e4-aa94-5255b1455aa0",
];

/// Where a node finds out whom it was with when it was last up.
const LAST_VIEW: &str = "gvwstate.dat";

/// A node that is gone is taken for lost after a second, not after five.
const IMPATIENT: &str = "evs.suspect_timeout=PT1S;evs.inactive_timeout=PT3S;evs.keepalive_period=PT0.3S;\
                         evs.inactive_check_period=PT0.3S;gcache.size=16M";

/// Three running nodes; one may be killed.
pub(crate) struct Galera {
    pub(crate) nodes: [MariadbServer; 3],
}

impl Galera {
    /// The one that tests share: they must leave it as it is.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<Galera> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    /// As after all three lost power at once, with the same on their disks: so nobody has to be sent a copy.
    pub(crate) fn start() -> Self {
        let ports = [(); 3].map(|()| free_port());
        let peers = ports.map(|port| format!("127.0.0.1:{port}")).join(",");
        let first = Self::first_life();
        let node = |at: usize| {
            let port = ports[at];
            let options = format!(
                "gmcast.listen_addr=tcp://127.0.0.1:{port};ist.recv_addr=127.0.0.1:{};{IMPATIENT}",
                free_port()
            );
            let own = [
                format!("wsrep-cluster-address=gcomm://{peers}"),
                format!("wsrep-node-name=node-{at}"),
                format!("wsrep-node-address=127.0.0.1:{port}"),
                format!("wsrep-provider-options={options}"),
            ];
            let settings: Vec<&str> = CLUSTER.into_iter().chain(own.iter().map(String::as_str)).collect();
            let node = first.copied(&settings);
            node.write_data(LAST_VIEW, &last_view(at));
            node
        };
        let mut nodes = [0, 1, 2].map(node);
        thread::scope(|scope| {
            for node in &mut nodes {
                scope.spawn(|| node.launch());
            }
        });
        Self { nodes }
    }

    /// A server alone, which was stopped: what all nodes have.
    fn first_life() -> MariadbServer {
        let settings: Vec<&str> = CLUSTER.into_iter().chain(["wsrep-cluster-address=gcomm://"]).collect();
        let mut first = MariadbServer::start(&settings);
        first.stop(Stop::Polite);
        first
    }

    /// The first node is gone: waits until the others write without it.
    pub(crate) fn is_there_again(&self) {
        let write = "CREATE OR REPLACE TABLE written (id INT PRIMARY KEY)";
        let since = Instant::now();
        while !self.nodes[1].client_command().args(["-e", write]).output().unwrap().status.success() {
            assert!(since.elapsed() < PATIENCE, "the cluster does not come together again");
        }
    }

    /// What a broker on this group of it is told, which uses the first node first.
    pub(crate) fn settings(&self, group: &Group) -> Settings {
        self.settings_from(0, group)
    }

    /// The same of a broker that uses another node first.
    pub(crate) fn settings_from(&self, first: usize, group: &Group) -> Settings {
        let hosts = [0, 1, 2].map(|at| format!("127.0.0.1:{}", self.nodes[(first + at) % 3].port())).join(",");
        let own = format!("127.0.0.1:{}", self.nodes[0].port());
        let url = self.nodes[0].url().replace(&own, &hosts);
        self.nodes[0].settings(group).option("store.url", &format!("{url:?}")).option("election.strategy", "\"lease\"")
    }
}

const CLUSTER: [&str; 6] = [
    "wsrep-on=ON",
    "wsrep-provider=/usr/lib/galera/libgalera_smm.so",
    "wsrep-cluster-name=test",
    "wsrep-sst-method=rsync",
    "binlog-format=ROW",
    "innodb-buffer-pool-size=32M",
];

fn last_view(of: usize) -> String {
    let members = IDS.map(|id| format!("member: {id} 0\n")).concat();
    format!("my_uuid: {}\n#vwbeg\nview_id: 3 {} 3\nbootstrap: 0\n{members}#vwend\n", IDS[of], IDS[0])
}
