//! Files in memory, for what reads and writes a node's own.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use model::port::{Dice, Disk, File};

/// They last as long as the value; nothing is ever lost.
#[derive(Default, Clone)]
pub struct Files(Arc<Mutex<BTreeMap<PathBuf, Vec<u8>>>>);

struct Open(Files, PathBuf);

impl Files {
    fn all(&self) -> MutexGuard<'_, BTreeMap<PathBuf, Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, path: &Path, work: impl FnOnce(&mut Vec<u8>) -> T) -> io::Result<T> {
        let found = self.all().get_mut(path).map(work);
        found.ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

#[async_trait]
impl Disk for Files {
    async fn create(&self, path: &Path) -> io::Result<Box<dyn File>> {
        match self.all().insert(path.to_owned(), Vec::new()) {
            None => Ok(Box::new(Open(self.clone(), path.to_owned()))),
            Some(_) => Err(io::ErrorKind::AlreadyExists.into()),
        }
    }

    async fn open(&self, path: &Path) -> io::Result<Box<dyn File>> {
        self.with(path, |_| ())?;
        Ok(Box::new(Open(self.clone(), path.to_owned())))
    }

    async fn read(&self, path: &Path, offset: u64, len: usize) -> io::Result<Bytes> {
        self.with(path, |bytes| {
            let from = usize::try_from(offset).unwrap_or(usize::MAX);
            let rest = bytes.get(from..).unwrap_or_default();
            Bytes::copy_from_slice(&rest[..len.min(rest.len())])
        })
    }

    async fn len(&self, path: &Path) -> io::Result<u64> {
        self.with(path, |bytes| bytes.len() as u64)
    }

    async fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let all = self.all();
        let inside = all.keys().filter(|path| path.parent() == Some(dir));
        let names = inside.filter_map(|path| path.file_name());
        Ok(names.map(PathBuf::from).collect())
    }

    async fn create_dir_all(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let moved = self.with(from, std::mem::take)?;
        let mut all = self.all();
        all.remove(from);
        all.insert(to.to_owned(), moved);
        Ok(())
    }

    async fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let copy = self.with(from, |bytes| bytes.clone())?;
        self.all().insert(to.to_owned(), copy);
        Ok(())
    }

    async fn remove(&self, path: &Path) -> io::Result<()> {
        let removed = self.all().remove(path);
        removed
            .map(drop)
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    async fn remove_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.all().retain(|path, _| !path.starts_with(dir));
        Ok(())
    }

    async fn flush_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
}

#[async_trait]
impl File for Open {
    async fn append(&mut self, pieces: Vec<Bytes>) -> io::Result<()> {
        let append = |bytes: &mut Vec<u8>| pieces.iter().for_each(|piece| bytes.extend(piece));
        self.0.with(&self.1, append)
    }

    async fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    async fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.0.with(&self.1, |bytes| bytes.truncate(len as usize))
    }
}

/// Falls on the same side each time.
pub struct Loaded;

impl Dice for Loaded {
    fn roll(&self) -> u64 {
        7
    }
}
