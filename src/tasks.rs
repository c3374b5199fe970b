//! Tasks with a name, a way to stop them, and somebody who notices when they end.
//!
//! Owns every task of the process: nobody else calls `tokio::spawn`.
//! Always true: a task that was spawned here ends when its group is stopped, or is dropped when it is aborted. An
//! essential task that ends unasked (by return or by panic) is logged with its name and brings its group down: whoever
//! waits on [`Tasks::broken`] learns the name.
//! On failure: a group that does not end by its deadline names who still runs.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// A group of tasks. Clones share it; [`Tasks::group`] makes one below it.
#[derive(Clone, Debug)]
pub struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
    abort: CancellationToken,
    running: Arc<Mutex<BTreeMap<&'static str, usize>>>,
    broken: Arc<Broken>,
}

/// Shared by a group and all groups below it.
#[derive(Debug, Default)]
struct Broken {
    by: OnceLock<&'static str>,
    signal: CancellationToken,
}

/// A group did not end by its deadline.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("still running at the deadline: {}", .0.join(", "))]
pub struct StillRunning(pub Vec<String>);

impl Default for Tasks {
    fn default() -> Self {
        Self::new()
    }
}

impl Tasks {
    /// An empty group that belongs to nobody.
    #[must_use]
    pub fn new() -> Self {
        Self {
            tracker: TaskTracker::new(),
            stop: CancellationToken::new(),
            abort: CancellationToken::new(),
            running: Arc::default(),
            broken: Arc::default(),
        }
    }

    /// A group that stops with this one and can be stopped before it. Its essential tasks are this one's too.
    #[must_use]
    pub fn group(&self) -> Self {
        Self {
            tracker: TaskTracker::new(),
            stop: self.stop.child_token(),
            abort: self.abort.child_token(),
            running: Arc::default(),
            broken: self.broken.clone(),
        }
    }

    /// Tells a task of this group to end.
    #[must_use]
    pub fn stop_token(&self) -> CancellationToken {
        self.stop.child_token()
    }

    /// Starts a task that may end whenever it is done.
    pub fn spawn<F>(&self, name: &'static str, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.start(Running::new(name, self.running.clone()), task);
    }

    /// Starts a task without which the group is worth nothing: it ends when it is told to, and not before.
    pub fn spawn_essential<F>(&self, name: &'static str, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let guard = Essential { name, stop: self.stop.clone(), abort: self.abort.clone(), broken: self.broken.clone() };
        let running = Running::new(name, self.running.clone());
        self.start((guard, running), task);
    }

    #[expect(clippy::disallowed_methods, reason = "the one place that spawns")]
    fn start<G, F>(&self, guard: G, task: F)
    where
        G: Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let abort = self.abort.clone();
        let task = Box::pin(task); // what waits for a future has room for it twice: where it came from and where it runs
        tokio::spawn(self.tracker.track_future(async move {
            let _guard = guard; // dropped however the task ends
            tokio::select! {
                biased;
                () = abort.cancelled() => {}
                () = task => {}
            }
        }));
    }

    /// Waits until an essential task of this group, or of one related to it, ended unasked; then its name.
    pub async fn broken(&self) -> &'static str {
        self.broken.signal.cancelled().await;
        self.broken.by.get().copied().unwrap_or("unknown")
    }

    /// Tells all tasks to end and waits for them.
    ///
    /// # Errors
    /// [`StillRunning`] names those that did not end `within` the time; [`Tasks::abort`] drops them.
    pub async fn stop(&self, within: Duration) -> Result<(), StillRunning> {
        self.stop.cancel();
        self.tracker.close();
        if tokio::time::timeout(within, self.tracker.wait()).await.is_ok() {
            return Ok(());
        }
        let running = lock(&self.running);
        Err(StillRunning(running.iter().map(|(name, count)| format!("{name} ({count})")).collect()))
    }

    /// Drops all tasks where they stand. Each is gone once it is polled again.
    pub fn abort(&self) {
        self.stop.cancel();
        self.abort.cancel();
        self.tracker.close();
    }

    /// How many tasks run now.
    #[must_use]
    pub fn count(&self) -> usize {
        self.tracker.len()
    }
}

/// Notices that an essential task ended, by return, panic or drop.
struct Essential {
    name: &'static str,
    stop: CancellationToken,
    abort: CancellationToken,
    broken: Arc<Broken>,
}

impl Drop for Essential {
    fn drop(&mut self) {
        if self.stop.is_cancelled() || self.abort.is_cancelled() {
            return;
        }
        tracing::error!(task = self.name, "an essential task ended unasked");
        self.broken.by.get_or_init(|| self.name);
        self.broken.signal.cancel();
    }
}

/// Keeps the names of what runs, for [`StillRunning`].
struct Running {
    name: &'static str,
    running: Arc<Mutex<BTreeMap<&'static str, usize>>>,
}

impl Running {
    fn new(name: &'static str, running: Arc<Mutex<BTreeMap<&'static str, usize>>>) -> Self {
        *lock(&running).entry(name).or_default() += 1;
        Self { name, running }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut running = lock(&self.running);
        if let Some(count) = running.get_mut(self.name) {
            *count -= 1;
            if *count == 0 {
                running.remove(self.name);
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn a_group_ends_when_it_is_told() {
        let tasks = Tasks::new();
        let stop = tasks.stop_token();
        tasks.spawn_essential("polite", async move { stop.cancelled().await });
        assert_eq!(tasks.count(), 1);
        assert_eq!(tasks.stop(Duration::from_secs(5)).await, Ok(()));
        assert!(tokio::time::timeout(SOON, tasks.broken()).await.is_err(), "it was asked to end");
    }

    #[tokio::test]
    async fn who_does_not_end_is_named_and_can_be_dropped() {
        let tasks = Tasks::new();
        let group = tasks.group();
        group.spawn("deaf", std::future::pending());
        group.spawn("deaf", std::future::pending());
        assert_eq!(group.stop(SOON).await, Err(StillRunning(vec!["deaf (2)".to_owned()])));
        tasks.abort();
        assert_eq!(group.stop(Duration::from_secs(5)).await, Ok(()));
    }

    #[tokio::test]
    async fn an_essential_task_that_ends_is_named_to_the_whole_family() {
        let tasks = Tasks::new();
        tasks.group().spawn_essential("the engine", async {});
        assert_eq!(tasks.broken().await, "the engine");
    }

    #[tokio::test]
    async fn an_essential_task_that_panics_is_named_too() {
        let tasks = Tasks::new();
        tasks.spawn_essential("the writer", async { panic!("for the test") });
        assert_eq!(tasks.broken().await, "the writer");
    }

    #[tokio::test]
    async fn a_group_is_stopped_with_the_one_above() {
        let tasks = Tasks::new();
        let group = tasks.group();
        let stop = group.stop_token();
        group.spawn("below", async move { stop.cancelled().await });
        assert_eq!(tasks.stop(SOON).await, Ok(()));
        assert_eq!(group.stop(Duration::from_secs(5)).await, Ok(()));
    }
}
