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
mod device;
mod tree;

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use model::port::{Disk, File};

use crate::SimDice;
pub use device::{Counters, Operation};
use device::{Device, broken, lock, run};
use tree::{Ino, Tree};

/// The disk. Clones are the same disk.
#[derive(Clone)]
pub struct SimDisk {
    device: Arc<Mutex<Device>>,
    /// The life this handle belongs to; none is the simulation's own, which goes on.
    life: Option<u64>,
}

impl SimDisk {
    pub fn new(seed: u64) -> Self {
        Self::with(Device::new(seed))
    }

    /// The disk as one life of a node holds it: dead after the next crash or kill.
    #[must_use]
    pub fn mount(&self) -> Self {
        let life = Some(self.device().life);
        Self {
            device: self.device.clone(),
            life,
        }
    }

    /// Cuts the power: what was not flushed is lost, kept or torn as the seed says, handles die,
    /// faults that were set are lifted. What belongs to the device stays: latency, size, lying.
    pub fn crash(&self) {
        self.device().crash();
    }

    /// Kills the process: handles die, everything written stays, faults are lifted.
    pub fn kill(&self) {
        self.device().end_life();
    }

    /// Another disk as this one would be after a power cut that `seed` decides. This one does not
    /// notice, so one run can be continued from many torn states.
    #[must_use]
    pub fn fork(&self, seed: u64) -> Self {
        let mut device = self.device().copy(SimDice::new(seed));
        device.crash();
        Self::with(device)
    }

    /// Lets `changes` more operations that change something succeed, then behaves as if the power
    /// were cut: that operation and everything later fails without effect until
    /// [`SimDisk::crash`] settles what is left.
    pub fn crash_after(&self, changes: u64) {
        let mut device = self.device();
        device.faults.dark_at = Some(device.counters.changes + changes);
    }

    /// Whether [`SimDisk::crash_after`] has struck.
    pub fn is_dark(&self) -> bool {
        self.device().faults.dark
    }

    /// Makes the `nth` operation of this kind from now (0 is the next) fail with an I/O error. A
    /// failed append leaves some of its bytes; a failed flush loses all that was not durable.
    pub fn fail(&self, operation: Operation, nth: u64) {
        self.device().faults.failing.push((operation, nth));
    }

    /// From now on, flushes of files answer success and do nothing: a disk that lies.
    pub fn ignore_flushes(&self, ignore: bool) {
        self.device().faults.ignores_flushes = ignore;
    }

    /// Appends that would make the files larger than this together fail with `StorageFull`, after
    /// writing what fits.
    pub fn limit_bytes(&self, bytes_max: Option<u64>) {
        self.device().faults.bytes_max = bytes_max;
    }

    /// Each operation takes a time drawn from this range, in part before and in part after it has
    /// its effect.
    pub fn set_latency(&self, latency: Option<Range<Duration>>) {
        self.device().faults.latency = latency;
    }

    /// Rots one bit (0 to 7) of a file's byte, for good.
    pub fn flip_bit(&self, path: &Path, offset: u64, bit: u8) -> io::Result<()> {
        let mut device = self.device();
        let ino = device.tree.file(path)?;
        let content = device.tree.content_mut(ino);
        if offset >= content.data().len() as u64 || bit > 7 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        content.flip(offset as usize, bit);
        Ok(())
    }

    /// All files, by path, and their lengths, for who chooses what to break.
    pub fn files(&self) -> Vec<(PathBuf, u64)> {
        self.device().tree.files()
    }

    /// What a file holds now, for who chooses what to break.
    pub fn content(&self, path: &Path) -> io::Result<Vec<u8>> {
        let mut device = self.device();
        let ino = device.tree.file(path)?;
        Ok(device.tree.content_mut(ino).data().to_vec())
    }

    /// How many bytes at the front of this file every power cut would leave under this name;
    /// `None` when the name itself may be lost.
    pub fn durable_len(&self, path: &Path) -> Option<u64> {
        let device = self.device();
        device
            .tree
            .durable(path)
            .map(|content| content.durable_len() as u64)
    }

    pub fn counters(&self) -> Counters {
        self.device().counters.clone()
    }

    /// A hash over every operation so far with its names and bytes.
    pub fn digest(&self) -> u64 {
        self.device().digest
    }

    fn with(device: Device) -> Self {
        Self {
            device: Arc::new(Mutex::new(device)),
            life: None,
        }
    }

    fn device(&self) -> MutexGuard<'_, Device> {
        lock(&self.device)
    }

    /// The life an operation that starts now belongs to.
    fn life(&self) -> u64 {
        self.life.unwrap_or_else(|| self.device().life)
    }

    async fn run<T>(
        &self,
        operation: Operation,
        path: &Path,
        effect: impl FnOnce(&mut Device) -> io::Result<T> + Send,
    ) -> io::Result<T> {
        let key = path.as_os_str().as_encoded_bytes();
        run(
            &self.device,
            self.life(),
            operation,
            key,
            |device, failed| {
                if failed {
                    Err(broken(operation))
                } else {
                    effect(device)
                }
            },
        )
        .await
    }

    async fn handle(
        &self,
        operation: Operation,
        path: &Path,
        find: fn(&mut Tree, &Path) -> io::Result<Ino>,
    ) -> io::Result<Box<dyn File>> {
        let life = self.life();
        let device = self.device.clone();
        let opened = |inner: &mut Device| {
            let ino = find(&mut inner.tree, path)?;
            *inner.open.entry(ino).or_default() += 1;
            Ok(SimFile { device, life, ino })
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
        self.run(Operation::Read, path, |device| {
            device.counters.reads += 1;
            let data = device.tree.content(device.tree.file(path)?).data();
            let start = usize::try_from(offset)
                .unwrap_or(usize::MAX)
                .min(data.len());
            let end = start.saturating_add(len).min(data.len());
            Ok(Bytes::copy_from_slice(&data[start..end]))
        })
        .await
    }

    async fn len(&self, path: &Path) -> io::Result<u64> {
        self.run(Operation::Len, path, |device| {
            Ok(device.tree.content(device.tree.file(path)?).data().len() as u64)
        })
        .await
    }

    async fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        self.run(Operation::List, dir, |device| device.tree.list(dir))
            .await
    }

    async fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.run(Operation::CreateDir, dir, |device| {
            device.tree.create_dir_all(dir)
        })
        .await
    }

    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.run(Operation::Rename, to, |device| device.tree.rename(from, to))
            .await
    }

    async fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.run(Operation::Link, to, |device| device.tree.link(from, to))
            .await
    }

    async fn remove(&self, path: &Path) -> io::Result<()> {
        self.run(Operation::Remove, path, |device| device.tree.remove(path))
            .await
    }

    async fn remove_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.run(Operation::RemoveDir, dir, |device| {
            device.tree.remove_dir_all(dir)
        })
        .await
    }

    async fn flush_dir(&self, dir: &Path) -> io::Result<()> {
        self.run(Operation::FlushDir, dir, |device| {
            device.tree.flush_dir(dir)?;
            device.forget();
            Ok(())
        })
        .await
    }
}

/// An open file. Goes on under its inode when its name is changed or removed.
struct SimFile {
    device: Arc<Mutex<Device>>,
    life: u64,
    ino: Ino,
}

#[async_trait]
impl File for SimFile {
    async fn append(&mut self, pieces: Vec<Bytes>) -> io::Result<()> {
        let bytes = pieces.concat();
        let ino = self.ino;
        run(
            &self.device,
            self.life,
            Operation::Append,
            &bytes,
            |device, failed| device.append(ino, &bytes, failed),
        )
        .await
    }

    async fn flush(&mut self) -> io::Result<()> {
        let ino = self.ino;
        let key = ino.to_le_bytes();
        run(
            &self.device,
            self.life,
            Operation::Flush,
            &key,
            |device, failed| {
                device.counters.flushes += 1;
                let ignored = device.faults.ignores_flushes;
                match device.tree.content_mut(ino) {
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
            &self.device,
            self.life,
            Operation::Truncate,
            &key,
            |device, failed| {
                let content = device.tree.content_mut(ino);
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
        let mut device = lock(&self.device);
        if device.life != self.life {
            return;
        }
        if let Some(count) = device.open.get_mut(&self.ino) {
            *count -= 1;
            if *count == 0 {
                device.open.remove(&self.ino);
            }
        }
    }
}

#[cfg(test)]
mod tests;
