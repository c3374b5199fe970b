//! The only door to the file system.
//!
//! Production passes a [`RealDisk`]; tests pass one that loses, tears and refuses. Nothing else in the journal opens,
//! syncs, renames or removes a file, so a test that counts the calls here has seen every moment a crash can fall into.
//! On failure: what the operating system said is passed on; what it means is decided by the callers.

use std::{
    fmt,
    fs::{DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt},
    path::Path,
    sync::Arc,
};

use rustix::{
    fs::{CWD, FallocateFlags, RenameFlags, fallocate, renameat_with, statvfs},
    io::retry_on_intr,
};

/// A directory tree that keeps files.
pub trait Disk: fmt::Debug + Send + Sync + 'static {
    /// Makes the directory and its parents, readable by their owner only; nothing if it exists.
    ///
    /// # Errors
    /// What the operating system says.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;

    /// The names in a directory, in no order.
    ///
    /// # Errors
    /// What the operating system says.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// Opens a file.
    ///
    /// # Errors
    /// What the operating system says.
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn DiskFile>>;

    /// Gives a file another name, in place of whatever had it. Durable after `sync_dir`.
    ///
    /// # Errors
    /// What the operating system says; the file has its old name then.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Lets two files or directories change their names, in one step. Durable after `sync_dir`.
    ///
    /// # Errors
    /// What the operating system says, `Unsupported` or `InvalidInput` where the file system can't; both have their old
    /// names then.
    fn exchange(&self, one: &Path, two: &Path) -> io::Result<()>;

    /// Removes a file. Durable after `sync_dir`.
    ///
    /// # Errors
    /// What the operating system says.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Removes a directory with all that is in it. Not durable before the directory above is synced.
    ///
    /// # Errors
    /// `NotFound`; what the operating system says: any part of it may be gone then.
    fn remove_tree(&self, dir: &Path) -> io::Result<()>;

    /// Makes durable which names the directory holds.
    ///
    /// # Errors
    /// What the operating system says; it is unknown then what is durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// How much may still be written below a directory. Unit: bytes.
    ///
    /// # Errors
    /// What the operating system says.
    fn free_bytes(&self, dir: &Path) -> io::Result<u64>;
}

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Open {
    /// To read.
    Read,
    /// To read and write.
    Write,
    /// To read and write; made if it is missing, emptied if it is there.
    Create,
}

/// An open file.
pub trait DiskFile: fmt::Debug + Send + Sync + 'static {
    /// Its length. Unit: bytes.
    ///
    /// # Errors
    /// What the operating system says.
    fn bytes(&self) -> io::Result<u64>;

    /// Fills `buffer` from `offset` on.
    ///
    /// # Errors
    /// `UnexpectedEof` if the file is shorter; what the operating system says.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;

    /// Writes all of `bytes` at `offset`; a file that is shorter grows.
    ///
    /// # Errors
    /// What the operating system says; any part may be written then.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Takes the room for the first `bytes` bytes, so that no write to them can find the disk full; a file that is
    /// shorter grows, by zeros (`fallocate`).
    ///
    /// # Errors
    /// `Unsupported` where the file system can't; `StorageFull` at once, or what else the operating system says.
    fn allocate(&self, bytes: u64) -> io::Result<()>;

    /// Makes durable what was written, and the length (`fdatasync`).
    ///
    /// # Errors
    /// What the operating system says; it is unknown then what is durable, and asking again does not help.
    fn sync(&self) -> io::Result<()>;
}

/// The operating system's files.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let names = std::fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name().into_string().ok()));
        names.filter_map(Result::transpose).collect() // a name that is not UTF-8 is none of ours
    }

    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true).mode(0o600);
        match how {
            Open::Read => {}
            Open::Write => _ = options.write(true),
            Open::Create => _ = options.write(true).create(true).truncate(true),
        }
        Ok(Arc::new(RealFile(options.open(path)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn exchange(&self, one: &Path, two: &Path) -> io::Result<()> {
        Ok(renameat_with(CWD, one, CWD, two, RenameFlags::EXCHANGE)?)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn remove_tree(&self, dir: &Path) -> io::Result<()> {
        std::fs::remove_dir_all(dir)
    }

    #[expect(clippy::disallowed_methods, reason = "this is the place that syncs")]
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        let space = statvfs(dir)?;
        Ok(space.f_bavail.saturating_mul(space.f_frsize))
    }
}

#[derive(Debug)]
struct RealFile(File);

impl DiskFile for RealFile {
    fn bytes(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        Ok(retry_on_intr(|| fallocate(&self.0, FallocateFlags::empty(), 0, bytes))?)
    }

    #[expect(clippy::disallowed_methods, reason = "this is the place that syncs")]
    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}

/// Another disk's files, whose syncs do nothing: for what need not outlive the process.
#[derive(Clone, Debug)]
pub struct UnsyncedDisk(pub Arc<dyn Disk>);

impl Disk for UnsyncedDisk {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.0.create_dir(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.0.list(dir)
    }

    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(UnsyncedFile(self.0.open(path, how)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename(from, to)
    }

    fn exchange(&self, one: &Path, two: &Path) -> io::Result<()> {
        self.0.exchange(one, two)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.remove(path)
    }

    fn remove_tree(&self, dir: &Path) -> io::Result<()> {
        self.0.remove_tree(dir)
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        self.0.free_bytes(dir)
    }
}

#[derive(Debug)]
struct UnsyncedFile(Arc<dyn DiskFile>);

impl DiskFile for UnsyncedFile {
    fn bytes(&self) -> io::Result<u64> {
        self.0.bytes()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_at(bytes, offset)
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        self.0.allocate(bytes)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}
