//! Whether a Galera cluster can be relied on.

use super::facts::Facts;
use crate::{
    config::{Config, Strategy},
    doctor::Report,
};

/// Options with which each half of a cluster that was cut in two goes on by itself.
const SPLITS: [&str; 2] = ["pc.ignore_sb", "pc.ignore_quorum"];

pub(super) fn examine(config: &Config, facts: &Facts, report: &mut Report) {
    let troubles = report.troubles();
    if config.election.strategy != Strategy::Lease {
        let says = "it is a Galera cluster, and a session lock is known to one of its nodes only";
        report.fail("cluster", says, "set election.strategy to \"lease\"");
    }
    for option in SPLITS.iter().filter(|option| is_true(facts.text("wsrep_provider_options"), option)) {
        let says =
            format!("{option} is true: when the cluster is cut in two, both halves go on, and one is lost later");
        report.fail("cluster", says, "take it out of wsrep_provider_options");
    }
    if facts.text("wsrep_osu_method") == "RSU" {
        let says = "wsrep_OSU_method is RSU: tables are made on one node only, and all nodes need them";
        report.fail("cluster", says, "set it to TOI");
    }
    let nodes = facts.number("wsrep_cluster_size").unwrap_or_default();
    if nodes < 3 {
        let says = format!("it has {nodes} nodes: when one is lost, the rest is no majority, and serves nobody");
        report.warn("cluster", says, "give it three nodes, or two and an arbitrator");
    }
    if report.troubles() == troubles {
        report.ok("cluster", format!("{nodes} nodes"));
    }
}

/// Options are written `name = value; name = value`.
fn is_true(options: &str, option: &str) -> bool {
    let values = options.split(';').filter_map(|option| option.split_once('='));
    values
        .filter(|(name, _)| name.trim() == option)
        .any(|(_, value)| ["true", "yes", "1", "on"].contains(&&*value.trim().to_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_without_a_majority_to_spare_is_told_of() {
        let mut config = Config::default();
        config.election.strategy = Strategy::Lease;
        for (nodes, says) in [("3", "3 nodes"), ("2", "it has 2 nodes: when one is lost")] {
            let facts = Facts::from_iter([("wsrep_cluster_size".to_owned(), nodes.to_owned())]);
            let mut report = Report::default();
            examine(&config, &facts, &mut report);
            let [finding] = report.0.try_into().unwrap();
            assert!(finding.says.starts_with(says), "{finding:?}");
        }
    }

    #[test]
    fn an_option_is_found_among_others() {
        let options = "evs.version = 1; pc.ignore_quorum = false; pc.ignore_sb = YES; pc.weight = 1; ";
        assert!(is_true(options, "pc.ignore_sb"));
        assert!(!is_true(options, "pc.ignore_quorum") && !is_true(options, "pc.weight2"));
    }
}
