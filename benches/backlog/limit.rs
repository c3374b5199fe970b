//! A control group that gives a process no more than so much memory.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// A group of this process's own; dropping it removes it, once it is empty.
pub(crate) struct MemoryGroup {
    directory: PathBuf,
}

impl MemoryGroup {
    /// Makes one, in version 1 or 2 of control groups, whichever is mounted.
    pub(crate) fn new(bytes: u64) -> io::Result<Self> {
        let name = format!("batonmq-bench-{}", std::process::id());
        let (root, limit) = if Path::new("/sys/fs/cgroup/memory").exists() {
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
        } else {
            fs::write("/sys/fs/cgroup/cgroup.subtree_control", "+memory")?;
            ("/sys/fs/cgroup", "memory.max")
        };
        let group = Self { directory: Path::new(root).join(name) };
        fs::create_dir(&group.directory)?;
        fs::write(group.directory.join(limit), bytes.to_string())?;
        Ok(group)
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir(&self.directory) {
            eprintln!("{} stays: {error}", self.directory.display());
        }
    }
}
