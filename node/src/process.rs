//! This process as the system sees it, from `/proc` (proc(5)). On a system without it the figures
//! are left out.

#![allow(
    clippy::disallowed_methods,
    reason = "/proc is no part of the data directory that the Disk port owns"
)]

use std::collections::HashMap;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Counter, Gauge};

/// `sysconf(_SC_CLK_TCK)`: Linux shows times of a process in hundredths of a second everywhere.
const TICKS_PER_SECOND: f64 = 100.0;

/// The process' figures under the names of Prometheus' client libraries.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Usage {
    pub cpu_seconds: Option<f64>,
    pub start_seconds: Option<f64>,
    pub resident_bytes: Option<f64>,
    pub virtual_bytes: Option<f64>,
    pub open_files: Option<f64>,
    pub open_files_max: Option<f64>,
}

impl Usage {
    /// As it is now.
    pub fn now() -> Self {
        let read = |name: &str| std::fs::read_to_string(format!("/proc/{name}"));
        let stat = read("self/stat").unwrap_or_default();
        let mut usage = Self::of_stat(&stat, &read("stat").unwrap_or_default());
        let status = read("self/status").unwrap_or_default();
        usage.resident_bytes = number_after(&status, "VmRSS:").map(|kib| kib * 1024.0);
        let limits = read("self/limits").unwrap_or_default();
        usage.open_files_max = number_after(&limits, "Max open files");
        let open = std::fs::read_dir("/proc/self/fd");
        usage.open_files = open.map(|entries| entries.count() as f64).ok();
        usage
    }

    /// Fields 14, 15, 22 and 23 of `/proc/self/stat`; they are counted behind the program's name,
    /// which may hold spaces.
    fn of_stat(stat: &str, machine: &str) -> Self {
        let behind = stat.rsplit_once(") ").map_or("", |(_, behind)| behind);
        let fields: Vec<&str> = behind.split(' ').collect();
        let field = |number: usize| fields.get(number - 3)?.trim().parse::<f64>().ok();
        let boot = number_after(machine, "btime");
        Self {
            cpu_seconds: field(14)
                .zip(field(15))
                .map(|(user, system)| (user + system) / TICKS_PER_SECOND),
            start_seconds: boot
                .zip(field(22))
                .map(|(boot, ticks)| boot + ticks / TICKS_PER_SECOND),
            virtual_bytes: field(23),
            ..Self::default()
        }
    }
}

/// The first number on the line that begins so.
fn number_after(text: &str, head: &str) -> Option<f64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(head))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// The working directory and the name of the machine, empty where unknown.
pub fn place() -> (String, String) {
    let directory = std::env::current_dir().unwrap_or_default();
    let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    (directory.display().to_string(), hostname.trim().to_owned())
}

/// Reads the figures anew whenever they are gathered.
pub struct Process {
    /// Of the first family: the registry tells collectors apart by what they describe.
    desc: Desc,
}

type Figure = (&'static str, &'static str, fn(&Usage) -> Option<f64>);

const GAUGES: [Figure; 5] = [
    (
        "process_start_time_seconds",
        "Start time of the process since unix epoch in seconds.",
        |usage| usage.start_seconds,
    ),
    (
        "process_resident_memory_bytes",
        "Resident memory size in bytes.",
        |usage| usage.resident_bytes,
    ),
    (
        "process_virtual_memory_bytes",
        "Virtual memory size in bytes.",
        |usage| usage.virtual_bytes,
    ),
    (
        "process_open_fds",
        "Number of open file descriptors.",
        |usage| usage.open_files,
    ),
    (
        "process_max_fds",
        "Maximum number of open file descriptors.",
        |usage| usage.open_files_max,
    ),
];

impl Process {
    pub fn new() -> prometheus::Result<Self> {
        let (name, help, _) = GAUGES[0];
        let desc = Desc::new(name.to_owned(), help.to_owned(), Vec::new(), HashMap::new())?;
        Ok(Self { desc })
    }
}

impl Collector for Process {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let usage = Usage::now();
        let mut families = Vec::new();
        if let Some(seconds) = usage.cpu_seconds {
            let help = "Total user and system CPU time spent in seconds.";
            let counter = Counter::new("process_cpu_seconds_total", help);
            let counter = counter.expect("a constant name");
            counter.inc_by(seconds);
            families.extend(counter.collect());
        }
        for (name, help, figure) in GAUGES {
            if let Some(value) = figure(&usage) {
                let gauge = Gauge::new(name, help).expect("a constant name");
                gauge.set(value);
                families.extend(gauge.collect());
            }
        }
        families
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_name_with_spaces_moves_no_field() {
        let mut fields = vec!["0"; 52];
        (fields[13], fields[14]) = ("150", "50");
        (fields[21], fields[22]) = ("1000", "4096");
        fields[1] = "(a b) c)";
        let usage = Usage::of_stat(&fields.join(" "), "cpu 1 2\nbtime 1700000000\n");
        assert_eq!(usage.cpu_seconds, Some(2.0));
        assert_eq!(usage.start_seconds, Some(1_700_000_010.0));
        assert_eq!(usage.virtual_bytes, Some(4096.0));
        assert_eq!(Usage::of_stat("", ""), Usage::default());
    }

    #[test]
    fn this_process_uses_something() {
        let usage = Usage::now();
        for figure in [
            usage.start_seconds,
            usage.resident_bytes,
            usage.virtual_bytes,
            usage.open_files,
            usage.open_files_max,
        ] {
            assert!(figure.is_some_and(|value| value > 0.0), "{usage:?}");
        }
    }
}
