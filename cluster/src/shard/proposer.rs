//! Group commit: what waits for a shard's leader becomes one entry.
//!
//! Writes queue up while earlier proposals are on their way, bounded in bytes; whatever waits is
//! merged into the next entry. Series the engine knows travel as ids, others with their labels. When
//! a series was collected between the two, nothing of the entry is stored, and it is merged anew.

use std::ops::Range;
use std::sync::Arc;

use futures::stream::{FuturesUnordered, StreamExt};
use model::batch::{DeltaSpan, Fence};
use model::hash::Map;
use model::limits::{PROPOSAL_BYTES_MAX, PROPOSER_QUEUE_BYTES_MAX, TOTALS_MAX};
use model::port::{Clock, Task, World};
use model::sink::{Reason, Rejection, Written};
use model::{Batch, Labels, SeriesId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tsdb::histogram::canonical;
use tsdb::{AddCommand, Command, Outcome, SeriesRef, Shard, WriteCommand};

use crate::convert::scoped;
use crate::raft::group;
use crate::raft::types::{Raft, Reply, WatchReceiver};
use crate::refusal::Refusal;
use crate::shard::room::Room;

/// Requests waiting, whatever their size.
const REQUESTS_MAX: usize = 4096;
/// Proposals of one shard under way, of a leader alone: enough to keep the log busy. With one it takes a
/// fifth less samples per second.
const IN_FLIGHT_ALONE_MAX: usize = 2;
/// With followers, for each of which an entry has its costs: few enough to let writes merge. With two, three
/// nodes take a quarter less samples per second from four senders, and a tenth more CPU for each.
const IN_FLIGHT_MAX: usize = 1;
/// How far ahead of the leader's clock a sample may be; Prometheus' own limit.
const FUTURE_WINDOW_MS: i64 = 10 * 60_000;
/// How long a total is kept without a difference; that of the OpenTelemetry collector's processor.
const TOTAL_STALE_MS: i64 = 5 * 60_000;
/// A row's share of a proposal before it is encoded.
const ROW_BYTES: usize = 24;
/// An id of a series, found or not.
const ID_BYTES: usize = std::mem::size_of::<Option<SeriesId>>();

/// How late and how early a sample may be, and how many exemplars are kept; read anew for each
/// proposal.
pub trait Windows: Send + Sync {
    fn out_of_order_ms(&self) -> i64;
    /// How late the newest sample of its series may be; at least as long as the other.
    fn in_order_ms(&self) -> i64;
    /// Of the whole cluster; zero keeps none.
    fn exemplars_max(&self) -> u64;
    /// Series that the whole cluster registers; zero: no limit.
    fn series_max(&self) -> u64;
}

struct Request {
    batch: Arc<Batch>,
    bytes: usize,
    /// Ids of the batch's series as they were when it came: whoever hands it over has just looked at
    /// the series, so that they are near. Empty once they were taken.
    known: Vec<Option<SeriesId>>,
    done: oneshot::Sender<Result<Written, Refusal>>,
    /// Rows that no command gets: their series are too many.
    refused: Vec<u32>,
    _room: OwnedSemaphorePermit,
}

/// Accepts batches for one shard.
pub struct Proposer {
    requests: mpsc::Sender<Request>,
    engine: Arc<Shard>,
    room: Arc<Semaphore>,
    _task: Task,
}

impl Proposer {
    /// `shards` is how many the cluster has: they share what is kept of exemplars.
    pub fn start(
        world: &World,
        raft: Raft,
        engine: Arc<Shard>,
        room: Arc<Room>,
        windows: Arc<dyn Windows>,
        shards: usize,
    ) -> Self {
        let (requests, receiver) = mpsc::channel(REQUESTS_MAX);
        let worker = Worker {
            raft,
            engine: engine.clone(),
            windows,
            shards: shards.max(1) as u64,
            clock: world.clock.clone(),
            room,
        };
        let task = scoped(&world.dice, worker.run(receiver));
        Self {
            requests,
            engine,
            room: Arc::new(Semaphore::new(PROPOSER_QUEUE_BYTES_MAX)),
            _task: world.spawn.spawn("proposer", task),
        }
    }

    /// Returns when the batch is committed and applied here, or was not taken.
    pub async fn write(&self, batch: Arc<Batch>) -> Result<Written, Refusal> {
        let bytes = size_of(&batch).min(PROPOSER_QUEUE_BYTES_MAX);
        let full = || Refusal::Overloaded("too many writes wait for this shard".to_owned());
        let room = self
            .room
            .clone()
            .try_acquire_many_owned(bytes as u32)
            .map_err(|_| full())?;
        let (done, result) = oneshot::channel();
        let request = Request {
            known: self.engine.resolve_all(&batch.series),
            batch,
            bytes,
            done,
            refused: Vec::new(),
            _room: room,
        };
        self.requests.try_send(request).map_err(|_| full())?;
        let stopped = |_| Refusal::Unavailable("the replica stopped".to_owned());
        result.await.map_err(stopped)?
    }
}

fn size_of(batch: &Batch) -> usize {
    let labels: usize = batch
        .series
        .iter()
        .map(|labels| labels.as_canonical().len() + ID_BYTES)
        .sum();
    let histograms = batch.rows.histograms.iter().map(|(_, h)| h.size());
    let exemplars = batch.exemplars.iter();
    let exemplars = exemplars.map(|(_, e)| ROW_BYTES + e.labels.as_canonical().len());
    let rows = batch.rows.len() * ROW_BYTES + size_of_val(&batch.deltas[..]);
    labels + rows + histograms.sum::<usize>() + exemplars.sum::<usize>()
}

struct Worker {
    raft: Raft,
    engine: Arc<Shard>,
    windows: Arc<dyn Windows>,
    shards: u64,
    clock: Arc<dyn Clock>,
    room: Arc<Room>,
}

impl Worker {
    async fn run(self, mut requests: mpsc::Receiver<Request>) {
        let mut under_way = FuturesUnordered::new();
        loop {
            tokio::select! {
                biased;
                Some(()) = under_way.next() => {}
                first = requests.recv(), if under_way.len() < self.in_flight_max() => {
                    let Some(first) = first else { return };
                    let gathered = gather(first, &mut requests, |r| r.bytes);
                    for requests in by_kind(gathered).into_iter().filter(|r| !r.is_empty()) {
                        under_way.push(self.propose(requests));
                    }
                }
            }
        }
    }

    fn in_flight_max(&self) -> usize {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        match metrics.membership_config.voter_ids().nth(1) {
            Some(_) => IN_FLIGHT_MAX,
            None => IN_FLIGHT_ALONE_MAX,
        }
    }

    async fn propose(&self, mut requests: Vec<Request>) {
        loop {
            let (command, spans) = self.merge(&mut requests);
            let new = command.labels.len() as u64;
            self.room.begin(new);
            let deltas = deltas_of(&requests);
            let command = match deltas.is_empty() {
                true => Command::Write(command),
                false => Command::Add(add_command(command, deltas)),
            };
            let proposed = group::propose(&self.raft, command.encode()).await;
            self.room.end(new);
            match proposed {
                Ok(Reply::Shard(Outcome::Written { rejected })) => {
                    return answer(requests, &spans, &rejected);
                }
                // The engine that says so has forgotten the series: it is said with its labels now.
                Ok(Reply::Shard(Outcome::NotRegistered)) => continue,
                Ok(reply) => unreachable!("a write was answered with {reply:?}"),
                Err(refusal) => return refuse(requests, &refusal),
            }
        }
    }

    /// One command for all requests, and which of its rows are whose.
    fn merge(&self, requests: &mut [Request]) -> (WriteCommand, Vec<Range<u32>>) {
        let mut command = WriteCommand {
            proposed_at: self.clock.now(),
            out_of_order_window_ms: match requests.iter().all(|r| r.batch.backfill) {
                true => i64::MAX,
                false => self.windows.out_of_order_ms(),
            },
            in_order_window_ms: self.windows.in_order_ms(),
            future_window_ms: FUTURE_WINDOW_MS,
            exemplars_max: self.exemplars_max(),
            ..WriteCommand::default()
        };
        let mut unknown: Map<Labels, u32> = Map::default();
        let rows: usize = requests.iter().map(|r| r.batch.rows.len()).sum();
        command.rows.series.reserve(rows);
        command.rows.timestamps.reserve(rows);
        command.rows.values.reserve(rows);
        let mut spans = Vec::with_capacity(requests.len());
        for request in requests {
            let start = command.rows.len() as u32;
            let new_max = self.room.left();
            let known = self.known_of(request);
            let batch = &request.batch;
            request.refused = self.add(&mut command, &mut unknown, batch, known, new_max);
            let span = start..command.rows.len() as u32;
            if let Some(Fence { target, epoch }) = request.batch.fence {
                command.fences.push((span.clone(), Fence { target, epoch }));
            }
            spans.push(span);
        }
        (command, spans)
    }

    /// This shard's share, rounded up.
    fn exemplars_max(&self) -> u32 {
        let share = self.windows.exemplars_max().div_ceil(self.shards);
        u32::try_from(share).unwrap_or(u32::MAX)
    }

    /// The ids of a request's series. One that was found when it came may be collected by now, which the
    /// engine says of the command; one that was not may be there now.
    fn known_of(&self, request: &mut Request) -> Vec<Option<SeriesId>> {
        let known = std::mem::take(&mut request.known);
        match !known.is_empty() && known.iter().all(Option::is_some) {
            true => known,
            false => self.engine.resolve_all(&request.batch.series),
        }
    }

    /// Adds a request's rows. Those of series that would be too many are left out and returned.
    fn add(
        &self,
        command: &mut WriteCommand,
        unknown: &mut Map<Labels, u32>,
        batch: &Batch,
        known: Vec<Option<SeriesId>>,
        new_max: usize,
    ) -> Vec<u32> {
        let mut refs = Vec::with_capacity(batch.series.len());
        let mut too_many = false;
        for (labels, known) in batch.series.iter().zip(known) {
            let series = match known.map(SeriesRef::Known) {
                Some(known) => Some(known),
                None => self.name_new(command, unknown, labels, new_max),
            };
            too_many |= series.is_none();
            refs.push(series);
        }
        // As of samples; one from the future would keep out all that come after it.
        let newest = command.proposed_at.plus_ms(command.future_window_ms);
        let exemplars = batch.exemplars.iter();
        let exemplars = exemplars.filter(|(_, exemplar)| exemplar.timestamp <= newest);
        command
            .exemplars
            .extend(exemplars.filter_map(|(series, e)| Some((refs[*series as usize]?, e.clone()))));
        if too_many {
            return self.add_known(command, &refs, batch);
        }
        let start = command.rows.len() as u32;
        let histograms = batch.rows.histograms.iter();
        command
            .rows
            .histograms
            .extend(histograms.map(|(row, histogram)| (start + row, canonical(histogram))));
        let series = batch.rows.series.iter();
        command
            .rows
            .series
            .extend(series.filter_map(|&series| refs[series as usize]));
        command
            .rows
            .timestamps
            .extend_from_slice(&batch.rows.timestamps);
        command.rows.values.extend_from_slice(&batch.rows.values);
        Vec::new()
    }

    /// A place among the command's new series, if there is one.
    fn name_new(
        &self,
        command: &mut WriteCommand,
        unknown: &mut Map<Labels, u32>,
        labels: &Labels,
        new_max: usize,
    ) -> Option<SeriesRef> {
        if let Some(place) = unknown.get(labels) {
            return Some(SeriesRef::New(*place));
        }
        if command.labels.len() >= new_max {
            return None;
        }
        let place = command.labels.len() as u32;
        command.labels.push(labels.clone());
        unknown.insert(labels.clone(), place);
        Some(SeriesRef::New(place))
    }

    /// Row by row, because some are left out.
    fn add_known(
        &self,
        command: &mut WriteCommand,
        refs: &[Option<SeriesRef>],
        batch: &Batch,
    ) -> Vec<u32> {
        let mut refused = Vec::new();
        for (row, series) in batch.rows.series.iter().enumerate() {
            let Some(series) = refs[*series as usize] else {
                refused.push(row as u32);
                continue;
            };
            let at = batch.rows.timestamps[row];
            match batch.rows.histogram(row) {
                None => command.rows.push(series, at, batch.rows.values[row]),
                Some(histogram) => command.rows.push_histogram(series, at, histogram),
            }
        }
        self.engine.note_refused(Reason::SeriesLimit, refused.len());
        refused
    }
}

/// Writes, old ones and differences apart: windows and what rows mean belong to a whole command.
fn by_kind(requests: Vec<Request>) -> [Vec<Request>; 3] {
    let old = |r: &Request| r.batch.backfill;
    let (old, new): (Vec<_>, Vec<_>) = requests.into_iter().partition(old);
    let (deltas, new) = new.into_iter().partition(|r| !r.batch.deltas.is_empty());
    [new, deltas, old]
}

fn add_command(write: WriteCommand, deltas: Vec<DeltaSpan>) -> AddCommand {
    AddCommand {
        stale_before: write.proposed_at.plus_ms(-TOTAL_STALE_MS),
        totals_max: TOTALS_MAX,
        write,
        deltas,
    }
}

/// What the rows that became a command's cover.
fn deltas_of(requests: &[Request]) -> Vec<DeltaSpan> {
    let mut deltas = Vec::new();
    for request in requests {
        let refused = |row: usize| request.refused.binary_search(&(row as u32)).is_ok();
        let spans = request.batch.deltas.iter().enumerate();
        deltas.extend(
            spans
                .filter(|(row, _)| !refused(*row))
                .map(|(_, span)| *span),
        );
    }
    deltas
}

/// What waits now, up to one proposal's size by what `bytes` says of each.
pub(super) fn gather<R>(
    first: R,
    requests: &mut mpsc::Receiver<R>,
    bytes: impl Fn(&R) -> usize,
) -> Vec<R> {
    let mut total = bytes(&first);
    let mut gathered = vec![first];
    while total < PROPOSAL_BYTES_MAX {
        let Ok(next) = requests.try_recv() else { break };
        total += bytes(&next);
        gathered.push(next);
    }
    gathered
}

fn refuse(requests: Vec<Request>, refusal: &Refusal) {
    for request in requests {
        // A client that went away needs no answer.
        request.done.send(Err(refusal.clone())).ok();
    }
}

/// Tells each request what became of its own rows. `rejected` is ascending.
fn answer(requests: Vec<Request>, spans: &[Range<u32>], rejected: &[Rejection]) {
    for (mut request, span) in requests.into_iter().zip(spans) {
        let from = rejected.partition_point(|r| r.row < span.start);
        let to = rejected.partition_point(|r| r.row < span.end);
        let refused = std::mem::take(&mut request.refused);
        let judged = rejected[from..to].iter().map(|r| Rejection {
            row: place_of(r.row - span.start, &refused),
            reason: r.reason,
        });
        let mut own: Vec<Rejection> = judged.collect();
        own.extend(refused.iter().map(|&row| Rejection {
            row,
            reason: Reason::SeriesLimit,
        }));
        own.sort_unstable_by_key(|r| r.row);
        let written = Written { rejected: own };
        request.done.send(Ok(written)).ok();
    }
}

/// The row of a request that is the `nth` of those that are not `refused`, which ascend.
fn place_of(nth: u32, refused: &[u32]) -> u32 {
    let mut row = nth;
    for left_out in refused {
        if *left_out > row {
            break;
        }
        row += 1;
    }
    row
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_counted_around_those_left_out() {
        let refused = [0, 2, 3, 7];
        let kept: Vec<u32> = (0..10).filter(|row| !refused.contains(row)).collect();
        let found: Vec<u32> = (0..6).map(|nth| place_of(nth, &refused)).collect();
        assert_eq!(found, kept);
        assert_eq!(place_of(5, &[]), 5);
    }
}
