//! The baton as an operating system's lock on a file in the data directory.
//!
//! Owns `<data>/lock`. Always true: whoever holds the lock has the file open; the system takes the lock back when that
//! process ends, however it ends. The lock fences nothing: a journal relies on one machine's file system telling the
//! truth. Several brokers on one directory elect their master this way; a file system is named as supported only after
//! it was tested.
//! On failure: no permission is told apart from everything else, because a human can mend it.

use std::{
    fs::{DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::time::{Instant, sleep};

use super::{Baton, Held, LockError, Locker};
use crate::types::Mandate;

/// How often a waiting broker looks; a take-over after a crash takes no longer than this and the start itself.
const POLL: Duration = Duration::from_millis(100);

/// The file's name in the data directory.
const LOCK: &str = "lock";

/// Elects the master among the brokers on one data directory.
#[derive(Debug)]
pub struct FileLocker {
    path: PathBuf,
}

/// The lock, as long as it lives.
#[derive(Debug)]
pub(super) struct HeldFile {
    path: PathBuf,
    file: File,
}

impl HeldFile {
    pub(super) fn unlock(self) -> Result<(), LockError> {
        self.file.unlock().map_err(|source| LockError::of_io("unlock", &self.path, source))
    }
}

impl FileLocker {
    /// A locker on `<data>/lock`. Nothing is touched before `acquire`, which makes the directory if it is missing,
    /// readable by its owner only.
    #[must_use]
    pub fn new(data: &Path) -> Self {
        Self { path: data.join(LOCK) }
    }

    /// One look. `None`: another process holds the lock.
    fn try_acquire(&self) -> Result<Option<File>, LockError> {
        if let Some(data) = self.path.parent() {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(data);
            made.map_err(|source| LockError::of_io("create", data, source))?;
        }
        try_lock(&self.path)
    }
}

fn try_lock(path: &Path) -> Result<Option<File>, LockError> {
    let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
    let file = opened.map_err(|source| LockError::of_io("open", path, source))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(source)) => Err(LockError::of_io("lock", path, source)),
    }
}

impl Locker for FileLocker {
    const FENCES: bool = false;

    /// Looks every 100 ms, and once more when patience ends. Dropping the future ends the waiting.
    async fn acquire(&mut self, patience: Duration) -> Result<Option<Baton>, LockError> {
        let until = Instant::now() + patience;
        loop {
            if let Some(file) = self.try_acquire()? {
                if let Err(error) = name_holder(&file) {
                    tracing::warn!(%error, path = %self.path.display(), "cannot note in the lock file who holds it");
                }
                let held = Held::File(HeldFile { path: self.path.clone(), file });
                return Ok(Some(Baton { tenure: None, mandate: Mandate::permanent(), held }));
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            sleep(POLL.min(left)).await;
        }
    }

    fn what(&self) -> String {
        format!("the data directory {}", self.path.parent().unwrap_or(&self.path).display())
    }
}

impl LockError {
    fn of_io(action: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Self::Denied { path, source },
            _ => Self::Io { action, path, source },
        }
    }
}

/// Keeps brokers from starting on a data directory for as long as it lives; see [`share_lock`].
#[derive(Debug)]
pub struct SharedLock {
    /// `None`: there is no lock file, so no broker ever ran here (a copy of a journal).
    _file: Option<File>,
}

/// Takes a data directory for reading: beside other readers, never beside a broker. A broker that starts meanwhile
/// waits as if for another broker. `None`: a broker is running here.
///
/// # Errors
/// [`LockError`] if the lock file can't be used.
pub fn share_lock(data: &Path) -> Result<Option<SharedLock>, LockError> {
    let path = data.join(LOCK);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Some(SharedLock { _file: None })),
        Err(source) => return Err(LockError::of_io("open", &path, source)),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(Some(SharedLock { _file: Some(file) })),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(source)) => Err(LockError::of_io("lock", &path, source)),
    }
}

/// Keeps everybody else off a data directory for as long as it lives; see [`exclusive_lock`].
#[derive(Debug)]
pub struct ExclusiveLock {
    _file: File,
}

/// Takes a data directory to change it while no broker runs; one that starts meanwhile waits as if for another broker.
/// `None`: a broker is running here, or somebody reads.
///
/// # Errors
/// [`LockError`] if the lock file can't be used; it is made if it is missing, the directory is not.
pub fn exclusive_lock(data: &Path) -> Result<Option<ExclusiveLock>, LockError> {
    Ok(try_lock(&data.join(LOCK))?.map(|file| ExclusiveLock { _file: file }))
}

/// What the holder wrote into the lock file: `process 123 on host`. It stays when the lock is given back.
///
/// # Errors
/// If the file is there and can't be read.
pub fn lock_note(data: &Path) -> io::Result<Option<String>> {
    match std::fs::read_to_string(data.join(LOCK)) {
        Ok(text) => Ok(Some(text.trim().to_owned()).filter(|text| !text.is_empty())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// For humans who find the file: only the lock itself counts.
fn name_holder(mut file: &File) -> io::Result<()> {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_else(|_| "an unknown host".to_owned());
    file.set_len(0)?;
    writeln!(file, "process {} on {}", std::process::id(), host.trim())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const NO_PATIENCE: Duration = Duration::ZERO;
    const LONG: Duration = Duration::from_secs(60);

    fn two_lockers(data: &Path) -> (FileLocker, FileLocker) {
        (FileLocker::new(data), FileLocker::new(data))
    }

    #[tokio::test]
    async fn one_of_two_holds_the_lock() {
        let data = tempfile::tempdir().unwrap();
        let (mut one, mut two) = two_lockers(data.path());
        let baton = one.acquire(NO_PATIENCE).await.unwrap().expect("free");
        assert!(baton.mandate().holds() && baton.tenure().is_none());
        assert!(two.acquire(NO_PATIENCE).await.unwrap().is_none());
        baton.release("the test says so").await.unwrap();
        assert!(two.acquire(NO_PATIENCE).await.unwrap().is_some());
    }

    #[tokio::test]
    async fn the_end_of_the_holder_gives_the_lock_to_who_waits() {
        let data = tempfile::tempdir().unwrap();
        let (mut one, mut two) = two_lockers(data.path());
        let baton = one.acquire(NO_PATIENCE).await.unwrap().expect("free");
        let mut waiting = Box::pin(two.acquire(LONG));
        assert!(poll_once(&mut waiting).await.is_none());
        drop(baton);
        assert!(waiting.await.unwrap().is_some());
    }

    #[tokio::test]
    async fn waiting_can_be_given_up() {
        let data = tempfile::tempdir().unwrap();
        let (mut one, mut two) = two_lockers(data.path());
        let _baton = one.acquire(NO_PATIENCE).await.unwrap().expect("free");
        assert!(poll_once(&mut Box::pin(two.acquire(LONG))).await.is_none());
        assert!(two.acquire(NO_PATIENCE).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn the_directory_is_made_for_its_owner_and_the_file_names_the_holder() {
        let parent = tempfile::tempdir().unwrap();
        let data = parent.path().join("a/b");
        let mut locker = FileLocker::new(&data);
        let _baton = locker.acquire(NO_PATIENCE).await.unwrap().expect("free");
        assert!(locker.what().contains("a/b"), "{}", locker.what());
        assert!(lock_note(&data).unwrap().expect("it was written").starts_with("process "));
        assert_eq!(std::fs::metadata(&data).unwrap().permissions().mode() & 0o777, 0o700);
        let text = std::fs::read_to_string(data.join(LOCK)).unwrap();
        assert!(text.starts_with(&format!("process {} on ", std::process::id())), "{text}");
    }

    #[tokio::test]
    async fn a_path_that_is_no_directory_is_an_error_with_its_name() {
        let parent = tempfile::tempdir().unwrap();
        let data = parent.path().join("file");
        std::fs::write(&data, "").unwrap();
        let error = FileLocker::new(&data).acquire(NO_PATIENCE).await.unwrap_err();
        assert!(error.to_string().contains("file"), "{error}");
    }

    #[test]
    fn readers_share_and_a_broker_excludes_them() {
        let data = tempfile::tempdir().unwrap();
        let locker = FileLocker::new(data.path());
        assert!(share_lock(data.path()).unwrap().is_some(), "no lock file: nobody runs");
        let held = locker.try_acquire().unwrap().expect("free");
        assert!(share_lock(data.path()).unwrap().is_none());
        drop(held);
        let readers = (share_lock(data.path()).unwrap(), share_lock(data.path()).unwrap());
        assert!(readers.0.is_some() && readers.1.is_some());
        assert!(locker.try_acquire().unwrap().is_none());
    }

    #[test]
    fn who_changes_a_directory_has_it_alone() {
        let data = tempfile::tempdir().unwrap();
        let held = exclusive_lock(data.path()).unwrap().expect("free");
        assert!(share_lock(data.path()).unwrap().is_none());
        assert!(FileLocker::new(data.path()).try_acquire().unwrap().is_none());
        drop(held);
        let reader = share_lock(data.path()).unwrap();
        assert!(exclusive_lock(data.path()).unwrap().is_none());
        drop(reader);
        exclusive_lock(&data.path().join("nowhere")).unwrap_err();
    }

    async fn poll_once<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
        tokio::select! {
            biased;
            done = future => Some(done),
            () = std::future::ready(()) => None,
        }
    }
}
