//! What a data directory takes on disk: a look at its directories that asks nobody, for metrics.

use std::{fs, io, path::Path};

use super::{journal, spool};

/// What lies below a data directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// The journal's segments, the one that is written to included.
    pub journal_segments: u64,
    /// All files of the journal: segments, indexes, the spare and the reserve. Unit: bytes.
    pub journal_bytes: u64,
    /// All files of the spool. Unit: bytes.
    pub spool_bytes: u64,
}

/// Looks once. What leaves while it is looked at counts or not.
///
/// # Errors
/// When a directory that is there can't be read.
pub fn footprint(data: &Path) -> io::Result<Footprint> {
    let mut footprint = Footprint::default();
    add_files(&data.join(journal::DIRECTORY), &mut |name, bytes| {
        footprint.journal_segments += u64::from(journal::SegmentNumber::of_file(name).is_some());
        footprint.journal_bytes += bytes;
    })?;
    // The spool is a journal too, one below its own directory.
    let spool = data.join(spool::DIRECTORY).join(journal::DIRECTORY);
    add_files(&spool, &mut |_, bytes| footprint.spool_bytes += bytes)?;
    Ok(footprint)
}

fn add_files(directory: &Path, add: &mut impl FnMut(&str, u64)) -> io::Result<()> {
    for entry in there(fs::read_dir(directory))?.into_iter().flatten() {
        let entry = entry?;
        if let Some(metadata) = there(entry.metadata())? {
            add(&entry.file_name().to_string_lossy(), metadata.len());
        }
    }
    Ok(())
}

/// `None` for what is not there, or not any more.
fn there<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_footprint_counts_segments_and_the_bytes_of_all_files() {
        let data = tempfile::tempdir().unwrap();
        assert_eq!(footprint(data.path()).unwrap(), Footprint::default(), "there is nothing yet");
        for directory in ["journal", "spool/journal"] {
            let directory = data.path().join(directory);
            fs::create_dir_all(&directory).unwrap();
            for (name, bytes) in [("0000000001.journal", 5), ("0000000001.index", 3), ("spare", 2)] {
                fs::write(directory.join(name), vec![0; bytes]).unwrap();
            }
        }
        let expected = Footprint { journal_segments: 1, journal_bytes: 10, spool_bytes: 10 };
        assert_eq!(footprint(data.path()).unwrap(), expected);
    }
}
