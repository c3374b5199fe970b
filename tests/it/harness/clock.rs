//! A clock of a server's own, which a test sets in one step, as an operator or NTP would.
//!
//! A library of ours that is loaded before the C library (`clock.c`). libfaketime would do it too, but shows the true time
//! to signal handlers; PostgreSQL ends idle sessions there, so all of them would be ended at once, or none ever.

use std::{
    fs::{self, OpenOptions},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use super::database::{ServerUser, run};

/// The clock of the process that is started by [`Clock::command`], and of its children.
pub(crate) struct Clock {
    object: PathBuf,
    setting: PathBuf,
}

impl Clock {
    /// A clock that is right; what it needs lies in `directory`.
    pub(crate) fn beside(directory: &Path) -> Self {
        let [source, object, setting] = ["clock.c", "clock.so", "clock"].map(|file| directory.join(file));
        fs::write(&source, include_str!("clock.c")).unwrap();
        run(Command::new("cc").args(["-shared", "-fPIC", "-O2", "-o"]).args([&object, &source]));
        fs::write(&setting, 0i64.to_ne_bytes()).unwrap();
        Self { object, setting }
    }

    /// Sets it so many hours ahead, or behind, in one step.
    pub(crate) fn set(&self, hours: i32) {
        let setting = OpenOptions::new().write(true).open(&self.setting).unwrap();
        setting.write_all_at(&(i64::from(hours) * 3_600).to_ne_bytes(), 0).unwrap();
    }

    /// `program` as this user, with this clock if there is one.
    pub(crate) fn command(clock: Option<&Self>, user: ServerUser, program: &Path) -> Command {
        let Some(clock) = clock else { return user.command(program) };
        let mut command = user.command(Path::new("env"));
        command.arg(format!("LD_PRELOAD={}", clock.object.display()));
        command.arg(format!("TEST_CLOCK={}", clock.setting.display())).arg(program);
        command
    }
}
