//! "Three brokers, one database": the commands of the README, with the configurations that it names.

use std::{
    env,
    ffi::OsString,
    fs,
    io::Write as _,
    net::{Ipv4Addr, SocketAddr},
    os::unix::{fs::symlink, process::CommandExt as _},
    path::Path,
    process::{Child, Command, Stdio},
    thread::{self, sleep},
    time::Instant,
};

use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::TempDir;

use super::{CLIENT_POLL, one_that_serves};
use crate::{
    docs::{fenced, read},
    harness::{DatabaseServer, PATIENCE, Script, own_loopback_address, run},
};

on_each_database! {
    three_brokers_are_started_as_the_readme_says
}

/// All that differs from a reader's machine is where the database is, and this machine's address.
fn three_brokers_are_started_as_the_readme_says<D: DatabaseServer>() {
    let host = own_loopback_address();
    let mut shell = Shell::start(D::shared());
    let (start, status) = commands(D::CONFIG, host);
    shell.types(&start.join("\n"));
    let addresses = [1, 2, 3].map(|number| SocketAddr::from((host, 61610 + number)));
    let (master, client) = one_that_serves(&addresses, None);
    drop(client);
    shell.is_told(&status, &["is the master", "broker-1 ", "broker-2 ", "broker-3 "]);

    let mut script = Script::python_with("failover.py", &addresses, &[]);
    script.wait_for("under way");
    script.tell("go on");
    script.wait_for("it goes on");
    shell.types(&format!("kill -9 %{}", master + 1));
    let (next, client) = one_that_serves(&addresses, Some(master));
    drop(client);
    script.tell("go on");
    script.wait_for("it goes on");
    println!("{:?}", script.finish());

    let one = start.iter().filter(|line| !line.starts_with("for ") && *line != "done");
    shell.types(&format!("n={}", master + 1));
    shell.types(&one.cloned().collect::<Vec<_>>().join("\n"));
    let [serves, waits] = [next, master].map(|number| format!("broker-{}", number + 1));
    shell.is_told(&status, &[&format!("{serves} is the master"), "killed", &format!("{waits:<20} standby")]);
    shell.ends();
}

/// What starts the brokers, and what asks for them, with this configuration.
fn commands(config: &str, host: Ipv4Addr) -> (Vec<String>, String) {
    let readme = read("README.md");
    let (_, section) = readme.split_once("## Three brokers, one database\n").expect("there is this section");
    let (section, _) = section.split_once("\n## ").expect("it is not the last one");
    let here = |line: &String| line.replace("config/postgres.toml", config).replace("127.0.0.1", &host.to_string());
    let status = fenced(section, "console").iter().find_map(|line| Some(here(line).strip_prefix("$ ")?.to_owned()));
    (fenced(section, "sh").iter().map(here).collect(), status.expect("there is a command for the console"))
}

/// A shell where `batonmq` is a command, and `config` lies. Dropping it ends it, with all that it started.
struct Shell {
    directory: TempDir,
    variables: [(&'static str, OsString); 3],
    bash: Child,
}

impl Shell {
    fn start(server: &impl DatabaseServer) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let project = Path::new(env!("CARGO_MANIFEST_DIR"));
        symlink(project.join("config"), directory.path().join("config")).unwrap();
        let programs = Path::new(env!("CARGO_BIN_EXE_batonmq")).parent().unwrap().to_owned();
        let path = env::var_os("PATH").unwrap_or_default();
        let path = env::join_paths([programs].into_iter().chain(env::split_paths(&path))).unwrap();
        let variables = [
            ("PATH", path),
            ("BATONMQ_STORE__URL", server.url().into()),
            ("BATONMQ_STORE__PASSWORD_FILE", server.password_file().into()),
        ];
        let log = fs::File::create(directory.path().join("log")).unwrap();
        let mut bash = bash(&directory, &variables);
        bash.stdin(Stdio::piped()).stdout(log.try_clone().unwrap()).stderr(log).process_group(0);
        Self { bash: bash.spawn().unwrap(), directory, variables }
    }

    fn types(&self, commands: &str) {
        writeln!(self.bash.stdin.as_ref().expect("it is piped"), "{commands}").unwrap();
    }

    /// Asks by this command until the answer has all of this.
    fn is_told(&self, command: &str, words: &[&str]) {
        let since = Instant::now();
        loop {
            let told = run(bash(&self.directory, &self.variables).args(["-c", command])).stdout;
            let told = String::from_utf8(told).unwrap();
            if words.iter().all(|word| told.contains(word)) {
                return;
            }
            assert!(since.elapsed() < PATIENCE, "{command}: {words:?} is not in\n{told}");
            sleep(CLIENT_POLL);
        }
    }

    /// Whatever it started is stopped politely.
    fn ends(&mut self) {
        self.types("kill $(jobs -p); wait");
        drop(self.bash.stdin.take());
        self.bash.wait().unwrap();
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        // An error means that all of it has ended.
        if kill_process_group(Pid::from_child(&self.bash), Signal::KILL).is_ok() {
            println!("the shell still had brokers");
        }
        self.bash.wait().unwrap();
        if thread::panicking() {
            println!("--- what was said:\n{}", fs::read_to_string(self.directory.path().join("log")).unwrap());
        }
    }
}

fn bash(directory: &TempDir, variables: &[(&str, OsString)]) -> Command {
    let mut bash = Command::new("bash");
    bash.current_dir(directory.path()).env_remove("BATONMQ_SEED");
    bash.envs(variables.iter().map(|(name, value)| (name, value)));
    bash
}
