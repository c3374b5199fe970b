//! A disk in memory that keeps synced and unsynced bytes apart, and fails when it is told to.
//!
//! It behaves as badly as a disk may: at a power loss each unsynced 4 KiB page survives or not by itself, and of the
//! unsynced changes to names any prefix does; any page may reach the disk before it is synced; after a failed sync the
//! pages look fine in the cache, are marked clean and never reach the disk (as Linux does); a call that a crash or a
//! failure falls into is done in part, or even whole.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use batonmq::persistence::journal::{Disk, DiskFile, Open};

use super::seed::Rng;

const PAGE: usize = 4_096;

/// What goes wrong, and at which call, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Never,
    /// The process is gone: this call is done in part, and every later one fails.
    CrashAt(u64),
    /// This call fails, once.
    FailAt(u64, io::ErrorKind),
}

#[derive(Clone, Debug)]
pub(super) struct FaultyDisk(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    files: Vec<Inode>,
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    /// Changes to names since the last sync of the directory.
    unsynced_names: Vec<NameChange>,
    fault: Fault,
    calls: u64,
    crashed: bool,
    seed: u64,
    rng: Rng,
}

#[derive(Clone, Debug, Default)]
struct Inode {
    cached: Vec<u8>,
    durable: Vec<u8>,
    dirty: BTreeSet<usize>,
}

#[derive(Clone, Debug)]
enum NameChange {
    Made(PathBuf, usize),
    Renamed(PathBuf, PathBuf),
    Removed(PathBuf),
}

impl FaultyDisk {
    pub(super) fn new(fault: Fault, seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            files: Vec::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            unsynced_names: Vec::new(),
            fault,
            calls: 0,
            crashed: false,
            seed,
            rng: Rng::new(seed),
        })))
    }

    /// How many calls there were.
    pub(super) fn calls(&self) -> u64 {
        self.0.lock().unwrap().calls
    }

    /// From here on every call fails.
    pub(super) fn stop(&self) {
        self.0.lock().unwrap().crashed = true;
    }

    /// The same machine after kill -9: what was written is in the cache, and as unsynced as it was.
    pub(super) fn after_kill(&self) -> Self {
        let state = self.0.lock().unwrap();
        let next = Self::new(Fault::Never, state.seed);
        {
            let mut copy = next.0.lock().unwrap();
            copy.files = state.files.clone();
            copy.names = state.names.clone();
            copy.durable_names = state.durable_names.clone();
            copy.unsynced_names = state.unsynced_names.clone();
        }
        next
    }

    /// The machine after a power loss: what was synced, and by chance some of what was not.
    pub(super) fn after_power_loss(&self, seed: u64) -> Self {
        let next = self.after_kill();
        {
            let mut state = next.0.lock().unwrap();
            state.rng = Rng::new(seed);
            state.lose_what_is_unsynced();
        }
        next
    }

    /// Sets what goes wrong from now on, counting calls anew.
    pub(super) fn with_fault(self, fault: Fault) -> Self {
        {
            let mut state = self.0.lock().unwrap();
            (state.fault, state.calls) = (fault, 0);
        }
        self
    }

    /// The names in a directory.
    pub(super) fn names(&self) -> Vec<String> {
        let state = self.0.lock().unwrap();
        state.names.keys().filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect()
    }
}

/// What a call has to do.
enum Call {
    Whole,
    /// Do a part, then fail with this.
    Part(io::Error),
}

impl State {
    fn call(&mut self) -> io::Result<Call> {
        if self.crashed {
            return Err(io::Error::other("the process is gone"));
        }
        let number = self.calls;
        self.calls += 1;
        if self.rng.one_in(4) {
            self.write_back();
        }
        match self.fault {
            Fault::CrashAt(at) if at == number => {
                self.crashed = true;
                Ok(Call::Part(io::Error::other("the process is gone")))
            }
            Fault::FailAt(at, kind) if at == number => Ok(Call::Part(kind.into())),
            _ => Ok(Call::Whole),
        }
    }

    /// A call that is done or not: a crash falls before or after it, a failure leaves it undone.
    fn call_at_once(&mut self) -> io::Result<(bool, Result<(), io::Error>)> {
        match self.call()? {
            Call::Whole => Ok((true, Ok(()))),
            Call::Part(error) => Ok((self.crashed && self.rng.one_in(2), Err(error))),
        }
    }

    /// The system writes what it likes when it likes.
    fn write_back(&mut self) {
        for file in &mut self.files {
            for page in file.dirty.clone() {
                if self.rng.one_in(2) {
                    file.dirty.remove(&page);
                    file.sync_page(page);
                }
            }
        }
    }

    fn lose_what_is_unsynced(&mut self) {
        for file in &mut self.files {
            for page in std::mem::take(&mut file.dirty) {
                if self.rng.one_in(2) {
                    file.sync_page(page);
                }
            }
            file.cached = file.durable.clone();
        }
        let survive = self.rng.below(self.unsynced_names.len() + 1);
        for change in std::mem::take(&mut self.unsynced_names).into_iter().take(survive) {
            change.apply(&mut self.durable_names);
        }
        self.names = self.durable_names.clone();
    }

    fn change_name(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.unsynced_names.push(change);
    }
}

impl NameChange {
    /// Nothing here moves from one directory to another.
    fn is_in(&self, dir: &Path) -> bool {
        match self {
            Self::Made(path, _) | Self::Renamed(path, _) | Self::Removed(path) => path.parent() == Some(dir),
        }
    }

    fn apply(&self, names: &mut BTreeMap<PathBuf, usize>) {
        match self {
            Self::Made(path, file) => _ = names.insert(path.clone(), *file),
            Self::Renamed(from, to) => {
                if let Some(file) = names.remove(from) {
                    names.insert(to.clone(), file);
                }
            }
            Self::Removed(path) => _ = names.remove(path),
        }
    }
}

impl Inode {
    fn write(&mut self, bytes: &[u8], offset: usize) {
        let end = offset + bytes.len();
        if self.cached.len() < end {
            self.cached.resize(end, 0);
        }
        self.cached[offset..end].copy_from_slice(bytes);
        if !bytes.is_empty() {
            self.dirty.extend(offset / PAGE..=(end - 1) / PAGE);
        }
    }

    fn sync_page(&mut self, page: usize) {
        let begin = page * PAGE;
        let end = (begin + PAGE).min(self.cached.len());
        if begin >= end {
            return;
        }
        if self.durable.len() < end {
            self.durable.resize(end, 0);
        }
        self.durable[begin..end].copy_from_slice(&self.cached[begin..end]);
    }
}

impl Disk for FaultyDisk {
    fn create_dir(&self, _: &Path) -> io::Result<()> {
        self.0.lock().unwrap().call_at_once()?.1
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut state = self.0.lock().unwrap();
        state.call_at_once()?.1?;
        let names = state.names.keys().filter(|path| path.parent() == Some(dir));
        Ok(names.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect())
    }

    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.0.lock().unwrap();
        let (done, outcome) = state.call_at_once()?;
        if done && how == Open::Create {
            let file = state.files.len();
            state.files.push(Inode::default());
            state.change_name(NameChange::Made(path.to_owned(), file));
        }
        outcome?;
        let file = *state.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(FaultyFile { disk: self.clone(), file }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        let (done, outcome) = state.call_at_once()?;
        if done {
            assert!(state.names.contains_key(from), "{} is there", from.display());
            state.change_name(NameChange::Renamed(from.to_owned(), to.to_owned()));
        }
        outcome
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        let (done, outcome) = state.call_at_once()?;
        if done && !state.names.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        if done {
            state.change_name(NameChange::Removed(path.to_owned()));
        }
        outcome
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        let (done, outcome) = state.call_at_once()?;
        if done {
            let State { durable_names, unsynced_names, .. } = &mut *state;
            unsynced_names.retain(|change| {
                let synced = change.is_in(dir);
                if synced {
                    change.apply(durable_names);
                }
                !synced
            });
        }
        outcome
    }
}

#[derive(Debug)]
struct FaultyFile {
    disk: FaultyDisk,
    file: usize,
}

impl DiskFile for FaultyFile {
    fn bytes(&self) -> io::Result<u64> {
        let mut state = self.disk.0.lock().unwrap();
        state.call_at_once()?.1?;
        Ok(state.files[self.file].cached.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.0.lock().unwrap();
        state.call_at_once()?.1?;
        let begin = offset as usize;
        let bytes = state.files[self.file].cached.get(begin..begin + buffer.len());
        buffer.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.0.lock().unwrap();
        let (written, outcome) = match state.call()? {
            Call::Whole => (bytes.len(), Ok(())),
            Call::Part(error) if state.rng.one_in(4) => (bytes.len(), Err(error)),
            Call::Part(error) => (state.rng.below(bytes.len() + 1), Err(error)),
        };
        state.files[self.file].write(&bytes[..written], offset as usize);
        outcome
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.0.lock().unwrap();
        let call = state.call()?;
        let State { files, rng, crashed, .. } = &mut *state;
        let file = &mut files[self.file];
        let outcome = match call {
            Call::Whole => Ok(()),
            Call::Part(error) => Err(error),
        };
        for page in file.dirty.clone() {
            let survives = outcome.is_ok() || rng.one_in(2);
            if survives {
                file.sync_page(page);
            }
            if survives || !*crashed {
                file.dirty.remove(&page); // a failed sync leaves pages that look clean and are nowhere
            }
        }
        outcome
    }
}
