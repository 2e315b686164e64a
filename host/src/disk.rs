//! Files below one directory of the machine.
//!
//! Every system call that may wait runs on tokio's blocking threads (what the system holds in memory
//! is read where it is asked for); the calls of one open file
//! run in the order they were asked for, also when their caller gave up waiting. After an error of
//! append or flush the file refuses everything: the kernel may have dropped the pages it could not
//! write and called them clean, so a flush that succeeds later would prove nothing.

mod handles;

use std::fs::{self, OpenOptions};
use std::io::{self, IoSlice, Write};
use std::os::unix::fs::FileExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use model::port::{Disk, File};
use rustix::fs::{Mode, OFlags};
use tokio::task::{JoinHandle, spawn_blocking};

use handles::Handles;

/// The files below `root`. The caller holds [`crate::lock`] on it.
pub struct HostDisk {
    root: Arc<Path>,
    handles: Arc<Handles>,
}

impl HostDisk {
    /// Creates the directory if need be, durably.
    pub fn new(root: &Path) -> io::Result<Self> {
        create_root(root)?;
        let root = root.canonicalize()?;
        Ok(Self {
            root: root.into(),
            handles: Arc::new(Handles::new()),
        })
    }

    /// Where a path lies; one that leads out of the root is an error.
    fn at(&self, path: &Path) -> io::Result<PathBuf> {
        let inside = |c: &Component<'_>| matches!(c, Component::Normal(_) | Component::CurDir);
        if !path.components().all(|c| inside(&c)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Ok(self.root.join(path))
    }

    /// As [`Self::at`], for a name that is set or removed: the root itself is not one.
    fn name(&self, path: &Path) -> io::Result<PathBuf> {
        let full = self.at(path)?;
        let names_something = path.components().any(|c| matches!(c, Component::Normal(_)));
        names_something
            .then_some(full)
            .ok_or_else(|| io::ErrorKind::InvalidInput.into())
    }

    /// Runs a change of names and forgets the read handles it may have made stale.
    async fn rearrange(
        &self,
        paths: Vec<PathBuf>,
        change: impl FnOnce(&[PathBuf]) -> io::Result<()> + Send + 'static,
    ) -> io::Result<()> {
        let handles = self.handles.clone();
        blocking(move || {
            let done = change(&paths);
            paths.iter().for_each(|path| handles.forget(path));
            done
        })
        .await
    }
}

#[async_trait]
impl Disk for HostDisk {
    async fn create(&self, path: &Path) -> io::Result<Box<dyn File>> {
        let path = self.name(path)?;
        let file = blocking(move || OpenOptions::new().append(true).create_new(true).open(path));
        Ok(Box::new(HostFile::new(file.await?)))
    }

    async fn open(&self, path: &Path) -> io::Result<Box<dyn File>> {
        let path = self.at(path)?;
        let file = blocking(move || OpenOptions::new().append(true).open(path));
        Ok(Box::new(HostFile::new(file.await?)))
    }

    async fn read(&self, path: &Path, offset: u64, len: usize) -> io::Result<Bytes> {
        let path = self.at(path)?;
        let in_memory = self.handles.known(&path);
        if let Some(bytes) = in_memory.and_then(|file| read_cached(&file, offset, len)) {
            return Ok(bytes);
        }
        let handles = self.handles.clone();
        blocking(move || read_at(&*handles.get(&path)?, offset, len)).await
    }

    async fn len(&self, path: &Path) -> io::Result<u64> {
        let path = self.at(path)?;
        blocking(move || match fs::metadata(path)? {
            meta if meta.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
            meta => Ok(meta.len()),
        })
        .await
    }

    async fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let dir = self.at(dir)?;
        blocking(move || {
            let entries = match fs::read_dir(dir) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
                entries => entries?,
            };
            let names = entries.map(|entry| Ok(entry?.file_name().into()));
            let mut names = names.collect::<io::Result<Vec<PathBuf>>>()?;
            names.sort();
            Ok(names)
        })
        .await
    }

    async fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        let dir = self.at(dir)?;
        blocking(move || fs::create_dir_all(dir)).await
    }

    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let paths = vec![self.name(from)?, self.name(to)?];
        self.rearrange(paths, |paths| fs::rename(&paths[0], &paths[1]))
            .await
    }

    async fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, to) = (self.at(from)?, self.name(to)?);
        blocking(move || fs::hard_link(from, to)).await
    }

    async fn remove(&self, path: &Path) -> io::Result<()> {
        let path = vec![self.name(path)?];
        self.rearrange(path, |paths| fs::remove_file(&paths[0]))
            .await
    }

    async fn remove_dir_all(&self, dir: &Path) -> io::Result<()> {
        let path = vec![self.name(dir)?];
        self.rearrange(path, |paths| fs::remove_dir_all(&paths[0]))
            .await
    }

    async fn flush_dir(&self, dir: &Path) -> io::Result<()> {
        let dir = self.at(dir)?;
        blocking(move || flush_names(&dir)).await
    }
}

/// Creates a directory and what is missing above it, durably. What is there already may lie in a
/// directory this process cannot open, and is left alone.
pub(crate) fn create_root(root: &Path) -> io::Result<()> {
    if root.as_os_str().is_empty() || root.is_dir() {
        return Ok(());
    }
    let parent = root.parent().unwrap_or(Path::new(""));
    create_root(parent)?;
    match fs::create_dir(root) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && root.is_dir() => {}
        created => created?,
    }
    flush_names(if parent.as_os_str().is_empty() {
        Path::new(".")
    } else {
        parent
    })
}

/// An open file: idle, or busy with the call before.
struct HostFile {
    state: Option<Appender>,
    busy: Option<JoinHandle<(Appender, io::Result<()>)>>,
}

impl HostFile {
    fn new(file: fs::File) -> Self {
        let state = Some(Appender {
            file,
            is_poisoned: false,
        });
        Self { state, busy: None }
    }

    /// Runs one call after those before it; what a call that nobody waited for came to is told to
    /// the next.
    async fn run(
        &mut self,
        call: impl FnOnce(&mut Appender) -> io::Result<()> + Send + 'static,
    ) -> io::Result<()> {
        self.settle().await?;
        let mut state = self.state.take().ok_or_else(lost)?;
        self.busy = Some(spawn_blocking(move || {
            let done = call(&mut state);
            (state, done)
        }));
        self.settle().await
    }

    async fn settle(&mut self) -> io::Result<()> {
        let Some(busy) = &mut self.busy else {
            return Ok(());
        };
        let joined = busy.await;
        self.busy = None;
        let (state, done) = joined.map_err(io::Error::other)?;
        self.state = Some(state);
        done
    }
}

#[async_trait]
impl File for HostFile {
    async fn append(&mut self, pieces: Vec<Bytes>) -> io::Result<()> {
        self.run(move |state| state.guarded(|file| write_all(file, &pieces)))
            .await
    }

    async fn flush(&mut self) -> io::Result<()> {
        self.run(|state| state.guarded(|file| file.sync_data()))
            .await
    }

    /// In one turn of a blocking thread: waking one, and being woken by it, is a good part of a small write.
    async fn append_durably(&mut self, pieces: Vec<Bytes>) -> io::Result<()> {
        self.run(move |state| {
            state.guarded(|file| {
                write_all(file, &pieces)?;
                // They may be large, and a flush may take long.
                drop(pieces);
                file.sync_data()
            })
        })
        .await
    }

    async fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.run(move |state| {
            if len > state.file.metadata()?.len() {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            state.guarded(|file| file.set_len(len))
        })
        .await
    }
}

struct Appender {
    file: fs::File,
    is_poisoned: bool,
}

impl Appender {
    fn guarded(&mut self, call: impl FnOnce(&mut fs::File) -> io::Result<()>) -> io::Result<()> {
        if self.is_poisoned {
            return Err(io::Error::other(
                "an earlier write or flush of this file failed",
            ));
        }
        let done = call(&mut self.file);
        self.is_poisoned = done.is_err();
        done
    }
}

/// The runtime is shutting down and dropped a call before it ran.
fn lost() -> io::Error {
    io::Error::other("the file was lost with a call that never ran")
}

async fn blocking<T: Send + 'static>(
    call: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    spawn_blocking(call).await.map_err(io::Error::other)?
}

/// One `writev` for all pieces; more only when the system takes less.
fn write_all(file: &mut fs::File, pieces: &[Bytes]) -> io::Result<()> {
    let mut slices: Vec<_> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
    let mut rest = &mut slices[..];
    // Also drops empty pieces at the front, without which a write of nothing would look full.
    IoSlice::advance_slices(&mut rest, 0);
    while !rest.is_empty() {
        match file.write_vectored(rest) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => IoSlice::advance_slices(&mut rest, written),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Room for what the file has of `len` bytes from `offset` on: `len` may come from a damaged file. Not
/// zeros: of an allocator that is asked for many, some come as pages that the system clears first.
fn room(file: &fs::File, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    let left = file.metadata()?.len().saturating_sub(offset);
    let left = usize::try_from(left).unwrap_or(usize::MAX);
    Ok(vec![u8::MAX; len.min(left)])
}

/// Reads what the system holds in memory, without waiting: all of it or nothing. A thread that may
/// wait costs more than the copy.
#[cfg(target_os = "linux")]
fn read_cached(file: &fs::File, offset: u64, len: usize) -> Option<Bytes> {
    use rustix::io::{ReadWriteFlags, preadv2};
    let mut bytes = room(file, offset, len).ok()?;
    let mut filled = 0;
    while filled < bytes.len() {
        let rest = &mut [io::IoSliceMut::new(&mut bytes[filled..])];
        match preadv2(file, rest, offset + filled as u64, ReadWriteFlags::NOWAIT) {
            // Would wait, cannot say, or the file was cut meanwhile: whoever may wait finds out.
            Err(_) | Ok(0) => return None,
            Ok(read) => filled += read,
        }
    }
    Some(bytes.into())
}

#[cfg(not(target_os = "linux"))]
fn read_cached(_: &fs::File, _: u64, _: usize) -> Option<Bytes> {
    None
}

fn read_at(file: &fs::File, offset: u64, len: usize) -> io::Result<Bytes> {
    let mut bytes = room(file, offset, len)?;
    let len = bytes.len();
    let mut filled = 0;
    while filled < len {
        match file.read_at(&mut bytes[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    bytes.truncate(filled);
    Ok(bytes.into())
}

fn flush_names(dir: &Path) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rustix::fs::open(dir, flags, Mode::empty())?;
    Ok(rustix::fs::fsync(dir)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_contract_holds() {
        let dir = tempfile::tempdir().unwrap();
        let disk = HostDisk::new(&dir.path().join("not/yet/there")).unwrap();
        sim_world::contract::check(&disk).await;
    }

    #[test]
    fn a_root_is_made_from_what_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("a/b");
        HostDisk::new(&root).unwrap();
        HostDisk::new(&root).unwrap();
        std::fs::write(dir.path().join("file"), "").unwrap();
        assert!(HostDisk::new(&dir.path().join("file")).is_err());
        assert!(HostDisk::new(&dir.path().join("file/below")).is_err());
    }

    #[tokio::test]
    async fn the_machine_and_the_simulation_answer_alike() {
        for seed in 0..20 {
            let dir = tempfile::tempdir().unwrap();
            let disk = HostDisk::new(dir.path()).unwrap();
            sim_world::contract::compare(&disk, &sim_world::SimDisk::new(seed), seed, 500).await;
        }
    }

    #[tokio::test]
    async fn calls_keep_their_order_when_the_caller_gives_up() {
        let dir = tempfile::tempdir().unwrap();
        let disk = HostDisk::new(dir.path()).unwrap();
        let mut file = disk.create(Path::new("log")).await.unwrap();
        for i in 0..100u8 {
            // Polled once, then given up: handed over, or not begun while another is running.
            let _ = futures::poll!(file.append(vec![vec![i; 1000].into()]));
        }
        file.flush().await.unwrap();
        let read = disk.read(Path::new("log"), 0, usize::MAX).await.unwrap();
        let pieces: Vec<u8> = read.chunks(1000).map(|piece| piece[0]).collect();
        assert!(read.chunks(1000).all(|piece| piece == vec![piece[0]; 1000]));
        assert!(pieces.is_sorted_by(|a, b| a < b), "{pieces:?}");
        assert_eq!(pieces[0], 0);
    }

    #[tokio::test]
    async fn a_file_that_failed_refuses_everything() {
        // The kernel's own full device.
        let file = OpenOptions::new().append(true).open("/dev/full").unwrap();
        let mut file = HostFile::new(file);
        let full = file.append(vec!["x".into()]).await.unwrap_err();
        assert_eq!(full.kind(), io::ErrorKind::StorageFull);
        assert!(file.flush().await.is_err());
        assert!(file.append(Vec::new()).await.is_err());
    }
}
