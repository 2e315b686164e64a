//! Very many series come back with one command, held against an account of who was written when, kept series by series.

mod support;

use std::collections::{BTreeMap, BTreeSet};

use model::hash::split_mix;
use model::sink::Reason;
use model::{Labels, Matcher, SeriesId, Timestamp};
use support::before::{VERSION_4, commands};
use support::replica::{Replica, run};
use tsdb::{
    CleanCommand, CollectCommand, Command, CompactCommand, DeleteCommand, Outcome, SealCommand,
    SeriesRef, WriteCommand,
};

/// Which of the test's own series.
fn labels(number: u64) -> Labels {
    let (name, pod) = (format!("m{}", number % 50), format!("pod-{}", number / 50));
    let zone = ["eu", "us", "asia"][number as usize % 3];
    Labels::from_pairs([("__name__", &*name), ("pod", &pod), ("zone", zone)])
}

fn of_pod(pod: u64) -> Matcher {
    Matcher::equal("pod", format!("pod-{pod}"))
}

const OLD: i64 = 1_000_000;
const AFTER_ALL: i64 = 2_000_000;

/// What is known of one series.
#[derive(Debug, Clone, Copy)]
struct Known {
    id: SeriesId,
    newest: i64,
}

/// The account, and replicas that apply the same and write files or not.
struct World {
    known: BTreeMap<Labels, Known>,
    /// Of the next new series.
    next: u64,
    /// On a disk of version 4; without a file of any block that was not cleaned; with one of each as soon as may be.
    replicas: [Replica; 3],
}

const OLD_DISK: usize = 0;
const NO_FILES: usize = 1;

impl World {
    async fn new() -> Self {
        let old = VERSION_4.open().await;
        let mut others = [Replica::new(2).await, Replica::new(3).await];
        for other in &mut others {
            let log = commands(VERSION_4.applied);
            other.catch_up(&log).await.unwrap();
            assert_eq!(other.shard.digest(), VERSION_4.digest);
        }
        let [without, with] = others;
        let mut world = Self {
            known: BTreeMap::new(),
            next: 0,
            replicas: [old, without, with],
        };
        let before = Timestamp(OLD);
        world.apply(&Command::Seal(SealCommand { before })).await;
        world.note_what_is_there().await;
        world
    }

    /// Takes what the disk of before holds into the account.
    async fn note_what_is_there(&mut self) {
        let replica = &self.replicas[OLD_DISK];
        assert!(replica.shard.unclean_blocks().is_empty());
        for (labels, values) in replica.everything().await {
            let id = replica.shard.resolve(&labels).expect("registered");
            let (newest, _) = values.last_key_value().expect("not empty");
            let newest = *newest;
            self.known.insert(labels, Known { id, newest });
        }
        assert!(self.known.len() > 2);
        let ids = self.known.values().map(|known| known.id.0);
        self.next = ids.max().expect("not empty") + 1;
    }

    /// On all replicas, which agree. The last one writes files.
    async fn apply(&mut self, command: &Command) -> Outcome {
        let mut outcomes = Vec::new();
        for replica in &self.replicas {
            let index = replica.shard.applied_index() + 1;
            outcomes.push(replica.shard.apply(index, command).await.unwrap());
        }
        assert!(outcomes.iter().all(|outcome| *outcome == outcomes[0]));
        let digests = self.replicas.iter().map(|replica| replica.shard.digest());
        assert_eq!(digests.collect::<BTreeSet<_>>().len(), 1);
        let last = self.replicas.last().expect("three");
        last.checkpoint().await.unwrap();
        outcomes.remove(0)
    }

    async fn write(&mut self, numbers: impl Iterator<Item = u64>, at: i64) {
        let mut write = empty();
        for number in numbers {
            let labels = labels(number);
            let series = SeriesRef::New(write.labels.len() as u32);
            write.rows.push(series, Timestamp(at), 1.0);
            self.note(&labels, at);
            write.labels.push(labels);
        }
        let rejected = Vec::new();
        let outcome = self.apply(&Command::Write(write)).await;
        assert_eq!(outcome, Outcome::Written { rejected });
    }

    /// One sample more.
    fn note(&mut self, labels: &Labels, at: i64) {
        let new = Known {
            id: SeriesId(self.next),
            newest: at,
        };
        let known = self.known.entry(labels.clone()).or_insert(new);
        known.newest = known.newest.max(at);
        self.next += u64::from(known.id == new.id);
    }

    async fn seal(&mut self) {
        let before = Timestamp(AFTER_ALL);
        self.apply(&Command::Seal(SealCommand { before })).await;
    }

    async fn delete(&mut self, matcher: Matcher, start: i64) {
        let delete = DeleteCommand {
            any_of: vec![vec![matcher]],
            start: Timestamp(start),
            end: Timestamp(AFTER_ALL),
        };
        self.apply(&Command::Delete(delete)).await;
    }

    async fn clean(&mut self) {
        for block in self.replicas[0].shard.unclean_blocks() {
            self.apply(&Command::Clean(CleanCommand { block })).await;
        }
    }

    async fn rest(&mut self) -> u64 {
        let collect = CollectCommand {
            before: Timestamp(AFTER_ALL),
            series: (0..self.next).map(SeriesId).collect(),
            rest: true,
        };
        match self.apply(&Command::Collect(collect)).await {
            Outcome::Collected(count) => count,
            other => panic!("{other:?}"),
        }
    }
}

/// Rows that are not behind all that their series has are refused, others are not.
fn empty() -> WriteCommand {
    WriteCommand {
        proposed_at: Timestamp(AFTER_ALL),
        out_of_order_window_ms: 0,
        in_order_window_ms: 1 << 50,
        exemplars_max: 10,
        ..WriteCommand::default()
    }
}

#[test]
fn many_come_back_together_as_one_by_one() {
    run(async {
        let mut world = World::new().await;
        // Several tables, some of it in several blocks. Not those in the block that ends last have their newest in it.
        world.write(0..3_000, OLD).await;
        world.seal().await;
        world.write(1_000..2_500, OLD + 1_000).await;
        world.seal().await;
        world.write((0..50).chain([2_999]), OLD + 3_000).await;
        world.write([2_999].into_iter(), OLD + 6_000).await;
        world.seal().await;
        world.write(0..50, OLD + 5_000).await;
        world.seal().await;
        // All samples of some are gone; of others only blocks that were not cleaned know.
        for pod in [2, 41] {
            world.delete(of_pod(pod), 0).await;
            for number in pod * 50..pod * 50 + 50 {
                world.known.remove(&labels(number));
            }
        }
        world.clean().await;
        world.delete(of_pod(3), 0).await;
        world.delete(of_pod(30), OLD + 500).await;
        world.replicas[OLD_DISK].checkpoint().await.unwrap();
        // Two become one, which gets a file of its own on one replica.
        let candidates = world.replicas[0].shard.candidates();
        let last = candidates.iter().filter(|block| block.min.0 >= OLD + 3_000);
        let blocks: Vec<u64> = last.map(|block| block.id).collect();
        assert_eq!(blocks.len(), 2);
        let compact = CompactCommand { blocks };
        world.apply(&Command::Compact(compact)).await;
        assert!(world.replicas[2].shard.merge_one().await.unwrap());
        // A block that has no file but on one replica.
        world
            .write((500..520).chain(3_000..3_100), OLD + 10_000)
            .await;
        world.seal().await;
        world
            .write((2_400..2_450).chain(3_090..3_095), OLD + 20_000)
            .await;
        let left = world.rest().await;
        assert!(left > 2_900, "{left}");
        assert_files(&world).await;

        let sought = sought(&world);
        let write = probe(&world, &sought);
        let mut expected = BTreeSet::new();
        for (row, (labels, (series, at))) in probe_rows(&world, &sought).enumerate() {
            assert_eq!(write.rows.series[row], SeriesRef::New(series));
            if world
                .known
                .get(&labels)
                .is_some_and(|known| at <= known.newest)
            {
                expected.insert(row as u32);
            }
        }
        let outcome = world.apply(&Command::Write(write)).await;
        let Outcome::Written { rejected } = outcome else {
            panic!("{outcome:?}")
        };
        let reasons = [Reason::Duplicate, Reason::OutOfOrder];
        assert!(rejected.iter().all(|row| reasons.contains(&row.reason)));
        let refused: BTreeSet<u32> = rejected.iter().map(|row| row.row).collect();
        let mut wrong = refused.symmetric_difference(&expected);
        assert_eq!(wrong.next(), None, "and {} more", wrong.count());

        sought
            .iter()
            .for_each(|labels| world.note(labels, AFTER_ALL));
        for replica in &world.replicas {
            for labels in &sought {
                let id = replica.shard.resolve(labels);
                assert_eq!(id, Some(world.known[labels].id), "{labels}");
            }
            assert_eq!(replica.shard.series_count(), world.known.len());
            replica.shard.verify().await.unwrap();
        }
    });
}

/// What the test is about: files of version 4, and blocks that have none.
async fn assert_files(world: &World) {
    let files = world.replicas[OLD_DISK].shard.files().await;
    let names: Vec<&str> = files.iter().map(|file| &*file.name).collect();
    let is_block = |name: &&&str| name.starts_with("block");
    let old = VERSION_4.files.iter().filter(is_block);
    assert!(old.clone().count() > 1);
    for name in old {
        assert!(names.contains(name), "{name} is not in {names:?}");
    }
    let blocks = |nth: usize| world.replicas[nth].shard.candidates();
    let unwritten = |nth| blocks(nth).iter().filter(|block| block.bytes == 0).count();
    assert_eq!(unwritten(OLD_DISK), 1);
    let cleaned = 2;
    assert_eq!(unwritten(NO_FILES), blocks(NO_FILES).len() - cleaned);
    assert_eq!(unwritten(2), 0);
}

/// Label sets that rest, that are registered, that were forgotten, and others; in no order, some of them twice.
fn sought(world: &World) -> Vec<Labels> {
    let others = (0..3_300).map(labels);
    let all: BTreeSet<Labels> = world.known.keys().cloned().chain(others).collect();
    let new = all.len() - world.known.len();
    assert_eq!(new, 200 + 100);
    let mut all: Vec<(u64, Labels)> = (0..)
        .zip(all)
        .flat_map(|(nth, labels)| {
            let times = if nth % 10 == 0 { 2 } else { 1 };
            (0..times).map(move |time| (split_mix(nth << 1 | time), labels.clone()))
        })
        .collect();
    all.sort_by_key(|(place, _)| *place);
    all.into_iter().map(|(_, labels)| labels).collect()
}

/// Of each label set the newest instant that its series has, if it has any, and the one behind.
fn probe_rows(world: &World, sought: &[Labels]) -> impl Iterator<Item = (Labels, (u32, i64))> {
    (0..).zip(sought).flat_map(|(series, labels)| {
        let known = world.known.get(labels);
        let newest = known.map_or(OLD, |known| known.newest);
        [newest, newest + 1].map(|at| (labels.clone(), (series, at)))
    })
}

/// Values that no series has; of a label set that stands twice the rows of each say the same.
fn probe(world: &World, sought: &[Labels]) -> WriteCommand {
    let mut write = empty();
    write.labels = sought.to_vec();
    for (_, (series, at)) in probe_rows(world, sought) {
        write.rows.push(SeriesRef::New(series), Timestamp(at), 77.0);
    }
    write
}
