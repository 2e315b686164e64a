//! What a process costs, from /proc and its data directory.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::Context;

/// User and system CPU seconds of a process and all its threads, those that ended included.
pub fn cpu_seconds(pid: u32) -> anyhow::Result<f64> {
    let path = format!("/proc/{pid}/stat");
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let ticks = cpu_ticks(&text).with_context(|| format!("{path} reads {text:?}"))?;
    Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// Peak resident memory of a process, in bytes.
pub fn peak_memory_bytes(pid: u32) -> anyhow::Result<u64> {
    let path = format!("/proc/{pid}/status");
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    kib(&text, "VmHWM:")
        .map(|kib| kib * 1024)
        .with_context(|| format!("{path} has no VmHWM"))
}

/// Resident memory of a process, in bytes.
pub fn memory_bytes(pid: u32) -> anyhow::Result<u64> {
    let path = format!("/proc/{pid}/status");
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    kib(&text, "VmRSS:")
        .map(|kib| kib * 1024)
        .with_context(|| format!("{path} has no VmRSS"))
}

/// proc(5): 5 in clear_refs sets VmHWM to what is resident now.
pub fn forget_peak_memory(pid: u32) -> anyhow::Result<()> {
    let path = format!("/proc/{pid}/clear_refs");
    std::fs::write(&path, "5").with_context(|| format!("write {path}"))
}

/// Bytes that a process caused to be sent to a disk, those since deleted included.
pub fn written_bytes(pid: u32) -> anyhow::Result<u64> {
    let path = format!("/proc/{pid}/io");
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    sent_to_disk(&text).with_context(|| format!("{path} has no write_bytes"))
}

/// What a directory takes on the disk, as du counts: allocated blocks, not lengths, and a file once
/// however many names it has. What is directly in it under one of the names `without` is left out.
pub fn disk_bytes(directory: &Path, without: &[&str]) -> anyhow::Result<u64> {
    add_disk_bytes(directory, without, &mut BTreeSet::new())
}

/// `counted` are the files seen so far, by number.
fn add_disk_bytes(
    directory: &Path,
    without: &[&str],
    counted: &mut BTreeSet<u64>,
) -> anyhow::Result<u64> {
    let mut total = 0;
    let entries =
        std::fs::read_dir(directory).with_context(|| format!("list {}", directory.display()))?;
    for entry in entries {
        let entry = entry?;
        if without.iter().any(|name| entry.file_name() == *name) {
            continue;
        }
        let metadata = entry.metadata()?;
        if metadata.is_dir() {
            total += add_disk_bytes(&entry.path(), &[], counted)?;
        } else if counted.insert(metadata.ino()) {
            total += metadata.blocks() * 512;
        }
    }
    Ok(total)
}

/// proc(5): the name is in parentheses and may hold anything; utime and stime are the 14th and
/// 15th field, the 12th and 13th after it.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

fn kib(status: &str, field: &str) -> Option<u64> {
    let line = status.lines().find_map(|l| l.strip_prefix(field))?;
    line.split_whitespace().next()?.parse().ok()
}

fn sent_to_disk(io: &str) -> Option<u64> {
    let line = io.lines().find_map(|l| l.strip_prefix("write_bytes:"))?;
    line.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_from_their_fields() {
        let stat = "12 (a) b) S 1 2 3 4 5 6 7 8 9 10 170 30 0 0 20 0 1 0 9";
        assert_eq!(cpu_ticks(stat), Some(200));
        assert_eq!(cpu_ticks("12 (cut"), None);
        let status = "VmPeak:\t 10 kB\nVmHWM:\t  4096 kB\nVmRSS:\t 1 kB\n";
        assert_eq!(kib(status, "VmHWM:"), Some(4096));
        assert_eq!(kib(status, "VmRSS:"), Some(1));
        let io = "rchar: 1\nwrite_bytes: 4096\ncancelled_write_bytes: 0\n";
        assert_eq!(sent_to_disk(io), Some(4096));
    }

    #[test]
    fn this_process_costs_something() {
        let pid = std::process::id();
        assert!(peak_memory_bytes(pid).unwrap() > 1 << 16);
        assert!(cpu_seconds(pid).is_ok());
    }

    #[test]
    fn disks_are_counted_in_blocks_through_folders() {
        let directory = tempfile::tempdir().unwrap();
        let inner = directory.path().join("inner");
        std::fs::create_dir(&inner).unwrap();
        std::fs::write(inner.join("data"), vec![7; 1 << 20]).unwrap();
        let sparse = std::fs::File::create(inner.join("sparse")).unwrap();
        sparse.set_len(1 << 30).unwrap();
        std::fs::hard_link(inner.join("data"), directory.path().join("data again")).unwrap();
        let log = directory.path().join("log");
        std::fs::create_dir(&log).unwrap();
        std::fs::write(log.join("1"), vec![7; 1 << 20]).unwrap();
        let bytes = disk_bytes(directory.path(), &["log"]).unwrap();
        assert!((1 << 20..2 << 20).contains(&bytes), "{bytes}");
        let bytes = disk_bytes(directory.path(), &[]).unwrap();
        assert!((2 << 20..3 << 20).contains(&bytes), "{bytes}");
    }
}
