//! What the log's tests share: a log on a simulated disk, a slow obvious twin that keeps every
//! group in a `BTreeMap`, and scripts of operations for both.

#![allow(dead_code, reason = "each test binary uses its own part of the rig")]

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use model::port::Dice;
use model::{GroupId, NodeId};
use sim_world::{SimClock, SimDice, SimDisk};
use tokio::sync::oneshot;
use wal::{
    Entry, GroupState, Log, LogId, Metrics, OpenError, Options, Recovery, SegmentedLog, Vote,
};

pub const DIR: &str = "wal";

/// Segments so small that a script fills several.
pub fn small() -> Options {
    Options {
        segment_bytes: 700,
        batch_bytes_max: 400,
        cache_bytes_max: 100,
    }
}

pub fn metrics() -> Metrics {
    Metrics::new(&prometheus::Registry::new()).expect("a fresh registry takes all")
}

pub async fn try_open(
    disk: &SimDisk,
    options: Options,
) -> Result<(Arc<SegmentedLog>, Recovery), OpenError> {
    let world = sim_world::world(1, &SimClock::new(), disk);
    SegmentedLog::open(&world, Path::new(DIR), options, metrics()).await
}

/// Opens the log and waits until what it holds is durable.
pub async fn open(disk: &SimDisk, options: Options) -> (Arc<SegmentedLog>, Recovery) {
    let (log, recovery) = try_open(disk, options).await.expect("the log opens");
    log.settled().await.expect("the log settles");
    (log, recovery)
}

pub fn id(term: u64, index: u64) -> LogId {
    LogId {
        term,
        node: NodeId(term % 3),
        index,
    }
}

pub fn vote(term: u64) -> Vote {
    Vote {
        term,
        node: NodeId(term % 3),
        committed: term.is_multiple_of(2),
    }
}

/// An entry whose payload tells where it belongs.
pub fn entry(term: u64, index: u64, bytes: usize) -> Entry {
    let text = format!("{term}/{index};");
    let payload: Vec<u8> = text.bytes().cycle().take(bytes).collect();
    Entry {
        id: id(term, index),
        payload: payload.into(),
    }
}

/// Appends and waits until it is durable.
pub async fn append(log: &SegmentedLog, group: GroupId, entries: Vec<Entry>) -> io::Result<()> {
    let (sender, receiver) = oneshot::channel();
    let done = Box::new(move |result| sender.send(result).expect("the test waits"));
    log.append(group, entries, done).await?;
    receiver.await.expect("done always runs")
}

pub async fn read(log: &SegmentedLog, group: GroupId) -> io::Result<Vec<Entry>> {
    log.read(group, 0..u64::MAX, usize::MAX).await
}

/// The segment files.
pub async fn files(disk: &SimDisk) -> Vec<std::path::PathBuf> {
    use model::port::Disk;
    let names = disk
        .list(Path::new(DIR))
        .await
        .expect("the directory lists");
    names.iter().map(|name| Path::new(DIR).join(name)).collect()
}

/// One operation of a script.
#[derive(Debug, Clone)]
pub enum Step {
    Append(GroupId, Vec<Entry>),
    Vote(GroupId, Vote),
    Committed(GroupId, Option<LogId>),
    Truncate(GroupId, Option<LogId>),
    Purge(GroupId, LogId),
    Remove(GroupId),
}

/// One group as the twin keeps it.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Plain {
    vote: Option<Vote>,
    committed: Option<LogId>,
    purged: Option<LogId>,
    entries: BTreeMap<u64, Entry>,
}

impl Plain {
    fn last(&self) -> Option<LogId> {
        self.entries.values().last().map(|e| e.id).or(self.purged)
    }

    pub fn state(&self) -> GroupState {
        GroupState {
            vote: self.vote,
            committed: self.committed,
            purged: self.purged,
            last: self.last(),
        }
    }

    pub fn entries(&self) -> Vec<Entry> {
        self.entries.values().cloned().collect()
    }
}

/// The twin of a log.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Twin(pub BTreeMap<GroupId, Plain>);

impl Twin {
    pub fn apply(&mut self, step: &Step) {
        match step {
            Step::Append(group, entries) => {
                let group = self.0.entry(*group).or_default();
                for entry in entries {
                    group.entries.insert(entry.id.index, entry.clone());
                }
            }
            Step::Vote(group, vote) => self.0.entry(*group).or_default().vote = Some(*vote),
            Step::Committed(group, mark) => self.0.entry(*group).or_default().committed = *mark,
            Step::Truncate(group, last) => {
                let group = self.0.entry(*group).or_default();
                group
                    .entries
                    .retain(|&index, _| last.is_some_and(|last| index <= last.index));
            }
            Step::Purge(group, upto) => {
                let group = self.0.entry(*group).or_default();
                group.entries.retain(|&index, _| index > upto.index);
                group.purged = group.purged.max_by_index(*upto);
            }
            Step::Remove(group) => {
                self.0.remove(group);
            }
        }
    }

    pub fn state(&self, group: GroupId) -> GroupState {
        self.0
            .get(&group)
            .map_or(GroupState::default(), Plain::state)
    }

    pub fn entries(&self, group: GroupId) -> Vec<Entry> {
        self.0.get(&group).map_or(Vec::new(), Plain::entries)
    }

    /// A step that may come next, as the dice say.
    pub fn step(&self, dice: &dyn Dice, groups: u64) -> Step {
        let group = GroupId(dice.below(groups) as u32);
        let plain = self.0.get(&group).cloned().unwrap_or_default();
        let last = plain.last();
        let term = last.map_or(1, |last| last.term) + dice.below(4) / 3;
        let known: Vec<LogId> = plain.entries.values().map(|e| e.id).collect();
        let pick = |ids: &[LogId]| {
            ids.get(dice.below(ids.len().max(1) as u64) as usize)
                .copied()
        };
        match dice.below(24) {
            0..12 => {
                let first = last.map_or(dice.below(2), |last| last.index + 1);
                let entries = (0..1 + dice.below(4)).map(|i| {
                    let bytes = dice.below(60) as usize;
                    entry(term, first + i, bytes)
                });
                Step::Append(group, entries.collect())
            }
            12..15 => Step::Vote(group, vote(plain.vote.map_or(0, |v| v.term) + 1)),
            15..18 => Step::Committed(group, pick(&known)),
            18..20 => Step::Truncate(group, pick(&known).or(plain.purged)),
            20 => Step::Truncate(group, plain.purged),
            21..23 => match pick(&known) {
                Some(upto) => Step::Purge(group, upto),
                None => Step::Purge(group, id(term, last.map_or(0, |last| last.index + 3))),
            },
            _ => Step::Remove(group),
        }
    }
}

trait MaxByIndex {
    fn max_by_index(self, other: LogId) -> Option<LogId>;
}

impl MaxByIndex for Option<LogId> {
    fn max_by_index(self, other: LogId) -> Option<LogId> {
        match self {
            Some(own) if own.index >= other.index => Some(own),
            _ => Some(other),
        }
    }
}

/// A random script, and the twin after each of its prefixes.
pub fn script(seed: u64, steps: usize, groups: u64) -> (Vec<Step>, Vec<Twin>) {
    let dice = SimDice::new(seed);
    let mut twins = vec![Twin::default()];
    let mut script = Vec::new();
    for i in 0..steps {
        let mut twin = twins[i].clone();
        let step = twin.step(&dice, groups);
        twin.apply(&step);
        script.push(step);
        twins.push(twin);
    }
    (script, twins)
}

/// Counts the steps known to be durable: all up to the newest acknowledged one, as the log
/// acknowledges in order.
#[derive(Debug, Default, Clone)]
pub struct Durable(Arc<AtomicUsize>);

impl Durable {
    pub fn steps(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    fn acknowledge(&self, step: usize) {
        let before = self.0.fetch_max(step + 1, Ordering::Relaxed);
        assert!(before <= step, "step {step} acknowledged after {before}");
    }
}

/// Runs one step; an append is only queued. Steps that wait acknowledge on return.
pub async fn run(
    log: &SegmentedLog,
    number: usize,
    step: &Step,
    durable: &Durable,
) -> io::Result<()> {
    match step {
        Step::Append(group, entries) => {
            let durable = durable.clone();
            let done = Box::new(move |result: io::Result<()>| {
                if result.is_ok() {
                    durable.acknowledge(number);
                }
            });
            return log.append(*group, entries.clone(), done).await;
        }
        Step::Committed(group, mark) => return log.save_committed(*group, *mark).await,
        Step::Purge(group, upto) => return log.purge(*group, *upto).await,
        Step::Vote(group, vote) => log.save_vote(*group, *vote).await?,
        Step::Truncate(group, last) => log.truncate_after(*group, *last).await?,
        Step::Remove(group) => log.remove_group(*group).await?,
    }
    durable.acknowledge(number);
    Ok(())
}

/// What a log holds, as a twin would.
pub async fn holds(log: &SegmentedLog, groups: u64) -> io::Result<Vec<(GroupState, Vec<Entry>)>> {
    let mut all = Vec::new();
    for group in (0..groups as u32).map(GroupId) {
        all.push((log.state(group), read(log, group).await?));
    }
    Ok(all)
}

pub fn held_by(twin: &Twin, groups: u64) -> Vec<(GroupState, Vec<Entry>)> {
    (0..groups as u32)
        .map(GroupId)
        .map(|group| (twin.state(group), twin.entries(group)))
        .collect()
}

pub fn bytes(len: usize) -> Bytes {
    Bytes::from(vec![7; len])
}
