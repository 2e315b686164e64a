//! Judges: pure functions from what was recorded to a [`Report`]. None of them touches a process,
//! a socket or a clock, so a run can be judged again at any time, and each is tested with
//! histories that were broken on purpose.

pub mod answers;
pub mod availability;
pub mod coverage;
pub mod set_full;
pub mod survival;
pub mod zones;

#[cfg(test)]
mod brute;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::history::{Entry, FaultRecord};
use crate::plan::{Plan, Workload};

/// Ordered from good to bad; the verdict of a run is the worst of its checkers'.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Valid,
    /// Nothing wrong was seen, and too little was seen to say more.
    Unknown,
    Invalid,
}

impl Verdict {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Valid => "valid",
            Self::Unknown => "unknown",
            Self::Invalid => "invalid",
        }
    }
}

/// One thing that must not be, and the operations that show it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    pub what: String,
    pub ops: Vec<u64>,
}

/// What one checker says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub checker: String,
    pub verdict: Verdict,
    pub summary: String,
    /// Figures by name.
    pub facts: BTreeMap<String, serde_json::Value>,
    /// The first findings; `facts` may hold how many there are.
    pub findings: Vec<Finding>,
}

/// Findings kept in a report.
const FINDINGS_MAX: usize = 50;

impl Report {
    /// Invalid if there is any finding, valid otherwise.
    pub fn from_findings(checker: &str, summary: String, mut findings: Vec<Finding>) -> Self {
        let verdict = match findings.is_empty() {
            true => Verdict::Valid,
            false => Verdict::Invalid,
        };
        let mut facts = BTreeMap::new();
        facts.insert("violations".to_owned(), findings.len().into());
        findings.truncate(FINDINGS_MAX);
        Self {
            checker: checker.to_owned(),
            verdict,
            summary,
            facts,
            findings,
        }
    }

    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<serde_json::Value>) -> Self {
        self.facts.insert(name.to_owned(), value.into());
        self
    }
}

/// Everything a run left behind that a judge may look at.
#[derive(Debug, Clone, PartialEq)]
pub struct Evidence {
    pub plan: Plan,
    pub history: Vec<Entry>,
    pub faults: Vec<FaultRecord>,
    pub ending: Ending,
    /// Panic messages found in the nodes' logs, by node.
    pub panics: Vec<(usize, String)>,
}

/// How the run ended, after the faults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ending {
    pub run: String,
    pub base_ms: i64,
    /// The harness started the nodes itself, so faults and restarts were its own.
    pub local: bool,
    /// Every node was ready again after the faults, and after the last restart of all.
    pub converged: bool,
    pub restarted: bool,
    /// Final reads that got no good answer, however often they were tried.
    pub unserved: Vec<String>,
}

/// All reports and the verdict of the whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Results {
    pub verdict: Verdict,
    pub reports: Vec<Report>,
    pub availability: availability::Availability,
}

/// Judges a run.
pub fn judge(evidence: &Evidence) -> Results {
    let history = &evidence.history;
    let plan = &evidence.plan;
    let mut reports = Vec::new();
    for workload in &plan.settings.workloads {
        match workload {
            Workload::Register => reports.push(zones::check(history, plan.settings.registers)),
            Workload::Append | Workload::Load => {
                reports.push(set_full::check(history, plan.settings.series));
            }
        }
    }
    let availability = availability::measure(history, &evidence.faults);
    if plan.settings.workloads.contains(&Workload::Load) {
        reports.push(availability.judge_stops(plan.settings.stop_ms_max));
    }
    reports.push(answers::check(history));
    reports.push(survival::check(evidence));
    reports.push(coverage::check(evidence));
    Results {
        verdict: reports
            .iter()
            .map(|r| r.verdict)
            .max()
            .unwrap_or(Verdict::Unknown),
        reports,
        availability,
    }
}
