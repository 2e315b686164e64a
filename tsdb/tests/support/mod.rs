//! A slow, obvious twin of the engine, and a replica on a simulated disk to hold against it.

#![allow(
    dead_code,
    reason = "each test binary uses its own part of this module"
)]

pub mod before;
pub mod blocks;
pub mod replica;
pub mod twin;

use model::batch::Fence;
use model::group::{Family, FamilyKind, FamilySample, GroupingKey, PushId, PushOp, PushOptions};
use model::histogram::{Integers, Span};
use model::{Exemplar, Histogram, Labels, Matcher, Timestamp};
use proptest::prelude::*;
use tsdb::{
    Command, DeleteCommand, PushCommand, RetainCommand, SealCommand, SeriesRef, WipeCommand,
    WriteCommand, WriteRows,
};

/// One thing that happens to the replicas.
#[derive(Debug, Clone)]
pub enum Step {
    Write(Vec<Row>, Windows, Option<Fence>),
    /// Series, instant and value of each.
    Exemplars(Vec<(u8, i64, u8)>, u32),
    Push(String, i64, PushOp),
    /// The same push and another one on the same group, then a third on another, in one entry.
    Together(String, i64, PushOp, PushOp),
    Wipe(i64),
    Seal(i64),
    Retain(i64),
    /// Series (two of four that share a label, or one), and the range.
    Delete(u8, bool, i64, i64),
    /// The nth of the blocks that have something deleted.
    Clean(usize),
    /// Of the blocks of which nothing is deleted, which by the bits; one that is not there by the first.
    Compact(u8),
    /// Writes the file of a block of a replica that was made one.
    Merge(usize),
    /// Of series whose newest sample is before the instant: those that a leader finds dead, or all.
    Collect(i64, bool),
    /// A write whose proposer looked its series up before they were collected.
    Race(Vec<Row>, Windows, i64),
    Checkpoint(usize),
    Reopen(usize),
    /// Replica 1 misses what follows until it catches up or is sent a snapshot.
    Lag,
    CatchUp,
    Install,
}

/// `count` samples of a series from `from` on, every `step` ms, values from a small set; every
/// third one a histogram if told so.
#[derive(Debug, Clone)]
pub struct Row {
    pub series: u8,
    pub from: i64,
    pub step: i64,
    pub count: u8,
    pub value: u8,
    pub histograms: bool,
}

#[derive(Debug, Clone, Copy)]
pub struct Windows {
    pub proposed_at: i64,
    pub out_of_order_ms: i64,
    pub in_order_ms: i64,
    pub future_ms: i64,
}

/// Values whose bits an engine may be tempted to touch.
pub const VALUES: [u64; 8] = [
    0x7ff0_0000_0000_0002, // the staleness marker
    0xfff8_0000_dead_beef, // a NaN with a payload
    0x7ff0_0000_0000_0000, // +Inf
    0x8000_0000_0000_0000, // -0
    0,
    1, // a denormal
    0x3ff0_0000_0000_0000,
    0x4024_3333_3333_3333,
];

/// One of a few histograms; the first marks its series as ended, the last two are the same to whoever
/// sees floats only.
pub fn histogram(n: usize) -> Histogram {
    let n = n % 7;
    if n >= 5 {
        return large_histogram(n as i64);
    }
    let buckets: Vec<f64> = (0..n).map(|bucket| (bucket * 3) as f64).collect();
    Histogram {
        is_integer: n % 2 == 1,
        schema: n as i32 - 2,
        zero_count: 0.5 * n as f64,
        count: n as f64,
        sum: f64::from_bits(VALUES[n]),
        positive_spans: vec![Span {
            offset: 1,
            length: n as u32,
        }],
        positive_buckets: buckets,
        ..Histogram::default()
    }
}

/// Of integers, some of which are no floats.
fn large_histogram(n: i64) -> Histogram {
    let mut histogram = Histogram {
        sum: 1.0,
        positive_spans: vec![Span {
            offset: -1,
            length: 3,
        }],
        ..Histogram::default()
    };
    histogram.set_integers(Integers {
        count: u64::MAX - (n as u64),
        zero_count: (1 << 53) + 1,
        positive_buckets: vec![i64::MAX - n, 3, (1 << 60) + n],
        negative_buckets: Vec::new(),
    });
    histogram
}

pub fn labels(series: u8) -> Labels {
    let zone = ["", "eu", "us"][usize::from(series) % 3];
    let name = ["up", "down"][usize::from(series) % 2];
    let instance = format!("i{series}");
    Labels::from_pairs([("__name__", name), ("instance", &instance), ("zone", zone)])
}

pub fn key(job: &str) -> GroupingKey {
    GroupingKey::new([("job".to_owned(), job.to_owned())]).expect("has a job")
}

/// The command a proposer makes of a step that goes through the log; series are named by id when
/// `resolve` knows them.
pub fn command(
    step: &Step,
    resolve: impl Fn(&Labels) -> Option<model::SeriesId>,
) -> Option<Command> {
    Some(match step {
        Step::Race(rows, windows, _) => Command::Write(write(rows, windows, None, resolve)),
        Step::Write(rows, windows, fence) => Command::Write(write(rows, windows, *fence, resolve)),
        Step::Exemplars(seen, len_max) => Command::Write(exemplars(seen, *len_max, resolve)),
        Step::Push(job, at, op) => Command::Push(push(job, *at, op)),
        Step::Together(job, at, first, second) => Command::Pushes(vec![
            push(job, *at, first),
            push(job, *at, second),
            push("other", *at, first),
        ]),
        Step::Wipe(at) => Command::Wipe(WipeCommand {
            proposed_at: Timestamp(*at),
        }),
        Step::Seal(before) => Command::Seal(SealCommand {
            before: Timestamp(*before),
        }),
        Step::Delete(series, one, start, end) => Command::Delete(DeleteCommand {
            any_of: vec![deleted(*series, *one)],
            start: Timestamp(*start),
            end: Timestamp(*end),
        }),
        Step::Retain(before) => Command::Retain(RetainCommand {
            before: Timestamp(*before),
        }),
        _ => return None,
    })
}

fn push(job: &str, at: i64, op: &PushOp) -> PushCommand {
    PushCommand {
        proposed_at: Timestamp(at),
        key: key(job),
        op: op.clone(),
        options: PushOptions {
            ttl_ms: (at % 3 == 0).then_some(20),
            ..PushOptions::default()
        },
    }
}

fn write(
    rows: &[Row],
    windows: &Windows,
    fence: Option<Fence>,
    resolve: impl Fn(&Labels) -> Option<model::SeriesId>,
) -> WriteCommand {
    let mut new = Vec::new();
    let mut columns = WriteRows::default();
    for row in rows {
        let labels = labels(row.series);
        let series = resolve(&labels).map_or_else(
            || {
                new.push(labels);
                SeriesRef::New(new.len() as u32 - 1)
            },
            SeriesRef::Known,
        );
        for n in 0..i64::from(row.count) {
            let at = row.from.saturating_add(row.step * n);
            let choice = usize::from(row.value) + n as usize;
            if row.histograms && n % 3 == 1 {
                columns.push_histogram(series, Timestamp(at), &histogram(choice));
            } else {
                let bits = VALUES[choice % VALUES.len()];
                columns.push(series, Timestamp(at), f64::from_bits(bits));
            }
        }
    }
    let end = columns.len() as u32;
    WriteCommand {
        proposed_at: Timestamp(windows.proposed_at),
        out_of_order_window_ms: windows.out_of_order_ms,
        in_order_window_ms: windows.in_order_ms,
        future_window_ms: windows.future_ms,
        labels: new,
        rows: columns,
        fences: fence
            .map(|fence| (end / 2..end, fence))
            .into_iter()
            .collect(),
        ..WriteCommand::default()
    }
}

fn deleted(series: u8, one: bool) -> Vec<Matcher> {
    let labels = labels(series);
    let named = |name: &str| Matcher::equal(name, labels.get(name).unwrap_or_default());
    match one {
        true => vec![named("instance")],
        false => vec![named("zone"), named("__name__")],
    }
}

fn exemplars(
    seen: &[(u8, i64, u8)],
    len_max: u32,
    resolve: impl Fn(&Labels) -> Option<model::SeriesId>,
) -> WriteCommand {
    let mut write = WriteCommand {
        exemplars_max: len_max,
        ..WriteCommand::default()
    };
    for &(series, at, value) in seen {
        let labels = labels(series);
        let series = resolve(&labels).map_or_else(
            || {
                write.labels.push(labels);
                SeriesRef::New(write.labels.len() as u32 - 1)
            },
            SeriesRef::Known,
        );
        let exemplar = Exemplar {
            labels: Labels::from_pairs([("trace_id", value.to_string())]),
            value: f64::from(value / 2),
            timestamp: Timestamp(at),
        };
        write.exemplars.push((series, exemplar));
    }
    write
}

fn time() -> impl Strategy<Value = i64> {
    prop_oneof![
        20 => 0i64..4_000,
        1 => prop_oneof![Just(i64::MIN), Just(-1), any::<i64>()],
    ]
}

fn row() -> impl Strategy<Value = Row> {
    let samples = (time(), 1i64..20, 1u8..200, 0u8..3);
    (0u8..8, samples, prop::bool::weighted(0.3)).prop_map(|(series, samples, histograms)| {
        let (from, step, count, value) = samples;
        Row {
            series,
            from,
            step,
            count,
            value,
            histograms,
        }
    })
}

fn windows() -> impl Strategy<Value = Windows> {
    let out_of_order = prop_oneof![Just(-5i64), Just(0), Just(500), Just(i64::MAX)];
    let in_order = prop_oneof![Just(0i64), Just(900), Just(i64::MAX)];
    let future = prop_oneof![3 => Just(0i64), 1 => Just(2_000)];
    let windows = (out_of_order, in_order, future);
    windows.prop_map(|(out_of_order_ms, in_order_ms, future_ms)| Windows {
        proposed_at: 2_000,
        out_of_order_ms,
        in_order_ms,
        future_ms,
    })
}

fn fence() -> impl Strategy<Value = Fence> {
    (0u64..3, 0u64..4).prop_map(|(target, epoch)| Fence { target, epoch })
}

fn together((first, second): (Step, Step)) -> Step {
    match (first, second) {
        (Step::Push(job, at, first), Step::Push(_, _, second)) => {
            Step::Together(job, at, first, second)
        }
        _ => unreachable!("both are pushes"),
    }
}

fn push_step() -> impl Strategy<Value = Step> {
    let family = ("[xyz]", 0u8..8).prop_map(|(name, value)| Family {
        name,
        help: None,
        kind: match value % 2 {
            0 => FamilyKind::Gauge,
            _ => FamilyKind::Counter,
        },
        samples: vec![FamilySample {
            suffix: "",
            labels: Labels::default(),
            value: f64::from_bits(VALUES[usize::from(value)]),
            rare: None,
        }],
    });
    let families = prop::collection::vec(family, 0..4);
    ("[ab]", 0i64..100, families, 0..8).prop_map(|(job, at, families, op)| {
        let op = match op {
            0 => PushOp::Put(families),
            1 | 2 => PushOp::Post(families),
            3 => PushOp::Delete,
            4 => PushOp::Expire,
            5 | 6 => PushOp::Add {
                families,
                id: PushId::new(&[at as u8 % 8]).expect("fits"),
            },
            _ => PushOp::Reject,
        };
        Step::Push(job, at, op)
    })
}

/// Steps of a life; `structure` is how often something happens to files rather than to the log.
pub fn step(structure: u32) -> BoxedStrategy<Step> {
    if structure == 0 {
        return logged();
    }
    prop_oneof![
        19 => logged(),
        2 * structure => (0usize..2).prop_map(Step::Checkpoint),
        structure => (0usize..2).prop_map(Step::Merge),
        structure => (0usize..2).prop_map(Step::Reopen),
        2 * structure => Just(Step::Lag),
        structure => Just(Step::Install),
        1 => Just(Step::CatchUp),
    ]
    .boxed()
}

/// Writes of floats, and among them steps that go through the log.
pub fn mostly_floats() -> BoxedStrategy<Step> {
    let floats = (
        prop::collection::vec(row(), 1..6),
        windows(),
        prop::option::weighted(0.3, fence()),
    );
    let floats = floats.prop_map(|(mut rows, windows, fence)| {
        rows.iter_mut().for_each(|row| row.histograms = false);
        Step::Write(rows, windows, fence)
    });
    prop_oneof![3 => floats, 1 => logged()].boxed()
}

/// Steps that go through the log.
fn logged() -> BoxedStrategy<Step> {
    let rows = prop::collection::vec(row(), 1..6);
    let race = prop::collection::vec(row(), 1..3);
    prop_oneof![
        8 => (rows, windows(), prop::option::weighted(0.3, fence()))
            .prop_map(|(rows, windows, fence)| Step::Write(rows, windows, fence)),
        2 => prop::collection::vec((0u8..8, 0i64..50, 0u8..6), 1..6)
            .prop_flat_map(|seen| (Just(seen), 0u32..12))
            .prop_map(|(seen, len_max)| Step::Exemplars(seen, len_max)),
        2 => push_step(),
        1 => (push_step(), push_step()).prop_map(together),
        1 => (0i64..100).prop_map(Step::Wipe),
        2 => time().prop_map(Step::Seal),
        1 => (0i64..3_000).prop_map(Step::Retain),
        3 => (0u8..8, any::<bool>(), time(), 0i64..3_000)
            .prop_map(|(series, one, start, len)| {
                Step::Delete(series, one, start, start.saturating_add(len))
            }),
        2 => (0usize..3).prop_map(Step::Clean),
        2 => any::<u8>().prop_map(Step::Compact),
        3 => (time(), any::<bool>()).prop_map(|(before, all)| Step::Collect(before, all)),
        2 => (race, windows(), time())
            .prop_map(|(rows, windows, before)| Step::Race(rows, windows, before)),
    ]
    .boxed()
}
