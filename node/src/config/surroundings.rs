//! What a configuration asks of the machine: files it names, which lie outside the data directory,
//! and environment variables.

use std::io;
use std::path::{Path, PathBuf};

/// Files and variables. A closure that reads files is one without directories and variables.
pub trait Surroundings {
    fn read(&self, file: &Path) -> io::Result<String>;

    /// Names inside a directory, in any order.
    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        let message = format!("no listing of {}", directory.display());
        Err(io::Error::new(io::ErrorKind::Unsupported, message))
    }

    fn variable(&self, _name: &str) -> Option<String> {
        None
    }

    /// Opens a file for appending, a new one if need be.
    fn append_to(&self, file: &Path) -> io::Result<Box<dyn io::Write + Send>> {
        let message = format!("no writing to {}", file.display());
        Err(io::Error::new(io::ErrorKind::Unsupported, message))
    }
}

impl<F: Fn(&Path) -> io::Result<String>> Surroundings for F {
    fn read(&self, file: &Path) -> io::Result<String> {
        self(file)
    }
}

/// The machine this process runs on.
#[derive(Debug, Clone, Copy)]
pub struct Machine;

#[allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the configuration lies outside the data directory that the Disk port owns"
)]
impl Surroundings for Machine {
    fn read(&self, file: &Path) -> io::Result<String> {
        std::fs::read_to_string(file)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        let entries = std::fs::read_dir(directory)?;
        entries.map(|entry| Ok(entry?.path())).collect()
    }

    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn append_to(&self, file: &Path) -> io::Result<Box<dyn io::Write + Send>> {
        let mut options = std::fs::OpenOptions::new();
        let opened = options.append(true).create(true).open(file)?;
        Ok(Box::new(opened))
    }
}

/// The files a pattern names, sorted. `*` and `?` stand for signs of one name; a pattern without
/// them names its file when that can be read.
pub fn glob(pattern: &Path, surroundings: &dyn Surroundings) -> Vec<PathBuf> {
    let mut found = vec![PathBuf::new()];
    for part in pattern {
        let text = part.to_string_lossy();
        if !text.contains(['*', '?']) {
            for path in &mut found {
                path.push(part);
            }
            continue;
        }
        let mut next = Vec::new();
        for directory in &found {
            let here = match directory.as_os_str().is_empty() {
                true => Path::new("."),
                false => directory,
            };
            for entry in surroundings.list(here).unwrap_or_default() {
                let Some(name) = entry.file_name() else {
                    continue;
                };
                if fits(&text, &name.to_string_lossy()) {
                    next.push(directory.join(name));
                }
            }
        }
        found = next;
    }
    found.sort();
    found
}

/// Whether a name fits a pattern of `*` and `?`; a leading dot must be written.
fn fits(pattern: &str, name: &str) -> bool {
    if name.starts_with('.') && !pattern.starts_with('.') {
        return false;
    }
    let (pattern, name): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, n));
                p += 1;
            }
            Some('?') => (p, n) = (p + 1, n + 1),
            Some(sign) if *sign == name[n] => (p, n) = (p + 1, n + 1),
            _ => {
                let Some((star_at, taken)) = star else {
                    return false;
                };
                star = Some((star_at, taken + 1));
                (p, n) = (star_at + 1, taken + 1);
            }
        }
    }
    pattern[p..].iter().all(|sign| *sign == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Tree;

    impl Surroundings for Tree {
        fn read(&self, _file: &Path) -> io::Result<String> {
            Ok(String::new())
        }

        fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
            let names: &[&str] = match directory.to_str() {
                Some("jobs") => &["b.yml", "a.yml", "c.json", ".d.yml"],
                Some(".") => &["jobs", "x.yml"],
                _ => &[],
            };
            Ok(names.iter().map(|name| directory.join(name)).collect())
        }
    }

    #[test]
    fn patterns_find_their_files_in_order() {
        for (pattern, files) in [
            ("jobs/*.yml", &["jobs/a.yml", "jobs/b.yml"][..]),
            ("j*/?.json", &["jobs/c.json"]),
            ("x.yml", &["x.yml"]),
            ("none/*.yml", &[]),
        ] {
            let found = glob(Path::new(pattern), &Tree);
            assert_eq!(found, files.iter().map(PathBuf::from).collect::<Vec<_>>());
        }
    }

    #[test]
    fn stars_go_back() {
        assert!(fits("*a*b", "xaab"));
        assert!(!fits("*a*b", "xaac"));
        assert!(fits("*", ""));
        assert!(!fits("?", ""));
    }
}
