//! The built binary as a script runs it: what it says, how it ends.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Output, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// Longer than anything here takes, on a machine that is busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn batonmq(directory: &TempDir) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_batonmq"));
    command.current_dir(directory.path()).stdin(Stdio::null());
    command.env("BATONMQ_CONSOLE__LISTEN", ""); // tests run side by side
    command
}

/// What a command that ends by itself said.
pub(crate) fn run(directory: &TempDir, arguments: &[&str]) -> Output {
    batonmq(directory).args(arguments).output().unwrap()
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// The command failed with this code, and with one sentence on standard error that contains all of these.
pub(crate) fn assert_fails(output: &Output, code: i32, says: &[&str]) {
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "one sentence: {stderr}");
    assert!(stderr.starts_with("batonmq: "), "{stderr}");
    says.iter().for_each(|part| assert!(stderr.contains(part), "{stderr} lacks {part}"));
}

/// A broker that runs until it is stopped, or until the test ends.
pub(crate) struct Running {
    child: Child,
    log: Receiver<String>,
}

impl Running {
    pub(crate) fn start(directory: &TempDir, arguments: &[&str]) -> Self {
        let mut command = batonmq(directory);
        let mut child = command.arg("start").args(arguments).stdout(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, log) = mpsc::channel();
        thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { child, log }
    }

    pub(crate) fn ready(directory: &TempDir, arguments: &[&str]) -> Self {
        let mut running = Self::start(directory, arguments);
        running.until("ready");
        running
    }

    /// Reads the log up to a line that contains `part`.
    pub(crate) fn until(&mut self, part: &str) -> String {
        let mut seen = Vec::new();
        loop {
            match self.log.recv_timeout(PATIENCE) {
                Ok(line) if line.contains(part) => return line,
                Ok(line) => seen.push(line),
                Err(why) => panic!("no {part:?} in the log ({why}):\n{}", seen.join("\n")),
            }
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    pub(crate) fn ended(mut self) -> (Option<i32>, String) {
        let mut rest = Vec::new();
        let end = loop {
            match self.log.recv_timeout(PATIENCE) {
                Ok(line) => rest.push(line),
                Err(end) => break end,
            }
        };
        let rest = rest.join("\n");
        assert_eq!(end, RecvTimeoutError::Disconnected, "it does not end:\n{rest}");
        (self.child.wait().unwrap().code(), rest)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            self.child.kill().unwrap();
            self.child.wait().unwrap();
        }
    }
}

pub(crate) const ANY_PORT: [&str; 2] = ["--listen", "stomp://127.0.0.1:0"];

pub(crate) fn published(data: &Path) -> Option<String> {
    let text = fs::read_to_string(data.join("listeners")).ok()?;
    Some(text.lines().next().unwrap().rsplit("//").next().unwrap().to_owned())
}
