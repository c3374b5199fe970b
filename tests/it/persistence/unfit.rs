//! File systems that lack a call: a start says which, and where.

use std::{io, path::Path, sync::Arc};

use batonmq::persistence::{
    PersistenceAdapter, StoreError,
    journal::{Disk, DiskFile, JournalAdapter, JournalOptions, Open, RealDisk},
};

/// Real files, but one call is not there.
#[derive(Clone, Copy, Debug)]
struct Without(Call);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    Sync,
    Rename,
    SyncDir,
    Allocate,
}

impl Without {
    fn check(self, call: Call, error: io::ErrorKind) -> io::Result<()> {
        if self.0 == call { Err(error.into()) } else { Ok(()) }
    }
}

impl Disk for Without {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        RealDisk.create_dir(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        RealDisk.list(dir)
    }

    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(FileWithout { disk: *self, file: RealDisk.open(path, how)? }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.check(Call::Rename, io::ErrorKind::Unsupported)?;
        RealDisk.rename(from, to)
    }

    fn exchange(&self, one: &Path, two: &Path) -> io::Result<()> {
        RealDisk.exchange(one, two)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }

    fn remove_tree(&self, dir: &Path) -> io::Result<()> {
        RealDisk.remove_tree(dir)
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        RealDisk.free_bytes(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.check(Call::SyncDir, io::ErrorKind::InvalidInput)?;
        RealDisk.sync_dir(dir)
    }
}

#[derive(Debug)]
struct FileWithout {
    disk: Without,
    file: Arc<dyn DiskFile>,
}

impl DiskFile for FileWithout {
    fn bytes(&self) -> io::Result<u64> {
        self.file.bytes()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_at(bytes, offset)
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        self.disk.check(Call::Allocate, io::ErrorKind::Unsupported)?;
        self.file.allocate(bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.check(Call::Sync, io::ErrorKind::InvalidInput)?;
        self.file.sync()
    }
}

async fn start(data: &Path, without: Call) -> Result<(), StoreError> {
    let disk = Arc::new(Without(without));
    let options = JournalOptions { disk, segment_bytes: 1 << 16, ..JournalOptions::default() };
    JournalAdapter::open(data, options)?.recover().await.map(drop)
}

#[tokio::test]
async fn a_file_system_without_a_call_is_refused_by_name() {
    for (call, says) in
        [(Call::Sync, "sync files in"), (Call::Rename, "by renaming in"), (Call::SyncDir, "cannot sync")]
    {
        let data = tempfile::tempdir().unwrap();
        let error = start(data.path(), call).await.unwrap_err();
        assert!(matches!(error, StoreError::Unfit { .. }), "{call:?}: {error}");
        let (text, dir) = (error.to_string(), data.path().join("journal"));
        assert!(text.contains(says) && text.ends_with(dir.to_str().unwrap()), "{text}");
        let names: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(names.iter().all(|name| name.to_str().unwrap().ends_with(".new")), "no journal yet: {names:?}");
    }
}

/// It only makes things faster.
#[tokio::test]
async fn a_file_system_that_cannot_allocate_serves() {
    let data = tempfile::tempdir().unwrap();
    start(data.path(), Call::Allocate).await.unwrap();
    let reserve = std::fs::metadata(data.path().join("journal/reserve")).unwrap();
    assert_eq!(reserve.len(), 1 << 16);
}
