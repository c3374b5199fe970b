//! A private database server: its directory, its user, and its end, whatever becomes of the tests.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write as _},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

use batonmq::types::Group;
use tempfile::TempDir;

/// Servers do not run as root; then they run as the user whom their Debian package made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ServerUser(pub(crate) &'static str);

impl ServerUser {
    /// A command as this user, or as whoever runs the tests if that is not root.
    pub(crate) fn command(self, program: &Path) -> Command {
        if !rustix::process::geteuid().is_root() {
            return Command::new(program);
        }
        // It becomes the program, so that signals reach that; runuser would stay in between.
        let mut command = Command::new("setpriv");
        command.args([&format!("--reuid={}", self.0), &format!("--regid={}", self.0), "--clear-groups"]).arg(program);
        command
    }

    /// A directory that is its own, and gone with the value.
    pub(crate) fn directory(self) -> TempDir {
        let directory = tempfile::tempdir().unwrap();
        self.own(directory.path());
        directory
    }

    /// Makes a file or directory its own.
    pub(crate) fn own(self, path: &Path) {
        if rustix::process::geteuid().is_root() {
            run(Command::new("chown").arg(self.0).arg(path));
        }
    }
}

/// Runs a command that must succeed.
pub(crate) fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = [&*output.stdout, &*output.stderr].concat();
    assert!(output.status.success(), "{command:?}: {}\n{}", output.status, String::from_utf8_lossy(&said));
    output
}

/// A server process. A keeper beside it ends it, and removes its directory, as soon as this value is gone or the test
/// process is: killed tests leave nothing behind. Only [`Server::stop`] keeps the directory.
pub(crate) struct Server {
    keeper: Child,
}

impl Server {
    /// Starts `command`, and waits until the server says `ready` on standard error. `end` is the signal that ends it.
    pub(crate) fn start(command: &Command, directory: &Path, end: &str, ready: &str) -> Self {
        let script = "end=$1; directory=$2; shift 2\n\"$@\" 2>&1 </dev/null &\nserver=$!\n\
                      read -r how <&3; kill -s \"${how:-$end}\" $server; wait $server\n\
                      [ -n \"$how\" ] || rm -rf \"$directory\"";
        let mut keeper = Command::new("bash");
        keeper.args(["-c", &format!("exec 3<&0; {script}"), "keeper", end]).arg(directory);
        keeper.arg(command.get_program()).args(command.get_args()).current_dir("/");
        let mut keeper = keeper.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(keeper.stdout.take().unwrap());
        let mut said = String::new();
        while !said.contains(ready) {
            let more = log.read_line(&mut said).unwrap();
            assert_ne!(more, 0, "the server ended:\n{said}");
        }
        thread::spawn(move || log.read_to_end(&mut Vec::new())); // it never waits for somebody to read its log
        Self { keeper }
    }

    /// Ends the server by this signal, and leaves everything where it is.
    pub(crate) fn stop(mut self, signal: &str) {
        writeln!(self.keeper.stdin.as_ref().unwrap(), "{signal}").unwrap();
        self.keeper.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        self.keeper.wait().unwrap();
    }
}

/// A port of this machine that nobody listens on.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The newest of Debian's directories of a server's programs: `BASE/VERSION/bin`.
#[cfg(feature = "postgres")]
pub(crate) fn newest_programs(base: &str) -> PathBuf {
    let versions = fs::read_dir(base).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    let number = |path: &PathBuf| path.file_name()?.to_str()?.parse::<u32>().ok();
    let newest = versions.filter(|path| number(path).is_some()).max_by_key(number);
    newest.unwrap_or_else(|| panic!("nothing in {base}: tests/run installs what is missing")).join("bin")
}

/// A group that no other test uses.
pub(crate) fn own_group() -> Group {
    static NUMBER: AtomicU32 = AtomicU32::new(1);
    Group::new(&format!("group_{}", NUMBER.fetch_add(1, Ordering::Relaxed))).unwrap()
}
