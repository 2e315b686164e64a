//! Whether the processes behaved as processes: none ended by itself, none panicked, a polite stop
//! was obeyed, and after the last fault all came back.

use super::{Evidence, Finding, Report};
use crate::plan::FaultKind;

pub fn check(evidence: &Evidence) -> Report {
    let finding = |what: String| Finding {
        what,
        ops: Vec::new(),
    };
    let mut findings = Vec::new();
    for fault in &evidence.faults {
        let note = fault.note.as_deref().unwrap_or("");
        if fault.kind == FaultKind::Died {
            findings.push(finding(format!(
                "node {:?} ended by itself: {note}",
                fault.nodes
            )));
        } else if fault.kind == FaultKind::Restart && !fault.done {
            findings.push(finding(note.to_owned()));
        }
    }
    for (node, line) in &evidence.panics {
        findings.push(finding(format!("node {node} panicked: {line}")));
    }
    if !evidence.ending.converged {
        findings.push(finding(
            "not all nodes became ready after the faults".to_owned(),
        ));
    }
    for read in &evidence.ending.unserved {
        findings.push(finding(format!("not served after the faults: {read}")));
    }
    let summary = format!(
        "{} faults carried out, {} processes misbehaved",
        evidence
            .faults
            .iter()
            .filter(|f| f.done && f.kind != FaultKind::Died)
            .count(),
        findings.len()
    );
    Report::from_findings("processes", summary, findings)
}

/// Lines of a log that tell of a panic.
pub fn panics(log: &str) -> Vec<String> {
    log.lines()
        .filter(|line| line.contains("panicked at"))
        .map(|line| line.chars().take(300).collect())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::coverage::tests::sound;
    use super::*;
    use crate::checker::Verdict;

    #[test]
    fn a_quiet_run_passes_and_every_misbehaviour_fails() {
        assert_eq!(check(&sound()).verdict, Verdict::Valid);
        let broken = |change: fn(&mut Evidence)| {
            let mut evidence = sound();
            change(&mut evidence);
            check(&evidence).verdict
        };
        assert_eq!(
            broken(|e| e.faults[0].kind = FaultKind::Died),
            Verdict::Invalid
        );
        assert_eq!(broken(|e| e.ending.converged = false), Verdict::Invalid);
        assert_eq!(
            broken(|e| e.panics.push((1, "boom".into()))),
            Verdict::Invalid
        );
        let silent = broken(|e| e.ending.unserved.push("scan on node 1".into()));
        assert_eq!(silent, Verdict::Invalid);
        let stuck = broken(|e| {
            e.faults[0].kind = FaultKind::Restart;
            e.faults[0].done = false;
        });
        assert_eq!(stuck, Verdict::Invalid);
    }

    #[test]
    fn panics_are_found_in_a_log() {
        let log = "info ready\nthread 'main' panicked at src/main.rs:1:2:\nboom\n";
        assert_eq!(panics(log).len(), 1);
        assert!(panics("info all is well").is_empty());
    }
}
