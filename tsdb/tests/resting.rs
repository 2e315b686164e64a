//! Series that only blocks hold: out of memory, and nothing else about them differs.

mod support;

use std::path::Path;
use std::sync::Arc;

use futures::stream;
use model::sink::{Reason, Rejection};
use model::source::{Consistency, Source, Take};
use model::{Labels, Matcher, NewestSelection, SeriesId, Timestamp};
use support::replica::{Replica, metadata, run};
use tsdb::value::Value;
use tsdb::{
    CleanCommand, CollectCommand, Command, CompactCommand, DeleteCommand, Outcome, RetainCommand,
    SealCommand, SeriesRef, Shard, WriteCommand,
};

/// More than one table of a block tells of.
const SERIES: u64 = 1_500;

fn labels(number: u64) -> Labels {
    let (name, pod) = (format!("m{}", number % 7), format!("pod-{number}"));
    let zone = ["eu", "us", "asia"][number as usize % 3];
    Labels::from_pairs([("__name__", &*name), ("pod", &pod), ("zone", zone)])
}

/// A sample of each, told by labels.
fn write(numbers: impl Iterator<Item = u64>, at: i64, value: f64) -> Command {
    let mut write = WriteCommand {
        proposed_at: Timestamp(at),
        out_of_order_window_ms: 1_000_000,
        in_order_window_ms: 1_000_000,
        exemplars_max: 10,
        ..WriteCommand::default()
    };
    for number in numbers {
        let series = SeriesRef::New(write.labels.len() as u32);
        write.labels.push(labels(number));
        write.rows.push(series, Timestamp(at), value);
    }
    Command::Write(write)
}

fn seal(before: i64) -> Command {
    let before = Timestamp(before);
    Command::Seal(SealCommand { before })
}

fn rest(before: i64) -> Command {
    Command::Collect(CollectCommand {
        before: Timestamp(before),
        series: (0..2 * SERIES).map(SeriesId).collect(),
        rest: true,
    })
}

fn delete(matcher: Matcher, start: i64, end: i64) -> Command {
    Command::Delete(DeleteCommand {
        any_of: vec![vec![matcher]],
        start: Timestamp(start),
        end: Timestamp(end),
    })
}

struct Life {
    replica: Replica,
    log: Vec<Command>,
}

impl Life {
    /// All series sealed, in two blocks that have files or not; those of odd numbers rest.
    async fn new(written: bool) -> Self {
        let replica = Replica::new(1).await;
        let log = Vec::new();
        let mut life = Self { replica, log };
        life.apply(write(0..SERIES, 1_000, 1.0)).await;
        life.apply(seal(1_001)).await;
        life.apply(write(0..SERIES, 2_000, 2.0)).await;
        life.apply(seal(2_001)).await;
        if written {
            life.checkpoint().await;
        }
        let even = write((0..SERIES).step_by(2), 5_000, 5.0);
        life.apply(even).await;
        let collected = life.apply(rest(2_500)).await;
        assert_eq!(collected, Outcome::Collected(SERIES / 2));
        life
    }

    async fn apply(&mut self, command: Command) -> Outcome {
        self.log.push(command);
        let mut outcomes = self.replica.catch_up(&self.log).await.expect("applies");
        outcomes.remove(0)
    }

    async fn checkpoint(&self) {
        self.replica.checkpoint().await.expect("a checkpoint");
    }

    fn shard(&self) -> &Shard {
        &self.replica.shard
    }

    async fn samples(&self, number: u64) -> Vec<(i64, f64)> {
        let all = self.replica.everything().await;
        let float = |(at, value): (&i64, &Value)| match value {
            Value::Float(bits) => (*at, f64::from_bits(*bits)),
            Value::Histogram(_) => panic!("none is written"),
        };
        let samples = all.get(&labels(number)).into_iter().flatten();
        samples.map(float).collect()
    }

    async fn names(&self, any_of: Vec<Vec<Matcher>>, start: i64, end: i64) -> Vec<String> {
        let selection = metadata(any_of, start, end);
        let names = self.shard().label_names(&selection).await;
        names.expect("an answer")
    }

    async fn values(
        &self,
        name: &str,
        any_of: Vec<Vec<Matcher>>,
        start: i64,
        end: i64,
    ) -> Vec<String> {
        let selection = metadata(any_of, start, end);
        let values = self.shard().label_values(name, &selection).await;
        values.expect("an answer")
    }
}

/// Files written or not: both must be the same to whoever asks.
fn both_ways(test: impl AsyncFn(Life)) {
    run(async {
        for written in [false, true] {
            test(Life::new(written).await).await;
        }
    });
}

#[test]
fn they_are_out_of_memory_and_answer_as_before() {
    both_ways(async |life| {
        let shard = life.shard();
        assert_eq!(shard.series_count() as u64, SERIES / 2);
        assert_eq!(shard.resolve(&labels(1)), None);
        assert_eq!(life.replica.everything().await.len() as u64, SERIES);
        assert_eq!(life.samples(1).await, [(1_000, 1.0), (2_000, 2.0)]);
        let one = [Matcher::equal("pod", "pod-3")];
        for (start, end, found) in [
            (0, 999, 0),
            (0, 1_000, 1),
            (1_001, 1_999, 0),
            (2_000, 9_999, 1),
        ] {
            let (start, end) = (Timestamp(start), Timestamp(end));
            for take in [Take::All, Take::Last] {
                let answer = life.replica.select(&one, start, end, take).await;
                assert_eq!(answer.len(), found, "{start:?} to {end:?}");
            }
        }
        let pods = life.values("pod", vec![], 0, 9_999).await;
        assert_eq!(pods.len() as u64, SERIES);
        assert!(pods.is_sorted());
        let odd = vec![
            vec![Matcher::equal("pod", "pod-3")],
            vec![Matcher::equal("pod", "pod-5")],
        ];
        assert_eq!(
            life.values("zone", odd.clone(), 0, 9_999).await,
            ["asia", "eu"]
        );
        assert_eq!(
            life.names(odd.clone(), 0, 9_999).await,
            ["__name__", "pod", "zone"]
        );
        assert!(life.names(odd.clone(), 2_001, 9_999).await.is_empty());
        let selection = metadata(odd, 1_500, 2_500);
        let series = shard.series(&selection).await.unwrap();
        assert_eq!(series, [labels(3), labels(5)]);
        shard.verify().await.unwrap();
    });
}

#[test]
fn they_come_back_under_their_ids_and_know_what_they_have() {
    both_ways(async |mut life| {
        let digest = life.shard().digest();
        let known = write([0].into_iter(), 6_000, 1.0);
        let Command::Write(mut late) = known else {
            unreachable!()
        };
        late.rows.series[0] = SeriesRef::Known(SeriesId(3));
        let outcome = life.apply(Command::Write(late)).await;
        assert_eq!(outcome, Outcome::NotRegistered);
        assert_eq!(life.shard().digest(), digest);

        // A value that is there, another one, and one that is new; and a series that never was.
        for (at, value, refused) in [(2_000, 2.0, 0), (2_000, 7.0, 2), (1_500, 1.5, 0)] {
            let outcome = life.apply(write([3, 9].into_iter(), at, value)).await;
            let Outcome::Written { rejected } = outcome else {
                panic!("{outcome:?}")
            };
            assert_eq!(rejected.len(), refused, "{value} at {at}");
        }
        life.apply(write([SERIES + 5, 11, 1].into_iter(), 6_000, 6.0))
            .await;
        let ids = [3, 9, 1, 11].map(|number| life.shard().resolve(&labels(number)));
        assert_eq!(ids, [3, 9, 1, 11].map(|id| Some(SeriesId(id))));
        let new = life.shard().resolve(&labels(SERIES + 5));
        assert_eq!(new, Some(SeriesId(SERIES)));
        assert_eq!(
            life.samples(3).await,
            [(1_000, 1.0), (1_500, 1.5), (2_000, 2.0)]
        );
        assert_eq!(
            life.samples(11).await,
            [(1_000, 1.0), (2_000, 2.0), (6_000, 6.0)]
        );
        let pods = life.values("pod", vec![], 0, 9_999).await;
        assert_eq!(pods.len() as u64, SERIES + 1);
        life.shard().verify().await.unwrap();

        // Sealed beside what was sealed before, and at rest again.
        life.apply(seal(6_001)).await;
        life.checkpoint().await;
        life.apply(rest(9_000)).await;
        assert_eq!(life.shard().series_count(), 0);
        assert_eq!(life.samples(11).await.len(), 3);
        life.apply(write([11].into_iter(), 7_000, 7.0)).await;
        assert_eq!(life.shard().resolve(&labels(11)), Some(SeriesId(11)));
    });
}

/// The block that ends last is not the one that has its newest sample.
#[test]
fn the_newest_sample_of_all_blocks_is_known() {
    run(async {
        for written in [false, true] {
            let replica = Replica::new(1).await;
            let mut life = Life {
                replica,
                log: Vec::new(),
            };
            life.apply(write([1].into_iter(), 1_000, 1.0)).await;
            life.apply(write([2].into_iter(), 5_000, 2.0)).await;
            life.apply(seal(6_000)).await;
            life.apply(write([1].into_iter(), 4_000, 4.0)).await;
            life.apply(seal(6_000)).await;
            if written {
                life.checkpoint().await;
            }
            assert_eq!(life.apply(rest(6_000)).await, Outcome::Collected(2));
            let other = life.apply(write([1].into_iter(), 4_000, 9.0)).await;
            let rejected = vec![Rejection {
                row: 0,
                reason: Reason::Duplicate,
            }];
            assert_eq!(other, Outcome::Written { rejected });
            assert_eq!(life.samples(1).await, [(1_000, 1.0), (4_000, 4.0)]);
        }
    });
}

#[test]
fn a_series_whose_last_block_is_dropped_is_forgotten() {
    both_ways(async |mut life| {
        let before = Timestamp(2_001);
        life.apply(Command::Retain(RetainCommand { before })).await;
        assert_eq!(life.samples(1).await, []);
        assert_eq!(
            life.values("pod", vec![], 0, 9_999).await.len() as u64,
            SERIES / 2
        );
        life.apply(write([1].into_iter(), 6_000, 6.0)).await;
        let id = life.shard().resolve(&labels(1));
        assert_eq!(id, Some(SeriesId(SERIES)), "another id");
        assert_eq!(life.samples(1).await, [(6_000, 6.0)]);
        life.shard().verify().await.unwrap();
    });
}

#[test]
fn what_is_deleted_of_them_is_gone_and_cleaned() {
    both_ways(async |mut life| {
        let zone = Matcher::equal("zone", "us");
        life.apply(delete(zone.clone(), 0, 1_500)).await;
        life.apply(delete(Matcher::equal("pod", "pod-1"), 0, 9_999))
            .await;
        assert_eq!(life.samples(1).await, [], "of both blocks");
        assert_eq!(life.samples(7).await, [(2_000, 2.0)]);
        assert_eq!(life.samples(3).await.len(), 2);
        let of_one = vec![vec![Matcher::equal("pod", "pod-1")]];
        assert!(life.names(of_one.clone(), 0, 9_999).await.is_empty());
        for block in life.shard().unclean_blocks() {
            life.apply(Command::Clean(CleanCommand { block })).await;
        }
        assert!(life.shard().unclean_blocks().is_empty());
        assert_eq!(life.samples(7).await, [(2_000, 2.0)]);
        let gone = life.shard().series(&metadata(of_one, 0, 9_999)).await;
        assert!(gone.unwrap().is_empty());
        life.shard().verify().await.unwrap();
        // The newest sample that blocks hold of it is another one now.
        life.apply(delete(Matcher::equal("pod", "pod-7"), 2_000, 2_000))
            .await;
        for block in life.shard().unclean_blocks() {
            life.apply(Command::Clean(CleanCommand { block })).await;
        }
        life.apply(write([7, 1].into_iter(), 2_000, 9.0)).await;
        assert_eq!(life.samples(7).await, [(2_000, 9.0)]);
        let ids = [7, 1].map(|number| life.shard().resolve(&labels(number)));
        assert_eq!(
            ids,
            [SERIES, SERIES + 1].map(|id| Some(SeriesId(id))),
            "forgotten"
        );
        life.shard().verify().await.unwrap();
    });
}

#[test]
fn blocks_made_one_hold_them_and_so_does_whoever_opens_or_replays_or_installs() {
    both_ways(async |mut life| {
        life.apply(delete(Matcher::equal("pod", "pod-9"), 0, 1_500))
            .await;
        for block in life.shard().unclean_blocks() {
            life.apply(Command::Clean(CleanCommand { block })).await;
        }
        let blocks = life
            .shard()
            .candidates()
            .iter()
            .map(|block| block.id)
            .collect();
        life.apply(Command::Compact(CompactCommand { blocks }))
            .await;
        life.apply(write([5].into_iter(), 6_000, 5.0)).await;
        let expected = life.replica.everything().await;
        assert_eq!(expected.len() as u64, SERIES);
        life.checkpoint().await;
        assert!(life.shard().merge_one().await.unwrap());
        assert_eq!(life.replica.everything().await, expected);
        life.shard().verify().await.unwrap();
        life.checkpoint().await;
        let (log, digest) = (life.log.clone(), life.shard().digest());

        let fresh = Replica::new(2).await;
        let snapshot = life.shard().snapshot().await.unwrap();
        let staged = Path::new("staged");
        fresh
            .receive(&life.replica, &snapshot, staged)
            .await
            .unwrap();
        let position = snapshot.position.clone();
        fresh
            .shard
            .install(staged, &snapshot.files, position)
            .await
            .unwrap();

        let replayed = Replica::new(3).await;
        let commands = log.iter().map(|command| Some(command.encode()));
        let entries: Vec<_> = (1..).zip(commands).collect();
        let replay = replayed.shard.replay(stream::iter([Ok(entries)]));
        replay.await.unwrap();

        life.replica.reopen(&log).await.unwrap();
        for replica in [&life.replica, &fresh, &replayed] {
            assert_eq!(replica.everything().await, expected);
            assert_eq!(replica.shard.digest(), digest);
            let again = write([3].into_iter(), 6_000, 6.0);
            let index = replica.shard.applied_index() + 1;
            replica.shard.apply(index, &again).await.unwrap();
            let ids = [3, 5].map(|number| replica.shard.resolve(&labels(number)));
            assert_eq!(ids, [3, 5].map(|id| Some(SeriesId(id))));
        }
    });
}

#[test]
fn the_newest_samples_of_all_come_by_name() {
    run(async {
        for written in [false, true] {
            let mut life = Life::new(written).await;
            let shard = std::mem::replace(&mut life.replica, Replica::new(9).await).shard;
            let shard = Arc::new(shard);
            let selection = NewestSelection {
                any_of: vec![
                    vec![Matcher::equal("zone", "eu")],
                    vec![Matcher::equal("zone", "us")],
                ],
                start: Timestamp(0),
                end: Timestamp(9_999),
                consistency: Consistency::Local,
            };
            // Whoever leaves memory between two pages is there all the same.
            for leaves in [false, true] {
                let mut pages = shard.newest(&selection);
                let mut all = Vec::new();
                if leaves {
                    let index = shard.applied_index();
                    shard.apply(index + 1, &seal(5_001)).await.unwrap();
                    shard.apply(index + 2, &rest(9_999)).await.unwrap();
                    assert_eq!(shard.series_count(), 0);
                }
                while let Some(page) = pages.next().await.unwrap() {
                    all.extend(page);
                }
                let mut expected: Vec<Labels> =
                    (0..SERIES).filter(|n| n % 3 < 2).map(labels).collect();
                expected.sort_by(|a, b| a.cmp_by_name(b));
                let found: Vec<Labels> = all.iter().map(|one| one.labels.clone()).collect();
                assert!(found == expected, "{} of {}", found.len(), expected.len());
                for one in all {
                    let pod: u64 = one.labels.get("pod").unwrap()[4..].parse().unwrap();
                    let newest = if pod.is_multiple_of(2) { 5.0 } else { 2.0 };
                    assert_eq!((one.at.0, one.value), (newest as i64 * 1_000, newest));
                }
            }
        }
    });
}
