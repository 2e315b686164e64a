//! Figures over time: operations per 100 ms, how long writes were without after each fault.
//!
//! *Recovery* of a fault: from its strike until every register and series that was tried has been
//! written again by an operation that began after it. *Stop*: the longest time around a fault in
//! which no write at all was acknowledged. These are measurements; only [`Availability::judge_stops`]
//! makes one of them a verdict.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Finding, Report};
use crate::history::{Call, Entry, FaultRecord, Kind};
use crate::plan::FaultKind;

pub const BUCKET_MS: i64 = 100;
const NS_PER_MS: i64 = 1_000_000;
/// Writes that are seen for so long after a fault belong to it, if no other fault comes before.
const WINDOW_MS: i64 = 15_000;

/// Operations that ended within one bucket.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bucket {
    pub ok: u32,
    pub not_ok: u32,
}

/// What one fault cost.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outage {
    pub kind: FaultKind,
    pub nodes: Vec<usize>,
    pub at_ms: i64,
    /// `None` when the window ended before all were written again, or nothing was tried.
    pub recovery_ms: Option<i64>,
    pub stop_ms: i64,
    pub ready_ms: Option<i64>,
}

/// Latency of acknowledged operations of one kind, in microseconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    pub f: String,
    pub count: usize,
    pub p50_us: i64,
    pub p99_us: i64,
    pub p999_us: i64,
    pub max_us: i64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Availability {
    /// By bucket since the start; one row per node.
    pub nodes: Vec<Vec<Bucket>>,
    pub outages: Vec<Outage>,
    /// From the first acknowledged write to the last.
    pub stop_ms_longest: i64,
    pub latencies: Vec<Latency>,
}

pub fn measure(history: &[Entry], faults: &[FaultRecord]) -> Availability {
    Availability {
        nodes: buckets(history),
        outages: outages(history, faults),
        stop_ms_longest: stop_longest(history),
        latencies: latencies(history),
    }
}

impl Availability {
    /// Fails when writes stopped for longer than `stop_ms_max` around a fault or at any time.
    pub fn judge_stops(&self, stop_ms_max: u64) -> Report {
        let limit = stop_ms_max as i64;
        let worst = self.outages.iter().map(|o| o.stop_ms).max();
        let mut findings: Vec<Finding> = self
            .outages
            .iter()
            .filter(|outage| outage.stop_ms > limit)
            .map(|outage| Finding {
                what: format!(
                    "writes stopped for {} ms around {} of {:?} at {} ms",
                    outage.stop_ms,
                    outage.kind.as_str(),
                    outage.nodes,
                    outage.at_ms
                ),
                ops: Vec::new(),
            })
            .collect();
        let summary = match worst {
            Some(worst) => format!(
                "longest stop of writes {worst} ms over {} faults, allowed {limit} ms",
                self.outages.len()
            ),
            None => "no fault, no stop".to_owned(),
        };
        if findings.is_empty() && self.stop_ms_longest > limit {
            findings.push(Finding {
                what: format!(
                    "writes stopped for {} ms beside no fault",
                    self.stop_ms_longest
                ),
                ops: Vec::new(),
            });
        }
        Report::from_findings("write stops", summary, findings)
            .with("stop_ms_longest", self.stop_ms_longest)
    }
}

fn buckets(history: &[Entry]) -> Vec<Vec<Bucket>> {
    let nodes = history.iter().map(|e| e.node + 1).max().unwrap_or(0);
    let width = BUCKET_MS * NS_PER_MS;
    let last = history.iter().map(|e| e.t1).max().unwrap_or(0);
    let mut rows = vec![vec![Bucket::default(); (last / width + 1) as usize]; nodes];
    for entry in history {
        let bucket = &mut rows[entry.node][(entry.t1.max(0) / width) as usize];
        match entry.kind {
            Kind::Ok => bucket.ok += 1,
            _ => bucket.not_ok += 1,
        }
    }
    rows
}

fn acks(history: &[Entry]) -> Vec<i64> {
    let ok = writes(history).filter(|entry| entry.kind == Kind::Ok);
    let mut acks: Vec<i64> = ok.map(|entry| entry.t1).collect();
    acks.sort_unstable();
    acks
}

fn stop_longest(history: &[Entry]) -> i64 {
    let acks = acks(history);
    let gaps = acks.windows(2).map(|pair| pair[1] - pair[0]);
    gaps.max().unwrap_or(0) / NS_PER_MS
}

fn outages(history: &[Entry], faults: &[FaultRecord]) -> Vec<Outage> {
    let acks = acks(history);
    let writes_end = writes(history).map(|e| e.t1).max().unwrap_or(0);
    faults
        .iter()
        .enumerate()
        .map(|(n, fault)| {
            let next = faults.get(n + 1).map_or(i64::MAX, |next| next.t0);
            let end = next
                .min(fault.t0 + WINDOW_MS * NS_PER_MS)
                .min(writes_end.max(fault.t0));
            Outage {
                kind: fault.kind,
                nodes: fault.nodes.clone(),
                at_ms: fault.t0 / NS_PER_MS,
                recovery_ms: recovery(history, fault.t0, end).map(|ns| ns / NS_PER_MS),
                stop_ms: longest_gap(&acks, fault.t0, end) / NS_PER_MS,
                ready_ms: fault.ready.map(|ready| (ready - fault.t0) / NS_PER_MS),
            }
        })
        .collect()
}

/// The longest time without an acknowledgement that ends after `from`; what lies beyond `to` does
/// not count, for it is the next fault's.
fn longest_gap(acks: &[i64], from: i64, to: i64) -> i64 {
    let first = acks.partition_point(|ack| *ack <= from);
    let mut last = first.checked_sub(1).map_or(from, |n| acks[n]);
    let mut longest = 0;
    for &ack in &acks[first..] {
        if last >= to {
            return longest;
        }
        longest = longest.max(ack.min(to) - last);
        last = ack;
    }
    longest.max(to - last)
}

fn recovery(history: &[Entry], from: i64, to: i64) -> Option<i64> {
    let mut back: BTreeMap<u64, Option<i64>> = BTreeMap::new();
    for entry in writes(history).filter(|e| (from..to).contains(&e.t0)) {
        for key in keys(&entry.call) {
            let first = back.entry(key).or_default();
            if entry.kind == Kind::Ok && first.is_none_or(|t1| entry.t1 < t1) {
                *first = Some(entry.t1);
            }
        }
    }
    let mut latest = None;
    for first in back.into_values() {
        latest = latest.max(Some(first?));
    }
    latest.map(|t1| t1 - from)
}

/// What a write touches; a sweep touches everything, which is one thing.
fn keys(call: &Call) -> Vec<u64> {
    match call {
        Call::Write { key, .. } => vec![u64::from(*key)],
        Call::Append { samples } => samples
            .iter()
            .map(|(s, _)| 1 << 32 | u64::from(*s))
            .collect(),
        Call::Sweep { .. } => vec![2 << 32],
        Call::Read | Call::Scan { .. } => Vec::new(),
    }
}

fn writes(history: &[Entry]) -> impl Iterator<Item = &Entry> {
    history.iter().filter(|entry| entry.call.changes_state())
}

fn latencies(history: &[Entry]) -> Vec<Latency> {
    let mut by_name: BTreeMap<&str, Vec<i64>> = BTreeMap::new();
    for entry in history.iter().filter(|e| e.kind == Kind::Ok && !e.last) {
        let spent_us = (entry.t1 - entry.t0) / 1_000;
        by_name.entry(entry.call.name()).or_default().push(spent_us);
    }
    by_name
        .into_iter()
        .map(|(f, mut spent)| {
            spent.sort_unstable();
            let at = |per_mille: usize| spent[(spent.len() - 1) * per_mille / 1000];
            Latency {
                f: f.to_owned(),
                count: spent.len(),
                p50_us: at(500),
                p99_us: at(990),
                p999_us: at(999),
                max_us: at(1000),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::Verdict;

    const S: i64 = 1_000_000_000;

    fn write(key: u32, t0: i64, t1: i64, kind: Kind) -> Entry {
        Entry {
            i: 0,
            proc: 0,
            node: 1,
            call: Call::Write { key, value: 1 },
            t0,
            t1,
            kind,
            val: None,
            status: None,
            note: None,
            last: false,
        }
    }

    fn fault(t0: i64) -> FaultRecord {
        FaultRecord {
            kind: FaultKind::KillLeader,
            nodes: vec![0],
            t0,
            t1: t0 + S,
            ready: Some(t0 + 2 * S),
            done: true,
            note: None,
        }
    }

    #[test]
    fn a_stop_is_measured_between_acknowledgements() {
        let history = [
            write(0, 0, S, Kind::Ok),
            write(0, S, 2 * S, Kind::Info),
            write(0, 4 * S, 5 * S, Kind::Ok),
            write(0, 5 * S, 6 * S, Kind::Ok),
        ];
        let measured = measure(&history, &[fault(2 * S)]);
        assert_eq!(measured.outages[0].stop_ms, 4_000);
        assert_eq!(measured.outages[0].recovery_ms, Some(3_000));
        assert_eq!(measured.judge_stops(3_000).verdict, Verdict::Invalid);
        assert_eq!(measured.judge_stops(4_000).verdict, Verdict::Valid);
    }

    #[test]
    fn a_stop_that_never_ends_counts_to_the_end_of_the_attempts() {
        let history = [write(0, 0, S, Kind::Ok), write(0, 2 * S, 9 * S, Kind::Info)];
        let measured = measure(&history, &[fault(2 * S)]);
        assert_eq!(measured.outages[0].stop_ms, 8_000);
        assert_eq!(measured.outages[0].recovery_ms, None);
    }

    #[test]
    fn a_stop_counts_for_the_fault_it_belongs_to() {
        let history = [
            write(0, 0, 2 * S, Kind::Ok),
            write(0, 2 * S, 3 * S, Kind::Ok),
            write(0, 3 * S, 8 * S, Kind::Ok),
        ];
        let measured = measure(&history, &[fault(2 * S), fault(4 * S)]);
        let stops: Vec<i64> = measured.outages.iter().map(|o| o.stop_ms).collect();
        assert_eq!(stops, [1_000, 5_000]);
        assert_eq!(measured.stop_ms_longest, 5_000);
    }

    #[test]
    fn recovery_waits_for_the_slowest_register() {
        let history = [
            write(0, 3 * S, 4 * S, Kind::Ok),
            write(1, 3 * S, 4 * S, Kind::Info),
            write(1, 5 * S, 7 * S, Kind::Ok),
        ];
        let measured = measure(&history, &[fault(2 * S)]);
        assert_eq!(measured.outages[0].recovery_ms, Some(5_000));
        let before = measure(&history[..2], &[fault(2 * S)]);
        assert_eq!(before.outages[0].recovery_ms, None);
    }

    #[test]
    fn buckets_and_quantiles_count_what_ended() {
        let history: Vec<Entry> = (0..100)
            .map(|n| write(0, 0, (n + 1) * 1_000_000, Kind::Ok))
            .collect();
        let measured = measure(&history, &[]);
        assert_eq!(measured.nodes[1][0], Bucket { ok: 99, not_ok: 0 });
        assert_eq!(measured.nodes[1][1].ok, 1);
        assert_eq!(measured.latencies[0].p50_us, 50_000);
        assert_eq!(measured.latencies[0].max_us, 100_000);
        assert_eq!(measured.judge_stops(1).verdict, Verdict::Valid);
    }
}
