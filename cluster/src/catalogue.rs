//! The node's catalogue: small values that can be rebuilt, kept where a restart finds them fast.
//!
//! sled holds it in production. sled's own flush never reaches the disk, large values make it
//! unopenable, and concurrent flushes deadlock; so nothing acknowledged lives here, values are
//! small, one blocking flush at a time is followed by a real fdatasync, and a database that does
//! not open is moved aside and begun anew.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use futures::FutureExt;
use futures::future::{BoxFuture, ready};

/// Keys and values, both below [`VALUE_BYTES_MAX`].
pub trait Catalogue: Send + Sync {
    fn load(&self) -> io::Result<BTreeMap<Vec<u8>, Vec<u8>>>;

    /// Writes and removes in one step. Durable on return.
    fn store(&self, puts: Vec<(Vec<u8>, Vec<u8>)>, removes: Vec<Vec<u8>>) -> io::Result<()>;
}

/// A catalogue that is being opened, so that other things can be opened meanwhile.
pub type Opening = BoxFuture<'static, io::Result<Arc<dyn Catalogue>>>;

/// One that is there.
pub fn opened(catalogue: Arc<dyn Catalogue>) -> Opening {
    ready(Ok(catalogue)).boxed()
}

/// Above this sled 0.34 was seen to lose whole databases.
pub const VALUE_BYTES_MAX: usize = 4 << 10;

/// A catalogue that lives as long as its process: for the simulation and for tests.
#[derive(Default)]
pub struct Memory(Mutex<BTreeMap<Vec<u8>, Vec<u8>>>);

impl Catalogue for Memory {
    fn load(&self) -> io::Result<BTreeMap<Vec<u8>, Vec<u8>>> {
        Ok(self.0.lock().expect("not poisoned").clone())
    }

    fn store(&self, puts: Vec<(Vec<u8>, Vec<u8>)>, removes: Vec<Vec<u8>>) -> io::Result<()> {
        let mut map = self.0.lock().expect("not poisoned");
        for key in removes {
            map.remove(&key);
        }
        map.extend(puts);
        Ok(())
    }
}

/// The catalogue in a sled database.
#[derive(Debug)]
pub struct Sled {
    db: sled::Db,
    /// The database's data file, for the flush sled leaves out.
    file: Mutex<std::fs::File>,
}

impl Sled {
    /// Opens or creates the database in `dir`. One that does not open is renamed to
    /// `<dir>.broken-N` and a new one begun: its content is rebuilt from the log.
    pub fn open(dir: &Path) -> io::Result<Self> {
        match Self::try_open(dir) {
            Ok(open) => Ok(open),
            Err(why) => {
                let aside = move_aside(dir)?;
                tracing::error!(
                    dir = %dir.display(), aside = %aside.display(), error = %why,
                    "the catalogue does not open; it was moved aside and is rebuilt from the log"
                );
                Self::try_open(dir)
            }
        }
    }

    fn try_open(dir: &Path) -> io::Result<Self> {
        // A damaged database makes sled panic as often as it makes it fail.
        let opened = std::panic::catch_unwind(|| {
            let db = sled::Config::new()
                .path(dir)
                .cache_capacity(1 << 20)
                .open()?;
            for pair in db.iter() {
                pair?;
            }
            Ok::<_, sled::Error>(db)
        });
        let db = opened
            .map_err(|_| io::Error::other("sled panicked"))?
            .map_err(io::Error::other)?;
        let file = open_data_file(dir)?;
        Ok(Self {
            db,
            file: Mutex::new(file),
        })
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "sled is its own disk; only its data file is opened here, to flush it for real"
)]
fn open_data_file(dir: &Path) -> io::Result<std::fs::File> {
    std::fs::File::open(dir.join("db"))
}

#[allow(
    clippy::disallowed_methods,
    reason = "sled's directory is outside the Disk port"
)]
fn move_aside(dir: &Path) -> io::Result<PathBuf> {
    let name = dir
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let free = (1..1_000)
        .map(|n| dir.with_file_name(format!("{name}.broken-{n}")))
        .find(|aside| !aside.exists())
        .ok_or_else(|| io::Error::other("too many broken catalogues lie beside it"))?;
    std::fs::rename(dir, &free)?;
    Ok(free)
}

impl Catalogue for Sled {
    fn load(&self) -> io::Result<BTreeMap<Vec<u8>, Vec<u8>>> {
        let pair = |pair: sled::Result<(sled::IVec, sled::IVec)>| {
            pair.map(|(k, v)| (k.to_vec(), v.to_vec()))
                .map_err(io::Error::other)
        };
        self.db.iter().map(pair).collect()
    }

    fn store(&self, puts: Vec<(Vec<u8>, Vec<u8>)>, removes: Vec<Vec<u8>>) -> io::Result<()> {
        let mut batch = sled::Batch::default();
        for key in removes {
            batch.remove(key);
        }
        for (key, value) in puts {
            if value.len() > VALUE_BYTES_MAX {
                return Err(io::Error::other("a value too large for the catalogue"));
            }
            batch.insert(key, value);
        }
        // One at a time: concurrent flushes of sled 0.34 deadlock.
        let file = self.file.lock().expect("not poisoned");
        self.db.apply_batch(batch).map_err(io::Error::other)?;
        self.db.flush().map_err(io::Error::other)?;
        file.sync_data()
    }
}

#[cfg(test)]
#[allow(
    clippy::disallowed_methods,
    reason = "the tests break sled's files on purpose"
)]
mod tests {
    use super::*;

    fn pair(key: &str, value: &str) -> (Vec<u8>, Vec<u8>) {
        (key.into(), value.into())
    }

    #[test]
    fn sled_keeps_what_memory_keeps() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("catalogue");
        let memory = Memory::default();
        {
            let sled = Sled::open(&path).unwrap();
            for catalogue in [&sled as &dyn Catalogue, &memory] {
                catalogue
                    .store(vec![pair("a", "1"), pair("b", "2")], vec![])
                    .unwrap();
                catalogue
                    .store(vec![pair("a", "3")], vec![b"b".to_vec()])
                    .unwrap();
            }
        }
        let sled = Sled::open(&path).unwrap();
        assert_eq!(sled.load().unwrap(), memory.load().unwrap());
    }

    #[test]
    fn a_database_that_does_not_open_is_moved_aside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("catalogue");
        std::fs::create_dir(&path).unwrap();
        // Where sled wants a file there is a directory.
        std::fs::create_dir(path.join("db")).unwrap();
        let sled = Sled::open(&path).unwrap();
        assert!(sled.load().unwrap().is_empty());
        assert!(dir.path().join("catalogue.broken-1").join("db").is_dir());
    }

    #[test]
    fn large_values_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let sled = Sled::open(&dir.path().join("catalogue")).unwrap();
        let large = vec![0; VALUE_BYTES_MAX + 1];
        assert!(sled.store(vec![(b"a".to_vec(), large)], vec![]).is_err());
        assert!(sled.load().unwrap().is_empty());
    }
}
