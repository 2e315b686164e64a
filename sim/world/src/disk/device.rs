//! The device under the handles: its tree of files, the faults set on it, what was asked of it.
//!
//! Every operation passes [`run`], which delays it, lets it through, fails it or finds its caller
//! dead. What an operation does to the files is told by the caller.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use model::hash::xxh3;
use model::port::Dice;

use super::tree::{Ino, Tree};
use crate::SimDice;

/// What can be asked of a disk; faults and counters are by operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    Create,
    Open,
    Read,
    Len,
    List,
    CreateDir,
    Rename,
    Link,
    Remove,
    RemoveDir,
    FlushDir,
    Append,
    Flush,
    Truncate,
}

impl Operation {
    /// Whether it may change what a power cut leaves.
    fn changes(self) -> bool {
        !matches!(self, Self::Open | Self::Read | Self::Len | Self::List)
    }
}

/// What was asked of a disk since it was made.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Counters {
    /// Operations that may change what a power cut leaves: the boundaries of
    /// [`SimDisk::crash_after`].
    pub changes: u64,
    pub appends: u64,
    pub appended_bytes: u64,
    pub flushes: u64,
    pub reads: u64,
}

/// Set by the simulation; lifted by a crash or a kill, but for latency and size, which belong to
/// the device.
#[derive(Debug, Default, Clone)]
pub(super) struct Faults {
    pub(super) failing: Vec<(Operation, u64)>,
    pub(super) dark_at: Option<u64>,
    pub(super) dark: bool,
    pub(super) ignores_flushes: bool,
    pub(super) bytes_max: Option<u64>,
    pub(super) latency: Option<Range<Duration>>,
}

pub(super) struct Device {
    pub(super) tree: Tree,
    pub(super) dice: SimDice,
    /// Counts crashes and kills.
    pub(super) life: u64,
    /// Handles of this life, by file.
    pub(super) open: BTreeMap<Ino, usize>,
    pub(super) counters: Counters,
    pub(super) digest: u64,
    pub(super) faults: Faults,
}

impl Device {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            tree: Tree::new(),
            dice: SimDice::new(seed),
            life: 0,
            open: BTreeMap::new(),
            counters: Counters::default(),
            digest: 0,
            faults: Faults::default(),
        }
    }

    pub(super) fn copy(&self, dice: SimDice) -> Self {
        Self {
            tree: self.tree.clone(),
            dice,
            life: self.life,
            open: self.open.clone(),
            counters: self.counters.clone(),
            digest: self.digest,
            faults: self.faults.clone(),
        }
    }

    pub(super) fn crash(&mut self) {
        self.end_life();
        self.tree.settle(&self.dice);
    }

    pub(super) fn end_life(&mut self) {
        self.life += 1;
        self.open.clear();
        self.faults = Faults {
            bytes_max: self.faults.bytes_max,
            latency: self.faults.latency.clone(),
            ignores_flushes: self.faults.ignores_flushes,
            ..Faults::default()
        };
        self.forget();
    }

    pub(super) fn forget(&mut self) {
        let open: BTreeSet<Ino> = self.open.keys().copied().collect();
        self.tree.forget(&open);
    }

    /// Lets an operation through, or not; `Ok(true)` when it is to fail.
    fn admit(&mut self, life: u64, operation: Operation, key: &[u8]) -> io::Result<bool> {
        self.check_alive(life)?;
        if operation.changes() {
            if self.faults.dark_at == Some(self.counters.changes) {
                self.faults.dark = true;
                return self.check_alive(life).map(|()| false);
            }
            self.counters.changes += 1;
        }
        self.digest = xxh3(self.digest.wrapping_add(operation as u64), key);
        let mut failed = false;
        self.faults.failing.retain_mut(|(failing, left)| {
            let strikes = *failing == operation && *left == 0;
            failed |= strikes;
            if *failing == operation {
                *left = left.saturating_sub(1);
            }
            !strikes
        });
        Ok(failed)
    }

    fn check_alive(&self, life: u64) -> io::Result<()> {
        if life != self.life {
            return Err(io::Error::other("the node that held this disk has died"));
        }
        if self.faults.dark {
            return Err(io::Error::other("the disk has no power"));
        }
        Ok(())
    }

    pub(super) fn append(&mut self, ino: Ino, bytes: &[u8], failed: bool) -> io::Result<()> {
        let room = match self.faults.bytes_max {
            Some(max) => max.saturating_sub(self.tree.bytes()) as usize,
            None => usize::MAX,
        };
        let landed = if failed {
            self.dice.up_to(bytes.len())
        } else {
            bytes.len()
        }
        .min(room);
        self.counters.appends += 1;
        self.counters.appended_bytes += landed as u64;
        self.tree.content_mut(ino).append(&bytes[..landed]);
        match (failed, landed < bytes.len()) {
            (true, _) => Err(broken(Operation::Append)),
            (false, true) => Err(io::ErrorKind::StorageFull.into()),
            (false, false) => Ok(()),
        }
    }

    /// Times to wait before and after an operation's effect.
    fn delays(&self) -> (Duration, Duration) {
        let Some(range) = &self.faults.latency else {
            return (Duration::ZERO, Duration::ZERO);
        };
        let spread_ns = (range.end.saturating_sub(range.start)).as_nanos() as u64;
        let whole = range.start + Duration::from_nanos(self.dice.below(spread_ns.max(1)));
        let before = Duration::from_nanos(self.dice.below(whole.as_nanos() as u64 + 1));
        (before, whole - before)
    }
}

/// One operation from request to answer: `effect` is told whether it is to fail. The answer never
/// reaches a node that died meanwhile.
pub(super) async fn run<T>(
    device: &Mutex<Device>,
    life: u64,
    operation: Operation,
    key: &[u8],
    effect: impl FnOnce(&mut Device, bool) -> io::Result<T> + Send,
) -> io::Result<T> {
    let (before, after) = lock(device).delays();
    wait(before).await;
    let answer = {
        let mut device = lock(device);
        let failed = device.admit(life, operation, key)?;
        effect(&mut device, failed)
    };
    wait(after).await;
    lock(device).check_alive(life)?;
    answer
}

async fn wait(duration: Duration) {
    if !duration.is_zero() {
        tokio::time::sleep(duration).await;
    }
}

pub(super) fn lock(device: &Mutex<Device>) -> MutexGuard<'_, Device> {
    device
        .lock()
        .expect("no operation panics while it holds the disk")
}

pub(super) fn broken(operation: Operation) -> io::Error {
    io::Error::other(format!("input/output error (injected into {operation:?})"))
}
