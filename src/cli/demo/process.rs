//! Processes of the demonstration: brokers, and perhaps a database server. Each ends with its value.

use std::{
    ffi::OsString,
    io::{self, BufRead as _, BufReader, Read},
    os::unix::process::CommandExt as _,
    process::{Child, Command, Stdio},
    thread,
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::watch;

/// So many of its last lines are kept.
const LINES_MAX: usize = 20;

/// A process that runs, and what it says.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    end: Signal,
    said: watch::Receiver<Vec<String>>,
}

impl Process {
    /// Starts `command` in a process group of its own: Ctrl-C is for us alone, and we end it, by the signal `end`.
    pub(super) fn start(command: &mut Command, end: Signal) -> io::Result<Self> {
        for name in own_variables() {
            command.env_remove(name);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut child = command.spawn()?;
        let (tell, said) = watch::channel(Vec::new());
        listen(child.stdout.take(), tell.clone());
        listen(child.stderr.take(), tell);
        Ok(Self { child, end, said })
    }

    /// Waits until it says this. `false`: it ended and did not.
    pub(super) async fn says(&mut self, text: &str) -> bool {
        self.said.wait_for(|lines| lines.iter().any(|line| line.contains(text))).await.is_ok()
    }

    /// Its last words.
    pub(super) fn last_words(&self) -> String {
        self.said.borrow().join("\n")
    }

    /// Ends it; it is gone when this returns.
    pub(super) fn end(&mut self) -> io::Result<()> {
        if self.child.try_wait()?.is_none() {
            kill_process(Pid::from_child(&self.child), self.end)?;
            self.child.wait()?;
        }
        Ok(())
    }
}

/// Nobody is left to do anything about an error but who reads it.
impl Drop for Process {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("batonmq: process {} can't be ended: {error}", self.child.id());
        }
    }
}

/// Options of the broker that the caller would start, and not of ours.
fn own_variables() -> impl Iterator<Item = OsString> {
    let names = std::env::vars_os().map(|(name, _)| name);
    names.filter(|name| name.to_string_lossy().starts_with("BATONMQ_"))
}

/// Keeps what is said. The process never waits for somebody to read it.
fn listen(pipe: Option<impl Read + Send + 'static>, tell: watch::Sender<Vec<String>>) {
    let Some(pipe) = pipe else { return };
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            tell.send_modify(|lines| {
                if lines.len() == LINES_MAX {
                    lines.remove(0);
                }
                lines.push(line);
            });
        }
    });
}
