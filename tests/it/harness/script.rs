//! Foreign clients: scripts over stomp.py and stompjs, run as processes of their own.

use std::{
    io::{BufRead, BufReader, Read, Write as _},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread::{self, JoinHandle},
};

use super::PATIENCE;

/// A running script. Dropping it ends it.
pub(crate) struct Script {
    name: String,
    child: Child,
    lines: Receiver<String>,
    stderr: Option<JoinHandle<String>>,
}

impl Script {
    /// A script of `tests/clients/python`, in the venv that `tests/run` makes.
    pub(crate) fn python(name: &str, address: SocketAddr, arguments: &[&str]) -> Self {
        Self::python_with(name, &[address], arguments)
    }

    /// The same, with a list of brokers.
    pub(crate) fn python_with(name: &str, brokers: &[SocketAddr], arguments: &[&str]) -> Self {
        let python = root().join(".tests/venv/bin/python");
        assert!(python.exists(), "stomp.py is not installed in .tests/venv: run tests/run, which installs it");
        let script = root().join("tests/clients/python").join(name);
        Self::start(Command::new(python).arg("-B").arg(script), name, brokers, arguments)
    }

    /// A script of `tests/clients/node`, with the packages that `tests/run` installs.
    pub(crate) fn node(name: &str, address: SocketAddr, arguments: &[&str]) -> Self {
        let package = root().join(".tests/node/node_modules/@stomp/stompjs");
        assert!(package.exists(), "stompjs is not installed in .tests/node: run tests/run, which installs it");
        let script = root().join("tests/clients/node").join(name);
        Self::start(Command::new("node").arg(script), name, &[address], arguments)
    }

    fn start(command: &mut Command, name: &str, brokers: &[SocketAddr], arguments: &[&str]) -> Self {
        let brokers = brokers.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let command = command.arg("--address").arg(brokers).args(arguments);
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("can't start {name}: {error}; run tests/run"));
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let mut stderr = child.stderr.take().unwrap();
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let stderr = thread::spawn(move || {
            let mut text = Vec::new();
            stderr.read_to_end(&mut text).unwrap();
            String::from_utf8_lossy(&text).into_owned()
        });
        Self { name: format!("{name} {}", arguments.join(" ")), child, lines, stderr: Some(stderr) }
    }

    /// The next line that the script prints; `None` at its end.
    pub(crate) fn line(&mut self) -> Option<String> {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => self.fail("nothing happened for too long"),
        }
    }

    /// Tells the script a line.
    pub(crate) fn tell(&mut self, line: &str) {
        writeln!(self.child.stdin.as_ref().expect("it is piped"), "{line}").unwrap();
    }

    /// Waits until the script prints this line.
    pub(crate) fn wait_for(&mut self, wanted: &str) {
        while let Some(line) = self.line() {
            if line == wanted {
                return;
            }
        }
        self.fail(&format!("ended without {wanted:?}"));
    }

    /// What else it prints, once it ended well.
    pub(crate) fn finish(mut self) -> Vec<String> {
        let mut lines = Vec::new();
        drop(self.child.stdin.take());
        while let Some(line) = self.line() {
            lines.push(line);
        }
        let status = self.child.wait().unwrap();
        if !status.success() {
            self.fail(&format!("ended with {status}"));
        }
        assert_eq!(lines.pop().as_deref(), Some("ok"), "{} did not run to its end", self.name);
        lines
    }

    fn fail(&mut self, why: &str) -> ! {
        self.end();
        let stderr = self.stderr.take().unwrap().join().unwrap();
        panic!("{}: {why}\n{stderr}", self.name);
    }

    fn end(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        self.end();
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}
