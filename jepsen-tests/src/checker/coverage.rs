//! Whether the run saw enough to say anything: enough operations of each kind succeeded, each
//! planned kind of fault struck while operations were under way, every node was read at the end,
//! and what is on the disks was read after a restart of all. Too little is *unknown*: this checker
//! never says invalid, and without its *valid* no run passes.

use std::collections::BTreeMap;

use super::{Evidence, Finding, Report, Verdict};
use crate::history::{Entry, FaultRecord, Kind};
use crate::plan::{FaultKind, Plan};

/// Of the operations planned, so many percent must have succeeded, and never fewer than the floor
/// (or all that were planned).
const OK_PERCENT_MIN: u64 = 10;
const OK_FLOOR: u64 = 10;
/// An operation is beside a fault when it overlaps it or this time after.
const AFTERMATH_NS: i64 = 2_000_000_000;

pub fn check(evidence: &Evidence) -> Report {
    let mut gaps = Vec::new();
    operations(&evidence.plan, &evidence.history, &mut gaps);
    if evidence.ending.local {
        faults(
            &evidence.plan,
            &evidence.history,
            &evidence.faults,
            &mut gaps,
        );
        if !evidence.ending.restarted {
            gaps.push("the disks were not read after a restart of all nodes".to_owned());
        }
    }
    last_reads(evidence, &mut gaps);
    let summary = match gaps.len() {
        0 => "enough operations, every kind of fault, every node read at the end".to_owned(),
        n => format!("{n} gaps"),
    };
    let findings = gaps
        .into_iter()
        .map(|what| Finding {
            what,
            ops: Vec::new(),
        })
        .collect();
    let mut report = Report::from_findings("coverage", summary, findings);
    if report.verdict == Verdict::Invalid {
        report.verdict = Verdict::Unknown;
    }
    report.with(
        "operations_beside_faults",
        serde_json::json!(matrix(&evidence.history, &evidence.faults)),
    )
}

fn operations(plan: &Plan, history: &[Entry], gaps: &mut Vec<String>) {
    let mut planned: BTreeMap<&str, u64> = BTreeMap::new();
    for op in plan.lanes.iter().flat_map(|lane| &lane.ops) {
        *planned.entry(op.call.name()).or_default() += 1;
    }
    if planned.is_empty() {
        gaps.push("no operation was planned".to_owned());
    }
    for (f, planned) in planned {
        let ok = history
            .iter()
            .filter(|e| e.call.name() == f && e.kind == Kind::Ok && !e.last)
            .count() as u64;
        let needed = (planned * OK_PERCENT_MIN / 100).max(OK_FLOOR).min(planned);
        if ok < needed {
            gaps.push(format!(
                "{ok} of {planned} {f} operations succeeded, {needed} are needed"
            ));
        }
    }
}

fn faults(plan: &Plan, history: &[Entry], records: &[FaultRecord], gaps: &mut Vec<String>) {
    let matrix = matrix(history, records);
    for kind in &plan.settings.nemeses {
        match matrix.get(kind.as_str()) {
            None => gaps.push(format!("{} never struck as planned", kind.as_str())),
            Some(beside) if beside.is_empty() => {
                gaps.push(format!("no operation was beside {}", kind.as_str()));
            }
            Some(_) => {}
        }
    }
}

/// By kind of fault, how many operations of each kind were beside one.
fn matrix(
    history: &[Entry],
    records: &[FaultRecord],
) -> BTreeMap<&'static str, BTreeMap<&'static str, u64>> {
    let mut matrix: BTreeMap<_, BTreeMap<_, u64>> = BTreeMap::new();
    for fault in records
        .iter()
        .filter(|f| f.done && f.kind != FaultKind::Died)
    {
        let row = matrix.entry(fault.kind.as_str()).or_default();
        for entry in history {
            if entry.t1 >= fault.t0 && entry.t0 <= fault.t1 + AFTERMATH_NS {
                *row.entry(entry.call.name()).or_default() += 1;
            }
        }
    }
    matrix
}

fn last_reads(evidence: &Evidence, gaps: &mut Vec<String>) {
    for node in 0..evidence.plan.settings.nodes {
        let read = |e: &&Entry| e.last && e.node == node && e.val.is_some();
        if !evidence.history.iter().any(|e| read(&e)) {
            gaps.push(format!("node {node} was not read at the end"));
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::checker::Ending;
    use crate::history::{Call, Seen};
    use crate::plan::{Settings, generate};

    /// A run in which all went well.
    pub(crate) fn sound() -> Evidence {
        let settings = Settings {
            seconds: 2,
            nemeses: vec![FaultKind::Pause],
            workloads: vec![crate::plan::Workload::Register],
            ..Settings::default()
        };
        let plan = generate(settings).unwrap();
        let entry = |i: usize, call: &Call, node, last: bool| Entry {
            i: i as u64,
            proc: 0,
            node,
            call: call.clone(),
            t0: i as i64,
            t1: i as i64 + 1,
            kind: Kind::Ok,
            val: last.then(|| Seen::Registers(vec![0; 5])),
            status: Some(200),
            note: None,
            last,
        };
        let ops = plan.lanes.iter().flat_map(|lane| &lane.ops);
        let mut history: Vec<Entry> = ops
            .enumerate()
            .map(|(i, op)| entry(i, &op.call, op.node, false))
            .collect();
        let end = history.len();
        history.extend((0..3).map(|node| entry(end + node, &Call::Read, node, true)));
        let faults = vec![FaultRecord {
            kind: FaultKind::Pause,
            nodes: vec![0],
            t0: 5,
            t1: 9,
            ready: Some(9),
            done: true,
            note: None,
        }];
        Evidence {
            plan,
            history,
            faults,
            ending: Ending {
                run: "t".into(),
                base_ms: 0,
                local: true,
                converged: true,
                restarted: true,
                unserved: Vec::new(),
            },
            panics: Vec::new(),
        }
    }

    fn verdict(change: impl FnOnce(&mut Evidence)) -> Verdict {
        let mut evidence = sound();
        change(&mut evidence);
        check(&evidence).verdict
    }

    #[test]
    fn a_full_run_is_enough_and_each_gap_is_unknown() {
        assert_eq!(verdict(|_| ()), Verdict::Valid);
        let none_ok = |e: &mut Evidence| e.history.iter_mut().for_each(|e| e.kind = Kind::Info);
        assert_eq!(verdict(none_ok), Verdict::Unknown);
        assert_eq!(verdict(|e| e.faults.clear()), Verdict::Unknown);
        assert_eq!(verdict(|e| e.faults[0].done = false), Verdict::Unknown);
        assert_eq!(verdict(|e| e.faults[0].t0 = i64::MAX), Verdict::Unknown);
        assert_eq!(verdict(|e| e.ending.restarted = false), Verdict::Unknown);
        assert_eq!(verdict(|e| drop(e.history.pop())), Verdict::Unknown);
    }

    #[test]
    fn foreign_nodes_need_no_faults_of_ours() {
        let foreign = |e: &mut Evidence| {
            e.ending.local = false;
            e.ending.restarted = false;
            e.faults.clear();
        };
        assert_eq!(verdict(foreign), Verdict::Valid);
    }
}
