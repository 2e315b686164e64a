//! What happened: one [`Entry`] per operation, with when it began and ended and what it saw; one
//! [`FaultRecord`] per fault. Both are JSONL files in a run's directory, and all a checker reads.
//!
//! Times are nanoseconds of one host's monotonic clock since the run began: all processes share a
//! kernel, so "finished before the other started" is exact. Sample timestamps are milliseconds
//! relative to the run's base.
//!
//! [`Kind::Fail`] is said only of an operation that provably did not happen: nothing was sent, or
//! the contract says that the answer changes nothing. All that is merely doubtful is
//! [`Kind::Info`], and its process never acts again: it goes on under a new id.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;
use std::time::Instant;

use anyhow::Context;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::plan::FaultKind;

/// What an operation asks for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "f", content = "args", rename_all = "lowercase")]
pub enum Call {
    /// PUT of one unique value into register `key`.
    Write { key: u32, value: i64 },
    /// GET of all registers.
    Read,
    /// Remote write of (series, timestamp) pairs; the value follows from the pair.
    Append { samples: Vec<(u32, i64)> },
    /// Remote write of one sample for every series, all at timestamp `at`.
    Sweep { at: i64 },
    /// Range query for the series `first .. first + count`.
    Scan { first: u32, count: u32 },
}

impl Call {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Write { .. } => "write",
            Self::Read => "read",
            Self::Append { .. } => "append",
            Self::Sweep { .. } => "sweep",
            Self::Scan { .. } => "scan",
        }
    }

    pub fn changes_state(&self) -> bool {
        matches!(
            self,
            Self::Write { .. } | Self::Append { .. } | Self::Sweep { .. }
        )
    }
}

/// How an operation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Ok,
    Fail,
    Info,
}

/// A register that was never written.
pub const INITIAL: i64 = 0;
/// The group is there, its gauge is not: half a push was seen.
pub const TORN: i64 = -1;
/// The gauge stands more than once in the exposition.
pub const TWICE: i64 = -2;

/// What a read saw.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Seen {
    /// The value of each register, by key; [`INITIAL`], [`TORN`] and [`TWICE`] are special.
    Registers(Vec<i64>),
    /// The series that came back.
    Series(Vec<SeriesSeen>),
}

/// One series of a scan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SeriesSeen {
    pub series: u32,
    /// Timestamps in the order of the answer. In the file: the first, then differences.
    #[serde(with = "differences")]
    pub points: Vec<i64>,
    /// Timestamps whose value is not the one that belongs there, with the value as text.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alien: Vec<(i64, String)>,
}

/// One operation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    pub i: u64,
    pub proc: u64,
    pub node: usize,
    #[serde(flatten)]
    pub call: Call,
    pub t0: i64,
    pub t1: i64,
    #[serde(rename = "type")]
    pub kind: Kind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub val: Option<Seen>,
    /// The HTTP status, when there was an answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Why it is not ok.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Read after all faults were healed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub last: bool,
}

/// One fault as it was carried out, or a process that ended without being asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FaultRecord {
    pub kind: FaultKind,
    pub nodes: Vec<usize>,
    /// When it struck, and when its undoing began.
    pub t0: i64,
    pub t1: i64,
    /// When every node was ready again; `None` when the next fault or the end came first.
    pub ready: Option<i64>,
    /// False when it could not be carried out as planned.
    pub done: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// Collects the entries of a run and writes each to the file as it comes.
pub struct Recorder {
    origin: Instant,
    next: Cell<u64>,
    entries: RefCell<Vec<Entry>>,
    file: RefCell<BufWriter<File>>,
    tally: RefCell<Tally>,
}

/// Operations so far, for the progress line.
#[derive(Debug, Default, Clone, Copy)]
pub struct Tally {
    pub ok: u64,
    pub fail: u64,
    pub info: u64,
}

impl Recorder {
    pub fn create(path: &Path) -> anyhow::Result<Self> {
        let file = File::create(path).with_context(|| format!("create {}", path.display()))?;
        Ok(Self {
            origin: Instant::now(),
            next: Cell::new(0),
            entries: RefCell::default(),
            file: RefCell::new(BufWriter::new(file)),
            tally: RefCell::default(),
        })
    }

    /// Nanoseconds since the run began.
    pub fn now(&self) -> i64 {
        self.origin.elapsed().as_nanos() as i64
    }

    pub fn tally(&self) -> Tally {
        *self.tally.borrow()
    }

    /// Adds an entry; its `i` is given here.
    pub fn record(&self, mut entry: Entry) -> anyhow::Result<()> {
        entry.i = self.next.replace(self.next.get() + 1);
        let mut tally = self.tally.borrow_mut();
        match entry.kind {
            Kind::Ok => tally.ok += 1,
            Kind::Fail => tally.fail += 1,
            Kind::Info => tally.info += 1,
        }
        write_line(&mut *self.file.borrow_mut(), &entry)?;
        self.entries.borrow_mut().push(entry);
        Ok(())
    }

    pub fn finish(self) -> anyhow::Result<Vec<Entry>> {
        self.file.into_inner().flush()?;
        Ok(self.entries.into_inner())
    }
}

/// Writes items as JSONL.
pub fn write_lines<T: Serialize>(path: &Path, items: &[T]) -> anyhow::Result<()> {
    let file = File::create(path).with_context(|| format!("create {}", path.display()))?;
    let mut out = BufWriter::new(file);
    for item in items {
        write_line(&mut out, item)?;
    }
    Ok(out.flush()?)
}

/// Reads JSONL, naming the line that is wrong.
pub fn read_lines<T: DeserializeOwned>(path: &Path) -> anyhow::Result<Vec<T>> {
    let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
    let mut items = Vec::new();
    for (n, line) in BufReader::new(file).lines().enumerate() {
        let item = serde_json::from_str(&line?)
            .with_context(|| format!("{} line {}", path.display(), n + 1))?;
        items.push(item);
    }
    Ok(items)
}

fn write_line<T: Serialize>(out: &mut impl Write, item: &T) -> anyhow::Result<()> {
    serde_json::to_writer(&mut *out, item)?;
    Ok(out.write_all(b"\n")?)
}

mod differences {
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(points: &[i64], out: S) -> Result<S::Ok, S::Error> {
        let mut last = 0;
        out.collect_seq(points.iter().map(|&point| {
            let step = point.wrapping_sub(last);
            last = point;
            step
        }))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<i64>, D::Error> {
        let mut points = Vec::<i64>::deserialize(from)?;
        let mut last = 0;
        for point in &mut points {
            *point = point.wrapping_add(last);
            last = *point;
        }
        Ok(points)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(call: Call, val: Option<Seen>) -> Entry {
        Entry {
            i: 3,
            proc: 9,
            node: 1,
            call,
            t0: 10,
            t1: 20,
            kind: Kind::Ok,
            val,
            status: Some(200),
            note: None,
            last: false,
        }
    }

    #[test]
    fn entries_survive_their_line() {
        let seen = SeriesSeen {
            series: 4,
            points: vec![-600_000, -599_000, -599_000, -599_500],
            alien: vec![(-599_000, "NaN".into())],
        };
        for entry in [
            entry(Call::Write { key: 1, value: 7 }, None),
            entry(Call::Read, Some(Seen::Registers(vec![0, -1, 7]))),
            entry(
                Call::Append {
                    samples: vec![(1, -5)],
                },
                None,
            ),
            entry(Call::Sweep { at: 5 }, None),
            entry(
                Call::Scan { first: 4, count: 1 },
                Some(Seen::Series(vec![seen])),
            ),
        ] {
            let line = serde_json::to_string(&entry).unwrap();
            assert_eq!(
                serde_json::from_str::<Entry>(&line).unwrap(),
                entry,
                "{line}"
            );
        }
    }

    #[test]
    fn a_line_reads_as_the_format_says() {
        let line = serde_json::to_string(&entry(Call::Write { key: 1, value: 7 }, None)).unwrap();
        assert_eq!(
            line,
            r#"{"i":3,"proc":9,"node":1,"f":"write","args":{"key":1,"value":7},"t0":10,"t1":20,"type":"ok","status":200}"#
        );
    }
}
