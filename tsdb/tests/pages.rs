//! Series of one metric among those of others, a few on each page of a block: what is read together is
//! what was written of each of them.

mod support;

use model::source::{Consistency, Selection, Source, Take};
use model::{Labels, Matcher, Timestamp};
use support::replica::{Replica, run};
use tsdb::{Command, SealCommand, SeriesRef, WriteCommand};

/// Of more than one stretch of a block.
const SERIES: u32 = 2_400;
/// More than a column holds of one series in [`LONG_OF`].
const SAMPLES: i64 = 180;
const LONG_SAMPLES: i64 = 5_000;
const LONG_OF: u32 = 97;
const STEP_MS: i64 = 15;
const METRICS: u32 = 24;

fn labels(series: u32) -> Labels {
    let metric = format!("m{}", series % METRICS);
    Labels::from_pairs([("__name__", &metric), ("n", &series.to_string())])
}

/// Instants of a series: of every third target others, and of each seventh series a few are missing.
fn samples(series: u32) -> Vec<(Timestamp, f64)> {
    let count = match series.is_multiple_of(LONG_OF) {
        true => LONG_SAMPLES,
        false => SAMPLES,
    };
    let shift = i64::from(series / METRICS % 3);
    let is_there = |n: &i64| !series.is_multiple_of(7) || n % 11 != 3;
    let value = |n: i64| {
        let word = (u64::from(series) << 32 | n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        match series % METRICS {
            0 => 1.0,
            m if m % 2 == 0 => (word >> 60) as f64 / 8.0 + n as f64,
            _ => (word >> 11) as f64 / 7.0,
        }
    };
    let at = |n: i64| Timestamp(n * STEP_MS + shift);
    (0..count)
        .filter(is_there)
        .map(|n| (at(n), value(n)))
        .collect()
}

/// A shard whose samples are all in one file, written by sealing or of blocks that were made one.
async fn sealed(cuts: &[i64]) -> Replica {
    let mut replica = Replica::new(7).await;
    let mut write = WriteCommand {
        proposed_at: Timestamp(LONG_SAMPLES * STEP_MS),
        in_order_window_ms: i64::MAX,
        labels: (0..SERIES).map(labels).collect(),
        ..WriteCommand::default()
    };
    for series in 0..SERIES {
        for (at, value) in samples(series) {
            write.rows.push(SeriesRef::New(series), at, value);
        }
    }
    let mut log = vec![Command::Write(write)];
    let seal = |&cut: &i64| {
        Command::Seal(SealCommand {
            before: Timestamp(cut * STEP_MS),
        })
    };
    log.extend(cuts.iter().map(seal));
    replica.catch_up(&log).await.unwrap();
    replica.checkpoint().await.unwrap();
    let blocks: Vec<u64> = replica.shard.candidates().iter().map(|b| b.id).collect();
    if blocks.len() > 1 {
        let compact = Command::Compact(tsdb::CompactCommand { blocks });
        let index = replica.shard.applied_index() + 1;
        replica.shard.apply(index, &compact).await.unwrap();
        assert!(replica.shard.merge_one().await.unwrap());
    }
    replica
}

async fn check(replica: &Replica, metric: u32, (start, end): (i64, i64)) {
    let name = format!("m{metric}");
    let (start, end) = (Timestamp(start * STEP_MS), Timestamp(end * STEP_MS));
    let selection = Selection {
        matchers: vec![Matcher::equal("__name__", &name)],
        start,
        end,
        take: Take::All,
        consistency: Consistency::Local,
    };
    let mut expected: Vec<(Labels, Vec<(Timestamp, f64)>)> = (0..SERIES)
        .filter(|series| series % METRICS == metric)
        .map(|series| {
            let inside = samples(series).into_iter();
            let inside = inside.filter(|(at, _)| (start..=end).contains(at));
            (labels(series), inside.collect())
        })
        .collect();
    expected.retain(|(_, samples)| !samples.is_empty());
    expected.sort_by(|a, b| a.0.cmp(&b.0));
    let found = replica.shard.select(&selection).await.unwrap().into_iter();
    let found: Vec<_> = found
        .map(|series| {
            let samples = series.samples.timestamps.iter().copied();
            (series.labels, samples.zip(series.samples.values).collect())
        })
        .collect();
    assert_eq!(found, expected, "metric {metric}, {start:?} to {end:?}");
}

#[test]
fn series_of_one_metric_are_what_was_written() {
    run(async {
        // All in one block; in one made of several; some of it in the head still.
        for cuts in [&[LONG_SAMPLES][..], &[60, 100, LONG_SAMPLES], &[90]] {
            let replica = sealed(cuts).await;
            for metric in 0..METRICS {
                // The second time some are kept.
                for range in [(0, LONG_SAMPLES), (0, LONG_SAMPLES), (50, 70), (170, 4_500)] {
                    check(&replica, metric, range).await;
                }
            }
        }
    });
}
