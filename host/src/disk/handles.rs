//! Files kept open for reading, a bounded number of them.
//!
//! A handle is only as good as its name: renaming or removing forgets it, also when the file was
//! being opened meanwhile.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use model::limits::READ_HANDLES_MAX;

pub(super) struct Handles {
    cache: Mutex<Cache>,
}

#[derive(Default)]
struct Cache {
    open: BTreeMap<PathBuf, Entry>,
    /// Counts reads, to tell the least recent.
    reads: u64,
    /// Counts changes of names: what was opened before one is not kept after it.
    changes: u64,
}

struct Entry {
    file: Arc<File>,
    last_read: u64,
}

impl Handles {
    pub(super) fn new() -> Self {
        Self {
            cache: Mutex::default(),
        }
    }

    /// The file under this name now.
    pub(super) fn get(&self, path: &Path) -> io::Result<Arc<File>> {
        let changes = {
            let mut cache = self.cache();
            if let Some(file) = cache.touch(path) {
                return Ok(file);
            }
            cache.changes
        };
        let file = Arc::new(File::open(path)?);
        if file.metadata()?.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let mut cache = self.cache();
        if cache.changes == changes {
            cache.insert(path.to_owned(), file.clone());
        }
        Ok(file)
    }

    /// The file under this name, if it is open already.
    pub(super) fn known(&self, path: &Path) -> Option<Arc<File>> {
        self.cache().touch(path)
    }

    /// Forgets the name and all below it.
    pub(super) fn forget(&self, path: &Path) {
        let mut cache = self.cache();
        cache.changes += 1;
        let below = cache.open.range(path.to_owned()..);
        let below = below.map(|(name, _)| name.clone());
        let below: Vec<_> = below.take_while(|name| name.starts_with(path)).collect();
        for name in below {
            cache.open.remove(&name);
        }
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache
            .lock()
            .expect("nothing panics while it holds the handles")
    }
}

impl Cache {
    fn touch(&mut self, path: &Path) -> Option<Arc<File>> {
        self.reads += 1;
        let entry = self.open.get_mut(path)?;
        entry.last_read = self.reads;
        Some(entry.file.clone())
    }

    fn insert(&mut self, path: PathBuf, file: Arc<File>) {
        if self.open.len() >= READ_HANDLES_MAX
            && let Some((oldest, _)) = self.open.iter().min_by_key(|(_, entry)| entry.last_read)
        {
            let oldest = oldest.clone();
            self.open.remove(&oldest);
        }
        let last_read = self.reads;
        self.open.insert(path, Entry { file, last_read });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_are_reused_bounded_and_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let path = |i: usize| dir.path().join(format!("{i}"));
        let handles = Handles::new();
        for i in 0..READ_HANDLES_MAX + 10 {
            std::fs::write(path(i), "x").unwrap();
            handles.get(&path(i)).unwrap();
            // Read all the time, so never the least recent.
            handles.get(&path(0)).unwrap();
        }
        let open = |handles: &Handles| handles.cache().open.len();
        assert_eq!(open(&handles), READ_HANDLES_MAX);
        let again = handles.get(&path(0)).unwrap();
        assert!(Arc::ptr_eq(&again, &handles.get(&path(0)).unwrap()));
        handles.forget(&path(0));
        assert!(!Arc::ptr_eq(&again, &handles.get(&path(0)).unwrap()));
        handles.forget(dir.path());
        assert_eq!(open(&handles), 0);
    }
}
