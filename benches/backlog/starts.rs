//! How long a start takes after `kill -9`, beside that of an empty broker in the same minute.

use std::{fs, time::Duration};

use crate::kit::Site;

/// Starts of each; the median counts.
const STARTS: usize = 5;

/// Starts of the two, in turn.
pub(crate) struct Starts {
    loaded: Vec<Duration>,
    empty: Vec<Duration>,
}

impl Starts {
    /// Both sites have no broker now, and none afterwards.
    pub(crate) fn measure(loaded: &Site, empty: &Site) -> anyhow::Result<Self> {
        empty.start()?.kill_9()?; // its first start makes the journal
        let mut starts = Self { loaded: Vec::new(), empty: Vec::new() };
        for _ in 0..STARTS {
            starts.loaded.push(start(loaded)?);
            starts.empty.push(start(empty)?);
        }
        starts.loaded.sort_unstable();
        starts.empty.sort_unstable();
        Ok(starts)
    }

    /// By how much the median of the loaded one is later.
    pub(crate) fn later(&self) -> Duration {
        median(&self.loaded).saturating_sub(*median(&self.empty))
    }

    pub(crate) fn print(&self) {
        for (what, starts) in [("ready after", &self.loaded), ("an empty broker after", &self.empty)] {
            let [least, .., most] = starts.as_slice() else { continue };
            let [least, middle, most] = [least, median(starts), most].map(|start| start.as_secs_f64() * 1e3);
            println!("  {what:<42}{middle:>12.0} ms ({least:.0} to {most:.0})");
        }
    }
}

fn median(sorted: &[Duration]) -> &Duration {
    sorted.get(sorted.len() / 2).unwrap_or(&Duration::ZERO)
}

fn start(site: &Site) -> anyhow::Result<Duration> {
    if can_drop_page_cache() {
        rustix::fs::sync();
        fs::write(DROP_CACHES, "1")?;
    }
    let mut broker = site.start()?;
    let took = broker.ready_after;
    broker.kill_9()?;
    Ok(took)
}

const DROP_CACHES: &str = "/proc/sys/vm/drop_caches";

/// The next start then reads from the disk.
pub(crate) fn can_drop_page_cache() -> bool {
    rustix::process::geteuid().is_root() && fs::write(DROP_CACHES, "1").is_ok()
}
