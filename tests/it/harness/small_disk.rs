//! A file system of a test's own, so small that a broker fills it.
//!
//! It is a tmpfs in a mount namespace, which every user may make where user namespaces are allowed, and root where they
//! are not. In a container that forbids both, `/dev/shm` serves: containers give it 64 MiB, and a file takes what is
//! too much. Tests that need one run one at a time there. Where nothing of this is possible the test fails and says so.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{BufRead, BufReader},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use rustix::fs::{FallocateFlags, FlockOperation, fallocate, flock, statvfs};
use tempfile::TempDir;

/// The largest `/dev/shm` that is filled. Unit: bytes.
const SHARED_BYTES_MAX: u64 = 1 << 30;

/// A file system. Gone with the value.
pub(crate) struct SmallDisk {
    /// Its root, as a broker sees it.
    root: PathBuf,
    /// Before the place: it is empty when the next test has it.
    _directory: TempDir,
    place: Place,
}

enum Place {
    /// This process keeps the namespace; it ends when its standard input does.
    Namespace { keeper: Child, own_users: bool },
    /// Alone there as long as the lock is held.
    Shared { _lock: File },
}

impl SmallDisk {
    /// A file system of so many bytes.
    pub(crate) fn new(bytes: u64) -> Self {
        Self::in_namespace(bytes, false)
            .or_else(|| Self::in_namespace(bytes, true))
            .unwrap_or_else(|| Self::shared(bytes))
    }

    fn in_namespace(bytes: u64, own_users: bool) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let mount = "mount -t tmpfs -o size=\"$0\",mode=700 small \"$1\" && echo mounted && exec cat";
        let mut command = Command::new("unshare");
        command.arg(if own_users { "-Urm" } else { "-m" }).args(["sh", "-c", mount, &bytes.to_string()]);
        command.arg(directory.path()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut keeper = command.spawn().unwrap_or_else(|error| panic!("util-linux's unshare is missing: {error}"));
        let mut said = String::new();
        BufReader::new(keeper.stdout.take().unwrap()).read_line(&mut said).unwrap();
        if said != "mounted\n" {
            keeper.wait().unwrap();
            return None;
        }
        let root = directory.path().to_owned();
        Some(Self { place: Place::Namespace { keeper, own_users }, root, _directory: directory })
    }

    fn shared(bytes: u64) -> Self {
        let shared = Path::new("/dev/shm");
        let lock = File::create(shared.join("batonmq-tests.lock")).unwrap();
        flock(&lock, FlockOperation::LockExclusive).unwrap();
        let stat = statvfs(shared).unwrap();
        assert!(
            stat.f_blocks * stat.f_frsize <= SHARED_BYTES_MAX,
            "this test needs a small file system: allow user namespaces (sysctl kernel.unprivileged_userns_clone=1, \
             kernel.apparmor_restrict_unprivileged_userns=0), run it as root, or give it a /dev/shm of 64 MiB"
        );
        let directory = tempfile::tempdir_in(shared).unwrap();
        let disk =
            Self { place: Place::Shared { _lock: lock }, root: directory.path().to_owned(), _directory: directory };
        disk.leave(bytes, "too-much");
        disk
    }

    /// Its root, as a broker sees it that is started by [`Self::command`].
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// A command that sees it.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let Place::Namespace { keeper, own_users } = &self.place else { return Command::new(program) };
        let mut command = Command::new("nsenter");
        command.args(["-m", "-t", &keeper.id().to_string()]);
        if *own_users {
            command.args(["-U", "--preserve-credentials"]);
        }
        command.arg("--").arg(program);
        command
    }

    /// This command, so that it sees it.
    pub(crate) fn shown_to(&self, command: &Command) -> Command {
        let mut seeing = self.command(command.get_program());
        seeing.args(command.get_args());
        seeing
    }

    /// A directory in it that belongs to this user.
    pub(crate) fn directory_of(&self, user: &str) -> PathBuf {
        let path = self.root.join(user);
        let script = "chmod 711 \"$0\" && mkdir \"$1\" && chown \"$2\" \"$1\"";
        let status = self.command("sh").args(["-c", script]).args([&*self.root, &*path]).arg(user).status().unwrap();
        assert!(status.success(), "{status}");
        path
    }

    /// One of its files, as the test sees it.
    pub(crate) fn file(&self, path: &Path) -> PathBuf {
        match &self.place {
            Place::Namespace { keeper, .. } => {
                PathBuf::from(format!("/proc/{}/root", keeper.id())).join(path.strip_prefix("/").unwrap())
            }
            Place::Shared { .. } => path.to_owned(),
        }
    }

    /// How much room is left. Unit: bytes.
    pub(crate) fn room(&self) -> u64 {
        let stat = statvfs(self.file(&self.root)).unwrap();
        stat.f_bavail * stat.f_frsize
    }

    /// Somebody else takes all but so many bytes.
    pub(crate) fn occupy_all_but(&self, bytes: u64) {
        self.leave(bytes, "somebody-else");
    }

    /// What somebody else took is free again.
    pub(crate) fn free(&self) {
        fs::remove_file(self.file(&self.root.join("somebody-else"))).unwrap();
    }

    fn leave(&self, bytes: u64, name: &str) {
        let file = File::create(self.file(&self.root.join(name))).unwrap();
        let takes = self.room().checked_sub(bytes).expect("there is as much room");
        if takes > 0 {
            fallocate(&file, FallocateFlags::empty(), 0, takes).unwrap();
        }
        file.write_at(b"x", 0).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if let Place::Namespace { keeper, .. } = &mut self.place {
            drop(keeper.stdin.take());
            keeper.wait().unwrap();
        }
    }
}
