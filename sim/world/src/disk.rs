//! A disk in memory whose every byte and name is known to be durable or not.
//!
//! It is held by the simulation, not by the node, so it outlives the node's crash. Promises:
//! - after [`SimDisk::crash`] exactly what [`model::port::Disk`] calls durable is certain; of the
//!   rest the seed decides what is lost, kept, torn, zeroed or garbled, and which names revert;
//! - a handle, and a [`SimDisk::mount`], of a crashed node never reads or writes again;
//! - a failed flush loses its bytes for good, even when a later flush succeeds, as on Linux;
//! - the same seed and the same calls give the same bytes, errors and [`SimDisk::digest`].
//!
//! Knows nothing of time but tokio's sleep, and that only when a latency is set.

mod content;
mod tree;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use model::hash::xxh3;
use model::port::{Dice, Disk, File};

use crate::SimDice;
use tree::{Ino, Tree};

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

/// The disk. Clones are the same disk.
#[derive(Clone)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
    /// The life this handle belongs to; none is the simulation's own, which goes on.
    life: Option<u64>,
}

impl SimDisk {
    pub fn new(seed: u64) -> Self {
        Self::with(State {
            tree: Tree::new(),
            dice: SimDice::new(seed),
            life: 0,
            open: BTreeMap::new(),
            counters: Counters::default(),
            digest: 0,
            faults: Faults::default(),
        })
    }

    /// The disk as one life of a node holds it: dead after the next crash or kill.
    #[must_use]
    pub fn mount(&self) -> Self {
        let life = Some(self.state().life);
        Self {
            state: self.state.clone(),
            life,
        }
    }

    /// Cuts the power: what was not flushed is lost, kept or torn as the seed says, handles die,
    /// faults and limits that were set are lifted.
    pub fn crash(&self) {
        self.state().crash();
    }

    /// Kills the process: handles die, everything written stays, faults are lifted.
    pub fn kill(&self) {
        self.state().end_life();
    }

    /// Another disk as this one would be after a power cut that `seed` decides. This one does not
    /// notice, so one run can be continued from many torn states.
    #[must_use]
    pub fn fork(&self, seed: u64) -> Self {
        let mut state = self.state().copy(SimDice::new(seed));
        state.crash();
        Self::with(state)
    }

    /// Lets `changes` more operations that change something succeed, then behaves as if the power
    /// were cut: that operation and everything later fails without effect until
    /// [`SimDisk::crash`] settles what is left.
    pub fn crash_after(&self, changes: u64) {
        let mut state = self.state();
        state.faults.dark_at = Some(state.counters.changes + changes);
    }

    /// Whether [`SimDisk::crash_after`] has struck.
    pub fn is_dark(&self) -> bool {
        self.state().faults.dark
    }

    /// Makes the `nth` operation of this kind from now (0 is the next) fail with an I/O error. A
    /// failed append leaves some of its bytes; a failed flush loses all that was not durable.
    pub fn fail(&self, operation: Operation, nth: u64) {
        self.state().faults.failing.push((operation, nth));
    }

    /// From now on, flushes of files answer success and do nothing: a disk that lies.
    pub fn ignore_flushes(&self, ignore: bool) {
        self.state().faults.ignores_flushes = ignore;
    }

    /// Appends that would make the files larger than this together fail with `StorageFull`, after
    /// writing what fits.
    pub fn limit_bytes(&self, bytes_max: Option<u64>) {
        self.state().faults.bytes_max = bytes_max;
    }

    /// Each operation takes a time drawn from this range, in part before and in part after it has
    /// its effect.
    pub fn set_latency(&self, latency: Option<Range<Duration>>) {
        self.state().faults.latency = latency;
    }

    /// Rots one bit (0 to 7) of a file's byte, for good.
    pub fn flip_bit(&self, path: &Path, offset: u64, bit: u8) -> io::Result<()> {
        let mut state = self.state();
        let ino = state.tree.file(path)?;
        let content = state.tree.content_mut(ino);
        if offset >= content.data().len() as u64 || bit > 7 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        content.flip(offset as usize, bit);
        Ok(())
    }

    /// How many bytes at the front of this file every power cut would leave under this name;
    /// `None` when the name itself may be lost.
    pub fn durable_len(&self, path: &Path) -> Option<u64> {
        let state = self.state();
        state
            .tree
            .durable(path)
            .map(|content| content.durable_len() as u64)
    }

    pub fn counters(&self) -> Counters {
        self.state().counters.clone()
    }

    /// A hash over every operation so far with its names and bytes.
    pub fn digest(&self) -> u64 {
        self.state().digest
    }

    fn with(state: State) -> Self {
        Self {
            state: Arc::new(Mutex::new(state)),
            life: None,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// The life an operation that starts now belongs to.
    fn life(&self) -> u64 {
        self.life.unwrap_or_else(|| self.state().life)
    }

    async fn run<T>(
        &self,
        operation: Operation,
        path: &Path,
        effect: impl FnOnce(&mut State) -> io::Result<T> + Send,
    ) -> io::Result<T> {
        let key = path.as_os_str().as_encoded_bytes();
        run(&self.state, self.life(), operation, key, |state, failed| {
            if failed {
                Err(broken(operation))
            } else {
                effect(state)
            }
        })
        .await
    }

    async fn handle(
        &self,
        operation: Operation,
        path: &Path,
        find: fn(&mut Tree, &Path) -> io::Result<Ino>,
    ) -> io::Result<Box<dyn File>> {
        let life = self.life();
        let state = self.state.clone();
        let opened = |inner: &mut State| {
            let ino = find(&mut inner.tree, path)?;
            *inner.open.entry(ino).or_default() += 1;
            Ok(SimFile { state, life, ino })
        };
        Ok(Box::new(self.run(operation, path, opened).await?))
    }
}

#[async_trait]
impl Disk for SimDisk {
    async fn create(&self, path: &Path) -> io::Result<Box<dyn File>> {
        self.handle(Operation::Create, path, Tree::create).await
    }

    async fn open(&self, path: &Path) -> io::Result<Box<dyn File>> {
        self.handle(Operation::Open, path, |tree, path| tree.file(path))
            .await
    }

    async fn read(&self, path: &Path, offset: u64, len: usize) -> io::Result<Bytes> {
        self.run(Operation::Read, path, |state| {
            state.counters.reads += 1;
            let data = state.tree.content(state.tree.file(path)?).data();
            let start = usize::try_from(offset)
                .unwrap_or(usize::MAX)
                .min(data.len());
            let end = start.saturating_add(len).min(data.len());
            Ok(Bytes::copy_from_slice(&data[start..end]))
        })
        .await
    }

    async fn len(&self, path: &Path) -> io::Result<u64> {
        self.run(Operation::Len, path, |state| {
            Ok(state.tree.content(state.tree.file(path)?).data().len() as u64)
        })
        .await
    }

    async fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        self.run(Operation::List, dir, |state| state.tree.list(dir))
            .await
    }

    async fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.run(Operation::CreateDir, dir, |state| {
            state.tree.create_dir_all(dir)
        })
        .await
    }

    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.run(Operation::Rename, to, |state| state.tree.rename(from, to))
            .await
    }

    async fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.run(Operation::Link, to, |state| state.tree.link(from, to))
            .await
    }

    async fn remove(&self, path: &Path) -> io::Result<()> {
        self.run(Operation::Remove, path, |state| state.tree.remove(path))
            .await
    }

    async fn remove_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.run(Operation::RemoveDir, dir, |state| {
            state.tree.remove_dir_all(dir)
        })
        .await
    }

    async fn flush_dir(&self, dir: &Path) -> io::Result<()> {
        self.run(Operation::FlushDir, dir, |state| {
            state.tree.flush_dir(dir)?;
            state.forget();
            Ok(())
        })
        .await
    }
}

/// An open file. Goes on under its inode when its name is changed or removed.
struct SimFile {
    state: Arc<Mutex<State>>,
    life: u64,
    ino: Ino,
}

#[async_trait]
impl File for SimFile {
    async fn append(&mut self, pieces: Vec<Bytes>) -> io::Result<()> {
        let bytes = pieces.concat();
        let ino = self.ino;
        run(
            &self.state,
            self.life,
            Operation::Append,
            &bytes,
            |state, failed| state.append(ino, &bytes, failed),
        )
        .await
    }

    async fn flush(&mut self) -> io::Result<()> {
        let ino = self.ino;
        let key = ino.to_le_bytes();
        run(
            &self.state,
            self.life,
            Operation::Flush,
            &key,
            |state, failed| {
                state.counters.flushes += 1;
                let ignored = state.faults.ignores_flushes;
                match state.tree.content_mut(ino) {
                    content if failed => {
                        content.fail_flush();
                        return Err(broken(Operation::Flush));
                    }
                    _ if ignored => {}
                    content => content.flush(),
                }
                Ok(())
            },
        )
        .await
    }

    async fn truncate(&mut self, len: u64) -> io::Result<()> {
        let ino = self.ino;
        let key = len.to_le_bytes();
        run(
            &self.state,
            self.life,
            Operation::Truncate,
            &key,
            |state, failed| {
                let content = state.tree.content_mut(ino);
                if len > content.data().len() as u64 {
                    return Err(io::ErrorKind::InvalidInput.into());
                }
                if failed {
                    return Err(broken(Operation::Truncate));
                }
                content.truncate(len as usize);
                Ok(())
            },
        )
        .await
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        let mut state = lock(&self.state);
        if state.life != self.life {
            return;
        }
        if let Some(count) = state.open.get_mut(&self.ino) {
            *count -= 1;
            if *count == 0 {
                state.open.remove(&self.ino);
            }
        }
    }
}

/// Set by the simulation; lifted by a crash or a kill, but for latency and size, which belong to
/// the device.
#[derive(Debug, Default, Clone)]
struct Faults {
    failing: Vec<(Operation, u64)>,
    dark_at: Option<u64>,
    dark: bool,
    ignores_flushes: bool,
    bytes_max: Option<u64>,
    latency: Option<Range<Duration>>,
}

struct State {
    tree: Tree,
    dice: SimDice,
    /// Counts crashes and kills.
    life: u64,
    /// Handles of this life, by file.
    open: BTreeMap<Ino, usize>,
    counters: Counters,
    digest: u64,
    faults: Faults,
}

impl State {
    fn copy(&self, dice: SimDice) -> Self {
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

    fn crash(&mut self) {
        self.end_life();
        self.tree.settle(&self.dice);
    }

    fn end_life(&mut self) {
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

    fn forget(&mut self) {
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

    fn append(&mut self, ino: Ino, bytes: &[u8], failed: bool) -> io::Result<()> {
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
async fn run<T>(
    state: &Mutex<State>,
    life: u64,
    operation: Operation,
    key: &[u8],
    effect: impl FnOnce(&mut State, bool) -> io::Result<T> + Send,
) -> io::Result<T> {
    let (before, after) = lock(state).delays();
    wait(before).await;
    let answer = {
        let mut state = lock(state);
        let failed = state.admit(life, operation, key)?;
        effect(&mut state, failed)
    };
    wait(after).await;
    lock(state).check_alive(life)?;
    answer
}

async fn wait(duration: Duration) {
    if !duration.is_zero() {
        tokio::time::sleep(duration).await;
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state
        .lock()
        .expect("no operation panics while it holds the disk")
}

fn broken(operation: Operation) -> io::Error {
    io::Error::other(format!("input/output error (injected into {operation:?})"))
}

#[cfg(test)]
mod tests;
