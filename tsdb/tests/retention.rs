//! What is filled in afterwards is dropped piece by piece as it becomes too old, and a node that is full drops
//! no more than it must.

mod support;

use model::limits::COMPACTION_BYTES_MAX;
use model::{Labels, Timestamp};
use support::replica::{Replica, run};
use tsdb::compaction::{self, Bounds, Choice};
use tsdb::retention::{self, Held, Policy};
use tsdb::sealing::{self, Rules};
use tsdb::{
    Command, CompactCommand, Outcome, RetainCommand, SealCommand, SeriesRef, WriteCommand,
    WriteRows,
};

const HOUR_MS: i64 = 3_600_000;
const BLOCK_MS: i64 = 2 * HOUR_MS;
const SERIES: i64 = 5;
/// In which a block is dropped at the latest behind its oldest sample, as compaction makes it.
const WINDOW_H: i64 = 12;

/// A replica, and the log that it has applied.
struct Life {
    replica: Replica,
    log: Vec<Command>,
}

impl Life {
    async fn new() -> Self {
        Self {
            replica: Replica::new(1).await,
            log: Vec::new(),
        }
    }

    async fn apply(&mut self, command: Command) {
        let shard = &self.replica.shard;
        let outcome = shard.apply(self.log.len() as u64 + 1, &command).await;
        let outcome = outcome.expect("applies");
        if let Outcome::Written { rejected } = outcome {
            assert_eq!(rejected, []);
        }
        self.log.push(command);
    }

    /// A sample a minute of each series, one series after the other, as an import brings them.
    async fn fill(&mut self, hours: std::ops::Range<i64>) {
        for series in 0..SERIES {
            let mut write = WriteCommand {
                labels: vec![Labels::from_pairs([
                    ("__name__", "om"),
                    ("s", &series.to_string()),
                ])],
                out_of_order_window_ms: i64::MAX,
                future_window_ms: i64::MAX,
                ..WriteCommand::default()
            };
            let mut rows = WriteRows::default();
            for minute in hours.start * 60..hours.end * 60 {
                let value = (minute * 7_919 % 1_009) as f64;
                rows.push(SeriesRef::New(0), Timestamp(minute * 60_000), value);
            }
            write.rows = rows;
            self.apply(Command::Write(write)).await;
        }
    }

    /// What a leader does until there is nothing to do.
    async fn tidy(&mut self, keep_from_h: Option<i64>, fits_from: Option<Timestamp>) {
        while let Some(command) = self.due(keep_from_h, fits_from) {
            self.apply(command).await;
            self.replica.checkpoint().await.expect("a checkpoint");
            while self.replica.shard.merge_one().await.expect("merges") {}
        }
        self.replica.checkpoint().await.expect("a checkpoint");
    }

    fn due(&self, keep_from_h: Option<i64>, fits_from: Option<Timestamp>) -> Option<Command> {
        let shard = &self.replica.shard;
        let view = shard.sealing()?;
        let keep_from = keep_from_h.map(|hour| Timestamp(hour * HOUR_MS));
        let rules = Rules {
            block_ms: BLOCK_MS,
            out_of_order_window_ms: 0,
            keep_from,
        };
        if let Some(before) = sealing::choose(&view, &rules, shard).first().copied() {
            return Some(Command::Seal(SealCommand { before }));
        }
        let policy = Policy {
            keep_from,
            fits_from,
        };
        if let Some(before) = retention::choose(&shard.block_ranges(), &policy) {
            return Some(Command::Retain(RetainCommand { before }));
        }
        let bounds = Bounds {
            retention_ms: 36 * HOUR_MS,
            bytes_max: COMPACTION_BYTES_MAX,
        };
        match compaction::choose(&shard.candidates(), view.sealed_before?, bounds)? {
            Choice::Clean(_) => unreachable!("nothing is deleted"),
            Choice::Compact(blocks) => Some(Command::Compact(CompactCommand { blocks })),
        }
    }

    /// The hour of the oldest sample, and how many samples there are; of each series as many.
    async fn stored(&self) -> (i64, i64) {
        let all = self.replica.everything().await;
        let instants = all.values().map(|of| of.keys().collect::<Vec<_>>());
        let instants: Vec<Vec<_>> = instants.collect();
        assert_eq!(instants.len() as i64, SERIES);
        assert!(instants.windows(2).all(|two| two[0] == two[1]));
        let oldest = *instants[0][0];
        assert_eq!(oldest % HOUR_MS, 0);
        (oldest / HOUR_MS, instants[0].len() as i64 * SERIES)
    }

    /// A replica that applies the same log is in the same state.
    async fn check(&self) {
        self.replica.shard.verify().await.expect("verifies");
        let mut other = Replica::new(2).await;
        other.catch_up(&self.log).await.expect("applies");
        assert_eq!(other.shard.digest(), self.replica.shard.digest());
        assert_eq!(other.everything().await, self.replica.everything().await);
    }
}

#[test]
fn a_backfill_goes_piece_by_piece_as_it_becomes_too_old() {
    run(async {
        let mut life = Life::new().await;
        life.fill(0..48).await;
        life.tidy(Some(12), None).await;
        assert_eq!(life.stored().await, (12, 36 * 60 * SERIES));
        for keep_from in [13, 20, 24, 30, 36, 47] {
            life.tidy(Some(keep_from), None).await;
            let (oldest, _) = life.stored().await;
            assert!(oldest <= keep_from, "{oldest} is younger than {keep_from}");
            assert!(oldest > keep_from - WINDOW_H, "{oldest} of {keep_from}");
        }
        life.check().await;
    });
}

/// Once all that was sealed together was one block, which stayed as long as any of it was young enough.
#[test]
fn what_comes_behind_the_last_cut_is_dropped_once_it_is_too_old() {
    run(async {
        let mut life = Life::new().await;
        life.fill(46..50).await;
        life.tidy(Some(12), None).await;
        life.fill(0..46).await;
        life.tidy(Some(12), None).await;
        assert_eq!(life.stored().await, (12, 38 * 60 * SERIES));
        let stats = life.replica.shard.stats();
        assert_eq!(stats.blocks, 1, "the rest waits for the next cut");
        life.fill(50..52).await;
        life.tidy(Some(16), None).await;
        assert_eq!(life.stored().await, (16, 36 * 60 * SERIES));
        life.tidy(Some(27), None).await;
        assert_eq!(life.stored().await, (24, 28 * 60 * SERIES));
        life.check().await;
    });
}

fn bytes_of(shards: &[Held]) -> u64 {
    let each = shards.iter().map(|held| {
        let blocks = held.blocks.iter().map(|block| block.bytes);
        held.other_bytes + blocks.sum::<u64>()
    });
    each.sum()
}

#[test]
fn as_much_stays_as_a_node_may_hold() {
    run(async {
        let mut lives = [Life::new().await, Life::new().await];
        for (life, hours) in lives.iter_mut().zip([0..48, 5..48]) {
            life.fill(hours).await;
            life.tidy(None, None).await;
        }
        let held = lives.each_ref().map(|life| life.replica.shard.held());
        let files = async |life: &Life| {
            let files = life.replica.shard.files().await;
            files.iter().map(|file| file.len).sum::<u64>()
        };
        let all = bytes_of(&held);
        assert_eq!(all, files(&lives[0]).await + files(&lives[1]).await);
        let oldest = held[0].blocks[0].bytes;
        let mut dropped = [0, 0];
        for (excess, shard) in [(0, None), (oldest, Some(0)), (0, None), (1, Some(1))] {
            let held = lives.each_ref().map(|life| life.replica.shard.held());
            let fits_from = retention::fit(&held, bytes_of(&held) - excess);
            for (life, fits_from) in lives.iter_mut().zip(fits_from) {
                life.tidy(None, fits_from).await;
            }
            if let Some(shard) = shard {
                dropped[shard] += 1;
            }
            let left = lives.each_ref().map(|life| life.replica.shard.held());
            for ((before, left), dropped) in held.iter().zip(&left).zip(dropped) {
                assert_eq!(left.blocks.len(), 4 - dropped);
                assert!(before.blocks.ends_with(&left.blocks));
            }
        }
        for life in &lives {
            assert_eq!(life.stored().await.0, 12);
            life.check().await;
        }
    });
}
