//! One process per data directory.
//!
//! The lock is the kernel's (`flock` on the file `lock`), so it ends with the process however that
//! ends; the file's content only says who to blame.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::Path;

use crate::disk::create_root;

const NAME: &str = "lock";

/// Holds a data directory until dropped.
#[derive(Debug)]
#[must_use = "dropping the lock lets another process in"]
pub struct Lock {
    _file: File,
}

/// Takes `root`, which is created if need be, for this process alone.
pub fn lock(root: &Path) -> io::Result<Lock> {
    create_root(root)?;
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(root.join(NAME))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(held(root, &mut file)),
        Err(TryLockError::Error(e)) => return Err(e),
    }
    file.set_len(0)?;
    writeln!(file, "{}", std::process::id())?;
    Ok(Lock { _file: file })
}

fn held(root: &Path, file: &mut File) -> io::Error {
    let mut holder = String::new();
    let holder = match file.read_to_string(&mut holder) {
        Ok(_) if !holder.trim().is_empty() => holder.trim(),
        _ => "unknown",
    };
    io::Error::new(
        io::ErrorKind::ResourceBusy,
        format!(
            "data directory {} is in use by process {holder}",
            root.display()
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_holder_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("data");
        let first = lock(&root).unwrap();
        let refused = lock(&root).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ResourceBusy);
        let expected = format!(
            "data directory {} is in use by process {}",
            root.display(),
            std::process::id()
        );
        assert_eq!(refused.to_string(), expected);
        drop(first);
        drop(lock(&root).unwrap());
    }
}
