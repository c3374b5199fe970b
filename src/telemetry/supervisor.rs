//! What a service manager such as systemd is told (sd_notify(3)): that the process is ready, what it is, that it lives.
//!
//! Owns the socket that `NOTIFY_SOCKET` names. Always true: nobody waits for a service manager; what it does not take at
//! once is dropped, and only its watchdog acts on silence.

use std::{
    env, io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixDatagram},
    },
    sync::Arc,
    time::Duration,
};

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::types::Role;

/// The service manager that started this process and wants to know.
#[derive(Debug)]
pub struct Supervisor {
    socket: UnixDatagram,
    manager: SocketAddr,
    watchdog: Option<Duration>,
}

impl Supervisor {
    /// The one that the environment names; `None`: nobody wants to know.
    ///
    /// # Errors
    /// When it names a socket that can't be one.
    pub fn from_environment() -> io::Result<Option<Self>> {
        let Some(name) = env::var("NOTIFY_SOCKET").ok().filter(|name| !name.is_empty()) else { return Ok(None) };
        let manager = match name.strip_prefix('@') {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(&name)?,
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        Ok(Some(Self { socket, manager, watchdog: watchdog_interval() }))
    }

    /// Tells what the process is now. A standby is ready: it does what it was started for.
    pub fn tell(&self, role: Role) {
        let state = match role {
            Role::Starting => "STATUS=starting: reading the store".to_owned(),
            Role::Standby => "READY=1\nSTATUS=standby: another broker is the master".to_owned(),
            Role::Master { term, .. } => format!("READY=1\nSTATUS=master in term {}", term.0),
            Role::Paused { term, .. } => format!("STATUS=paused in term {}: who holds the baton is in doubt", term.0),
            Role::Stopping => "STOPPING=1\nSTATUS=stopping".to_owned(),
        };
        self.send(&state);
    }

    /// Says that the process lives, twice in the time that the service manager gives it, from a task of the runtime that
    /// is to be watched. Ends with `stop`.
    pub async fn keep_alive(self: Arc<Self>, stop: CancellationToken) {
        let Some(within) = self.watchdog else { return stop.cancelled().await };
        let mut beat = interval(within / 2);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = beat.tick() => self.send("WATCHDOG=1"),
            }
        }
    }

    fn send(&self, state: &str) {
        if let Err(error) = self.socket.send_to_addr(state.as_bytes(), &self.manager) {
            tracing::debug!(%error, state, "the service manager did not take it");
        }
    }
}

/// How often the service manager wants to hear that this very process lives (sd_watchdog_enabled(3)).
fn watchdog_interval() -> Option<Duration> {
    let meant = env::var("WATCHDOG_PID").map_or(Ok(true), |pid| pid.parse().map(|pid: u32| pid == std::process::id()));
    let micros: u64 = env::var("WATCHDOG_USEC").ok()?.parse().ok()?;
    (meant == Ok(true) && micros > 0).then(|| Duration::from_micros(micros))
}
