//! Writes of the log applied many at a time, as a replica does that opens: each series gets all its samples
//! while it is at hand, where one write after the other would fetch every series from memory for
//! each of its samples.
//!
//! The state is that of applying the entries one by one, bit for bit. A row's fate depends on its own
//! series, whose rows stay in order, and on the shard's newest sample before its write; that one can be
//! told without the series, because a row later than it is later than all its series has. What asks more
//! ends the run: histograms, exemplars, rows that may stand in a sealed block, every other command.

use bytes::Bytes;
use model::sink::Reason;
use model::{SeriesId, Timestamp};

use super::{Bounds, Recalled, State, id_of};
use crate::chunk::Point;
use crate::command::{Command, CommandError, WriteCommand};

/// An entry of the log: its index, and its command if it holds one.
pub type Entry = (u64, Option<Bytes>);

/// How far a run went.
#[derive(Debug, Default)]
pub struct Replayed {
    /// So many of the entries are applied.
    pub entries: usize,
    /// The one behind them, which has to be applied by itself.
    pub next: Option<Result<Command, CommandError>>,
    pub stored: u64,
    /// Of each row that was refused.
    pub refused: Vec<Reason>,
}

/// Series side by side whose rows are gathered together: a place to write to for each few, not for each.
const BUCKET_SERIES: usize = 1 << u8::BITS;

/// Writes that are registered and judged by time, and whose rows wait for their series. What it
/// has grown to serves the next run too.
#[derive(Default)]
pub struct Run {
    writes: Vec<Gathered>,
    /// In the order of the log, by the place of their series.
    buckets: Vec<Vec<Row>>,
    /// Room for the order of a bucket's rows by series.
    order: Vec<u32>,
}

struct Gathered {
    index: u64,
    bounds: Bounds,
    /// Of the rows that were stored, or had been before.
    oldest: Option<Timestamp>,
}

struct Row {
    id: SeriesId,
    /// Among the series of its bucket.
    place: u8,
    /// Which of the run's.
    write: u32,
    point: Point,
}

impl State {
    /// Applies entries until one comes that needs more than a run can give it.
    pub fn replay(&mut self, entries: &[Entry], run: &mut Run) -> Replayed {
        let mut replayed = Replayed::default();
        let sealed = self.sealed.iter().map(|block| block.range().1).max();
        for (index, command) in entries {
            match command.clone().map(Command::decode) {
                None => self.advance(*index),
                Some(Ok(Command::Write(write))) if is_plain(&write, sealed) => {
                    self.advance(*index);
                    self.join(*index, &write, run, &mut replayed.refused);
                }
                Some(other) => {
                    replayed.next = Some(other);
                    break;
                }
            }
            replayed.entries += 1;
        }
        self.settle(run, &mut replayed);
        replayed
    }

    /// All of a write but its rows, which join the run.
    fn join(&mut self, index: u64, write: &WriteCommand, run: &mut Run, refused: &mut Vec<Reason>) {
        if !self.knows(write) {
            return;
        }
        let new: Vec<SeriesId> = write.labels.iter().map(|l| self.register(l)).collect();
        let stale = self.fences.admit(&write.fences);
        let bounds = Bounds::new(write, self.max_time);
        let number = run.writes.len() as u32;
        let rows = &write.rows;
        for (row, (series, at)) in rows.series.iter().zip(&rows.timestamps).enumerate() {
            if stale.iter().any(|range| range.contains(&(row as u32))) {
                refused.push(Reason::Fenced);
                continue;
            }
            if !bounds.is_too_new(*at) {
                self.max_time = self.max_time.max(Some(*at));
            }
            let id = id_of(*series, &new);
            let bits = rows.values[row].to_bits();
            let place = self.head.place(id).expect("it is registered");
            run.add(
                place,
                Row {
                    id,
                    place: (place % BUCKET_SERIES) as u8,
                    write: number,
                    point: Point { at: *at, bits },
                },
            );
        }
        run.writes.push(Gathered {
            index,
            bounds,
            oldest: None,
        });
    }

    fn settle(&mut self, run: &mut Run, replayed: &mut Replayed) {
        let (newest, recalled) = (self.max_time, Recalled::default());
        for rows in &mut run.buckets {
            order_by_series(rows, &mut run.order);
            for &row in &run.order {
                let row = &rows[row as usize];
                let write = &mut run.writes[row.write as usize];
                match self.store_float(row.id, row.point, &write.bounds, &recalled) {
                    Some(reason) => replayed.refused.push(reason),
                    None => {
                        let at = row.point.at;
                        write.oldest = Some(write.oldest.map_or(at, |oldest| oldest.min(at)));
                        replayed.stored += 1;
                    }
                }
            }
            rows.clear();
        }
        debug_assert_eq!(self.max_time, newest, "told without the series");
        for write in run.writes.drain(..) {
            if let Some(oldest) = write.oldest {
                self.touched.note(write.index, oldest);
            }
        }
    }
}

impl Run {
    /// `place` is where the row's series stands among all.
    fn add(&mut self, place: usize, row: Row) {
        let bucket = place / BUCKET_SERIES;
        if bucket >= self.buckets.len() {
            self.buckets.resize_with(bucket + 1, Vec::new);
        }
        self.buckets[bucket].push(row);
    }
}

/// The rows of a bucket by series, those of one in their order: places of `rows`.
fn order_by_series(rows: &[Row], order: &mut Vec<u32>) {
    let mut next = [0u32; BUCKET_SERIES + 1];
    for row in rows {
        next[usize::from(row.place) + 1] += 1;
    }
    for place in 1..next.len() {
        next[place] += next[place - 1];
    }
    order.clear();
    order.resize(rows.len(), 0);
    for (number, row) in (0..).zip(rows) {
        let place = &mut next[usize::from(row.place)];
        order[*place as usize] = number;
        *place += 1;
    }
}

/// Whether nothing but the head decides about the rows; `sealed` is the newest instant of the blocks.
fn is_plain(write: &WriteCommand, sealed: Option<Timestamp>) -> bool {
    write.rows.histograms.is_empty()
        && write.exemplars.is_empty()
        && sealed.is_none_or(|sealed| write.rows.timestamps.iter().all(|at| *at > sealed))
}
