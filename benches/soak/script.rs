//! What happens when.

use std::{
    mem,
    sync::atomic::Ordering,
    thread,
    time::{Duration, Instant},
};

use crate::{
    disk::SmallDisk,
    kit::{Broker, Site},
    lanes::{self, Lanes},
    record::{Record, Span},
    stage::Stage,
};

const ROUNDS: u32 = 6;
/// A stretch of a round.
struct Stretch {
    /// How much of the round it takes.
    part: f64,
    consumers_away: bool,
    disk_full: bool,
    /// The broker is killed in the midst of it, in the rounds with kills.
    is_deadly: bool,
}

/// What happens in each round.
const ROUND: [Stretch; 5] = [
    Stretch { part: 0.20, consumers_away: false, disk_full: false, is_deadly: true },
    Stretch { part: 0.20, consumers_away: true, disk_full: false, is_deadly: true },
    Stretch { part: 0.20, consumers_away: true, disk_full: true, is_deadly: true },
    Stretch { part: 0.15, consumers_away: false, disk_full: true, is_deadly: false },
    Stretch { part: 0.25, consumers_away: false, disk_full: false, is_deadly: false },
];
/// How often the script looks after the broker and the ballast.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// After so long without any progress at the end, what is missing does not come any more.
const END_PATIENCE: Duration = Duration::from_secs(60);

/// The script of a run of a certain length.
pub(crate) struct Script {
    seconds: f64,
}

impl Script {
    pub(crate) fn new(seconds: f64) -> Self {
        Self { seconds }
    }

    pub(crate) fn seconds(&self) -> f64 {
        self.seconds
    }

    /// The second and the last quarter of the broker's long life, which is all rounds but the first and the last.
    pub(crate) fn judged(&self) -> [(f64, f64); 2] {
        [self.round(2), self.round(ROUNDS - 2)]
    }

    /// From when to when a round lasts, counted from 0.
    fn round(&self, number: u32) -> (f64, f64) {
        let length = self.seconds / f64::from(ROUNDS);
        (f64::from(number) * length, f64::from(number + 1) * length)
    }

    /// Starts a broker and the clients, plays the rounds, and waits until everything has come.
    pub(crate) fn run(
        &self,
        site: &Site,
        disk: &SmallDisk,
        stage: &Stage,
        lanes: &Lanes,
        start_clients: impl FnOnce(),
    ) -> anyhow::Result<Record> {
        let broker = site.start()?;
        stage.pid.store(broker.pid(), Ordering::Relaxed);
        lanes::subscribe_durably(stage, lanes)?;
        start_clients();
        let mut play = Play { site, disk, stage, lanes, broker, record: Record::default() };
        for number in 0..ROUNDS {
            let with_kills = number == 0 || number == ROUNDS - 1;
            play.round(self.round(number), with_kills)?;
            println!("{:>6.0} s  round {} is over, {} missing yet", stage.seconds(), number + 1, lanes.missing());
        }
        stage.end_producers();
        play.wait_for_the_rest()?;
        Ok(play.record)
    }
}

/// A run.
struct Play<'a> {
    site: &'a Site,
    disk: &'a SmallDisk,
    stage: &'a Stage,
    lanes: &'a Lanes,
    broker: Broker,
    record: Record,
}

impl Play<'_> {
    fn round(&mut self, (from, to): (f64, f64), with_kills: bool) -> anyhow::Result<()> {
        let mut until = from;
        for stretch in &ROUND {
            let begin = self.stage.seconds();
            let length = stretch.part * (to - from);
            until += length;
            self.stage.begin(stretch.consumers_away, stretch.disk_full);
            if stretch.is_deadly && with_kills {
                self.go_on(stretch, until - length / 2.0)?;
                self.kill()?;
            }
            self.go_on(stretch, until)?;
            if stretch.disk_full {
                self.disk.free()?;
            }
            let (from, to) = (begin, self.stage.seconds());
            let Stretch { consumers_away, disk_full, .. } = *stretch;
            self.record.spans.push(Span { from, to, consumers_away, disk_full });
        }
        Ok(())
    }

    fn go_on(&mut self, stretch: &Stretch, until: f64) -> anyhow::Result<()> {
        while self.stage.seconds() < until {
            if stretch.disk_full {
                self.disk.fill()?; // what consumers have made room for, too
            }
            self.look()?;
        }
        Ok(())
    }

    fn look(&mut self) -> anyhow::Result<()> {
        self.broker.ensure_alive(self.site)?;
        thread::sleep(LOOK_EVERY);
        Ok(())
    }

    fn kill(&mut self) -> anyhow::Result<()> {
        self.record.kills.push(self.stage.seconds());
        self.stage.pid.store(0, Ordering::Relaxed);
        self.broker.kill_9()?;
        self.broker = self.site.start()?;
        self.stage.pid.store(self.broker.pid(), Ordering::Relaxed);
        self.lanes.forgive();
        Ok(())
    }

    fn wait_for_the_rest(&mut self) -> anyhow::Result<()> {
        let (mut missing, mut since) = (self.lanes.missing(), Instant::now());
        while missing > 0 && since.elapsed() < END_PATIENCE {
            self.look()?;
            let now = self.lanes.missing();
            if mem::replace(&mut missing, now) != now {
                since = Instant::now();
            }
        }
        Ok(())
    }
}
