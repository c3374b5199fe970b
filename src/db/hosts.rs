//! The hosts that a URL names, of which one at least can be written to: who is asked for a session, and when.
//!
//! Always true: the host that answered last is asked first, and as long as it answers soon no other one is; a host that
//! is dark, or that accepts a connection and says nothing more, keeps nobody from the others, which are asked beside it
//! and again until one of them does.
//! On failure: what failed last; but what may pass by itself counts more than what a human has to mend.

use std::{
    collections::VecDeque,
    future::{Future, poll_fn},
    pin::Pin,
    sync::atomic::{AtomicUsize, Ordering},
    task::Poll,
    time::Duration,
};

use tokio::time::{Instant, timeout_at};

use super::ConnectError;

/// How long it may take until a session can be used: connection, TLS, password, settings.
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);

/// A host that says nothing for so long gets company: the next one, or one that failed before.
const NEXT_AFTER: Duration = Duration::from_millis(500);

/// Hosts, each as the driver wants it.
#[derive(Debug)]
pub(super) struct Hosts<H> {
    /// In the order of the URL.
    each: Vec<H>,
    answered_last: AtomicUsize,
}

impl<H> Hosts<H> {
    /// One host at least.
    pub(super) fn new(each: Vec<H>) -> Self {
        Self { each, answered_last: AtomicUsize::new(0) }
    }

    /// The one that answered last.
    #[cfg(feature = "postgres")]
    pub(super) fn last_good(&self) -> &H {
        self.in_turn().next().expect("there is one at least").1
    }

    /// All of them, the one that answered last first.
    fn in_turn(&self) -> impl Iterator<Item = (usize, &H)> {
        let first = self.answered_last.load(Ordering::Relaxed);
        self.each.iter().enumerate().cycle().skip(first).take(self.each.len())
    }

    /// What the first host answers that does what it is asked. `address` is for messages.
    pub(super) async fn connect<T, F>(&self, address: &str, ask: impl Fn(&H) -> F) -> Result<T, ConnectError>
    where
        F: Future<Output = Result<T, ConnectError>>,
    {
        let deadline = Instant::now() + CONNECT_PATIENCE;
        let mut fresh: VecDeque<_> = self.in_turn().collect();
        let (mut asked, mut failed, mut error) = (Vec::new(), VecDeque::new(), None);
        let mut next = fresh.pop_front();
        loop {
            if let Some((at, host)) = next {
                let answer = ask(host);
                asked.push(Box::pin(async move { (at, host, answer.await) }));
            }
            if asked.is_empty() {
                return Err(error.unwrap_or_else(|| late(address)));
            }
            let soon = deadline.min(Instant::now() + NEXT_AFTER);
            next = match timeout_at(soon, first_of(&mut asked)).await {
                Ok((at, _, Ok(answer))) => {
                    self.answered_last.store(at, Ordering::Relaxed);
                    return Ok(answer);
                }
                Ok((at, host, Err(refusal))) => {
                    tracing::debug!("one of the hosts at {address} did not do: {refusal}");
                    if error.as_ref().is_none_or(ConnectError::needs_a_human) {
                        error = Some(refusal);
                    }
                    failed.push_back((at, host));
                    fresh.pop_front()
                }
                Err(_) if soon == deadline => return Err(late(address)),
                Err(_) => fresh.pop_front().or_else(|| failed.pop_front()),
            }
        }
    }
}

fn late(address: &str) -> ConnectError {
    let fix = "check that it is there, and not overloaded";
    ConnectError::Failed { address: address.to_owned(), fix, source: "it has not answered in time".into() }
}

/// What the first of these comes to, which is taken out.
async fn first_of<F: Future>(futures: &mut Vec<Pin<Box<F>>>) -> F::Output {
    poll_fn(|cx| {
        let done = futures.iter_mut().enumerate().find_map(|(at, future)| match future.as_mut().poll(cx) {
            Poll::Ready(output) => Some((at, output)),
            Poll::Pending => None,
        });
        let Some((at, output)) = done else { return Poll::Pending };
        drop(futures.swap_remove(at));
        Poll::Ready(output)
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, future::pending};

    use super::*;

    /// Asks hosts `a`, `b`, …, which answer `true`, fail or say nothing; who was asked, when, in milliseconds.
    async fn asked(hosts: &Hosts<char>, answer: impl Fn(char) -> Option<bool>) -> (bool, Vec<(char, u128)>) {
        let (since, asked) = (Instant::now(), RefCell::new(Vec::new()));
        let connected = hosts.connect("a,b/c", |&host| {
            asked.borrow_mut().push((host, since.elapsed().as_millis()));
            let answer = answer(host);
            async move {
                match answer {
                    Some(true) => Ok(()),
                    Some(false) => Err(late(&host.to_string())),
                    None => pending().await,
                }
            }
        });
        (connected.await.is_ok(), asked.into_inner())
    }

    #[tokio::test(start_paused = true)]
    async fn the_host_that_answered_last_is_asked_first_and_alone() {
        let hosts = Hosts::new(vec!['a', 'b', 'c']);
        assert_eq!(asked(&hosts, |host| Some(host == 'b')).await, (true, vec![('a', 0), ('b', 0)]));
        assert_eq!(asked(&hosts, |_| Some(true)).await, (true, vec![('b', 0)]));
        assert_eq!(asked(&hosts, |host| Some(host == 'a')).await, (true, vec![('b', 0), ('c', 0), ('a', 0)]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_that_says_nothing_keeps_nobody_from_the_others() {
        let hosts = Hosts::new(vec!['a', 'b']);
        let (connected, asked) = asked(&hosts, |host| (host == 'b').then_some(true)).await;
        assert!(connected);
        assert_eq!(asked, [('a', 0), ('b', 500)]);
    }

    /// As when a standby is promoted while its primary is dark.
    #[tokio::test(start_paused = true)]
    async fn who_failed_is_asked_again_while_another_says_nothing() {
        let hosts = Hosts::new(vec!['a', 'b']);
        let times = RefCell::new(0);
        let answer = |host| {
            *times.borrow_mut() += u32::from(host == 'b');
            (host == 'b').then(|| *times.borrow() > 2)
        };
        let (connected, asked) = asked(&hosts, answer).await;
        assert!(connected);
        assert_eq!(asked, [('a', 0), ('b', 500), ('b', 1000), ('b', 1500)]);
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_given_up_when_all_failed_and_when_it_takes_too_long() {
        let hosts = Hosts::new(vec!['a', 'b']);
        assert_eq!(asked(&hosts, |_| Some(false)).await, (false, vec![('a', 0), ('b', 0)]));
        let since = Instant::now();
        assert!(!asked(&hosts, |_| None).await.0);
        assert_eq!(since.elapsed(), CONNECT_PATIENCE);
    }
}
