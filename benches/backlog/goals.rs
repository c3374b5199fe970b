//! What the broker has to reach, whatever the figures are.

use std::time::Duration;

use anyhow::ensure;

use crate::{
    kit::{Broker, in_memory},
    starts::Starts,
};

/// What a broker may have resident at any time. Unit: bytes.
const MEMORY_MAX: u64 = 400 << 20;
/// So much later than an empty broker one is ready that has a backlog.
pub(crate) const WAITING_READY_MAX: Duration = Duration::from_secs(1);
/// And one whose messages were settled.
pub(crate) const SETTLED_READY_MAX: Duration = Duration::from_millis(200);

/// How many goals were missed until now.
#[derive(Debug, Default)]
pub(crate) struct Goals {
    missed: u32,
}

impl Goals {
    /// Prints the most memory that this broker has had until now, and judges it.
    pub(crate) fn memory(&mut self, broker: &Broker) {
        let Some(peak) = in_memory(broker.pid(), "VmHWM") else {
            return self.judge("the broker's memory can't be read", false);
        };
        println!("{:<44}{:>12.0} MB", "  peak memory", peak as f64 / 1e6);
        self.judge("less than 400 MiB of memory", peak < MEMORY_MAX);
    }

    /// Prints the starts, and judges their medians.
    pub(crate) fn starts(&mut self, starts: &Starts, later_max: Duration) {
        starts.print();
        self.judge(&format!("ready within {later_max:?} of an empty broker"), starts.later() <= later_max);
    }

    /// An error if any was missed.
    pub(crate) fn all_reached(&self) -> anyhow::Result<()> {
        ensure!(self.missed == 0, "{} goals were missed", self.missed);
        Ok(())
    }

    fn judge(&mut self, goal: &str, is_reached: bool) {
        if !is_reached {
            println!("  MISSED: {goal}");
            self.missed += 1;
        }
    }
}
