//! What is known about a run while it goes on; shared by the machines and by what stands outside.
//!
//! Everything is in one thread, so the lock is never waited for; it must not be held over an
//! await.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use model::{GroupId, NodeId};

use crate::history::Violation;
use crate::history::deletions::Deletions;
use crate::history::groups::Groups;
use crate::history::replicas::Replicas;
use crate::history::samples::Samples;
use crate::history::sums::Sums;
use crate::history::words::Words;
use crate::trace::Trace;

/// What the machines are asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Clients write and read, under faults.
    Load,
    /// Faults are over: become ready, take a write and a push.
    Settle,
    /// Show everything, and be alike.
    Verify,
    /// The power of all was cut: as [`Stage::Settle`].
    SettleAgain,
    VerifyAgain,
}

/// How a node's life ended by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    NotStarted(String),
    Failed(String),
    Stopped,
}

/// One machine, over all lives of its node.
#[derive(Debug, Default)]
pub struct Machine {
    pub lives: u64,
    pub node: Option<NodeId>,
    /// A disk fault was set: the node may end itself.
    pub excused: bool,
    pub stop_asked: bool,
    pub ending: Option<Ending>,
    /// What its node says of itself; empty when it is ready.
    pub unready: String,
    pub done: Option<Stage>,
}

/// The state of a run.
pub struct Record {
    pub trace: Trace,
    pub samples: Samples,
    pub groups: Groups,
    pub sums: Sums,
    pub words: Words,
    pub deletions: Deletions,
    pub replicas: Replicas,
    pub machines: Vec<Machine>,
    /// The newest leader seen of each group, as a machine, and its term.
    pub leaders: BTreeMap<GroupId, (u64, usize)>,
    pub stage: Stage,
    pub violation: Option<Violation>,
    /// Strong reads answered.
    pub reads: u64,
    /// Up to where the simulation has stepped.
    pub stepped_to: Duration,
}

impl Record {
    pub fn new(trace: Trace, machines: usize) -> Self {
        Self {
            trace,
            samples: Samples::default(),
            groups: Groups::default(),
            sums: Sums::default(),
            words: Words::default(),
            deletions: Deletions::default(),
            replicas: Replicas::default(),
            machines: (0..machines).map(|_| Machine::default()).collect(),
            leaders: BTreeMap::new(),
            stage: Stage::Load,
            violation: None,
            reads: 0,
            stepped_to: Duration::ZERO,
        }
    }

    /// Adds an event to the trace.
    pub fn note(&mut self, who: &str, what: impl fmt::Display) {
        let now = turmoil::sim_elapsed().unwrap_or(self.stepped_to);
        self.trace.line(now, who, what);
    }

    /// What is older than `at` may have gone with its age.
    pub fn keep_from(&mut self, at: i64) {
        for kept_from in [
            &mut self.samples.kept_from,
            &mut self.sums.kept_from,
            &mut self.deletions.kept_from,
        ] {
            *kept_from = at.max(*kept_from);
        }
    }

    /// Keeps the first violation, with its place in the trace.
    pub fn check(&mut self, who: &str, result: Result<(), Violation>) {
        if let Err(violation) = result {
            self.note(who, format_args!("VIOLATION {}", violation.0));
            self.violation.get_or_insert(violation);
        }
    }

    /// Which machine a node runs on.
    pub fn machine_of(&self, node: NodeId) -> Option<usize> {
        self.machines
            .iter()
            .position(|machine| machine.node == Some(node))
    }

    pub fn all_done(&self, stage: Stage) -> bool {
        self.machines
            .iter()
            .all(|machine| machine.done >= Some(stage))
    }
}

/// Shares a record.
pub struct Shared(Mutex<Record>);

impl Shared {
    pub fn new(record: Record) -> Self {
        Self(Mutex::new(record))
    }

    pub fn lock(&self) -> MutexGuard<'_, Record> {
        self.0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
