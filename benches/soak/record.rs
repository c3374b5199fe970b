//! What was measured each second, and whether it grew.

use std::{sync::atomic::Ordering, thread, time::Duration};

use crate::{
    kit::{Site, count_of, disk_used, in_memory, metric},
    lanes::Lanes,
    stage::Stage,
};

/// One second. What a process that is not there would say is absent.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sample {
    pub(crate) at: f64,
    pub(crate) memory_mb: Option<f64>,
    pub(crate) disk_mb: Option<f64>,
    pub(crate) handles: Option<f64>,
    pub(crate) threads: Option<f64>,
    pub(crate) tasks: Option<f64>,
    /// A second, since the sample before.
    pub(crate) confirmed: Option<f64>,
    pub(crate) settled: Option<f64>,
}

/// A stretch of the script.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    pub(crate) from: f64,
    pub(crate) to: f64,
    pub(crate) consumers_away: bool,
    pub(crate) disk_full: bool,
}

/// All of a run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Record {
    pub(crate) samples: Vec<Sample>,
    pub(crate) spans: Vec<Span>,
    /// When the broker was killed.
    pub(crate) kills: Vec<f64>,
}

/// Takes a sample each second, until consumers end.
pub(crate) fn sample(stage: &Stage, site: &Site, lanes: &Lanes) -> Vec<Sample> {
    let mut samples = Vec::new();
    let mut before = (stage.seconds(), stage.confirmed(), lanes.settled());
    while stage.consumers_go_on() {
        thread::sleep(Duration::from_secs(1));
        let now = (stage.seconds(), stage.confirmed(), lanes.settled());
        let rate = |later: u64, earlier: u64| Some((later - earlier) as f64 / (now.0 - before.0));
        let pid = match stage.pid.load(Ordering::Relaxed) {
            0 => None,
            pid => Some(pid),
        };
        samples.push(Sample {
            at: now.0,
            memory_mb: pid.and_then(|pid| in_memory(pid, "VmRSS")).map(|bytes| bytes as f64 / 1e6),
            disk_mb: disk_used(&site.data).ok().map(|bytes| bytes as f64 / 1e6),
            handles: pid.and_then(|pid| count_of(pid, "fd")).map(|count| count as f64),
            threads: pid.and_then(|pid| count_of(pid, "task")).map(|count| count as f64),
            tasks: site.console.and_then(|console| metric(console, "batonmq_tasks")),
            confirmed: rate(now.1, before.1),
            settled: rate(now.2, before.2),
        });
        before = now;
    }
    samples
}

/// Something that must not grow.
pub(crate) struct Measure {
    pub(crate) name: &'static str,
    pub(crate) of: fn(&Sample) -> Option<f64>,
    /// How much more the later median may be: this part of the earlier one, and this.
    part: f64,
    and: f64,
}

/// All that must not grow. The tolerances are what two equal stretches differ by: two segments of the journal of 8 MiB,
/// a few clients that come and go with two tasks each, threads that have read pages and wait for more.
pub(crate) const MEASURES: [Measure; 5] = [
    Measure { name: "memory, MB", of: |sample| sample.memory_mb, part: 0.10, and: 8.0 },
    Measure { name: "disk, MB", of: |sample| sample.disk_mb, part: 0.10, and: 2.0 * 8.4 },
    Measure { name: "handles", of: |sample| sample.handles, part: 0.0, and: 4.0 },
    Measure { name: "threads", of: |sample| sample.threads, part: 0.0, and: 6.0 },
    Measure { name: "tasks", of: |sample| sample.tasks, part: 0.0, and: 8.0 },
];

/// The medians of two stretches of one life of the broker.
pub(crate) struct Growth {
    pub(crate) earlier: f64,
    pub(crate) later: f64,
    pub(crate) allowed: f64,
}

impl Growth {
    /// None if there is nothing to compare.
    pub(crate) fn of(measure: &Measure, record: &Record, [earlier, later]: [(f64, f64); 2]) -> Option<Self> {
        let earlier = record.median(measure.of, earlier)?;
        let later = record.median(measure.of, later)?;
        Some(Self { earlier, later, allowed: earlier * (1.0 + measure.part) + measure.and })
    }

    pub(crate) fn is_none(&self) -> bool {
        self.later <= self.allowed
    }
}

impl Record {
    fn median(&self, of: fn(&Sample) -> Option<f64>, (from, to): (f64, f64)) -> Option<f64> {
        let within = self.samples.iter().filter(|sample| (from..to).contains(&sample.at));
        let mut values: Vec<f64> = within.filter_map(of).collect();
        values.sort_unstable_by(f64::total_cmp);
        values.get(values.len() / 2).copied()
    }
}
