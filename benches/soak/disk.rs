//! A small file system of the soak's own, and the ballast that fills it.

use std::{
    ffi::OsStr,
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, ensure};

/// What a file of ballast is filled with.
static BLOCK: [u8; 64 << 10] = [0; 64 << 10];
/// Set for the process that has its own mounts.
const INSIDE: &str = "SOAK_HAS_ITS_OWN_MOUNTS";

/// Goes on in a mount namespace of this process's own, so that nothing stays mounted when it ends; in a user namespace
/// too if it is not root.
pub(crate) fn enter_own_mounts() -> anyhow::Result<()> {
    if std::env::var_os(INSIDE).is_some() {
        return Ok(());
    }
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.arg("--mount").arg(std::env::current_exe()?).args(std::env::args_os().skip(1)).env(INSIDE, "1");
    Err(command.exec()).context("unshare, which gives the soak its own mounts, can't be run")
}

/// A mounted tmpfs.
pub(crate) struct SmallDisk {
    directory: PathBuf,
}

impl SmallDisk {
    pub(crate) fn mount(directory: PathBuf, mib: u64) -> anyhow::Result<Self> {
        fs::create_dir_all(&directory)?;
        run("mount", ["-t", "tmpfs", "-o", &format!("size={mib}m"), "soak"].map(OsStr::new), &directory)?;
        Ok(Self { directory })
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// Takes all that is free just now.
    pub(crate) fn fill(&self) -> io::Result<()> {
        let mut ballast = OpenOptions::new().create(true).append(true).open(self.ballast())?;
        loop {
            match ballast.write_all(&BLOCK) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::StorageFull => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    /// Gives it back.
    pub(crate) fn free(&self) -> io::Result<()> {
        fs::remove_file(self.ballast())
    }

    fn ballast(&self) -> PathBuf {
        self.directory.join("ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if let Err(error) = run("umount", ["--lazy"].map(OsStr::new), &self.directory) {
            eprintln!("{error:#}");
        }
    }
}

fn run<const N: usize>(program: &str, arguments: [&OsStr; N], directory: &Path) -> anyhow::Result<()> {
    let status = Command::new(program).args(arguments).arg(directory).status();
    let status = status.with_context(|| format!("{program} can't be run"))?;
    ensure!(status.success(), "{program} of {} failed", directory.display());
    Ok(())
}
