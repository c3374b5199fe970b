//! Whether the runtime that carries sessions and engine still turns, and how many tasks it has.

use std::time::Duration;

use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot},
    time::timeout,
};

use crate::tasks::Tasks;

/// How long it may take. A turn of the engine takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks a task of the watched runtime, which has nothing to do but to answer.
#[derive(Clone, Debug)]
pub(super) struct Pulse {
    ask: mpsc::Sender<oneshot::Sender<()>>,
    runtime: Handle,
}

impl Pulse {
    /// Of the runtime that this is called on.
    pub(super) fn start(tasks: &Tasks) -> Self {
        let (ask, mut asked) = mpsc::channel::<oneshot::Sender<()>>(1);
        let stop = tasks.stop_token();
        tasks.spawn_essential("pulse", async move {
            while let Some(Some(answer)) = stop.run_until_cancelled(asked.recv()).await {
                let _gone = answer.send(()); // who asked has lost patience
            }
        });
        Self { ask, runtime: Handle::current() }
    }

    /// Whether it answers in time.
    pub(super) async fn beats(&self) -> bool {
        let (answer, answered) = oneshot::channel();
        let asked = async { self.ask.send(answer).await.is_ok() && answered.await.is_ok() };
        timeout(PATIENCE, asked).await.unwrap_or(false)
    }

    /// How many tasks the runtime has that have not ended.
    pub(super) fn tasks(&self) -> usize {
        self.runtime.metrics().num_alive_tasks()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_beats_until_its_task_is_gone() {
        let tasks = Tasks::new();
        let pulse = Pulse::start(&tasks);
        assert!(pulse.beats().await);
        tasks.stop(PATIENCE).await.unwrap();
        assert!(!pulse.beats().await);
    }

    #[tokio::test(start_paused = true)]
    async fn it_does_not_beat_when_nobody_answers() {
        let (ask, _asked) = mpsc::channel(1);
        assert!(!Pulse { ask, runtime: Handle::current() }.beats().await);
    }
}
