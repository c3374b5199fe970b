//! A private database server: its directory, its user, and its end, whatever becomes of the tests.

use std::{
    io::{BufRead, BufReader, Read, Write as _},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

use batonmq::types::Group;
use tempfile::TempDir;

use super::{SmallDisk, broker::Settings, clock::Clock};

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

/// How a server ends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stop {
    /// As an administrator does it, sessions and all.
    Polite,
    /// As if it crashed.
    Crash,
}

/// A private database server, whichever it is: what brokers on it and their tests need.
pub(crate) trait DatabaseServer: Sized + Sync + 'static {
    /// What a heartbeat of a master asks, and nothing else does.
    const HEARTBEAT: &'static str;

    /// Begins a transaction that keeps the database from cleaning up as long as it is open, its own number and all.
    const OPEN_TRANSACTION: &'static str;

    /// A COMMIT as it is sent: settings of a session may have the word too.
    const COMMIT: &'static str;

    /// The complete example of a configuration for it.
    const CONFIG: &'static str;

    /// The one that tests share: they must leave it as it is.
    fn shared() -> &'static Self;

    /// One of a test's own.
    fn own() -> Self;

    /// One of a test's own that lets in so many clients.
    fn own_for(clients: u32) -> Self;

    /// One of a test's own, whose tables lie on this disk; the rest of what it writes does not.
    fn own_with_tables_on(disk: SmallDisk) -> Self;

    /// That disk.
    fn disk(&self) -> &SmallDisk;

    /// One of a test's own, whose clock is right until it is set.
    fn own_with_clock() -> Self;

    /// That clock.
    fn clock(&self) -> &Clock;

    /// Where its data lies, in `data`; it does not run.
    fn directory(&self) -> &Path;

    /// Keeps a copy of all its data as it is; it does not run.
    fn copy_data(&self) {
        let directory = self.directory();
        run(Command::new("cp").arg("-a").args(["data", "older"].map(|name| directory.join(name))));
    }

    /// Puts the copy in the place of its data; it does not run.
    fn restore_data(&self) {
        let [data, older] = ["data", "older"].map(|name| self.directory().join(name));
        run(Command::new("rm").arg("-r").arg(&data));
        run(Command::new("mv").args([older, data]));
    }

    /// Ends it.
    fn stop(&mut self, how: Stop);

    /// Starts it once more.
    fn launch(&mut self);

    /// What a broker on this group of it is told.
    fn settings(&self, group: &Group) -> Settings;

    /// Where it is, for its owner.
    fn url(&self) -> String;

    /// A file with its owner's password.
    fn password_file(&self) -> PathBuf;

    /// The port that it listens on.
    fn port(&self) -> u16;

    /// The answer to a statement, a row a line. Tables are written `{group}message`.
    fn ask(&self, group: &Group, statement: &str) -> String;

    /// Ends the session that holds the baton of a group, as an administrator would.
    fn end_lock_session(&self, group: &Group);

    /// Statements that end the session that holds the baton of a group now, and the one that writes.
    fn end_of_sessions(&self, group: &Group) -> String;

    /// Ends these.
    fn end_sessions(&self, group: &Group) {
        self.ask(group, &self.end_of_sessions(group));
    }

    /// A client for somebody who has more to say to it.
    fn client_command(&self) -> Command;

    /// How the tables of a group begin.
    fn prefix(group: &Group) -> String;

    /// Takes the lock of a group, which nobody has, for the session that asks; answers a row.
    fn lock_statement(&self, group: &Group) -> String;

    /// Somebody who is no broker holds the row of the baton.
    fn hold_baton(&self, group: &Group) -> Stranger {
        let baton = format!("{}baton", Self::prefix(group));
        Stranger::says(self.client_command(), &format!("BEGIN; SELECT 'held' FROM {baton} FOR UPDATE;"))
    }

    /// Somebody who is no broker reads messages, and does not end the transaction.
    fn read_at_leisure(&self, group: &Group) -> Stranger {
        let (begin, message) = (Self::OPEN_TRANSACTION, format!("{}message", Self::prefix(group)));
        let read = format!("{begin}; SELECT 'held' FROM (SELECT count(*) FROM {message}) AS seen;");
        Stranger::says(self.client_command(), &read)
    }

    /// Others take all connections that the server has to give.
    fn crowd(&self) -> Vec<Stranger> {
        let arrive = || Stranger::arrives(self.client_command(), "SELECT 'held';");
        std::iter::from_fn(arrive).collect()
    }

    /// Somebody who is no broker holds the lock of a group.
    fn hold_lock(&self, group: &Group) -> Stranger {
        Stranger::says(self.client_command(), &format!("{};", self.lock_statement(group)))
    }
}

/// A client in the middle of something.
pub(crate) struct Stranger(Child);

impl Stranger {
    /// It has done what these statements say, which answer `held`.
    fn says(client: Command, statements: &str) -> Self {
        Self::arrives(client, statements).expect("the server lets it in, and does what it says")
    }

    /// The same, if the server lets it in.
    fn arrives(mut client: Command, statements: &str) -> Option<Self> {
        let mut client = client.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let is_heard = writeln!(client.stdin.as_ref().unwrap(), "{statements}").is_ok();
        let mut answer = String::new();
        BufReader::new(client.stdout.take().unwrap()).read_line(&mut answer).unwrap();
        let stranger = Self(client);
        if is_heard && answer == "held\n" {
            return Some(stranger);
        }
        stranger.leave();
        None
    }

    /// It ends when these statements are done; nobody hears what they answer.
    pub(crate) fn leave_saying(self, statements: &str) {
        writeln!(self.0.stdin.as_ref().unwrap(), "{statements}").unwrap();
        self.leave();
    }

    /// It ends, and its transaction and its locks with it.
    pub(crate) fn leave(mut self) {
        drop(self.0.stdin.take());
        self.0.wait().unwrap();
    }
}

/// A port of this machine that nobody listens on.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A group that no other test uses.
pub(crate) fn own_group() -> Group {
    static NUMBER: AtomicU32 = AtomicU32::new(1);
    Group::new(&format!("group_{}", NUMBER.fetch_add(1, Ordering::Relaxed))).unwrap()
}
