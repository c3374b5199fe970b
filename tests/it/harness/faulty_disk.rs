//! A disk in memory that keeps synced and unsynced bytes apart, and fails when it is told to.
//!
//! It behaves as badly as a disk may. At a power loss each unsynced 4 KiB page survives or not by itself, and so does
//! each unsynced change to a name, or only the new name of a file; any page may reach the disk before it is synced. A
//! process that is killed leaves the cache as it is, and as unsynced as it is: the next one reads it, and a power loss
//! then still loses it. After a failed
//! sync the pages look fine in the cache, are marked clean and may never reach the disk (as Linux does). A call that a
//! crash or a failure falls into is done before, halfway or after.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use batonmq::persistence::journal::{Disk, DiskFile, Open};
use tokio_util::sync::CancellationToken;

use super::Rng;

const PAGE: usize = 4_096;

/// What goes wrong, and at which call, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Never,
    /// The process is gone at this call, and every later one fails.
    Crash(u64, Moment),
    /// This call fails, once. A write or a sync may have done its work, or some of it; other calls have not.
    Fail(u64, Moment, io::ErrorKind),
    /// This call fails, and every later one too.
    FailFrom(u64),
}

/// How far a call gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    Before,
    Halfway,
    After,
}

impl Moment {
    pub(crate) const ALL: [Self; 3] = [Self::Before, Self::Halfway, Self::After];
}

#[derive(Clone)]
pub(crate) struct FaultyDisk(Arc<Mutex<State>>);

impl fmt::Debug for FaultyDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FaultyDisk") // its files would fill pages
    }
}

#[derive(Clone, Debug)]
struct State {
    files: Vec<Inode>,
    /// Directories have no file behind their name.
    names: Names,
    durable_names: Names,
    /// Changes to names since the last sync of the directory.
    unsynced_names: Vec<NameChange>,
    fault: Fault,
    /// How many bytes all files may take.
    capacity: Option<usize>,
    allocates: bool,
    bytes_written: u64,
    calls: u64,
    crashed: bool,
    /// Tells whoever waits for that.
    gone: CancellationToken,
    rng: Rng,
}

type Names = BTreeMap<PathBuf, Option<usize>>;

#[derive(Clone, Debug, Default)]
struct Inode {
    cached: Vec<u8>,
    durable: Vec<u8>,
    dirty: BTreeSet<usize>,
}

/// One that survives does so whole: it names the file itself, whatever became of the changes before it.
#[derive(Clone, Debug)]
enum NameChange {
    Made(PathBuf, Option<usize>),
    Renamed(PathBuf, PathBuf, Option<usize>),
    Removed(PathBuf),
    /// A directory, with all that is in it.
    Moved(PathBuf, PathBuf),
    /// Two directories.
    Exchanged(PathBuf, PathBuf),
}

impl FaultyDisk {
    pub(crate) fn new(fault: Fault, seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            files: Vec::new(),
            names: Names::new(),
            durable_names: Names::new(),
            unsynced_names: Vec::new(),
            fault,
            capacity: None,
            allocates: true,
            bytes_written: 0,
            calls: 0,
            crashed: false,
            gone: CancellationToken::new(),
            rng: Rng::new(seed),
        })))
    }

    /// How many calls there were.
    pub(crate) fn calls(&self) -> u64 {
        self.0.lock().unwrap().calls
    }

    /// Whether the fault was met.
    pub(crate) fn has_failed(&self) -> bool {
        let state = self.0.lock().unwrap();
        match state.fault {
            Fault::Never => state.crashed,
            Fault::Crash(at, _) | Fault::Fail(at, ..) | Fault::FailFrom(at) => at < state.calls,
        }
    }

    /// From here on every call fails.
    pub(crate) fn stop(&self) {
        self.0.lock().unwrap().crash();
    }

    /// Waits until the process is gone, at a call or because it was stopped.
    pub(crate) async fn gone(&self) {
        let gone = self.0.lock().unwrap().gone.clone();
        gone.cancelled().await;
    }

    /// The same machine after kill -9: what was written is in the cache, and as unsynced as it was.
    pub(crate) fn after_kill(&self) -> Self {
        let mut state = self.0.lock().unwrap().clone();
        (state.fault, state.calls) = (Fault::Never, 0);
        (state.crashed, state.gone) = (false, CancellationToken::new());
        Self(Arc::new(Mutex::new(state)))
    }

    /// The machine after a power loss: what was synced, and by chance some of what was not.
    pub(crate) fn after_power_loss(&self, seed: u64) -> Self {
        let next = self.after_kill();
        {
            let mut state = next.0.lock().unwrap();
            state.rng = Rng::new(seed);
            state.lose_what_is_unsynced();
        }
        next
    }

    /// Sets what goes wrong from now on, counting calls anew.
    pub(crate) fn with_fault(self, fault: Fault) -> Self {
        {
            let mut state = self.0.lock().unwrap();
            (state.fault, state.calls) = (fault, 0);
        }
        self
    }

    /// All files together take no more bytes from now on.
    pub(crate) fn limit(&self, bytes: Option<u64>) {
        self.0.lock().unwrap().capacity = bytes.map(|bytes| bytes as usize);
    }

    /// Nothing can be allocated, as on some file systems.
    pub(crate) fn without_allocation(self) -> Self {
        self.0.lock().unwrap().allocates = false;
        self
    }

    /// How many bytes were written.
    pub(crate) fn bytes_written(&self) -> u64 {
        self.0.lock().unwrap().bytes_written
    }

    /// What the files in a directory hold, by their names.
    pub(crate) fn contents(&self, dir: &Path) -> BTreeMap<String, Vec<u8>> {
        let state = self.0.lock().unwrap();
        let here = state.names.iter().filter(|(path, _)| path.parent() == Some(dir));
        let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
        let content = |file: usize| state.files[file].cached.clone();
        here.filter_map(|(path, file)| Some((name(path), content((*file)?)))).collect()
    }

    /// A bit on the disk is wrong from now on.
    pub(crate) fn flip(&self, path: &Path, at: usize) {
        let mut state = self.0.lock().unwrap();
        let file = state.file(path).unwrap();
        let Inode { cached, durable, .. } = &mut state.files[file];
        [cached, durable].into_iter().for_each(|bytes| bytes[at] ^= 0x10);
    }

    /// The names of all files.
    pub(crate) fn names(&self) -> Vec<String> {
        let state = self.0.lock().unwrap();
        let files = state.names.iter().filter(|(_, file)| file.is_some());
        files.filter_map(|(path, _)| Some(path.file_name()?.to_str()?.to_owned())).collect()
    }
}

impl State {
    /// Counts a call: how far it gets, and how it ends.
    fn call(&mut self) -> io::Result<(Moment, io::Result<()>)> {
        if self.crashed {
            return Err(gone());
        }
        let number = self.calls;
        self.calls += 1;
        if self.rng.one_in(4) {
            self.write_back();
        }
        Ok(match self.fault {
            Fault::Crash(at, moment) if at == number => {
                self.crash();
                (moment, Err(gone()))
            }
            Fault::Fail(at, moment, kind) if at == number => (moment, Err(kind.into())),
            Fault::FailFrom(at) if at <= number => (Moment::Before, Err(io::ErrorKind::Other.into())),
            _ => (Moment::After, Ok(())),
        })
    }

    /// A call that is done or not: a crash falls before or after it, a failure leaves it undone.
    fn call_at_once(&mut self) -> io::Result<(bool, io::Result<()>)> {
        let (moment, outcome) = self.call()?;
        let done = match moment {
            Moment::Before => false,
            Moment::Halfway => self.rng.one_in(2),
            Moment::After => true,
        };
        Ok((done && (outcome.is_ok() || self.crashed), outcome))
    }

    fn crash(&mut self) {
        self.crashed = true;
        self.gone.cancel();
    }

    /// The system writes what it likes when it likes.
    fn write_back(&mut self) {
        let Self { files, rng, .. } = self;
        files.iter_mut().for_each(|file| file.write_back(rng));
    }

    fn lose_what_is_unsynced(&mut self) {
        let Self { files, rng, .. } = self;
        for file in files {
            file.write_back(rng);
            file.dirty.clear();
            file.cached.clone_from(&file.durable);
        }
        for change in std::mem::take(&mut self.unsynced_names) {
            match (self.rng.below(8), change) {
                (0..4, _) => {}
                (4, NameChange::Renamed(_, to, file)) => NameChange::Made(to, file).apply(&mut self.durable_names),
                (_, change) => change.apply(&mut self.durable_names),
            }
        }
        let found =
            |path: &Path| path.ancestors().skip(1).all(|dir| self.durable_names.contains_key(dir) || is_root(dir));
        self.names = self.durable_names.clone();
        self.names.retain(|path, _| found(path));
        self.durable_names = self.names.clone();
    }

    fn change_name(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.unsynced_names.push(change);
    }

    /// A change to the names of directories.
    fn move_dir(&mut self, change: NameChange) {
        let is_below = |other: &NameChange| other.path().ancestors().skip(1).any(|dir| change.is_of(dir));
        assert!(!self.unsynced_names.iter().any(is_below), "a directory is moved when all that is in it is synced");
        self.change_name(change);
    }

    fn file(&self, path: &Path) -> io::Result<usize> {
        self.names.get(path).copied().flatten().ok_or(io::ErrorKind::NotFound.into())
    }

    /// How many bytes more may be taken.
    fn room(&self) -> usize {
        let taken = self.names.values().flatten().map(|file| self.files[*file].cached.len()).sum();
        self.capacity.map_or(usize::MAX, |capacity| capacity.saturating_sub(taken))
    }
}

fn gone() -> io::Error {
    io::Error::other("the process is gone")
}

fn is_root(dir: &Path) -> bool {
    dir.parent().is_none()
}

impl NameChange {
    /// Nothing here moves from one directory to another.
    fn is_in(&self, dir: &Path) -> bool {
        self.path().parent() == Some(dir)
    }

    /// Or one of them.
    fn path(&self) -> &Path {
        match self {
            Self::Made(path, _) | Self::Renamed(path, ..) | Self::Removed(path) => path,
            Self::Moved(path, _) | Self::Exchanged(path, _) => path,
        }
    }

    /// Whether it moves this directory.
    fn is_of(&self, dir: &Path) -> bool {
        match self {
            Self::Moved(from, _) => from == dir,
            Self::Exchanged(one, two) => one == dir || two == dir,
            Self::Made(..) | Self::Renamed(..) | Self::Removed(_) => false,
        }
    }

    fn apply(&self, names: &mut Names) {
        match self {
            Self::Made(path, file) => _ = names.insert(path.clone(), *file),
            Self::Renamed(from, to, file) => {
                if names.get(from) == Some(file) {
                    names.remove(from);
                }
                names.insert(to.clone(), *file);
            }
            Self::Removed(path) => _ = names.remove(path),
            Self::Moved(from, to) => {
                let moved = take_tree(names, from);
                put_tree(names, to, moved);
            }
            Self::Exchanged(one, two) => {
                let trees = (take_tree(names, one), take_tree(names, two));
                put_tree(names, two, trees.0);
                put_tree(names, one, trees.1);
            }
        }
    }
}

/// Takes a directory out with all that is in it, by their names in there.
fn take_tree(names: &mut Names, dir: &Path) -> Names {
    let tree: Vec<PathBuf> = names.keys().filter(|path| path.starts_with(dir)).cloned().collect();
    let inner = |path: &PathBuf| path.strip_prefix(dir).unwrap().to_owned();
    tree.into_iter().map(|path| (inner(&path), names.remove(&path).unwrap())).collect()
}

fn put_tree(names: &mut Names, dir: &Path, tree: Names) {
    names.extend(tree.into_iter().map(|(path, file)| (dir.join(path), file)));
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

    /// A write that is cut short: up to any byte, or by pages in any order.
    fn write_half(&mut self, bytes: &[u8], offset: usize, rng: &mut Rng) {
        if rng.one_in(2) {
            return self.write(&bytes[..rng.below(bytes.len() + 1)], offset);
        }
        let mut at = 0;
        while at < bytes.len() {
            let end = (at + PAGE - (offset + at) % PAGE).min(bytes.len());
            if rng.one_in(2) {
                self.write(&bytes[at..end], offset + at);
            }
            at = end;
        }
    }

    fn write_back(&mut self, rng: &mut Rng) {
        for page in std::mem::take(&mut self.dirty) {
            if rng.one_in(2) {
                self.sync_page(page);
            } else {
                self.dirty.insert(page);
            }
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

    fn sync(&mut self) {
        for page in std::mem::take(&mut self.dirty) {
            self.sync_page(page);
        }
        self.durable.resize(self.cached.len(), 0);
    }
}

impl Disk for FaultyDisk {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        let (done, outcome) = state.call_at_once()?;
        let missing: Vec<_> = dir.ancestors().filter(|dir| !is_root(dir) && !state.names.contains_key(*dir)).collect();
        for dir in missing.into_iter().rev().filter(|_| done) {
            state.change_name(NameChange::Made(dir.to_owned(), None));
        }
        outcome
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
            match state.file(path) {
                Ok(file) => {
                    state.files[file] = Inode { durable: state.files[file].durable.clone(), ..Inode::default() }
                }
                Err(_) => {
                    let file = Some(state.files.len());
                    state.files.push(Inode::default());
                    state.change_name(NameChange::Made(path.to_owned(), file));
                }
            }
        }
        outcome?;
        Ok(Arc::new(FaultyFile { disk: self.clone(), file: state.file(path)? }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        let (done, outcome) = state.call_at_once()?;
        let renamed = state.names.get(from).copied().ok_or(io::ErrorKind::NotFound)?;
        let (from, to) = (from.to_owned(), to.to_owned());
        match renamed {
            _ if !done => {}
            Some(file) => state.change_name(NameChange::Renamed(from, to, Some(file))),
            None => state.move_dir(NameChange::Moved(from, to)),
        }
        outcome
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        let (done, outcome) = state.call_at_once()?;
        if done {
            state.file(path)?;
            state.change_name(NameChange::Removed(path.to_owned()));
        }
        outcome
    }

    fn remove_tree(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        let (moment, outcome) = state.call()?;
        let within: Vec<PathBuf> = state.names.keys().filter(|path| path.starts_with(dir)).cloned().collect();
        if within.is_empty() {
            return outcome.and(Err(io::ErrorKind::NotFound.into()));
        }
        for path in within.into_iter().rev() {
            let is_reached = match moment {
                Moment::Before => false,
                Moment::Halfway => state.names[&path].is_some() && state.rng.one_in(2),
                Moment::After => true,
            };
            if is_reached {
                state.change_name(NameChange::Removed(path));
            }
        }
        outcome
    }

    fn exchange(&self, one: &Path, two: &Path) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        let (done, outcome) = state.call_at_once()?;
        if done {
            state.move_dir(NameChange::Exchanged(one.to_owned(), two.to_owned()));
        }
        outcome
    }

    fn free_bytes(&self, _: &Path) -> io::Result<u64> {
        Ok(u64::MAX)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        let (moment, outcome) = state.call()?;
        let State { durable_names, unsynced_names, rng, .. } = &mut *state;
        let upto = match moment {
            Moment::Before => 0,
            Moment::Halfway => rng.below(unsynced_names.len() + 1),
            Moment::After => unsynced_names.len(),
        };
        let (synced, others) = unsynced_names.drain(..upto).partition::<Vec<_>, _>(|change| change.is_in(dir));
        synced.iter().for_each(|change| change.apply(durable_names));
        unsynced_names.splice(0..0, others);
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
        let (moment, outcome) = state.call()?;
        let offset = offset as usize;
        state.bytes_written += bytes.len() as u64;
        let fits =
            state.files[self.file].cached.len().saturating_add(state.room()).saturating_sub(offset).min(bytes.len());
        let State { files, rng, .. } = &mut *state;
        match moment {
            Moment::Before => {}
            Moment::Halfway => files[self.file].write_half(&bytes[..fits], offset, rng),
            Moment::After => files[self.file].write(&bytes[..fits], offset),
        }
        outcome?;
        if fits < bytes.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        let mut state = self.disk.0.lock().unwrap();
        let (done, outcome) = state.call_at_once()?;
        let grows = (bytes as usize).saturating_sub(state.files[self.file].cached.len());
        outcome?;
        if !state.allocates {
            return Err(io::ErrorKind::Unsupported.into());
        }
        if grows > state.room() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if done && grows > 0 {
            state.files[self.file].cached.resize(bytes as usize, 0);
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.0.lock().unwrap();
        let (moment, outcome) = state.call()?;
        let State { files, rng, crashed, .. } = &mut *state;
        let file = &mut files[self.file];
        match moment {
            Moment::Before => {}
            Moment::Halfway => file.write_back(rng),
            Moment::After => file.sync(),
        }
        if outcome.is_err() && !*crashed {
            file.dirty.clear(); // a failed sync leaves pages that look clean and may be nowhere
        }
        outcome
    }
}
