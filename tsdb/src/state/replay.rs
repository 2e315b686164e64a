//! Writes of the log applied many at a time, as a replica does that opens: each series gets all its samples
//! while it is at hand, where one write after the other would fetch every series from memory for
//! each of its samples.
//!
//! The state is that of applying the entries one by one, bit for bit. A row's fate depends on its own
//! series, whose rows stay in order, and on the shard's newest sample before its write; that one can be
//! told without the series, because a row later than it is later than all its series has. What asks more
//! ends the run: histograms, exemplars, rows that may stand in a sealed block, series that may rest there, every other
//! command.

mod gather;

use bytes::Bytes;
use model::limits::{REPLAY_PIECES_MAX, REPLAY_ROWS_MAX};
use model::sink::Reason;
use model::{SeriesId, Timestamp};

use super::{Bounds, Recalled, State, id_of};
use crate::bits::Words;
use crate::command::{Command, CommandError, Rows, SeriesRef, Steps, WriteCommand, runs};
use gather::{BUCKET_SERIES, Buckets, Columns, Piece, Stretch};

/// An entry of the log: its index, and its command if it holds one.
pub type Entry = (u64, Option<Bytes>);

/// How far a run went.
#[derive(Debug, Default)]
pub struct Replayed {
    /// So many of the entries are taken.
    pub entries: usize,
    /// The one behind them, which has to be applied by itself; all before it are applied then.
    pub next: Option<Result<Command, CommandError>>,
    pub stored: u64,
    /// Of each row that was refused.
    pub refused: Vec<Reason>,
}

/// Writes that are registered and judged by time, and whose rows wait for their series. What it
/// has grown to serves the next ones too.
#[derive(Default)]
pub struct Run {
    writes: Vec<Gathered>,
    rows: Rows,
    buckets: Buckets,
    columns: Columns,
    words: Words,
}

struct Gathered {
    index: u64,
    bounds: Bounds,
    /// No row is refused that is later than its series' newest sample.
    admits: bool,
    /// Of the rows that were stored, or had been before.
    oldest: Option<Timestamp>,
}

impl Gathered {
    fn note(&mut self, at: Timestamp) {
        self.oldest = Some(self.oldest.map_or(at, |oldest| oldest.min(at)));
    }
}

/// Room for rows of the write that fills a run.
const ROOM_ROWS: usize = REPLAY_ROWS_MAX / 8;
/// Series that are fetched from memory together.
const TOUCHED_SERIES: usize = 16;

impl State {
    /// Takes entries until one comes that needs more than a run can give it. Their rows may wait in `run` for
    /// later ones, up to [`State::settle`]; until then nobody may look.
    pub fn replay(&mut self, entries: &[Entry], run: &mut Run) -> Replayed {
        let mut replayed = Replayed::default();
        let sealed = self.sealed.iter().map(|block| block.range().1).max();
        for (index, command) in entries {
            match command {
                None => self.advance(*index),
                Some(command) => match self.take(command, sealed, run) {
                    Some(taken) => {
                        self.advance(*index);
                        self.join(*index, &taken, run, &mut replayed.refused);
                    }
                    None => {
                        self.settle(run, &mut replayed);
                        replayed.next = Some(Command::decode(command.clone()));
                        break;
                    }
                },
            }
            replayed.entries += 1;
            if run.is_full() {
                self.settle(run, &mut replayed);
            }
        }
        replayed
    }

    /// Takes a write about which nothing but memory decides, or nothing.
    fn take(&self, command: &Bytes, sealed: Option<Timestamp>, run: &mut Run) -> Option<Taken> {
        let taken = run.take(command, sealed)?;
        if self.may_return(&taken.write.labels) {
            run.rows.values.truncate(taken.first);
            return None;
        }
        Some(taken)
    }

    /// All of a write but its rows, which join the run.
    fn join(&mut self, index: u64, taken: &Taken, run: &mut Run, refused: &mut Vec<Reason>) {
        let (write, number) = (&taken.write, run.writes.len() as u32);
        if !run.rows.series.iter().all(|series| self.has(*series)) {
            return run.rows.values.truncate(taken.first);
        }
        let new = self.register(&write.labels);
        let stale = self.fences.admit(&write.fences);
        let bounds = Bounds::new(write, self.max_time);
        let singly = !stale.is_empty();
        each_piece(&run.rows, singly, |row, at, series| {
            if stale.iter().any(|range| range.contains(&(row as u32))) {
                return refused.push(Reason::Fenced);
            }
            if !bounds.is_too_new(at) {
                self.max_time = self.max_time.max(Some(at));
            }
            self.each_stretch(series, &new, |id, place, nth, len| {
                let value = taken.first + row + nth;
                let rows = Stretch {
                    id,
                    place,
                    at,
                    value,
                    len,
                };
                run.buckets.add(rows, number);
            });
        });
        run.writes.push(Gathered {
            index,
            admits: taken.range.is_none_or(|(min, max)| bounds.admit(min, max)),
            bounds,
            oldest: None,
        });
    }

    /// Whether all series that are named by their ids are registered.
    fn has(&self, series: Steps) -> bool {
        if let Some(first) = series.ids_from() {
            let last = SeriesId(first.0.saturating_add(series.len as u64 - 1));
            let places = self.head.place(first).zip(self.head.place(last));
            // None is missing where as many are between the first and the last as there would be.
            return places.is_some_and(|(first, last)| last - first == series.len - 1);
        }
        let mut known = series.refs().filter_map(|series| match series {
            SeriesRef::Known(id) => Some(id),
            SeriesRef::New(_) => None,
        });
        known.all(|id| self.head.place(id).is_some())
    }

    /// Calls `each` with id and place of series that follow one another, how many are before them, and how
    /// many they are. All are registered.
    fn each_stretch(
        &self,
        series: Steps,
        new: &[SeriesId],
        mut each: impl FnMut(SeriesId, usize, usize, usize),
    ) {
        let place = |id| self.head.place(id).expect("it is registered");
        if let Some(first) = series.ids_from() {
            return each(first, place(first), 0, series.len);
        }
        for (nth, series) in series.refs().enumerate() {
            let id = id_of(series, new);
            each(id, place(id), nth, 1);
        }
    }

    /// Gives their series the rows that wait.
    pub fn settle(&mut self, run: &mut Run, replayed: &mut Replayed) {
        let newest = self.max_time;
        let mut buckets = std::mem::take(&mut run.buckets);
        buckets.drain(|place, pieces| self.settle_bucket(place, pieces, run, replayed));
        run.buckets = buckets;
        debug_assert_eq!(self.max_time, newest, "told without the series");
        for write in run.writes.drain(..) {
            if let Some(oldest) = write.oldest {
                self.note_oldest(write.index, oldest);
            }
        }
        run.rows.values.clear();
    }

    /// `place` is that of the first series.
    fn settle_bucket(
        &mut self,
        place: usize,
        pieces: &[Piece],
        run: &mut Run,
        replayed: &mut Replayed,
    ) {
        let Run {
            writes,
            rows,
            columns,
            words,
            ..
        } = run;
        columns.fill(pieces, &rows.values);
        let admits = pieces.iter().all(|p| writes[p.write as usize].admits);
        let mut refused: Vec<usize> = Vec::new();
        for slot in 0..BUCKET_SERIES {
            if slot.is_multiple_of(TOUCHED_SERIES) {
                let first = place + slot;
                self.head.touch_places(first..first + TOUCHED_SERIES);
            }
            let of_series = columns.of(slot);
            let (id, points) = (columns.id(slot), &columns.points()[of_series.clone()]);
            if points.is_empty() || admits && self.store_run(id, place + slot, points, words) {
                continue;
            }
            for row in of_series {
                let write = &writes[columns.writes(pieces)[row] as usize];
                let point = columns.points()[row];
                if let Some(reason) =
                    self.store_float(id, point, &write.bounds, &Recalled::default())
                {
                    replayed.refused.push(reason);
                    refused.push(row);
                }
            }
        }
        replayed.stored += (columns.rows() - refused.len()) as u64;
        if refused.is_empty() {
            let stored = pieces.iter();
            return stored.for_each(|piece| writes[piece.write as usize].note(piece.at));
        }
        let mut refused = refused.into_iter().peekable();
        for row in 0..columns.rows() {
            if refused.next_if_eq(&row).is_none() {
                let write = columns.writes(pieces)[row];
                writes[write as usize].note(columns.points()[row].at);
            }
        }
    }
}

/// A write taken to pieces, but for its rows.
struct Taken {
    write: WriteCommand,
    /// Where its values begin among those of the run.
    first: usize,
    /// From its oldest to its newest row.
    range: Option<(Timestamp, Timestamp)>,
}

impl Run {
    /// Takes a write about whose rows nothing but the head decides, or nothing; `sealed` is the newest instant of
    /// the blocks.
    fn take(&mut self, command: &Bytes, sealed: Option<Timestamp>) -> Option<Taken> {
        let first = self.rows.values.len();
        if first == 0 {
            // Growing would copy all of it, again and again.
            self.rows.values.reserve(REPLAY_ROWS_MAX + ROOM_ROWS);
        }
        let taken = match runs::decode(command, &mut self.rows) {
            Ok(Some(write)) if write.rows.histograms.is_empty() && write.exemplars.is_empty() => {
                let range = range_of(&self.rows.times);
                let is_behind = range.map(|(min, _)| min) > sealed;
                (is_behind || range.is_none()).then_some(Taken {
                    write,
                    first,
                    range,
                })
            }
            // An error is told where the command is applied by itself.
            _ => None,
        };
        if taken.is_none() {
            self.rows.values.truncate(first);
        }
        taken
    }

    fn is_full(&self) -> bool {
        self.rows.values.len() >= REPLAY_ROWS_MAX || self.buckets.pieces() >= REPLAY_PIECES_MAX
    }
}

/// The oldest and the newest of these instants.
fn range_of(times: &[Steps]) -> Option<(Timestamp, Timestamp)> {
    let ends = |run: &Steps| match run.step {
        0 => (run.first as i64, run.first as i64),
        // They may wrap.
        _ => run.iter().fold((i64::MAX, i64::MIN), |(min, max), at| {
            (min.min(at as i64), max.max(at as i64))
        }),
    };
    let ends = times.iter().map(ends);
    let range = ends.reduce(|one, other| (one.0.min(other.0), one.1.max(other.1)));
    range.map(|(min, max)| (Timestamp(min), Timestamp(max)))
}

/// Calls `each` with rows of one instant whose series are steps: the first one's place among the
/// write's, the instant, and the series. With `singly` it is called for each row.
fn each_piece(rows: &Rows, singly: bool, mut each: impl FnMut(usize, Timestamp, Steps)) {
    let mut row = 0;
    let mut times = rows.times.iter().copied();
    let mut now = times.next();
    for series in &rows.series {
        let mut series = *series;
        while let Some(time) = now {
            let alike = match time.step == 0 && !singly {
                true => series.len.min(time.len),
                false => 1,
            };
            let (first, behind) = series.split_at(alike);
            each(row, Timestamp(time.first as i64), first);
            row += alike;
            now = time.split_at(alike).1.or_else(|| times.next());
            match behind {
                Some(behind) => series = behind,
                None => break,
            }
        }
    }
}
