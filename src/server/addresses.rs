//! The file in which the master publishes where clients find it, for scripts and for ports that the system chose.

use std::{
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
};

/// The file's name in the data directory. A line for each connector: its name, a space, its URI.
pub const LISTENERS_FILE: &str = "listeners";

/// The published addresses, until they are withdrawn.
#[derive(Debug)]
pub struct PublishedAddresses {
    path: PathBuf,
}

impl PublishedAddresses {
    /// Replaces what an earlier master published, which may have died without withdrawing it. A disk without room for
    /// the file is no error: the broker's consumers make some.
    ///
    /// # Errors
    /// When the file can't be written for another reason.
    pub fn publish(data: &Path, addresses: &[(String, String)]) -> io::Result<Self> {
        let path = data.join(LISTENERS_FILE);
        let beside = data.join(format!("{LISTENERS_FILE}.new"));
        let mut text = String::new();
        for (name, uri) in addresses {
            writeln!(text, "{name} {uri}").map_err(io::Error::other)?;
        }
        // Whoever reads it sees all of it or none.
        match fs::write(&beside, text).and_then(|()| fs::rename(&beside, &path)) {
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                tracing::warn!(path = %path.display(), "there is no room to publish the addresses; the log has them");
                remove(&beside)?;
            }
            written => written?,
        }
        Ok(Self { path })
    }

    /// Removes the file of a master that is gone; nothing if there is none.
    ///
    /// # Errors
    /// When it is there and can't be removed.
    pub fn withdraw_stale(data: &Path) -> io::Result<()> {
        remove(&data.join(LISTENERS_FILE))
    }

    /// Removes the file: nothing is open any more.
    ///
    /// # Errors
    /// When it is there and can't be removed.
    pub fn withdraw(&self) -> io::Result<()> {
        remove(&self.path)
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_published_can_be_read_until_it_is_withdrawn() {
        let data = tempfile::tempdir().unwrap();
        let file = data.path().join(LISTENERS_FILE);
        PublishedAddresses::withdraw_stale(data.path()).unwrap();
        fs::write(&file, "stomp stomp://10.0.0.1:1\n").unwrap();
        let addresses = [("stomp".to_owned(), "stomp://127.0.0.1:40001".to_owned())];
        let published = PublishedAddresses::publish(data.path(), &addresses).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "stomp stomp://127.0.0.1:40001\n");
        published.withdraw().unwrap();
        assert!(!file.exists());
    }
}
