//! The ports: all that a crate below the outermost loop may ask of the world.
//!
//! `host` implements them on the real machine, `sim-world` on one seed. tokio's timers are not a
//! port: the runtime they run on is itself replaced in the simulation, so they are virtual there.
//! Reading a clock (`Instant::now`, `SystemTime::now`) or spawning a task is.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::Timestamp;

/// Time. Wall time may jump; monotonic time counts from an arbitrary start and never goes back.
pub trait Clock: Send + Sync {
    fn now(&self) -> Timestamp;
    fn monotonic(&self) -> Duration;
}

/// Randomness. Not for secrets.
pub trait Dice: Send + Sync {
    /// 64 uniformly random bits.
    fn roll(&self) -> u64;

    /// Uniform in `0 .. bound`; `bound` is above zero.
    fn below(&self, bound: u64) -> u64 {
        ((u128::from(self.roll()) * u128::from(bound)) >> 64) as u64
    }
}

/// Files below one root that a node owns alone. Paths are relative to that root.
///
/// Durability is explicit: bytes survive a power cut only after [`File::flush`], a created,
/// renamed or removed name only after [`Disk::flush_dir`] of its directory. After an error of
/// `append` or `flush` the file's tail is unknown; the caller must not retry but stop the node.
#[async_trait]
pub trait Disk: Send + Sync {
    /// Creates a file that must not exist, for appending.
    async fn create(&self, path: &Path) -> io::Result<Box<dyn File>>;

    /// Opens an existing file for appending at its end.
    async fn open(&self, path: &Path) -> io::Result<Box<dyn File>>;

    /// Reads up to `len` bytes at `offset`; shorter only at the end of the file.
    async fn read(&self, path: &Path, offset: u64, len: usize) -> io::Result<Bytes>;

    /// Bytes in the file; `NotFound` when it is missing.
    async fn len(&self, path: &Path) -> io::Result<u64>;

    /// Names directly inside a directory, sorted; empty when the directory is missing.
    async fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>>;

    async fn create_dir_all(&self, dir: &Path) -> io::Result<()>;
    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    async fn link(&self, from: &Path, to: &Path) -> io::Result<()>;
    async fn remove(&self, path: &Path) -> io::Result<()>;
    async fn remove_dir_all(&self, dir: &Path) -> io::Result<()>;

    /// Makes the directory's names durable.
    async fn flush_dir(&self, dir: &Path) -> io::Result<()>;
}

/// Reads a whole file.
pub async fn read_all(disk: &dyn Disk, path: &Path) -> io::Result<Bytes> {
    let len = disk.len(path).await?;
    disk.read(path, 0, usize::try_from(len).map_err(io::Error::other)?)
        .await
}

/// Writes a file so that after a power cut there is either the old one or the whole new one:
/// temporary name, flush, rename, directory flush.
pub async fn replace(disk: &dyn Disk, path: &Path, bytes: Bytes) -> io::Result<()> {
    replace_by(disk, path, vec![bytes]).await
}

/// The same of bytes that come in pieces.
pub async fn replace_by(disk: &dyn Disk, path: &Path, pieces: Vec<Bytes>) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".tmp");
    let temporary = path.with_file_name(name);
    match disk.remove(&temporary).await {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut file = disk.create(&temporary).await?;
    file.append_durably(pieces).await?;
    drop(file);
    disk.rename(&temporary, path).await?;
    disk.flush_dir(path.parent().unwrap_or(Path::new(""))).await
}

/// A file open for appending.
#[async_trait]
pub trait File: Send {
    /// Appends the pieces in order, as one write where the system allows.
    async fn append(&mut self, pieces: Vec<Bytes>) -> io::Result<()>;

    /// Makes the file's bytes and length durable (fdatasync).
    async fn flush(&mut self) -> io::Result<()>;

    /// Appends the pieces and makes them durable: the two calls in one, where that is less work.
    async fn append_durably(&mut self, pieces: Vec<Bytes>) -> io::Result<()> {
        self.append(pieces).await?;
        self.flush().await
    }

    /// Cuts the file to `len` bytes; durable after the next flush.
    async fn truncate(&mut self, len: u64) -> io::Result<()>;
}

/// A connection's bytes.
pub trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

/// TCP, or what stands for it.
#[async_trait]
pub trait Net: Send + Sync {
    /// Connects to `host:port`, with `TCP_NODELAY`.
    async fn connect(&self, address: &str) -> io::Result<Box<dyn Connection>>;

    /// Listens on `host:port`; an empty host means every interface, port 0 any free port.
    async fn listen(&self, address: &str) -> io::Result<Box<dyn Listener>>;

    /// Receives datagrams sent to `host:port`; addresses as for [`Net::listen`].
    async fn receive(&self, address: &str) -> io::Result<Box<dyn Datagrams>> {
        let message = format!("no datagrams on {address}");
        Err(io::Error::new(io::ErrorKind::Unsupported, message))
    }
}

/// Datagrams as they come in; what comes while nobody asks is lost.
#[async_trait]
pub trait Datagrams: Send {
    /// Takes one into `buffer`, cut to its length, and tells how many bytes came.
    async fn next(&mut self, buffer: &mut [u8]) -> io::Result<usize>;
    fn local_addr(&self) -> io::Result<SocketAddr>;
}

/// Accepts connections, with `TCP_NODELAY` on each.
#[async_trait]
pub trait Listener: Send {
    async fn accept(&mut self) -> io::Result<(Box<dyn Connection>, SocketAddr)>;
    fn local_addr(&self) -> io::Result<SocketAddr>;
}

/// Starts tasks.
pub trait Spawn: Send + Sync {
    /// Runs `future` beside the caller until it ends or the returned [`Task`] is dropped.
    fn spawn(&self, name: &'static str, future: BoxFuture<'static, ()>) -> Task;
}

/// Owns a running task: dropping it ends the task.
#[must_use = "dropping a Task ends it"]
pub struct Task(tokio::task::AbortHandle);

impl Task {
    pub fn new(handle: tokio::task::AbortHandle) -> Self {
        Self(handle)
    }

    pub fn is_finished(&self) -> bool {
        self.0.is_finished()
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// All ports together, as they are handed down.
#[derive(Clone)]
pub struct World {
    pub clock: Arc<dyn Clock>,
    pub dice: Arc<dyn Dice>,
    pub disk: Arc<dyn Disk>,
    pub net: Arc<dyn Net>,
    pub spawn: Arc<dyn Spawn>,
}
