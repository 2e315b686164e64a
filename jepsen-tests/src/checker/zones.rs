//! Linearizability of registers whose written values are all different, decided completely in
//! O(n log n) by zones (Gibbons and Korach, "Testing shared memories", SIAM J. Comput. 26, 1997).
//!
//! A value's cluster is its write and the reads that saw it. With f the earliest finish and s the
//! latest start of a cluster, f < s means that the value was surely in the register from f to s (a
//! forward zone), else it need have been there at one instant of s..=f only (a backward zone).
//! The history is linearizable exactly when no read ends before its write begins, no read sees a
//! value that nobody wrote, no two forward zones overlap, and no backward zone lies inside a
//! forward one. The last two are one inequality: two zones clash iff f < s' and f' < s.
//!
//! A write in doubt takes effect at any time after its start or never: its finish is infinite, and
//! if no read saw it, it is left out. What it does not know: nodes, faults, HTTP.

use std::collections::BTreeMap;

use super::{Finding, Report};
use crate::history::{Call, Entry, INITIAL, Kind, Seen, TORN, TWICE};

/// One operation on one register; writes in doubt finish at `i64::MAX`.
#[derive(Debug, Clone, PartialEq)]
pub struct RegisterOp {
    pub i: u64,
    pub start: i64,
    pub finish: i64,
    pub write: bool,
    pub value: i64,
}

/// Why a history is not linearizable.
#[derive(Debug, Clone, PartialEq)]
pub enum Violation {
    /// A read saw what was never written, or only by a write that failed.
    Unwritten { read: u64, value: i64 },
    /// A read saw a value before its write began.
    FromTheFuture { read: u64, write: u64, value: i64 },
    /// Two values whose operations cannot be put in any order.
    Clash {
        first: i64,
        second: i64,
        ops: Vec<u64>,
    },
}

/// Checks all registers of a history.
pub fn check(history: &[Entry], registers: u32) -> Report {
    let mut findings = Vec::new();
    let mut checked = 0;
    for key in 0..registers {
        let ops = register_ops(history, key);
        checked += ops.len();
        let violations = violations(&ops);
        findings.extend(violations.into_iter().map(|v| v.finding(key)));
    }
    let summary = format!(
        "{registers} registers, {checked} operations, {} violations of linearizability",
        findings.len()
    );
    Report::from_findings("linearizable registers (zones)", summary, findings)
        .with("operations", checked)
}

/// The operations that count for register `key`.
pub fn register_ops(history: &[Entry], key: u32) -> Vec<RegisterOp> {
    history
        .iter()
        .filter_map(|entry| {
            let op = |write, value, finish| RegisterOp {
                i: entry.i,
                start: entry.t0,
                finish,
                write,
                value,
            };
            match (&entry.call, entry.kind, &entry.val) {
                (Call::Write { key: k, value }, Kind::Ok, _) if *k == key => {
                    Some(op(true, *value, entry.t1))
                }
                (Call::Write { key: k, value }, Kind::Info, _) if *k == key => {
                    Some(op(true, *value, i64::MAX))
                }
                (Call::Read, Kind::Ok, Some(Seen::Registers(values))) => {
                    let value = values.get(key as usize)?;
                    Some(op(false, *value, entry.t1))
                }
                _ => None,
            }
        })
        .collect()
}

struct Zone {
    value: i64,
    /// Earliest finish and latest start, with the operations that set them.
    finish: i64,
    start: i64,
    ops: [u64; 2],
}

/// Everything that keeps `ops`, on one register that begins as [`INITIAL`], from being
/// linearizable; nothing if they are. Written values must differ from each other and from
/// [`INITIAL`].
pub fn violations(ops: &[RegisterOp]) -> Vec<Violation> {
    let mut writes = BTreeMap::new();
    for op in ops.iter().filter(|op| op.write) {
        let twice = writes.insert(op.value, op);
        assert!(
            twice.is_none() && op.value != INITIAL,
            "values are unique: {op:?}"
        );
    }
    let mut found = Vec::new();
    let mut reads: BTreeMap<i64, Vec<&RegisterOp>> = BTreeMap::new();
    for read in ops.iter().filter(|op| !op.write) {
        match writes.get(&read.value) {
            Some(write) if read.finish < write.start => found.push(Violation::FromTheFuture {
                read: read.i,
                write: write.i,
                value: read.value,
            }),
            None if read.value != INITIAL => found.push(Violation::Unwritten {
                read: read.i,
                value: read.value,
            }),
            _ => reads.entry(read.value).or_default().push(read),
        }
    }
    let initial = RegisterOp {
        i: u64::MAX,
        start: i64::MIN,
        finish: i64::MIN,
        write: true,
        value: INITIAL,
    };
    let zones: Vec<Zone> = writes
        .values()
        .copied()
        .chain([&initial])
        .filter_map(|write| zone(write, reads.get(&write.value).map_or(&[], Vec::as_slice)))
        .collect();
    found.extend(clashes(zones));
    found
}

/// `None` for a write in doubt that nobody read.
fn zone(write: &RegisterOp, reads: &[&RegisterOp]) -> Option<Zone> {
    if reads.is_empty() && write.finish == i64::MAX {
        return None;
    }
    let mut zone = Zone {
        value: write.value,
        finish: write.finish,
        start: write.start,
        ops: [write.i; 2],
    };
    for read in reads {
        if read.finish < zone.finish {
            zone.finish = read.finish;
            zone.ops[0] = read.i;
        }
        if read.start > zone.start {
            zone.start = read.start;
            zone.ops[1] = read.i;
        }
    }
    Some(zone)
}

fn clashes(zones: Vec<Zone>) -> Vec<Violation> {
    let (mut forward, backward): (Vec<Zone>, Vec<Zone>) =
        zones.into_iter().partition(|zone| zone.finish < zone.start);
    forward.sort_by_key(|zone| zone.finish);
    let mut found = Vec::new();
    // The forward zone that reaches furthest among those before index `i`.
    let mut furthest: Vec<&Zone> = Vec::with_capacity(forward.len());
    for zone in &forward {
        match furthest.last() {
            Some(before) if zone.finish < before.start => found.push(clash(before, zone)),
            _ => {}
        }
        let reach = match furthest.last() {
            Some(before) if before.start >= zone.start => before,
            _ => zone,
        };
        furthest.push(reach);
    }
    for zone in &backward {
        let before = forward.partition_point(|f| f.finish < zone.start);
        let Some(around) = before.checked_sub(1).and_then(|n| furthest.get(n)) else {
            continue;
        };
        if zone.finish < around.start {
            found.push(clash(around, zone));
        }
    }
    found
}

fn clash(first: &Zone, second: &Zone) -> Violation {
    let mut ops: Vec<u64> = [first.ops, second.ops].concat();
    ops.retain(|i| *i != u64::MAX);
    ops.sort_unstable();
    ops.dedup();
    Violation::Clash {
        first: first.value,
        second: second.value,
        ops,
    }
}

impl Violation {
    fn finding(self, key: u32) -> Finding {
        match self {
            Self::Unwritten { read, value } => Finding {
                what: match value {
                    TORN => format!("register {key}: half a push was read"),
                    TWICE => format!("register {key} stands twice in one exposition"),
                    _ => format!("register {key}: {value} was read but never written"),
                },
                ops: vec![read],
            },
            Self::FromTheFuture { read, write, value } => Finding {
                what: format!("register {key}: {value} was read before its write began"),
                ops: vec![read, write],
            },
            Self::Clash { first, second, ops } => Finding {
                what: format!(
                    "register {key}: no order of the operations on {} and {} explains what was \
                     read",
                    shown(first),
                    shown(second)
                ),
                ops,
            },
        }
    }
}

fn shown(value: i64) -> String {
    match value {
        INITIAL => "the initial value".to_owned(),
        _ => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::brute;
    use super::*;
    use crate::checker::Verdict;
    use crate::splitmix::SplitMix64;

    fn write(i: u64, value: i64, start: i64, finish: i64) -> RegisterOp {
        RegisterOp {
            i,
            start,
            finish,
            write: true,
            value,
        }
    }

    fn read(i: u64, value: i64, start: i64, finish: i64) -> RegisterOp {
        RegisterOp {
            write: false,
            ..write(i, value, start, finish)
        }
    }

    fn entry(i: u64, call: Call, at: i64, kind: Kind, val: Option<Vec<i64>>) -> Entry {
        Entry {
            i,
            proc: i,
            node: 0,
            call,
            t0: at,
            t1: at + 5,
            kind,
            val: val.map(Seen::Registers),
            status: None,
            note: None,
            last: false,
        }
    }

    /// Two registers, written and read one after the other without overlap.
    fn sound() -> Vec<Entry> {
        let w = |i, key, value| entry(i, Call::Write { key, value }, i as i64 * 10, Kind::Ok, None);
        let r =
            |i, vals: [i64; 2]| entry(i, Call::Read, i as i64 * 10, Kind::Ok, Some(vals.into()));
        vec![
            r(0, [0, 0]),
            w(1, 0, 1),
            r(2, [1, 0]),
            w(3, 1, 2),
            w(4, 0, 3),
            r(5, [3, 2]),
            w(6, 0, 4),
            r(7, [4, 2]),
        ]
    }

    fn verdict(history: &[Entry]) -> Verdict {
        check(history, 2).verdict
    }

    #[test]
    fn a_sound_history_passes() {
        assert_eq!(verdict(&sound()), Verdict::Valid);
    }

    #[test]
    fn a_dropped_acknowledged_write_is_caught() {
        let mut broken = sound();
        broken[5].val = Some(Seen::Registers(vec![1, 2]));
        assert_eq!(verdict(&broken), Verdict::Invalid);
        let mut all_gone = sound();
        all_gone[7].val = Some(Seen::Registers(vec![0, 2]));
        assert_eq!(
            verdict(&all_gone),
            Verdict::Invalid,
            "back to the initial value"
        );
    }

    #[test]
    fn swapped_reads_are_caught() {
        let mut broken = sound();
        let (a, b) = (broken[2].val.clone(), broken[7].val.clone());
        broken[2].val = b;
        broken[7].val = a;
        assert_eq!(verdict(&broken), Verdict::Invalid);
    }

    #[test]
    fn a_stale_read_is_caught_and_names_its_operations() {
        let mut broken = sound();
        broken[7].val = Some(Seen::Registers(vec![3, 2]));
        let report = check(&broken, 2);
        assert_eq!(report.verdict, Verdict::Invalid);
        assert!(report.findings[0].ops.contains(&7), "{:?}", report.findings);
    }

    #[test]
    fn phantoms_halves_and_doubles_are_caught() {
        for value in [99, TORN, TWICE] {
            let mut broken = sound();
            broken[5].val = Some(Seen::Registers(vec![value, 2]));
            assert_eq!(verdict(&broken), Verdict::Invalid, "{value}");
        }
        let mut failed = sound();
        failed[4].kind = Kind::Fail;
        assert_eq!(
            verdict(&failed),
            Verdict::Invalid,
            "a failed write was read"
        );
    }

    #[test]
    fn a_write_in_doubt_may_count_later_or_never() {
        let mut seen_late = sound();
        seen_late[4].kind = Kind::Info;
        assert_eq!(verdict(&seen_late), Verdict::Valid);
        let mut never = sound();
        never[4].kind = Kind::Info;
        never[5].val = Some(Seen::Registers(vec![1, 2]));
        assert_eq!(verdict(&never), Verdict::Valid);
        // But once seen it stays until the next write.
        let mut seen_and_gone = sound();
        seen_and_gone[4].kind = Kind::Info;
        seen_and_gone[6].kind = Kind::Fail;
        seen_and_gone[7].val = Some(Seen::Registers(vec![1, 2]));
        assert_eq!(verdict(&seen_and_gone), Verdict::Invalid);
    }

    #[test]
    fn a_double_effect_of_one_write_is_caught() {
        // 1 written, 2 written, 1 seen again: a retried request took effect twice.
        let ops = [
            write(0, 1, 0, 10),
            write(1, 2, 20, 30),
            read(2, 2, 31, 32),
            read(3, 1, 40, 50),
        ];
        assert!(!violations(&ops).is_empty());
    }

    /// Small histories with many ties: the zone rule and the search over all orders must agree.
    #[test]
    fn zones_agree_with_the_search_over_all_orders() {
        let mut dice = SplitMix64::new(20_260);
        let mut counts = [0, 0];
        for case in 0..40_000 {
            let ops = random_history(&mut dice);
            let linearizable = brute::linearizable(&ops);
            let found = violations(&ops);
            assert_eq!(
                found.is_empty(),
                linearizable,
                "case {case}: {ops:?} {found:?}"
            );
            counts[usize::from(linearizable)] += 1;
        }
        assert!(
            counts.iter().all(|&n| n > 4_000),
            "both verdicts: {counts:?}"
        );
    }

    fn random_history(dice: &mut SplitMix64) -> Vec<RegisterOp> {
        let writes = dice.between(1, 5);
        let reads = dice.between(1, 6);
        let span = dice.between(4, 30);
        let interval = |dice: &mut SplitMix64| {
            let start = dice.between(0, span) as i64;
            (start, start + dice.between(0, span / 2 + 1) as i64)
        };
        let mut ops = Vec::new();
        for i in 0..writes {
            let (start, finish) = interval(dice);
            let finish = if dice.chance(15) { i64::MAX } else { finish };
            ops.push(write(i, i as i64 + 1, start, finish));
        }
        for i in writes..writes + reads {
            let (start, finish) = interval(dice);
            // Mostly a value whose write is near; sometimes any, sometimes one never written.
            let near: Vec<i64> = ops
                .iter()
                .filter(|op| op.write && op.start <= finish && op.start + 8 > start)
                .map(|op| op.value)
                .collect();
            let value = match (near.is_empty(), dice.chance(80)) {
                (false, true) => near[dice.between(0, near.len() as u64) as usize],
                _ => dice.between(0, writes + 2) as i64,
            };
            ops.push(read(i, value, start, finish));
        }
        ops
    }

    #[test]
    fn a_long_history_is_checked_whole() {
        let mut ops = Vec::new();
        for n in 0..100_000_i64 {
            ops.push(write(n as u64 * 2, n + 1, n * 10, n * 10 + 15));
            ops.push(read(n as u64 * 2 + 1, n + 1, n * 10 + 6, n * 10 + 9));
        }
        assert_eq!(violations(&ops), []);
        ops[100_001].value = 40_000;
        assert!(!violations(&ops).is_empty());
    }
}
