//! A journal in real files, to be looked at, spoilt and repaired while nobody has it open.

use std::{fs, os::unix::fs::FileExt, path::PathBuf, sync::Arc};

use batonmq::{
    persistence::{
        PersistenceAdapter, StoreError,
        journal::{Health, JournalAdapter, JournalOptions, RealDisk, VerifyReport, inspect, verify},
    },
    types::{Sequence, Term},
};

use super::{Broker, ORDERS, insert, script::Script, sequences};

pub(super) const SEGMENT_BYTES: u64 = 64 << 10;
pub(super) const RECORDS_AT: u64 = 4_096;

/// A journal in real files that can be looked at and spoilt while nobody has it open.
pub(super) struct Files(pub(super) tempfile::TempDir);

impl Files {
    pub(super) fn empty() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// With `messages` of 10,000 bytes, a batch each, numbered from 1: six fit into a segment. Ended as by kill -9.
    pub(super) async fn with(messages: u64) -> Self {
        let files = Self::empty();
        let mut broker = files.start().await;
        broker.commit(Script::first_batch()).await;
        for counter in 1..=messages {
            broker.commit(vec![insert(seq(counter), 10_000)]).await;
        }
        files
    }

    pub(super) fn options() -> JournalOptions {
        JournalOptions { segment_bytes: SEGMENT_BYTES, fill_in_background: false, ..JournalOptions::default() }
    }

    pub(super) async fn start(&self) -> Broker<JournalAdapter> {
        Broker::on(JournalAdapter::open(self.0.path(), Self::options()).unwrap()).await
    }

    pub(super) async fn refusal(&self) -> StoreError {
        let before = self.contents();
        let error = JournalAdapter::open(self.0.path(), Self::options()).unwrap().recover().await.unwrap_err();
        assert!(self.contents() == before, "nothing is changed");
        match (&error, self.verified()) {
            (StoreError::Damaged { path, offset, what }, Ok(report)) => {
                let first = &report.damage[0];
                assert_eq!(
                    (&first.path, first.offset, first.what),
                    (path, *offset, *what),
                    "verify says what a start says"
                );
            }
            (_, verified) => assert_eq!(verified.unwrap_err().to_string(), error.to_string()),
        }
        error
    }

    pub(super) fn verified(&self) -> Result<VerifyReport, StoreError> {
        verify(&(Arc::new(RealDisk) as Arc<_>), self.0.path(), &mut |_| ())
    }

    /// A start is refused because this byte of this segment is damaged.
    pub(super) async fn assert_damaged(&self, segment: u32, at: u64, expected: &str) {
        match self.refusal().await {
            StoreError::Damaged { path, offset, what } => {
                assert_eq!((path, offset), (self.path(&name(segment)), at), "{what}");
                assert!(what.contains(expected), "{what}");
            }
            error => panic!("{error}"),
        }
    }

    pub(super) async fn assert_holds(&self, expected: impl IntoIterator<Item = u64>) {
        let expected: Vec<Sequence> = expected.into_iter().map(seq).collect();
        assert_eq!(sequences(&self.start().await.messages(ORDERS).await), expected);
        assert!(matches!(self.health(), Health::Good), "{:?}", self.health());
    }

    pub(super) fn health(&self) -> Health {
        inspect(&(Arc::new(RealDisk) as Arc<_>), self.0.path()).unwrap().health
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join("journal").join(name)
    }

    pub(super) fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(self.path(".")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names.into_iter().map(|name| name.into_string().unwrap()).collect()
    }

    fn numbers(&self) -> impl Iterator<Item = u32> {
        self.names().into_iter().filter_map(|name| name.strip_suffix(".journal")?.parse().ok())
    }

    pub(super) fn oldest(&self) -> u32 {
        self.numbers().min().unwrap()
    }

    pub(super) fn newest(&self) -> u32 {
        self.numbers().max().unwrap()
    }

    pub(super) fn contents(&self) -> Vec<(String, Vec<u8>)> {
        self.names().into_iter().map(|name| (name.clone(), fs::read(self.path(&name)).unwrap())).collect()
    }

    pub(super) fn read(&self, segment: u32) -> Vec<u8> {
        fs::read(self.path(&name(segment))).unwrap()
    }

    pub(super) fn write(&self, segment: u32, bytes: &[u8], at: u64) {
        let file = fs::OpenOptions::new().write(true).open(self.path(&name(segment))).unwrap();
        file.write_all_at(bytes, at).unwrap();
    }

    /// Says that a newer version has written it: magic, format and checksum stand at the same places in every format.
    pub(super) fn set_format(&self, segment: u32, format: u32) {
        let mut header = self.read(segment)[..60].to_vec();
        header[8..12].copy_from_slice(&format.to_le_bytes());
        let checksum = crc32c::crc32c(&header);
        self.write(segment, &[header, checksum.to_le_bytes().to_vec()].concat(), 0);
    }

    pub(super) fn cut(&self, segment: u32, bytes: u64) {
        fs::OpenOptions::new().write(true).open(self.path(&name(segment))).unwrap().set_len(bytes).unwrap();
    }

    pub(super) fn flip(&self, segment: u32, at: u64) {
        let byte = self.read(segment)[at as usize] ^ 0x10;
        self.write(segment, &[byte], at);
    }

    /// Where the records of a segment begin, and where the next would.
    pub(super) fn records(&self, segment: u32) -> Vec<u64> {
        let bytes = self.read(segment);
        let mut records = vec![RECORDS_AT];
        loop {
            let at = *records.last().unwrap() as usize;
            let length = bytes.get(at..at + 4).map_or(0, |length| u32::from_le_bytes(length.try_into().unwrap()));
            if length == 0 {
                return records;
            }
            records.push((at as u64 + 8 + u64::from(length)).next_multiple_of(8));
        }
    }
}

pub(super) fn name(segment: u32) -> String {
    format!("{segment:010}.journal")
}

pub(super) fn index(segment: u32) -> String {
    format!("{segment:010}.index")
}

pub(super) fn seq(counter: u64) -> Sequence {
    Sequence::new(Term(1), counter)
}
