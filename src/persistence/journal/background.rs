//! Work that no commit has to wait for: on a thread of its own, or, in tests that count calls to the disk, at once.
//!
//! Always true: nothing of it goes on after its owner is gone; who drops it waits for its end, and the work looks at
//! the flag that tells it to stop.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

/// Something that is being done, or was.
#[derive(Debug)]
pub(super) struct Background<T> {
    state: State<T>,
    stop: Arc<AtomicBool>,
}

#[derive(Debug)]
enum State<T> {
    Running(JoinHandle<io::Result<T>>),
    Done(io::Result<T>),
    Taken,
}

impl<T: Send + 'static> Background<T> {
    /// Begins `work`, which is told by a flag when nobody wants its result any more.
    pub(super) fn start(
        name: &str,
        in_background: bool,
        work: impl FnOnce(&AtomicBool) -> io::Result<T> + Send + 'static,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        if !in_background {
            return Self { state: State::Done(work(&stop)), stop };
        }
        let flag = Arc::clone(&stop);
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || work(&flag));
        Self { state: thread.map_or_else(|error| State::Done(Err(error)), State::Running), stop }
    }

    /// What came of it, once, when it is over.
    pub(super) fn poll(&mut self) -> Option<io::Result<T>> {
        match std::mem::replace(&mut self.state, State::Taken) {
            State::Running(thread) if !thread.is_finished() => {
                self.state = State::Running(thread);
                None
            }
            State::Running(thread) => Some(joined(thread)),
            State::Done(outcome) => Some(outcome),
            State::Taken => None,
        }
    }
}

impl<T> Drop for Background<T> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let State::Running(thread) = std::mem::replace(&mut self.state, State::Taken) {
            drop(joined(thread));
        }
    }
}

fn joined<T>(thread: JoinHandle<io::Result<T>>) -> io::Result<T> {
    thread.join().unwrap_or_else(|_| Err(io::Error::other("a thread of the journal died")))
}
