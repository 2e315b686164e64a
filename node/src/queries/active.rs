//! The queries that run, in a file that survives the process: after a crash it tells which were
//! running, and most likely what the node died of.
//!
//! `queries.active` in the data directory has a line of JSON for each beginning,
//! `{"begin":7,"query":"up","timestamp_sec":1795233379}`, and one for each end, `{"end":7}`. The line
//! of a beginning is written once its query has run for [`NOTED_AFTER`]: what ends sooner, as nearly
//! all do, costs no write and no waiting, and what a process dies of takes longer. That of an end
//! follows with the next beginning or 20 ms later. Nothing is flushed: the file outlives the process,
//! not the machine's power. A file that cannot be written is told once and given up: queries go on.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use model::limits::{ACTIVE_LOG_BYTES_MAX, ACTIVE_QUERY_BYTES_MAX, QUERIES_MAX};
use model::port::{Disk, File, Task, World, replace};
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::timeout;
use tracing::warn;

const FILE: &str = "queries.active";

/// How long a query runs before it is noted. A timer that is due before all others wakes the thread
/// that sleeps until those, so this is longer than it mostly sleeps; and two writes to a file, each on a
/// thread of its own, are much beside a query of a few milliseconds.
const NOTED_AFTER: Duration = Duration::from_millis(20);

/// An end is written with the next beginning; this late when there is none, or with this many.
const END_DELAY: Duration = Duration::from_millis(20);
const ENDS_MAX: usize = 64;

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Line {
    Begin {
        begin: u64,
        query: String,
        timestamp_sec: i64,
    },
    End {
        end: u64,
    },
}

/// What the writer is told.
enum Event {
    /// Acknowledged once it is in the file.
    Begin(Line, oneshot::Sender<()>),
    /// Of a query whose slot is free again once this is taken: so no more events can wait than
    /// there are slots.
    End(u64, OwnedSemaphorePermit),
}

/// Notes what runs.
pub struct ActiveQueries {
    events: mpsc::Sender<Event>,
    next: AtomicU64,
    clock: Arc<dyn model::port::Clock>,
    _task: Option<Task>,
}

/// A query that is noted as running until this is dropped.
pub struct Running {
    id: u64,
    slot: Option<OwnedSemaphorePermit>,
    events: mpsc::Sender<Event>,
}

impl Drop for Running {
    fn drop(&mut self) {
        let Some(slot) = self.slot.take() else {
            return;
        };
        // Fails only when nobody writes any more, and then the slot is free at once.
        self.events.try_send(Event::End(self.id, slot)).ok();
    }
}

impl ActiveQueries {
    /// Tells the log what ran when the process died, and begins anew.
    pub async fn open(world: &World, slots: usize) -> Self {
        let unfinished = take_unfinished(&*world.disk).await;
        if !unfinished.is_empty() {
            let queries = serde_json::to_string(&unfinished).unwrap_or_default();
            warn!(queries, "these queries did not finish in the last run");
        }
        let (events, waiting) = mpsc::channel(2 * slots.max(QUERIES_MAX));
        let writer = Writer::new(Arc::clone(&world.disk));
        let task = world
            .spawn
            .spawn("running queries", writer.run(waiting).boxed());
        Self {
            events,
            next: AtomicU64::new(0),
            clock: Arc::clone(&world.clock),
            _task: Some(task),
        }
    }

    /// Writes nothing down.
    pub fn nowhere(clock: Arc<dyn model::port::Clock>) -> Self {
        let (events, _) = mpsc::channel(1);
        Self {
            events,
            next: AtomicU64::new(0),
            clock,
            _task: None,
        }
    }

    /// Does `work`, which is what `query` asks for, and holds `slot` as long. Noted is what is not
    /// done soon; nobody waits for the file.
    pub async fn watch<T>(
        &self,
        query: &str,
        slot: OwnedSemaphorePermit,
        work: impl Future<Output = T>,
    ) -> T {
        let mut work = std::pin::pin!(work);
        // Polls the work first: of what is done at once no timer learns.
        if let Ok(done) = timeout(NOTED_AFTER, &mut work).await {
            return done;
        }
        let noting = self.begin(query, slot);
        let mut noting = std::pin::pin!(noting);
        tokio::select! {
            biased;
            _running = &mut noting => work.await,
            done = &mut work => done,
        }
    }

    /// Returns once the file says that `query` runs; it holds `slot` as long.
    async fn begin(&self, query: &str, slot: OwnedSemaphorePermit) -> Running {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let line = Line::Begin {
            begin: id,
            query: cut(query).to_owned(),
            timestamp_sec: self.clock.now().0.div_euclid(1000),
        };
        // Made first: whoever stops waiting here leaves an end behind.
        let running = Running {
            id,
            slot: Some(slot),
            events: self.events.clone(),
        };
        let (written, acknowledged) = oneshot::channel();
        if self.events.send(Event::Begin(line, written)).await.is_ok() {
            acknowledged.await.ok();
        }
        running
    }
}

/// The front of a long text, whole signs.
fn cut(query: &str) -> &str {
    let mut end = query.len().min(ACTIVE_QUERY_BYTES_MAX);
    while !query.is_char_boundary(end) {
        end -= 1;
    }
    &query[..end]
}

/// Queries that began and did not end according to the file.
async fn take_unfinished(disk: &dyn Disk) -> Vec<Line> {
    let read = disk
        .read(Path::new(FILE), 0, 2 * ACTIVE_LOG_BYTES_MAX)
        .await;
    read.map_or(Vec::new(), |bytes| unfinished(&bytes))
}

/// Lines that make no sense are left out: the last one may be half.
pub(crate) fn unfinished(bytes: &[u8]) -> Vec<Line> {
    let mut running = BTreeMap::new();
    for line in bytes.split(|&b| b == b'\n') {
        match serde_json::from_slice::<Line>(line) {
            Ok(Line::End { end }) => drop(running.remove(&end)),
            Ok(line @ Line::Begin { begin, .. }) => drop(running.insert(begin, line)),
            Err(_) => {}
        }
    }
    running.into_values().collect()
}

/// Owns the file.
struct Writer {
    disk: Arc<dyn Disk>,
    /// `None` before the first line and after an error.
    file: Option<Box<dyn File>>,
    is_broken: bool,
    bytes: usize,
    running: BTreeMap<u64, Line>,
}

impl Writer {
    fn new(disk: Arc<dyn Disk>) -> Self {
        Self {
            disk,
            file: None,
            is_broken: false,
            bytes: 0,
            running: BTreeMap::new(),
        }
    }

    async fn run(mut self, mut events: mpsc::Receiver<Event>) {
        self.begin_anew().await;
        // Ends that are not in the file yet.
        let mut ended: Vec<Line> = Vec::new();
        loop {
            let event = match ended.len() {
                0 => Ok(events.recv().await),
                ENDS_MAX.. => Ok(None),
                _ => timeout(END_DELAY, events.recv()).await,
            };
            match event {
                Ok(Some(Event::Begin(line, written))) => {
                    if let Line::Begin { begin, .. } = line {
                        self.running.insert(begin, line.clone());
                    }
                    ended.push(line);
                    self.write(&std::mem::take(&mut ended)).await;
                    // Whoever asked may have gone.
                    written.send(()).ok();
                }
                Ok(Some(Event::End(end, slot))) => {
                    self.running.remove(&end);
                    ended.push(Line::End { end });
                    drop(slot);
                }
                Ok(None) if ended.is_empty() => return,
                Ok(None) | Err(_) => self.write(&std::mem::take(&mut ended)).await,
            }
        }
    }

    async fn write(&mut self, lines: &[Line]) {
        if self.is_broken {
            return;
        }
        if self.bytes > ACTIVE_LOG_BYTES_MAX || self.file.is_none() {
            self.begin_anew().await;
        }
        let bytes = to_bytes(lines.iter());
        self.bytes += bytes.len();
        if let Some(file) = &mut self.file {
            let written = file.append(vec![bytes]).await;
            if let Err(error) = written {
                self.note(Err(error));
            }
        }
    }

    /// Makes the file have nothing but what runs.
    async fn begin_anew(&mut self) {
        let bytes = to_bytes(self.running.values());
        let len = bytes.len();
        let disk = Arc::clone(&self.disk);
        let opened = async {
            replace(&*disk, Path::new(FILE), bytes).await?;
            disk.open(Path::new(FILE)).await
        };
        let opened = opened.await.map(|file| (file, len));
        self.note(opened);
    }

    fn note(&mut self, opened: std::io::Result<(Box<dyn File>, usize)>) {
        match opened {
            Ok((file, bytes)) => (self.file, self.bytes) = (Some(file), bytes),
            Err(error) => {
                warn!(%error, file = FILE, "running queries are not written down any more");
                self.file = None;
                self.is_broken = true;
            }
        }
    }
}

fn to_bytes<'a>(lines: impl Iterator<Item = &'a Line>) -> Bytes {
    let mut bytes = Vec::new();
    for line in lines {
        let written = serde_json::to_writer(&mut bytes, line);
        written.expect("a line has nothing that JSON lacks");
        bytes.push(b'\n');
    }
    bytes.into()
}

#[cfg(test)]
mod tests {
    use tokio::sync::Semaphore;

    use super::*;

    async fn slot() -> OwnedSemaphorePermit {
        let one = Arc::new(Semaphore::new(1));
        one.acquire_owned().await.unwrap()
    }

    fn texts(lines: &[Line]) -> Vec<&str> {
        let text = |line: &'_ Line| match line {
            Line::Begin { query, .. } => query.len(),
            Line::End { .. } => 0,
        };
        let named = lines.iter().filter(|line| text(line) > 0);
        named
            .filter_map(|line| match line {
                Line::Begin { query, .. } => Some(query.as_str()),
                Line::End { .. } => None,
            })
            .collect()
    }

    /// What runs while the process dies is told after it, and only that.
    #[tokio::test]
    async fn a_crash_tells_what_was_running() {
        let root = tempfile::tempdir().unwrap();
        let world = host::world(root.path()).unwrap();
        let active = ActiveQueries::open(&world, 2).await;
        let ended = active.begin("ended", slot().await).await;
        let deadly = active.begin("deadly", slot().await).await;
        drop(ended);
        // The end is written before the next beginning is acknowledged.
        let long = "x".repeat(5 * ACTIVE_QUERY_BYTES_MAX);
        let other = active.begin(&long, slot().await).await;
        let left = take_unfinished(&*world.disk).await;
        assert_eq!(texts(&left), ["deadly", &long[..ACTIVE_QUERY_BYTES_MAX]]);
        drop((deadly, other, active));
    }

    #[tokio::test]
    async fn the_file_stays_small_and_a_new_run_begins_anew() {
        let root = tempfile::tempdir().unwrap();
        let world = host::world(root.path()).unwrap();
        let active = ActiveQueries::open(&world, 2).await;
        let kept = active.begin("kept", slot().await).await;
        let long = "x".repeat(ACTIVE_QUERY_BYTES_MAX);
        for _ in 0..2 * ACTIVE_LOG_BYTES_MAX / ACTIVE_QUERY_BYTES_MAX {
            drop(active.begin(&long, slot().await).await);
        }
        let bytes = world.disk.len(Path::new(FILE)).await.unwrap();
        assert!(bytes <= 2 * ACTIVE_LOG_BYTES_MAX as u64, "{bytes}");
        let left = take_unfinished(&*world.disk).await;
        assert!(texts(&left).contains(&"kept"));
        drop((kept, active));
        let again = ActiveQueries::open(&world, 2).await;
        let _first = again.begin("first", slot().await).await;
        assert_eq!(texts(&take_unfinished(&*world.disk).await), ["first"]);
    }

    /// What lasts is in the file while it runs; what is done at once never was.
    #[tokio::test]
    async fn only_what_lasts_is_noted() {
        let root = tempfile::tempdir().unwrap();
        let world = host::world(root.path()).unwrap();
        let active = ActiveQueries::open(&world, 2).await;
        assert_eq!(active.watch("short", slot().await, async { 5 }).await, 5);
        let lasting = async {
            let mut seen = Vec::new();
            while seen.is_empty() {
                tokio::task::yield_now().await;
                seen = take_unfinished(&*world.disk).await;
            }
            seen
        };
        let seen = active.watch("lasting", slot().await, lasting).await;
        assert_eq!(texts(&seen), ["lasting"]);
        while !take_unfinished(&*world.disk).await.is_empty() {
            tokio::task::yield_now().await;
        }
    }

    #[test]
    fn half_lines_are_left_out() {
        let bytes =
            b"{\"begin\":1,\"query\":\"a\",\"timestamp_sec\":5}\nnonsense\n{\"begin\":2,\"que";
        let left = unfinished(bytes);
        assert_eq!(texts(&left), ["a"]);
    }
}
