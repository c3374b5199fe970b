//! The built broker as a process: started and timed, killed, started again.

use std::{
    fs::{self, File, OpenOptions},
    io,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};

use super::Client;

/// How long a start may take.
const START_PATIENCE: Duration = Duration::from_secs(300);
/// How often a client knocks at a broker that starts.
const KNOCK_EVERY: Duration = Duration::from_millis(1);

/// Where a broker lives: its data, its configuration, its log, its address.
pub(crate) struct Site {
    pub(crate) data: PathBuf,
    pub(crate) log: PathBuf,
    pub(crate) address: SocketAddr,
    config: PathBuf,
    /// The control group that its processes start in.
    group: Option<PathBuf>,
    /// Where its metrics are, if it has a console.
    pub(crate) console: Option<SocketAddr>,
}

impl Site {
    /// A site with its files in `home` and its data wherever it is told; `options` are lines of TOML.
    pub(crate) fn new(home: &Path, data: PathBuf, options: &str, group: Option<&Path>) -> io::Result<Self> {
        fs::create_dir_all(home)?;
        let address = own_address();
        let config = home.join("batonmq.toml");
        let connector = format!("[[connectors]]\nname = \"stomp\"\nuri = \"stomp://{address}\"\n");
        fs::write(
            &config,
            format!("data = {data:?}\nlog.level = \"warn\"\nconsole.listen = \"\"\n{options}\n{connector}"),
        )?;
        Ok(Self { data, log: home.join("log"), address, config, group: group.map(Path::to_owned), console: None })
    }

    /// With a console, at the same address.
    pub(crate) fn with_console(self) -> Self {
        Self { console: Some(SocketAddr::new(self.address.ip(), 8_161)), ..self }
    }

    /// Starts a broker and waits until it serves.
    pub(crate) fn start(&self) -> anyhow::Result<Broker> {
        let log = OpenOptions::new().create(true).append(true).open(&self.log)?;
        let began = Instant::now();
        let child = self.command(&log)?.spawn().context("the broker can't be started")?;
        let mut broker = Broker { child, ready_after: Duration::ZERO };
        while Client::connect(self.address, None).is_err() {
            if let Some(status) = broker.child.try_wait()? {
                bail!("the broker ended at its start, {status}; its log ends with:\n{}", self.end_of_log());
            }
            if began.elapsed() > START_PATIENCE {
                bail!("the broker does not serve after {START_PATIENCE:?}");
            }
            thread::sleep(KNOCK_EVERY);
        }
        broker.ready_after = began.elapsed();
        Ok(broker)
    }

    /// The last lines of its log.
    pub(crate) fn end_of_log(&self) -> String {
        const LINES: usize = 10;
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines.get(lines.len().saturating_sub(LINES)..).unwrap_or_default().join("\n")
    }

    fn command(&self, log: &File) -> io::Result<Command> {
        let binary = env!("CARGO_BIN_EXE_batonmq");
        let mut command = match &self.group {
            None => Command::new(binary),
            // It must be in the group before it takes any memory.
            Some(group) => {
                let mut command = Command::new("sh");
                command.args(["-c", "echo $$ >\"$0\" && exec \"$@\""]).arg(group.join("cgroup.procs")).arg(binary);
                command
            }
        };
        if let Some(console) = self.console {
            command.env("BATONMQ_CONSOLE__LISTEN", console.to_string());
        }
        command.arg("start").arg("--no-wait").arg("--config").arg(&self.config);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log.try_clone()?);
        Ok(command)
    }
}

/// A broker that serves. Dropping it kills it.
pub(crate) struct Broker {
    child: Child,
    /// From the start of its process to its first CONNECTED.
    pub(crate) ready_after: Duration,
}

impl Broker {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it runs still; if not, the error says how it ended and what its log said at last.
    pub(crate) fn ensure_alive(&mut self, site: &Site) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("the broker ended by itself, {status}; its log ends with:\n{}", site.end_of_log()),
        }
    }

    /// Ends it as `kill -9` does; it is gone then.
    pub(crate) fn kill_9(&mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // An error means that it is gone already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A loopback address that nobody else has, so that its port is still free when the broker is started again.
fn own_address() -> SocketAddr {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    // 127.64.0.0/10 has 22 bits: 14 of this process and 8 of the broker.
    let own = ((std::process::id() & 0x3fff) << 8) | (number & 0xff);
    SocketAddr::from((Ipv4Addr::from(0x7f40_0000 | own), 61_613))
}
