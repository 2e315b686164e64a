//! Series of several shards, in pieces: however they are cut, together they are what the shards hold.

mod support;

use std::sync::Arc;

use model::source::{Consistency, Selection, Source, Take};
use model::{Labels, Matcher, Series, Timestamp};
use support::replica::{Replica, run};
use tsdb::{Chosen, Command, SeriesRef, Shard, WriteCommand};

const SAMPLES: i64 = 30;

/// A shard with so many series.
async fn shard(number: u64, series: u32) -> Arc<Shard> {
    let shard = Replica::new(number).await.shard;
    let labels = |n: u32| {
        let (n, shard) = (n.to_string(), number.to_string());
        Labels::from_pairs([("__name__", "m"), ("n", &n), ("shard", &shard)])
    };
    let mut write = WriteCommand {
        proposed_at: Timestamp(SAMPLES),
        in_order_window_ms: 1000,
        labels: (0..series).map(labels).collect(),
        ..WriteCommand::default()
    };
    for n in 0..series {
        for at in 0..SAMPLES {
            let value = f64::from(n) + at as f64 * number as f64;
            write.rows.push(SeriesRef::New(n), Timestamp(at), value);
        }
    }
    let applied = shard.apply(1, &Command::Write(write)).await;
    applied.expect("the rows are stored");
    Arc::new(shard)
}

fn selection(take: Take) -> Selection {
    Selection {
        matchers: vec![Matcher::equal("__name__", "m")],
        start: Timestamp(5),
        end: Timestamp(25),
        take,
        consistency: Consistency::Local,
    }
}

fn by_labels(mut series: Vec<Series>) -> Vec<Series> {
    series.sort_by(|a, b| a.labels.cmp(&b.labels));
    series
}

#[test]
fn pieces_are_what_the_shards_hold() {
    run(async {
        // Even ones, of which the first tells of the others, and very uneven ones.
        for sizes in [&[300; 4][..], &[0, 3, 0, 0, 40, 1], &[1], &[]] {
            let mut shards = Vec::new();
            for (number, &series) in (1..).zip(sizes) {
                shards.push(shard(number, series).await);
            }
            for take in [Take::All, Take::Last] {
                let selection = selection(take);
                let mut expected = Vec::new();
                for shard in &shards {
                    expected.extend(shard.select(&selection).await.unwrap());
                }
                let expected = by_labels(expected);
                for (samples_each, pieces_max) in
                    [(1, 1), (1, 2), (1, 3), (30_000, 2), (1 << 20, 4)]
                {
                    let shards = shards.clone();
                    let pieces = Chosen::pieces(shards, &selection, samples_each, pieces_max)
                        .await
                        .unwrap();
                    assert!((1..=pieces_max).contains(&pieces.len()));
                    let mut found = Vec::new();
                    for piece in pieces {
                        found.extend(piece.select(&selection).await.unwrap());
                    }
                    assert_eq!(by_labels(found), expected, "{samples_each} {pieces_max}");
                }
            }
        }
    });
}

#[test]
fn work_is_about_even() {
    run(async {
        let mut shards = Vec::new();
        for number in 1..=4 {
            shards.push(shard(number, 300).await);
        }
        let selection = selection(Take::All);
        for shards in [&shards[..], &shards[..3]] {
            let pieces = Chosen::pieces(shards.to_vec(), &selection, 1, 2)
                .await
                .unwrap();
            let mut counts = Vec::new();
            for piece in &pieces {
                counts.push(piece.select(&selection).await.unwrap().len());
            }
            let all: usize = counts.iter().sum();
            assert_eq!((counts.len(), all), (2, 300 * shards.len()));
            assert!(counts.iter().all(|&n| n >= all / 2), "{counts:?}");
        }
        for (samples_max, is_within) in [(1000, false), (100_000, true)] {
            let chosen = Chosen::within(shards.clone(), &selection, samples_max).await;
            assert_eq!(chosen.unwrap().is_some(), is_within);
        }
    });
}
