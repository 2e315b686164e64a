//! From a seed to everything a run will do: which lane sends what to which node when, and which
//! fault strikes when. Generated whole before the first process starts, kept as `plan.json`.
//!
//! The same [`Settings`] give the same plan, byte for byte. Carrying it out twice gives similar
//! conditions, not the same history: real processes are not deterministic.

use std::collections::BTreeSet;

use anyhow::bail;
use serde::{Deserialize, Serialize};

use crate::history::Call;
use crate::splitmix::SplitMix64;

/// What is asked of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Workload {
    Register,
    Append,
    Load,
}

/// What is done to it. [`FaultKind::Died`] is never planned: a process ended by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultKind {
    KillOne,
    KillLeader,
    KillAll,
    Pause,
    Restart,
    Died,
}

impl FaultKind {
    pub const PLANNABLE: [Self; 5] = [
        Self::KillOne,
        Self::KillLeader,
        Self::KillAll,
        Self::Pause,
        Self::Restart,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::KillOne => "kill-one",
            Self::KillLeader => "kill-leader",
            Self::KillAll => "kill-all",
            Self::Pause => "pause",
            Self::Restart => "restart",
            Self::Died => "died",
        }
    }

    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let known = Self::PLANNABLE;
        match known.into_iter().find(|kind| kind.as_str() == text) {
            Some(kind) => Ok(kind),
            None => bail!(
                "no nemesis {text:?}; there are {}",
                known.map(Self::as_str).join(", ")
            ),
        }
    }
}

impl Workload {
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        match text {
            "register" => Ok(Self::Register),
            "append" => Ok(Self::Append),
            "load" => Ok(Self::Load),
            _ => bail!("no workload {text:?}; there are register, append, load"),
        }
    }
}

/// What a plan is made from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    pub seed: u64,
    pub seconds: u64,
    pub nodes: usize,
    pub workloads: Vec<Workload>,
    pub nemeses: Vec<FaultKind>,
    /// Push groups of the register workload.
    pub registers: u32,
    /// Series of the append or load workload.
    pub series: u32,
    /// Load only: lanes, and the pause between two requests of one lane.
    pub senders: usize,
    pub interval_ms: u64,
    /// One fault each so many milliseconds; 0 lets the plan fit every kind into the time.
    pub fault_every_ms: u64,
    /// How long a client waits for an answer.
    pub deadline_ms: u64,
    /// Load only: the longest stop of writes that passes.
    pub stop_ms_max: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            seed: 1,
            seconds: 60,
            nodes: 3,
            workloads: vec![Workload::Register, Workload::Append],
            nemeses: FaultKind::PLANNABLE.to_vec(),
            registers: 5,
            series: 24,
            senders: 4,
            interval_ms: 500,
            fault_every_ms: 0,
            deadline_ms: 2_000,
            stop_ms_max: 3_000,
        }
    }
}

/// One operation: not before `at_ms`, to `node`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlannedOp {
    pub at_ms: u64,
    pub node: usize,
    #[serde(flatten)]
    pub call: Call,
}

/// A sequence of operations, one at a time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Lane {
    /// Send again, to the next node, until it is acknowledged.
    pub resend: bool,
    pub ops: Vec<PlannedOp>,
}

/// One fault: at `at_ms`, undone `down_ms` later.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fault {
    pub at_ms: u64,
    pub kind: FaultKind,
    /// The victim where the kind leaves a choice.
    pub node: usize,
    pub down_ms: u64,
    /// Strike even when the cluster has not recovered from the fault before.
    pub stack: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    #[serde(flatten)]
    pub settings: Settings,
    pub lanes: Vec<Lane>,
    pub faults: Vec<Fault>,
}

/// Samples are spread this far into the past, inside the store's out-of-order window (30 min).
const APPEND_SPREAD_MS: u64 = 600_000;
/// Quiet time before the first fault.
const LEAD_MS: u64 = 1_500;

/// Draws the plan.
pub fn generate(settings: Settings) -> anyhow::Result<Plan> {
    if settings.nodes == 0 || settings.seconds == 0 {
        bail!("a run needs nodes and seconds");
    }
    if settings.workloads.contains(&Workload::Load) && settings.workloads.len() > 1 {
        bail!("load runs alone: it is measured");
    }
    let mut dice = SplitMix64::new(settings.seed);
    let mut lanes = Vec::new();
    for workload in &settings.workloads {
        let mut dice = SplitMix64::new(dice.word());
        match workload {
            Workload::Register => register_lanes(&settings, &mut dice, &mut lanes),
            Workload::Append => append_lanes(&settings, &mut dice, &mut lanes),
            Workload::Load => load_lanes(&settings, &mut lanes),
        }
    }
    let faults = faults(&settings, &mut SplitMix64::new(dice.word()));
    Ok(Plan {
        settings,
        lanes,
        faults,
    })
}

fn register_lanes(settings: &Settings, dice: &mut SplitMix64, lanes: &mut Vec<Lane>) {
    let mut value = 0;
    for _ in 0..settings.nodes * 2 {
        let ops = timed(settings, dice, 20, 80, |dice| {
            if dice.chance(40) {
                return Call::Read;
            }
            value += 1;
            let key = dice.between(0, u64::from(settings.registers)) as u32;
            Call::Write { key, value }
        });
        lanes.push(Lane { resend: false, ops });
    }
}

fn append_lanes(settings: &Settings, dice: &mut SplitMix64, lanes: &mut Vec<Lane>) {
    let mut used = BTreeSet::new();
    let series = |dice: &mut SplitMix64| dice.between(0, u64::from(settings.series)) as u32;
    for _ in 0..settings.nodes {
        let mut earlier: Vec<Call> = Vec::new();
        let ops = timed(settings, dice, 30, 100, |dice| {
            if dice.chance(10) {
                return Call::Scan {
                    first: series(dice),
                    count: 1,
                };
            }
            if dice.chance(10) && !earlier.is_empty() {
                // An identical request sent again must be a no-op, however the first one ended.
                return earlier[dice.between(0, earlier.len() as u64) as usize].clone();
            }
            let mut samples = Vec::new();
            for _ in 0..dice.between(1, 9) {
                let sample = (series(dice), -(dice.between(0, APPEND_SPREAD_MS) as i64));
                if used.insert(sample) {
                    samples.push(sample);
                }
            }
            if samples.is_empty() {
                return Call::Scan {
                    first: series(dice),
                    count: 1,
                };
            }
            let call = Call::Append { samples };
            earlier.push(call.clone());
            call
        });
        lanes.push(Lane { resend: false, ops });
    }
}

fn load_lanes(settings: &Settings, lanes: &mut Vec<Lane>) {
    let senders = settings.senders.max(1);
    let interval_ms = settings.interval_ms.max(senders as u64);
    for sender in 0..senders {
        // Staggered, so that no two requests share a timestamp.
        let first_ms = interval_ms * sender as u64 / senders as u64;
        let ops = (first_ms..settings.seconds * 1000)
            .step_by(interval_ms as usize)
            .enumerate()
            .map(|(n, at_ms)| PlannedOp {
                at_ms,
                node: (sender + n) % settings.nodes,
                call: Call::Sweep { at: at_ms as i64 },
            })
            .collect();
        lanes.push(Lane { resend: true, ops });
    }
}

fn timed(
    settings: &Settings,
    dice: &mut SplitMix64,
    low_ms: u64,
    high_ms: u64,
    mut call: impl FnMut(&mut SplitMix64) -> Call,
) -> Vec<PlannedOp> {
    let mut ops = Vec::new();
    let mut at_ms = dice.between(0, high_ms);
    while at_ms < settings.seconds * 1000 {
        ops.push(PlannedOp {
            at_ms,
            node: dice.between(0, settings.nodes as u64) as usize,
            call: call(dice),
        });
        at_ms += dice.between(low_ms, high_ms);
    }
    ops
}

/// Every kind once, in drawn order, then any kind, as the time allows.
fn faults(settings: &Settings, dice: &mut SplitMix64) -> Vec<Fault> {
    let mut kinds = settings.nemeses.clone();
    if kinds.is_empty() {
        return Vec::new();
    }
    dice.shuffle(&mut kinds);
    let load = settings.workloads == [Workload::Load];
    let run_ms = settings.seconds * 1000;
    let slot_ms = match settings.fault_every_ms {
        0 => (run_ms.saturating_sub(LEAD_MS) / kinds.len() as u64).clamp(2_000, 7_000),
        every => every,
    };
    let lead_ms = if load { slot_ms } else { LEAD_MS };
    let last_ms = run_ms.saturating_sub(slot_ms / 2);
    (lead_ms..last_ms)
        .step_by(slot_ms as usize)
        .enumerate()
        .map(|(n, at_ms)| Fault {
            at_ms: at_ms
                + if load {
                    0
                } else {
                    dice.between(0, slot_ms / 8)
                },
            kind: match kinds.get(n) {
                Some(&kind) => kind,
                None => kinds[dice.between(0, kinds.len() as u64) as usize],
            },
            node: dice.between(0, settings.nodes as u64) as usize,
            down_ms: match load {
                true => dice.between(slot_ms / 5, slot_ms * 2 / 5),
                false => dice.between(slot_ms / 10, slot_ms / 2),
            },
            stack: !load && dice.chance(20),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_seed(seed: u64) -> Plan {
        generate(Settings {
            seed,
            ..Settings::default()
        })
        .unwrap()
    }

    #[test]
    fn one_seed_one_plan() {
        assert_eq!(with_seed(7), with_seed(7));
        assert_ne!(with_seed(7).lanes, with_seed(8).lanes);
        let text = serde_json::to_string(&with_seed(7)).unwrap();
        assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), with_seed(7));
    }

    #[test]
    fn every_nemesis_is_planned_and_every_value_is_unique() {
        let plan = with_seed(3);
        for kind in FaultKind::PLANNABLE {
            assert!(plan.faults.iter().any(|f| f.kind == kind), "{kind:?}");
        }
        let mut values = BTreeSet::new();
        let calls = || plan.lanes.iter().flat_map(|l| &l.ops).map(|op| &op.call);
        for call in calls() {
            if let Call::Write { value, .. } = call {
                assert!(values.insert(*value));
            }
        }
        assert!(values.len() > 1000);
        let appends: Vec<_> = calls().filter(|c| c.name() == "append").collect();
        let distinct: BTreeSet<_> = appends.iter().map(|c| format!("{c:?}")).collect();
        assert!(
            distinct.len() < appends.len(),
            "some requests are sent again"
        );
    }

    #[test]
    fn load_sweeps_never_share_a_timestamp_and_fall_on_every_node() {
        let plan = generate(Settings {
            workloads: vec![Workload::Load],
            nemeses: vec![FaultKind::KillLeader],
            seconds: 60,
            fault_every_ms: 10_000,
            ..Settings::default()
        })
        .unwrap();
        let mut seen = BTreeSet::new();
        let mut nodes = BTreeSet::new();
        for op in plan.lanes.iter().flat_map(|l| &l.ops) {
            let Call::Sweep { at } = op.call else {
                panic!("{op:?}")
            };
            assert!(seen.insert(at));
            nodes.insert(op.node);
        }
        assert_eq!((plan.lanes.len(), nodes.len()), (4, 3));
        let at: Vec<u64> = plan.faults.iter().map(|f| f.at_ms).collect();
        assert_eq!(at, [10_000, 20_000, 30_000, 40_000, 50_000]);
    }

    #[test]
    fn load_runs_alone() {
        let both = Settings {
            workloads: vec![Workload::Load, Workload::Append],
            ..Settings::default()
        };
        assert!(generate(both).is_err());
        assert!(FaultKind::parse("died").is_err());
    }
}
