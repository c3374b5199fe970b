//! The built binary as a process: started, watched, killed, started again.

use std::{
    collections::VecDeque,
    fmt::Write as _,
    fs,
    io::{BufRead, BufReader, Read, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    thread::{self, JoinHandle},
    time::Instant,
};

use rcgen::{CertificateParams, KeyPair, SanType};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::{PATIENCE, SmallDisk};

/// What a test's broker is told: the file of its options.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    options: Vec<String>,
    tables: Vec<String>,
    query: String,
    tls: bool,
    flags: Vec<String>,
    open_files: Option<u64>,
    console: bool,
    variables: Vec<(String, String)>,
}

impl Settings {
    /// The defaults, but for small segments: a fresh one is filled with zeros at each start.
    pub(crate) fn new() -> Self {
        let (options, tables, flags) = (Vec::new(), Vec::new(), Vec::new());
        let (query, tls, open_files, console, variables) = (String::new(), false, None, false, Vec::new());
        let settings = Self { options, tables, query, tls, flags, open_files, console, variables };
        settings.option("store.segment_bytes", "\"4MiB\"")
    }

    /// Sets an option to a value, both as in TOML.
    pub(crate) fn option(mut self, name: &str, value: &str) -> Self {
        self.options.retain(|option| option.split(' ').next() != Some(name));
        self.options.push(format!("{name} = {value}"));
        self
    }

    /// Adds a table.
    pub(crate) fn table(mut self, text: &str) -> Self {
        self.tables.push(text.to_owned());
        self
    }

    /// The query of the STOMP connector's URI.
    pub(crate) fn query(mut self, text: &str) -> Self {
        self.query = format!("?{text}");
        self
    }

    /// Adds a `stomp+ssl` connector; its certificate is [`Broker::certificate`].
    pub(crate) fn tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// Opens its console; [`Broker::console`] is where.
    pub(crate) fn console(mut self) -> Self {
        self.console = true;
        self
    }

    /// A variable of its environment.
    pub(crate) fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A flag of `batonmq start`.
    pub(crate) fn flag(mut self, flag: &str) -> Self {
        self.flags.push(flag.to_owned());
        self
    }

    /// It starts with this soft limit of open files.
    pub(crate) fn open_files(mut self, soft: u64) -> Self {
        self.open_files = Some(soft);
        self
    }

    /// Adds a user with this password.
    pub(crate) fn user(self, name: &str, password: &str) -> Self {
        self.table(&format!("[[users]]\nname = {name:?}\npassword_hash = {:?}", hash_of(password)))
    }

    fn text(&self, data: &Path, home: &Home) -> String {
        let mut text = format!("data = {data:?}\n");
        for option in &self.options {
            writeln!(text, "{option}").unwrap();
        }
        let console = if self.console { format!("{}:{}", home.host, home.console_port) } else { String::new() };
        writeln!(text, "console.listen = {console:?}").unwrap();
        if self.tls {
            writeln!(text, "tls.cert_file = {CERT_FILE:?}\ntls.key_file = {KEY_FILE:?}").unwrap();
        }
        let mut connector = |name: &str, scheme: &str, port: u16, query: &str| {
            let uri = format!("{scheme}://{}:{port}{query}", home.host);
            writeln!(text, "[[connectors]]\nname = {name:?}\nuri = {uri:?}").unwrap();
        };
        connector("stomp", "stomp", home.port, &self.query);
        if self.tls {
            connector("stomp+ssl", "stomp+ssl", home.tls_port, "");
        }
        for table in &self.tables {
            writeln!(text, "{table}").unwrap();
        }
        text
    }
}

/// A broker of one test's own. Dropping it ends the process and fails the test on a WARN or ERROR line of the log that
/// was not announced.
pub(crate) struct Broker {
    settings: Settings,
    directory: Arc<TempDir>,
    data: PathBuf,
    config: PathBuf,
    home: Home,
    process: Option<Process>,
    announced: Vec<String>,
    disk: Option<SmallDisk>,
}

/// A loopback address of one broker's own, so that its ports are still free when it is started again.
#[derive(Clone, Debug)]
struct Home {
    host: Ipv4Addr,
    port: u16,
    tls_port: u16,
    console_port: u16,
}

impl Broker {
    /// A broker with the default options, serving.
    pub(crate) fn start() -> Self {
        Self::start_with(Settings::new())
    }

    /// A broker with these options, serving.
    pub(crate) fn start_with(settings: Settings) -> Self {
        let mut broker = Self::prepare(settings);
        broker.launch();
        broker.serving();
        broker
    }

    /// A broker with these options and its data on a small disk, serving.
    pub(crate) fn start_on(disk: SmallDisk, settings: Settings) -> Self {
        let directory = Arc::new(tempfile::tempdir().unwrap());
        let data = disk.root().join("data");
        let mut broker = Self::prepare_in(settings, directory, data, "batonmq.toml");
        broker.disk = Some(disk);
        broker.restart();
        broker
    }

    /// A broker that is not started yet.
    pub(crate) fn prepare(settings: Settings) -> Self {
        let directory = Arc::new(tempfile::tempdir().unwrap());
        let data = directory.path().join("data");
        Self::prepare_in(settings, directory, data, "batonmq.toml")
    }

    /// Another broker on the data directory of this one, not started yet.
    pub(crate) fn sibling(&self, settings: Settings) -> Self {
        let name = format!("sibling-{}.toml", NUMBER.load(Ordering::Relaxed));
        Self::prepare_in(settings, Arc::clone(&self.directory), self.data.clone(), &name)
    }

    fn prepare_in(settings: Settings, directory: Arc<TempDir>, data: PathBuf, config: &str) -> Self {
        let config = directory.path().join(config);
        let home = Home { host: own_loopback_address(), port: 0, tls_port: 0, console_port: 0 };
        if settings.tls {
            sign_certificate(home.host, directory.path());
        }
        Self { settings, directory, data, config, home, process: None, announced: Vec::new(), disk: None }
    }

    /// Writes its options where it will read them.
    pub(crate) fn write_config(&self) -> &Path {
        fs::write(&self.config, self.settings.text(&self.data, &self.home)).unwrap();
        &self.config
    }

    /// Starts the process; it may serve, wait, or end.
    pub(crate) fn launch(&mut self) {
        assert!(self.process.is_none(), "it runs");
        self.write_config();
        let binary = env!("CARGO_BIN_EXE_batonmq");
        let mut command = match self.settings.open_files {
            None => self.disk.as_ref().map_or_else(|| Command::new(binary), |disk| disk.command(binary)),
            Some(soft) => {
                let mut command = Command::new("bash");
                command.arg("-c").arg(format!("ulimit -Sn {soft} && exec \"$0\" \"$@\"")).arg(binary);
                command
            }
        };
        command.arg("start").arg("--config").arg(&self.config).args(&self.settings.flags);
        command.current_dir(self.directory.path()).env_remove("BATONMQ_SEED");
        command.envs(self.settings.variables.iter().map(|(name, value)| (name, value)));
        self.process = Some(Process::start(&mut command));
    }

    /// Waits until its connectors are open: their addresses stand in its log.
    pub(crate) fn serving(&mut self) {
        let host = self.home.host;
        let log = &self.running().log;
        let port = log.wait("its STOMP address", |line| port_in(line, "stomp", host));
        let tls_port = if self.settings.tls {
            log.wait("its STOMP address over TLS", |line| port_in(line, "stomp+ssl", host))
        } else {
            0
        };
        self.home = Home { port, tls_port, ..self.home };
    }

    /// Starts the process, which ends by itself with this code, as announced by this call; what it said.
    pub(crate) fn refuses_to_start(&mut self, exit_code: i32) -> String {
        self.announce("");
        self.launch();
        let (status, log) = self.ended();
        self.announced.pop();
        assert_eq!(status.code(), Some(exit_code), "{status}\n{log}");
        log
    }

    /// Where it speaks STOMP.
    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::from((self.home.host, self.home.port))
    }

    /// Where it speaks STOMP over TLS.
    pub(crate) fn tls_address(&self) -> SocketAddr {
        SocketAddr::from((self.home.host, self.home.tls_port))
    }

    /// Where its console listens: as soon as it has said so, and from then on at every start.
    pub(crate) fn console(&mut self) -> SocketAddr {
        let host = self.home.host;
        self.home.console_port = self.running().log.wait("its console", |line| port_in(line, "http", host));
        SocketAddr::from((host, self.home.console_port))
    }

    /// Chooses its port now, so that it is known before it serves.
    pub(crate) fn reserve_port(&mut self) -> SocketAddr {
        let free = TcpListener::bind((self.home.host, 0)).unwrap();
        self.home.port = free.local_addr().unwrap().port();
        self.address()
    }

    /// The PEM file of the certificate that it shows over TLS. It signed itself.
    pub(crate) fn certificate(&self) -> PathBuf {
        self.directory.path().join(CERT_FILE)
    }

    /// Its data directory.
    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    /// The small disk that it was started on.
    pub(crate) fn disk(&self) -> &SmallDisk {
        self.disk.as_ref().expect("it has one")
    }

    /// A WARN or ERROR line that contains this text is no failure.
    pub(crate) fn announce(&mut self, text: &str) {
        self.announced.push(text.to_owned());
    }

    /// What Linux tells of it in `/proc/PID/`.
    pub(crate) fn proc(&self, file: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{file}", self.running().pid.as_raw_nonzero())).unwrap()
    }

    /// The most memory that it ever had. Unit: MiB.
    pub(crate) fn memory_peak_mib(&self) -> u64 {
        let status = self.proc("status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux tells it");
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() >> 10
    }

    /// Waits for a line of the log that contains this text.
    pub(crate) fn logged(&self, text: &str) -> String {
        self.running().log.wait(text, |line| line.contains(text).then(|| line.to_owned()))
    }

    /// Whether it runs, and its log has a line that contains this text.
    pub(crate) fn has_logged(&self, text: &str) -> bool {
        self.process.as_ref().is_some_and(|process| process.log.lines().iter().any(|line| line.contains(text)))
    }

    /// Waits for a line of the log that contains one of these texts.
    pub(crate) fn logged_one_of(&self, texts: &[&str]) -> String {
        let find = |line: &str| texts.iter().any(|text| line.contains(text)).then(|| line.to_owned());
        self.running().log.wait(&texts.join(" or "), find)
    }

    /// Ends it at once. The journal may find its last write torn then, and say so.
    pub(crate) fn kill_9(&mut self) {
        self.announce("the last write before the crash was torn");
        self.signal(Signal::KILL);
        let (status, _) = self.ended();
        assert_eq!(status.signal(), Some(Signal::KILL.as_raw()), "it ended before it was killed: {status}");
    }

    /// Stops it politely; it ends well.
    pub(crate) fn sigterm(&mut self) -> String {
        self.signal(Signal::TERM);
        let (status, log) = self.ended();
        assert_eq!(status.code(), Some(0), "{status}\n{log}");
        log
    }

    /// Asks it to stop; see [`Self::ended`].
    pub(crate) fn ask_to_stop(&self) {
        self.signal(Signal::TERM);
    }

    /// Does what Ctrl-C does.
    pub(crate) fn sigint(&self) {
        self.signal(Signal::INT);
    }

    /// Freezes it.
    pub(crate) fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub(crate) fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// Starts it again with the same data at the same address, and waits until it serves.
    pub(crate) fn restart(&mut self) {
        self.launch();
        self.serving();
    }

    /// Waits until the process ends by itself; its status and its log.
    pub(crate) fn ended(&mut self) -> (ExitStatus, String) {
        let process = self.process.take().expect("it runs");
        let (status, log) = process.wait();
        self.check(&log);
        (status, log.join("\n"))
    }

    fn signal(&self, signal: Signal) {
        kill_process(self.running().pid, signal).unwrap();
    }

    fn running(&self) -> &Process {
        self.process.as_ref().expect("it runs")
    }

    fn check(&self, log: &[String]) {
        let unannounced = |line: &&String| {
            line.split_whitespace().any(|word| word == "WARN" || word == "ERROR")
                && !self.announced.iter().any(|text| line.contains(text))
        };
        if let Some(line) = log.iter().find(unannounced) {
            assert!(thread::panicking(), "the log says what no test announced: {line}\nall of it:\n{}", log.join("\n"));
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let Some(process) = self.process.take() else { return };
        // It may be frozen; SIGKILL works all the same. An error means that it has ended.
        if kill_process(process.pid, Signal::KILL).is_err() {
            println!("the broker had ended");
        }
        let (_, log) = process.wait();
        if thread::panicking() {
            println!("--- log of the broker at {}:\n{}\n---", self.address(), log.join("\n"));
        }
        self.check(&log);
    }
}

/// The running process and the threads that listen to it.
struct Process {
    pid: Pid,
    log: Arc<Log>,
    status: JoinHandle<ExitStatus>,
    listeners: Vec<JoinHandle<()>>,
}

impl Process {
    fn start(command: &mut Command) -> Self {
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let pid = Pid::from_child(&child);
        let log = Arc::new(Log::default());
        let stdout = listen(child.stdout.take().unwrap(), &log);
        let stderr = listen(child.stderr.take().unwrap(), &log);
        let status = {
            let log = Arc::clone(&log);
            thread::spawn(move || reap(child, &log))
        };
        Self { pid, log, status, listeners: vec![stdout, stderr] }
    }

    fn wait(self) -> (ExitStatus, Vec<String>) {
        self.log.wait_for_end();
        let status = self.status.join().unwrap();
        for listener in self.listeners {
            listener.join().unwrap();
        }
        (status, self.log.lines())
    }
}

fn reap(mut child: Child, log: &Log) -> ExitStatus {
    let status = child.wait().unwrap();
    log.end();
    status
}

fn listen(pipe: impl Read + Send + 'static, log: &Arc<Log>) -> JoinHandle<()> {
    let log = Arc::clone(log);
    thread::spawn(move || BufReader::new(pipe).lines().map_while(Result::ok).for_each(|line| log.push(line)))
}

/// What the process said so far.
#[derive(Default)]
struct Log {
    state: Mutex<LogState>,
    news: Condvar,
}

#[derive(Default)]
struct LogState {
    lines: VecDeque<String>,
    ended: bool,
}

impl Log {
    fn push(&self, line: String) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).lines.push_back(line);
        self.news.notify_all();
    }

    fn end(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).ended = true;
        self.news.notify_all();
    }

    fn lines(&self) -> Vec<String> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).lines.iter().cloned().collect()
    }

    /// Waits for a line in which `find` finds something.
    fn wait<T>(&self, what: &str, find: impl Fn(&str) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(found) = state.lines.iter().find_map(|line| find(line)) {
                return found;
            }
            let patience = deadline.saturating_duration_since(Instant::now());
            let lost = if state.ended { "the broker ended" } else { "the broker did not say it" };
            let lines = state.lines.make_contiguous().join("\n");
            assert!(!state.ended && !patience.is_zero(), "waited for {what}: {lost}\n{lines}");
            state = self.news.wait_timeout(state, patience).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn wait_for_end(&self) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.news.wait_timeout_while(state, PATIENCE, |state| !state.ended);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let lines = state.lines.iter().cloned().collect::<Vec<_>>().join("\n");
        assert!(state.ended, "the broker does not end\n{lines}");
    }
}

/// What `batonmq passwd` makes of a password.
fn hash_of(password: &str) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_batonmq"));
    let command = command.arg("passwd").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    writeln!(child.stdin.take().unwrap(), "{password}").unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

pub(super) const CERT_FILE: &str = "cert.pem";
pub(super) const KEY_FILE: &str = "key.pem";

pub(super) fn sign_certificate(host: Ipv4Addr, directory: &Path) {
    let key = KeyPair::generate().unwrap();
    let mut parameters = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    parameters.subject_alt_names.push(SanType::IpAddress(host.into()));
    let certificate = parameters.self_signed(&key).unwrap();
    fs::write(directory.join(CERT_FILE), certificate.pem()).unwrap();
    fs::write(directory.join(KEY_FILE), key.serialize_pem()).unwrap();
}

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// An address that nobody else in these tests uses.
pub(crate) fn own_loopback_address() -> Ipv4Addr {
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    // 127.128.0.0/9 has 23 bits: 14 of this process and 9 of the broker.
    let own = ((std::process::id() & 0x3fff) << 9) | (number & 0x1ff);
    Ipv4Addr::from(0x7f80_0000 | own)
}

/// The port, if this line names the address of a connector: `stomp://127.0.0.1:4321`.
fn port_in(line: &str, scheme: &str, host: Ipv4Addr) -> Option<u16> {
    let prefix = format!("{scheme}://{host}:");
    let (_, rest) = line.split_once(&prefix)?;
    let digits = rest.split(|character: char| !character.is_ascii_digit()).next()?;
    digits.parse().ok().filter(|port| *port != 0)
}
