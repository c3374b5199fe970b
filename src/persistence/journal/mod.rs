//! The local journal: segment files of checksummed records, one a batch, each durable before it is answered.
//!
//! Owns every file in `<data>/journal`; nobody else opens, syncs or removes one. Which broker may is decided by the
//! lock on the data directory (`election::FileLocker`), held around the adapter's whole life.
//! Always true: a batch is whole or absent; what was answered survives a crash at any moment (R33); see `writer.rs`.
//! On failure: damage is refused and named; what was not confirmed and is torn is cut; a failed sync ends the process.
//!
//! Memory holds sets of sequences, the disk says where each message lies. `writer.rs` is the thread, `recovery.rs` the
//! start, `read.rs` what reads beside it. The bytes are those of `segment.rs`, `record.rs` and `skim.rs`, and of a
//! sealed segment's index: `index.rs`, `summary.rs`, `table.rs`, `rebuild.rs`. `live.rs` is what is live and in which
//! segment, by `holdings.rs`, `line.rs`, `places.rs`, and the sets in `sequences.rs`, `scattered.rs` and `chunk.rs`;
//! `copying.rs` is what keeps old segments from staying; `spare.rs` the next segment and the reserve, `background.rs`
//! what nobody waits for, `disk.rs` the door to the file system, `probe.rs` what that has to know. For humans:
//! `inspect.rs` is a look at it, `walk.rs` reads all of it, damaged or not, for
//! `verify.rs` (with `index_check.rs`) and `repair.rs`; `tally.rs` adds up what that finds.

mod background;
mod chunk;
mod copying;
mod disk;
mod holdings;
mod index;
mod index_check;
mod inspect;
mod line;
mod live;
mod places;
mod probe;
mod read;
mod rebuild;
mod record;
mod recovery;
mod repair;
mod scattered;
mod segment;
mod sequences;
mod skim;
mod spare;
mod summary;
mod table;
mod tally;
mod verify;
mod walk;
mod writer;

use std::{
    fmt,
    hash::{BuildHasher, RandomState},
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, SyncSender, TryRecvError, sync_channel},
    },
    thread::JoinHandle,
};

use tokio::sync::oneshot;

pub use disk::{Disk, DiskFile, Open, RealDisk, UnsyncedDisk};
pub use index_check::{IndexReport, IndexState};
pub use inspect::{DurableReport, Health, JournalReport, SegmentReport, inspect};
pub use probe::probe;
pub use read::JournalReader;
pub use repair::{RepairError, RepairOptions, RepairReport, repair};
pub use segment::SegmentNumber;
pub use verify::{VerifyReport, verify};
pub use walk::{Damage, Lost, Progress, TornWrite, Watch, lost_records};

use self::{recovery::failed, segment::BLOCK, writer::Writer};
use super::{CommitError, PersistenceAdapter, StoreError, StoreLimits};
use crate::types::{Batch, Broken, Catalog, Tenure};

/// A message's body, properties, texts and names together. Unit: bytes. So a record with one message is far below 2
/// GiB.
const MESSAGE_BYTES_MAX: usize = 1 << 30;

/// How many requests may wait for the journal's thread; the adapter sends one at a time, unless a future is dropped.
const REQUESTS_MAX: usize = 64;

/// See [`JournalOptions::segment_bytes`].
const SEGMENT_BYTES_MIN: u64 = 16 << 10;
const SEGMENT_BYTES_MAX: u64 = 2 << 30;

/// The directory below the data directory.
pub(super) const DIRECTORY: &str = "journal";

/// How a journal works.
#[derive(Clone, Debug)]
pub struct JournalOptions {
    /// The file system.
    pub disk: Arc<dyn Disk>,
    /// How large a segment is. Unit: bytes. Range: 16 KiB to 2 GiB, held within it and rounded up to 4 KiB. Default:
    /// 64 MiB. May change from start to start.
    pub segment_bytes: u64,
    /// Whether threads of their own fill the next segment ahead of its use and write the indexes of the last ones.
    /// Default: true; tests that count the calls to the disk turn it off.
    pub fill_in_background: bool,
    /// What follows a failed sync. Default: one line in the log, then the process aborts.
    pub on_poison: OnPoison,
    /// Where incarnations begin in a new journal. Default: `None`, at random, so that no body can hold a record that
    /// passes for one of this journal.
    pub first_incarnation: Option<u64>,
    /// For simulations.
    #[doc(hidden)]
    pub broken: Broken,
}

impl Default for JournalOptions {
    fn default() -> Self {
        Self {
            disk: Arc::new(RealDisk),
            segment_bytes: 64 << 20,
            fill_in_background: true,
            on_poison: OnPoison::default(),
            first_incarnation: None,
            broken: Broken::default(),
        }
    }
}

impl JournalOptions {
    /// Always of 62 bits, so that it takes the same nine bytes in every record.
    fn first_incarnation(&self) -> u64 {
        let number = self.first_incarnation.unwrap_or_else(|| RandomState::new().hash_one(0));
        (number >> 3) | 1 << 61
    }
}

/// What is called when it is unknown what reached the disk.
#[derive(Clone)]
pub struct OnPoison(Arc<Poisoned>);

type Poisoned = dyn Fn(&str, &Path, &io::Error) + Send + Sync;

impl OnPoison {
    /// Calls this instead of ending the process: with what was tried, on which file, and what the system said. The
    /// journal takes nothing more afterwards.
    #[must_use]
    pub fn new(call: impl Fn(&str, &Path, &io::Error) + Send + Sync + 'static) -> Self {
        Self(Arc::new(call))
    }

    fn call(&self, action: &str, path: &Path, error: &io::Error) {
        (self.0)(action, path, error);
    }
}

impl Default for OnPoison {
    fn default() -> Self {
        Self::new(|action, path, error| {
            tracing::error!(%error, "cannot {action} {}: nobody can know what is durable, the process ends", path.display());
            std::process::abort();
        })
    }
}

impl fmt::Debug for OnPoison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnPoison")
    }
}

/// What a journal takes, and what it did since it was recovered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Segments in use, the one that is written to among them.
    pub segments: usize,
    /// Whether there is a spare file, or one is being made.
    pub spare: bool,
    /// Whether there is a reserve; without one nothing is added (R35).
    pub reserve: bool,
    /// Messages that somebody still holds.
    pub live_messages: u64,
    /// What they take, about. Unit: bytes.
    pub live_bytes: u64,
    /// What was written, copies apart. Unit: bytes.
    pub written_bytes: u64,
    /// What was written again so that old segments could leave: never more than `written_bytes` and a segment, unless
    /// batches without operations asked for it. Unit: bytes.
    pub copied_bytes: u64,
}

/// Keeps messages in a journal on the local disk.
#[derive(Debug)]
pub struct JournalAdapter {
    requests: SyncSender<Request>,
    reader: JournalReader,
    usage: Arc<Mutex<Usage>>,
    thread: Option<JoinHandle<()>>,
}

impl JournalAdapter {
    /// A journal in `<data>/journal`, made if it is missing. Nothing is read or written before `recover`.
    ///
    /// # Errors
    /// [`StoreError::Io`] if its thread can't be started.
    pub fn open(data: &Path, mut options: JournalOptions) -> Result<Self, StoreError> {
        options.segment_bytes =
            options.segment_bytes.clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX).next_multiple_of(BLOCK);
        let dir = data.join(DIRECTORY);
        let (requests, inbox) = sync_channel(REQUESTS_MAX);
        let reader = JournalReader::new(&dir);
        let usage = Arc::default();
        let worker = Worker { dir: dir.clone(), options, reader: reader.clone(), usage: Arc::clone(&usage), inbox };
        let thread = std::thread::Builder::new().name("journal".to_owned()).spawn(move || worker.run());
        let thread = Some(thread.map_err(failed("start the thread of", &dir))?);
        Ok(Self { requests, reader, usage, thread })
    }

    /// What the journal takes and did, as of the last answer.
    #[must_use]
    pub fn usage(&self) -> Usage {
        *self.usage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        self.requests.send(request(answer)).map_err(|_| StoreError::Closed)?;
        answered.await.map_err(|_| StoreError::Closed)
    }
}

impl PersistenceAdapter for JournalAdapter {
    type Reader = JournalReader;

    async fn recover(&mut self) -> Result<Catalog, StoreError> {
        self.ask(Request::Recover).await?
    }

    async fn raise(&mut self, to: Tenure) -> Result<(), StoreError> {
        self.ask(|answer| Request::Raise(to, answer)).await?
    }

    async fn try_commit(&mut self, batch: &Arc<Batch>) -> Result<(), CommitError> {
        let asked = self.ask(|answer| Request::Commit(Arc::clone(batch), answer)).await;
        asked.unwrap_or_else(|closed| Err(CommitError::Unknown { source: Box::new(closed) }))
    }

    fn reader(&self) -> JournalReader {
        self.reader.clone()
    }

    fn limits(&self) -> StoreLimits {
        StoreLimits { message_bytes_max: MESSAGE_BYTES_MAX }
    }

    async fn close(self) -> Result<(), StoreError> {
        self.ask(Request::Close).await?
    }
}

impl Drop for JournalAdapter {
    /// Waits for the write under way: the next adapter may open the same directory at once.
    fn drop(&mut self) {
        drop(std::mem::replace(&mut self.requests, sync_channel(0).0));
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the journal's thread panicked");
        }
    }
}

/// What the adapter asks of the journal's thread.
enum Request {
    Recover(oneshot::Sender<Result<Catalog, StoreError>>),
    Raise(Tenure, oneshot::Sender<Result<(), StoreError>>),
    Commit(Arc<Batch>, oneshot::Sender<Result<(), CommitError>>),
    Close(oneshot::Sender<Result<(), StoreError>>),
}

/// The journal's thread.
struct Worker {
    dir: PathBuf,
    options: JournalOptions,
    reader: JournalReader,
    usage: Arc<Mutex<Usage>>,
    inbox: Receiver<Request>,
}

impl Worker {
    /// Runs until the adapter is closed or dropped.
    fn run(self) {
        let mut writer = None;
        let mut is_untidy = false;
        while let Some(request) = self.next_request(&mut writer, &mut is_untidy) {
            match request {
                Request::Recover(answer) => send(answer, self.recover(&mut writer)),
                Request::Raise(to, answer) => {
                    let raised = writer.as_mut().map_or(Err(StoreError::Closed), |writer| writer.raise(to));
                    self.publish(writer.as_ref());
                    send(answer, raised);
                }
                Request::Commit(batch, answer) => {
                    let deposed = || Err(CommitError::Deposed);
                    let committed = writer.as_mut().map_or_else(deposed, |writer| writer.commit(&batch));
                    self.publish(writer.as_ref());
                    send(answer, committed);
                    is_untidy = self.tidy(&mut writer);
                }
                Request::Close(answer) => {
                    let closed = writer.take().map_or(Ok(()), Writer::close);
                    send(answer, closed);
                    return;
                }
            }
        }
    }

    /// Waits for it; meanwhile it tidies, because what a purge left need not wait for the next batch. `None`: the adapter
    /// was dropped.
    fn next_request(&self, writer: &mut Option<Writer>, is_untidy: &mut bool) -> Option<Request> {
        while *is_untidy {
            match self.inbox.try_recv() {
                Err(TryRecvError::Empty) => *is_untidy = self.tidy(writer),
                request => return request.ok(),
            }
        }
        self.inbox.recv().ok()
    }

    fn tidy(&self, writer: &mut Option<Writer>) -> bool {
        let is_untidy = writer.as_mut().is_some_and(Writer::tidy);
        self.publish(writer.as_ref());
        is_untidy
    }

    fn recover(&self, writer: &mut Option<Writer>) -> Result<Catalog, StoreError> {
        let recovered = Writer::recover(&self.options, &self.dir)?;
        self.reader.begin(recovered.live().clone());
        let catalog = recovered.catalog().clone();
        self.publish(Some(&recovered));
        *writer = Some(recovered);
        Ok(catalog)
    }

    fn publish(&self, writer: Option<&Writer>) {
        if let Some(writer) = writer {
            *self.usage.lock().unwrap_or_else(PoisonError::into_inner) = writer.usage();
        }
    }
}

/// Whoever asked may have given up meanwhile.
fn send<T>(answer: oneshot::Sender<T>, value: T) {
    drop(answer.send(value));
}
