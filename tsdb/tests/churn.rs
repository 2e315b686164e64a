//! Series that come and go for weeks, as pods do: what is registered and what a checkpoint takes
//! follow what is written, whatever retention holds, and every answer stays that of the twin.

mod support;

use std::collections::VecDeque;
use std::path::Path;

use model::limits::{COLLECT_SERIES_MAX, COMPACTION_BYTES_MAX};
use model::port::read_all;
use model::{Labels, SeriesId, Timestamp};
use support::replica::{DIR, Replica, run};
use support::twin::Twin;
use tsdb::checkpoint;
use tsdb::collecting::{self, Looked};
use tsdb::compaction::{self, Bounds, Choice};
use tsdb::retention::{self, Policy};
use tsdb::sealing::{self, Rules};
use tsdb::touched::Touched;
use tsdb::{
    CleanCommand, CollectCommand, Command, CompactCommand, FileEntry, Outcome, RetainCommand,
    SealCommand, SeriesRef, WriteCommand,
};

const HOUR_MS: i64 = 3_600_000;
const BLOCK_MS: i64 = 2 * HOUR_MS;
const RETENTION_MS: i64 = 48 * HOUR_MS;
/// Series at a time, and how many of them others replace each hour.
const LIVE: u64 = 60;
const REPLACED: u64 = 6;
/// One of so many new series is one that ended long ago and comes back.
const RETURNING: u64 = 5;
/// And one of so many is one that rests.
const WAKING: u64 = 7;
const HOURS: i64 = 14 * 24;

/// Series are looked at once a block, two blocks behind the newest sample.
const HELD_MAX: u64 = LIVE + REPLACED * 3 * 2;
/// Blocks of half a day are dropped when all of them is old enough.
const RESTING_MAX: u64 = REPLACED * (48 + 12 + 2);

struct Life {
    replica: Replica,
    twin: Twin,
    log: Vec<Command>,
    live: VecDeque<u64>,
    next: u64,
    looked: Looked,
    collected: u64,
}

fn labels(number: u64) -> Labels {
    let pod = format!("pod-{number}");
    Labels::from_pairs([("__name__", "up"), ("job", "x"), ("pod", &pod)])
}

impl Life {
    async fn new() -> Self {
        Self {
            replica: Replica::new(1).await,
            twin: Twin::default(),
            log: Vec::new(),
            live: (0..LIVE).collect(),
            next: LIVE,
            looked: Looked::default(),
            collected: 0,
        }
    }

    async fn propose(&mut self, command: Command) {
        let expected = self.twin.apply(&command);
        self.log.push(command);
        let outcomes = self.replica.catch_up(&self.log).await.expect("applies");
        match outcomes.as_slice() {
            [Outcome::Written { rejected }] => assert_eq!(Some(rejected), expected.as_ref()),
            [Outcome::Collected(count)] => self.collected += count,
            [Outcome::NotRegistered] => panic!("looked up behind the last collect"),
            _ => {}
        }
    }

    /// An hour of four samples, and a tenth of the series replaced.
    async fn hour(&mut self, hour: i64) {
        for quarter in 0..4 {
            let at = Timestamp(hour * HOUR_MS + quarter * HOUR_MS / 4);
            let write = self.write(at);
            self.propose(write).await;
        }
        for _ in 0..REPLACED {
            self.live.pop_front();
            let before = |hours: u64| self.next.checked_sub(REPLACED * hours);
            let returning = match self.next {
                next if next.is_multiple_of(RETURNING) => before(24 * 5),
                next if next.is_multiple_of(WAKING) => before(20),
                _ => None,
            };
            self.live.push_back(returning.unwrap_or(self.next));
            self.next += 1;
        }
    }

    fn write(&self, at: Timestamp) -> Command {
        let mut write = WriteCommand {
            proposed_at: at,
            out_of_order_window_ms: HOUR_MS / 2,
            in_order_window_ms: HOUR_MS,
            ..WriteCommand::default()
        };
        for number in &self.live {
            let labels = labels(*number);
            let series = self.replica.shard.resolve(&labels).map(SeriesRef::Known);
            let series = series.unwrap_or_else(|| {
                write.labels.push(labels);
                SeriesRef::New(write.labels.len() as u32 - 1)
            });
            write.rows.push(series, at, (at.0 / 1_000) as f64);
        }
        Command::Write(write)
    }

    /// What a leader does until there is nothing to do.
    async fn tidy(&mut self, now: Timestamp) {
        while let Some(command) = self.due(now) {
            self.propose(command).await;
            self.replica.checkpoint().await.expect("a checkpoint");
            while self.replica.shard.merge_one().await.expect("merges") {}
        }
        let newest = self.replica.shard.max_time().expect("something is stored");
        let due = collecting::choose(newest, &self.looked, BLOCK_MS, HOUR_MS);
        let Some(look) = due else { return };
        let (series, next) = self.replica.shard.idle_series(look).await;
        assert!(next.is_none() && series.len() < COLLECT_SERIES_MAX);
        self.looked.note(look, next);
        let before = look.before;
        if !series.is_empty() {
            let rest = true;
            let collect = CollectCommand {
                before,
                series,
                rest,
            };
            self.propose(Command::Collect(collect)).await;
        }
    }

    fn due(&self, now: Timestamp) -> Option<Command> {
        let shard = &self.replica.shard;
        let view = shard.sealing()?;
        let keep_from = Some(now.plus_ms(-RETENTION_MS));
        let rules = Rules {
            block_ms: BLOCK_MS,
            out_of_order_window_ms: HOUR_MS,
            keep_from,
        };
        if let Some(before) = sealing::choose(&view, &rules, shard).first().copied() {
            return Some(Command::Seal(SealCommand { before }));
        }
        let policy = Policy {
            keep_from,
            fits_from: None,
        };
        if let Some(before) = retention::choose(&shard.block_ranges(), &policy) {
            return Some(Command::Retain(RetainCommand { before }));
        }
        let sealed_before = view.sealed_before?;
        let bounds = Bounds {
            retention_ms: RETENTION_MS,
            bytes_max: COMPACTION_BYTES_MAX,
        };
        let choice = compaction::choose(&shard.candidates(), sealed_before, bounds);
        Some(match choice? {
            Choice::Clean(block) => Command::Clean(CleanCommand { block }),
            Choice::Compact(blocks) => Command::Compact(CompactCommand { blocks }),
        })
    }

    /// What a checkpoint takes without what it tells of recent entries of the log, which has a bound
    /// of its own and has not reached it.
    async fn checkpoint_bytes(&self) -> u64 {
        self.replica.checkpoint().await.expect("a checkpoint");
        let is_checkpoint = |file: &&FileEntry| file.name.starts_with("checkpoint-");
        let files = self.replica.shard.files().await;
        let file = files.iter().find(is_checkpoint).expect("it is there");
        let disk = &*self.replica.world.disk;
        let bytes = read_all(disk, &Path::new(DIR).join(&file.name)).await;
        let (mut image, _) = checkpoint::decode(&bytes.expect("reads")).expect("decodes");
        image.touched = Touched::default();
        let copy = Path::new("copy");
        disk.create_dir_all(copy).await.expect("a directory");
        let written = checkpoint::write(disk, copy, &image, &[]).await;
        written.expect("a copy").len
    }

    async fn check(&self) {
        assert_eq!(self.replica.everything().await, self.twin.content);
        self.replica.shard.verify().await.expect("verifies");
        let stats = self.replica.shard.stats();
        assert_eq!(stats.series_ever, self.twin.ids.len() as u64);
        let registered = self.twin.ids.iter().flatten().count() as u64;
        assert_eq!(stats.series, registered);
        let held = self.twin.content.len() as u64;
        assert!(held <= registered + RESTING_MAX);
        for (id, labels) in self.twin.ids.iter().enumerate() {
            let Some(labels) = labels else { continue };
            assert_eq!(
                self.replica.shard.resolve(labels),
                Some(SeriesId(id as u64))
            );
        }
    }
}

#[test]
fn weeks_of_churn_take_what_retention_holds() {
    run(async {
        let mut life = Life::new().await;
        let mut bytes = Vec::new();
        for hour in 0..HOURS {
            life.hour(hour).await;
            life.tidy(Timestamp((hour + 1) * HOUR_MS)).await;
            let registered = life.replica.shard.series_count() as u64;
            assert!(
                registered <= HELD_MAX,
                "{registered} series after {hour} hours"
            );
            if hour % 24 == 23 {
                life.check().await;
                bytes.push(life.checkpoint_bytes().await);
            }
            if hour % 72 == 50 {
                let digest = life.replica.shard.digest();
                life.replica.reopen(&life.log).await.expect("opens again");
                assert_eq!(life.replica.shard.digest(), digest);
            }
        }
        let stats = life.replica.shard.stats();
        assert!(stats.series_ever > 4 * HELD_MAX, "{stats:?}");
        assert!(life.collected > 10 * HELD_MAX);
        // From the second week on old series come back among the new ones.
        let (first, rest) = bytes[7..].split_first().expect("two weeks");
        let bounded = rest.iter().all(|bytes| *bytes <= first + first / 8);
        assert!(bounded, "checkpoints of {bytes:?} bytes");
    });
}

/// The same weeks once more, only by their log: a replica that joins late is in the same state.
#[test]
fn a_replica_that_replays_the_weeks_is_in_the_same_state() {
    run(async {
        let mut life = Life::new().await;
        for hour in 0..6 * 24 {
            life.hour(hour).await;
            life.tidy(Timestamp((hour + 1) * HOUR_MS)).await;
        }
        assert!(life.collected > 0);
        let mut other = Replica::new(2).await;
        other.catch_up(&life.log).await.expect("applies");
        assert_eq!(other.shard.digest(), life.replica.shard.digest());
        assert_eq!(other.everything().await, life.twin.content);
        // Once their files lie alike they are the same.
        while other.shard.merge_one().await.expect("merges") {}
        other.checkpoint().await.expect("a checkpoint");
        assert_eq!(
            other.shard.stats().series,
            life.replica.shard.stats().series
        );
    });
}
