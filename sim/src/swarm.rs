//! What one seed is about: sizes and kinds of faults, drawn before anything runs.
//!
//! Each seed leaves some kinds of faults out, so that those which mask each other also run alone.

use std::collections::BTreeSet;
use std::ops::Range;
use std::time::Duration;

use model::port::Dice;
use sim_world::SimDice;

/// Machines that form a cluster, and replicas of each shard.
pub const FOUNDERS: usize = 3;

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The process of one node ends at once; its disk keeps what was written.
    Kill,
    /// One node loses its power; its disk keeps what was flushed, and what the seed adds.
    PowerCut,
    PowerCutAll,
    /// Power goes between two operations of one node's disk.
    PowerCutMidway,
    /// One node is asked to end, and started again.
    Stop,
    /// One node hears nobody and is heard by nobody.
    Isolate,
    /// One node is heard but hears nothing, or the other way round.
    OneWay,
    /// Two nodes do not hear each other; the third hears both.
    Link,
    /// Messages between two nodes wait and arrive together.
    Hold,
    /// Messages get lost now and then.
    Loss,
    SlowLink,
    SlowDisk,
    /// One write or flush of one node fails.
    DiskError,
    DiskFull,
    /// The wall clock of one node jumps, and later back.
    ClockJump,
    /// A bit of a sealed block, of a state or of the log turns, of one and the same machine each time: the
    /// others have good copies.
    Rot,
}

const KINDS: [Kind; 16] = [
    Kind::Kill,
    Kind::PowerCut,
    Kind::PowerCutAll,
    Kind::PowerCutMidway,
    Kind::Stop,
    Kind::Isolate,
    Kind::OneWay,
    Kind::Link,
    Kind::Hold,
    Kind::Loss,
    Kind::SlowLink,
    Kind::SlowDisk,
    Kind::DiskError,
    Kind::DiskFull,
    Kind::ClockJump,
    Kind::Rot,
];

/// Everything a seed decides in advance.
#[derive(Debug, Clone)]
pub struct Plan {
    pub seed: u64,
    pub shards: u32,
    /// How long clients write under faults.
    pub load: Duration,
    /// Whether faults begin before the cluster is formed.
    pub early: bool,
    pub kinds: BTreeSet<Kind>,
    /// Between two faults.
    pub calm_ms: Range<u64>,
    /// How long a fault lasts.
    pub fault_ms: Range<u64>,
    pub clients: usize,
    pub series: u32,
    pub groups: u32,
    pub rows_max: usize,
    /// Between two operations of a client.
    pub pause_ms: Range<u64>,
    /// How far before now samples are.
    pub reach_ms: i64,
    pub out_of_order_window_ms: i64,
    /// Milliseconds the wall clocks move each virtual millisecond.
    pub haste: i64,
    pub history_interval: Duration,
    /// How old blocks get.
    pub retention: Option<Duration>,
    /// The machine whose disk rots, if one does.
    pub rotten: usize,
    pub scrub_every: Duration,
    pub checkpoint_entries: u64,
    pub entries_kept: u64,
    pub segment_bytes: u64,
    pub latency_ms: Range<u64>,
    /// How readily a broken link mends, with each message.
    pub repair_rate: f64,
    pub disk_latency: Option<Range<Duration>>,
    /// Whether a node's catalogue outlives the node.
    pub catalogue_stays: bool,
    pub random_order: bool,
    /// When a machine more joins, so that replicas move to it; not in every run.
    pub joins_after: Option<Duration>,
}

impl Plan {
    pub fn new(seed: u64) -> Self {
        let dice = SimDice::new(seed);
        let mut kinds: BTreeSet<Kind> = KINDS.into_iter().filter(|_| dice.one_in(2)).collect();
        if kinds.is_empty() {
            kinds.insert(pick(&dice, &KINDS));
        }
        let mut plan = Self::of(seed, &dice, kinds);
        // On no fewer shards does a machine more make a replica move.
        if plan.joins_after.is_some() {
            plan.shards = plan.shards.max(2);
        }
        plan
    }

    fn of(seed: u64, dice: &SimDice, kinds: BTreeSet<Kind>) -> Self {
        let ms = |range: Range<u64>| range.start + dice.below(range.end - range.start);
        let window_ms = 60_000 * pick(dice, &[5, 30, 30, 120]);
        Self {
            seed,
            shards: 1 + dice.below(4) as u32,
            load: Duration::from_millis(ms(10_000..30_000)),
            early: dice.one_in(4),
            kinds,
            calm_ms: pick(dice, &[50..500, 200..2_000, 1_000..5_000]),
            fault_ms: pick(dice, &[50..800, 300..3_000, 2_000..8_000]),
            clients: 1 + dice.below(3) as usize,
            series: 1 + dice.below(40) as u32,
            groups: 1 + dice.below(4) as u32,
            rows_max: pick(dice, &[1, 5, 20]),
            pause_ms: pick(dice, &[1..20, 10..100, 50..400]),
            reach_ms: match dice.below(3) {
                0 => 1_000,
                1 => window_ms / 2,
                _ => window_ms + window_ms / 4,
            },
            out_of_order_window_ms: window_ms,
            haste: pick(dice, &[1, 1, 100, 1_000, 10_000]),
            history_interval: Duration::from_secs(pick(dice, &[2, 10, 60])),
            retention: pick(dice, &[None, None, Some(6), Some(30)])
                .map(|hours| Duration::from_secs(hours * 3_600)),
            rotten: dice.up_to(FOUNDERS - 1),
            scrub_every: Duration::from_secs(pick(dice, &[20, 86_400])),
            checkpoint_entries: pick(dice, &[5, 20, 100, 4_096]),
            entries_kept: pick(dice, &[0, 5, 50]),
            segment_bytes: pick(dice, &[4 << 10, 32 << 10, 1 << 20]),
            latency_ms: pick(dice, &[0..2, 1..10, 5..60]),
            repair_rate: pick(dice, &[1.0, 0.3, 0.05]),
            disk_latency: match dice.below(3) {
                0 => None,
                1 => Some(Duration::ZERO..Duration::from_millis(2)),
                _ => Some(Duration::ZERO..Duration::from_millis(15)),
            },
            catalogue_stays: dice.one_in(2),
            random_order: dice.one_in(2),
            joins_after: dice
                .one_in(3)
                .then(|| Duration::from_millis(ms(500..10_000))),
        }
    }
}

impl Plan {
    /// How many machines there are.
    pub fn machines(&self) -> usize {
        FOUNDERS + usize::from(self.joins_after.is_some())
    }

    /// Whether clocks move so far that the store may forget what a series stands at.
    pub fn forgets(&self) -> bool {
        self.haste > 1 || self.kinds.contains(&Kind::ClockJump)
    }
}

/// One of a few choices.
pub fn pick<T: Clone>(dice: &SimDice, choices: &[T]) -> T {
    choices[dice.below(choices.len() as u64) as usize].clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_differ_in_every_kind() {
        let plans: Vec<Plan> = (0..64).map(Plan::new).collect();
        for kind in KINDS {
            let with = plans
                .iter()
                .filter(|plan| plan.kinds.contains(&kind))
                .count();
            assert!((10..54).contains(&with), "{kind:?} in {with} of 64 seeds");
        }
        assert_eq!(format!("{:?}", Plan::new(7)), format!("{:?}", Plan::new(7)));
    }
}
