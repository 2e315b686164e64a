//! Series that come as differences: what they stand at, whatever is sent twice, late or lost.

mod support;

use model::batch::DeltaSpan;
use model::histogram::Span;
use model::sample::STALE_NAN;
use model::sink::Reason;
use model::source::{Consistency, Selection, Source, Take};
use model::{Histogram, Labels, Matcher, SeriesId, Timestamp};
use support::replica::{Replica, run};
use tsdb::{AddCommand, Command, Outcome, SealCommand, SeriesRef, WriteCommand};

/// Milliseconds at which the span begins and ends, and the difference.
type Row = (u64, u64, f64);

fn add_at(proposed_at: i64, rows: &[Row]) -> AddCommand {
    let mut add = AddCommand {
        write: WriteCommand {
            proposed_at: Timestamp(proposed_at),
            in_order_window_ms: 1000,
            labels: vec![Labels::from_pairs([("__name__", "d")])],
            ..WriteCommand::default()
        },
        stale_before: Timestamp(proposed_at - 300),
        totals_max: 1,
        ..AddCommand::default()
    };
    for &(start, end, value) in rows {
        push(&mut add, (start * 1_000_000, end * 1_000_000), value);
    }
    add
}

fn push(add: &mut AddCommand, (start_ns, end_ns): (u64, u64), value: f64) {
    let at = Timestamp((end_ns / 1_000_000) as i64);
    add.write.rows.push(SeriesRef::New(0), at, value);
    add.deltas.push(DeltaSpan { start_ns, end_ns });
}

async fn apply(replica: &Replica, add: AddCommand) -> Vec<(u32, Reason)> {
    let index = replica.shard.applied_index() + 1;
    match replica.shard.apply(index, &Command::Add(add)).await {
        Ok(Outcome::Written { rejected }) => rejected.iter().map(|r| (r.row, r.reason)).collect(),
        other => panic!("{other:?}"),
    }
}

/// Instants and values of the series, those of histograms being their sums.
async fn stored(replica: &Replica, name: &str) -> Vec<(i64, f64)> {
    let selection = Selection {
        matchers: vec![Matcher::equal("__name__", name)],
        start: Timestamp::MIN,
        end: Timestamp::MAX,
        take: Take::All,
        consistency: Consistency::Local,
    };
    let found = replica.shard.select(&selection).await.unwrap();
    let Some(series) = found.first() else {
        return Vec::new();
    };
    let times = series.samples.timestamps.iter().map(|at| at.0);
    times.zip(series.samples.values.iter().copied()).collect()
}

#[test]
fn a_difference_counts_once_and_in_order() {
    run(async {
        let replica = Replica::new(1).await;
        let two = [(0, 10, 1.0), (10, 20, 2.0)];
        assert_eq!(apply(&replica, add_at(20, &two)).await, []);
        let sums = [(10, 1.0), (20, 3.0)];
        assert_eq!(stored(&replica, "d").await, sums);
        assert_eq!(apply(&replica, add_at(21, &two)).await, [], "sent again");
        assert_eq!(stored(&replica, "d").await, sums);
        let late = [(12, 15, 5.0)];
        let refused = [(0, Reason::OutOfOrder)];
        assert_eq!(apply(&replica, add_at(22, &late)).await, refused);
        // It began before the first one did; and one behind a gap.
        let mut older = add_at(31, &[]);
        push(&mut older, (0, 30_000_000), 4.0);
        assert_eq!(apply(&replica, older.clone()).await, []);
        let mut before = add_at(32, &[(40, 50, 1.0)]);
        before.deltas[0].start_ns = 0;
        assert_eq!(apply(&replica, before).await, []);
        assert_eq!(
            stored(&replica, "d").await,
            [(10, 1.0), (20, 3.0), (30, 7.0), (50, 8.0)]
        );
    });
}

#[test]
fn what_began_before_the_series_did_is_not_counted() {
    run(async {
        let replica = Replica::new(2).await;
        assert_eq!(apply(&replica, add_at(20, &[(10, 20, 1.0)])).await, []);
        let older = add_at(30, &[(5, 30, 2.0)]);
        assert_eq!(apply(&replica, older).await, [(0, Reason::OutOfOrder)]);
        assert_eq!(apply(&replica, add_at(40, &[(35, 40, 3.0)])).await, []);
        assert_eq!(stored(&replica, "d").await, [(20, 1.0), (40, 4.0)]);
    });
}

#[test]
fn two_within_a_millisecond_both_count() {
    run(async {
        let replica = Replica::new(3).await;
        let mut add = add_at(10, &[]);
        push(&mut add, (0, 5_100_000), 1.0);
        push(&mut add, (5_100_000, 5_200_000), 2.0);
        for _ in 0..2 {
            assert_eq!(apply(&replica, add.clone()).await, []);
            assert_eq!(stored(&replica, "d").await, [(5, 1.0)]);
        }
        apply(&replica, add_at(10, &[(6, 7, 4.0)])).await;
        assert_eq!(stored(&replica, "d").await, [(5, 1.0), (7, 7.0)]);
    });
}

#[test]
fn totals_outlive_power_cuts_and_seals_and_show_in_the_digest() {
    run(async {
        let mut replica = Replica::new(4).await;
        let log = [
            Command::Add(add_at(10, &[(0, 10, 1.0)])),
            Command::Add(add_at(20, &[(10, 20, 2.0)])),
            Command::Seal(SealCommand {
                before: Timestamp(100),
            }),
            Command::Add(add_at(30, &[(20, 30, 4.0)])),
        ];
        replica.catch_up(&log[..3]).await.unwrap();
        replica.checkpoint().await.unwrap();
        let before = replica.shard.digest();
        replica.reopen(&log[..3]).await.unwrap();
        assert_eq!(replica.shard.digest(), before);
        assert_eq!(
            apply(&replica, add_at(21, &[(0, 10, 1.0)])).await,
            [],
            "in a block"
        );
        replica.reopen(&log).await.unwrap();
        let sums = [(10, 1.0), (20, 3.0), (30, 7.0)];
        assert_eq!(stored(&replica, "d").await, sums);
        let other = Replica::new(5).await;
        let mut once = add_at(30, &[(0, 10, 1.0), (10, 20, 2.0), (20, 30, 4.0)]);
        apply(&other, once.clone()).await;
        once.write.proposed_at = Timestamp(31);
        let told_later = Replica::new(6).await;
        apply(&told_later, once).await;
        assert_ne!(other.shard.digest(), told_later.shard.digest());
    });
}

#[test]
fn a_silent_series_begins_anew_and_no_more_are_kept_than_may_be() {
    run(async {
        let replica = Replica::new(7).await;
        apply(&replica, add_at(10, &[(0, 10, 5.0)])).await;
        let mut another = add_at(11, &[(0, 11, 1.0)]);
        another.write.labels = vec![Labels::from_pairs([("__name__", "e")])];
        let full = [(0, Reason::SeriesLimit)];
        assert_eq!(apply(&replica, another.clone()).await, full);
        another.stale_before = Timestamp(11);
        assert_eq!(apply(&replica, another).await, [], "the other is forgotten");
        assert_eq!(stored(&replica, "e").await, [(11, 1.0)]);
        let mut again = add_at(500, &[(0, 10, 5.0), (490, 500, 2.0)]);
        again.totals_max = 9;
        assert_eq!(
            apply(&replica, again).await,
            [],
            "the first is stored already"
        );
        assert_eq!(stored(&replica, "d").await, [(10, 5.0), (500, 2.0)]);
    });
}

#[test]
fn what_is_not_stored_is_not_counted_and_an_end_is_no_reset() {
    run(async {
        let replica = Replica::new(8).await;
        apply(&replica, add_at(10, &[(0, 10, 1.0)])).await;
        let mut early = add_at(10, &[(10, 50, 2.0)]);
        early.write.future_window_ms = 10;
        assert_eq!(apply(&replica, early).await, [(0, Reason::TooNew)]);
        apply(&replica, add_at(20, &[(10, 20, STALE_NAN), (20, 30, 4.0)])).await;
        let stored = stored(&replica, "d").await;
        assert_eq!((stored[0], stored[2]), ((10, 1.0), (30, 5.0)));
        assert_eq!(stored[1].1.to_bits(), STALE_NAN.to_bits());
    });
}

#[test]
fn histograms_add_up() {
    run(async {
        let replica = Replica::new(9).await;
        let histogram = |count: f64| Histogram {
            is_integer: true,
            count,
            sum: count * 2.0,
            positive_spans: vec![Span {
                offset: 1,
                length: 1,
            }],
            positive_buckets: vec![count],
            ..Histogram::default()
        };
        for (end, count) in [(10, 1.0), (20, 2.0), (20, 2.0)] {
            let mut add = add_at(end, &[]);
            let at = Timestamp(end);
            let series = SeriesRef::New(0);
            add.write.rows.push_histogram(series, at, &histogram(count));
            add.deltas.push(DeltaSpan {
                start_ns: 0,
                end_ns: end as u64 * 1_000_000,
            });
            assert_eq!(apply(&replica, add).await, []);
        }
        assert_eq!(stored(&replica, "d").await, [(10, 2.0), (20, 6.0)]);
        assert_eq!(
            replica
                .shard
                .resolve(&Labels::from_pairs([("__name__", "d")])),
            Some(SeriesId(0))
        );
    });
}
