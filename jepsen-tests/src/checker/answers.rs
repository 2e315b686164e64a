//! Answers the contract does not allow, whatever the faults: a refusal (4xx) of a request that is
//! right, a redirect, a 2xx whose body cannot be read. "Try later" (429) and every 5xx are allowed.

use std::collections::BTreeMap;

use super::{Finding, Report};
use crate::history::{Entry, Kind};

const TOO_MANY_REQUESTS: u16 = 429;

pub fn check(history: &[Entry]) -> Report {
    let mut statuses: BTreeMap<String, u64> = BTreeMap::new();
    let mut findings = Vec::new();
    for entry in history {
        let Some(status) = entry.status else {
            continue;
        };
        *statuses.entry(status.to_string()).or_default() += 1;
        if !allowed(status, entry.kind) {
            findings.push(Finding {
                what: format!(
                    "{} on node {} was answered {status}: {}",
                    entry.call.name(),
                    entry.node,
                    entry.note.as_deref().unwrap_or("")
                ),
                ops: vec![entry.i],
            });
        }
    }
    let summary = format!(
        "{} answers, {} that the contract does not allow",
        statuses.values().sum::<u64>(),
        findings.len()
    );
    Report::from_findings("answers", summary, findings)
        .with("statuses", serde_json::json!(statuses))
}

fn allowed(status: u16, kind: Kind) -> bool {
    match status {
        200..=299 => kind == Kind::Ok,
        TOO_MANY_REQUESTS => true,
        500..=599 => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::Verdict;
    use crate::history::Call;

    #[test]
    fn refusals_redirects_and_unreadable_answers_are_caught() {
        let verdict = |status, kind| {
            let entry = Entry {
                i: 1,
                proc: 0,
                node: 0,
                call: Call::Read,
                t0: 0,
                t1: 1,
                kind,
                val: None,
                status,
                note: None,
                last: false,
            };
            check(&[entry]).verdict
        };
        assert_eq!(verdict(Some(200), Kind::Ok), Verdict::Valid);
        assert_eq!(verdict(Some(503), Kind::Info), Verdict::Valid);
        assert_eq!(verdict(Some(429), Kind::Info), Verdict::Valid);
        assert_eq!(verdict(None, Kind::Info), Verdict::Valid);
        assert_eq!(verdict(Some(200), Kind::Info), Verdict::Invalid);
        assert_eq!(verdict(Some(400), Kind::Fail), Verdict::Invalid);
        assert_eq!(verdict(Some(307), Kind::Info), Verdict::Invalid);
    }
}
