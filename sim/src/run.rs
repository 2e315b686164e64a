//! One whole run: form, suffer, heal, show; lose all power, and show again.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use model::ShardId;

use crate::history::{Violation, violation};
use crate::nemesis::Nemesis;
use crate::node::{Sabotage, name_of};
use crate::record::{Record, Shared, Stage};
use crate::scene::{Crash, Scene};
use crate::swarm::{FOUNDERS, Plan};
use crate::trace::Trace;

/// A cluster without faults is formed and ready by then.
const FORMED_WITHIN: Duration = Duration::from_secs(30);
/// After the faults are over: back, in agreement, and serving.
const SETTLED_WITHIN: Duration = Duration::from_secs(90);
const VERIFIED_WITHIN: Duration = Duration::from_secs(60);
/// Fewer acknowledged rows or pushes than this prove nothing.
const ROWS_MIN: u64 = 10;
const PUSHES_MIN: usize = 3;

/// What came of a run.
pub struct Outcome {
    pub verdict: Result<(), Violation>,
    pub trace: u64,
    pub summary: String,
}

/// Runs a plan to its end. `out` takes the trace's lines.
pub fn run(plan: Plan, sabotage: Sabotage, out: Option<Box<dyn Write + Send>>) -> Outcome {
    let plan = Arc::new(plan);
    let record = Arc::new(Shared::new(Record::new(Trace::new(out), plan.machines())));
    record.lock().note("--", format_args!("{plan:?}"));
    record.lock().sums.forgets = plan.forgets();
    let mut scene = Scene::new(plan.clone(), sabotage, record.clone());
    let verdict = play(&mut scene, sabotage);
    scene.note_disks();
    let (now, faults, blocks) = (scene.now(), scene.faults(), scene.blocks());
    drop(scene);
    let mut record = record.lock();
    record.trace.finish();
    let (stored, refused) = record.samples.counts();
    let summary = format!(
        "{:.1} s, {} shards, {faults} faults, {} lives, {stored} rows stored, {refused} refused, \
         {} pushes, {} differences, {} words, {} deletions, {} reads, {} shards moved, {} blocks, {} events",
        now.as_secs_f64(),
        plan.shards,
        record
            .machines
            .iter()
            .map(|machine| machine.lives)
            .sum::<u64>(),
        record.groups.acknowledged(),
        record.sums.counted().len(),
        record.words.known().len(),
        record.deletions.acknowledged(),
        record.reads,
        (FOUNDERS..plan.machines())
            .map(|joined| record.replicas.of(joined).len())
            .sum::<usize>(),
        blocks,
        record.trace.lines(),
    );
    Outcome {
        verdict,
        trace: record.trace.hash(),
        summary,
    }
}

fn play(scene: &mut Scene, sabotage: Sabotage) -> Result<(), Violation> {
    if !scene.plan.early || sabotage == Sabotage::LyingDisks {
        let formed = |scene: &Scene| {
            scene
                .record
                .lock()
                .machines
                .iter()
                .take(FOUNDERS)
                .all(|m| m.lives > 0 && m.unready.is_empty())
        };
        in_time(scene, "the cluster is formed", FORMED_WITHIN, formed)?;
    }
    if sabotage == Sabotage::LyingDisks {
        // Only now: a node whose very identity was never written is found out too easily.
        scene.let_disks_lie();
    }
    let mut nemesis = Nemesis::new(scene);
    let end = scene.now() + scene.plan.load;
    while scene.now() < end {
        nemesis.act(scene);
        scene.step()?;
    }
    scene.heal();
    stage(scene, Stage::Settle, SETTLED_WITHIN)?;
    stage(scene, Stage::Verify, VERIFIED_WITHIN)?;
    for machine in 0..scene.plan.machines() {
        scene.crash(machine, Crash::PowerCut);
    }
    scene.heal();
    stage(scene, Stage::SettleAgain, SETTLED_WITHIN)?;
    stage(scene, Stage::VerifyAgain, VERIFIED_WITHIN)?;
    note_agreement(scene);
    enough_happened(scene)
}

fn stage(scene: &mut Scene, stage: Stage, limit: Duration) -> Result<(), Violation> {
    {
        let mut record = scene.record.lock();
        record.note("--", format_args!("stage {stage:?}"));
        record.stage = stage;
    }
    in_time(scene, &format!("{stage:?} is done"), limit, |scene| {
        scene.record.lock().all_done(stage)
    })
}

/// Liveness: without faults, this much virtual time is enough.
fn in_time(
    scene: &mut Scene,
    what: &str,
    limit: Duration,
    done: impl FnMut(&Scene) -> bool,
) -> Result<(), Violation> {
    if scene.step_until(limit, done)? {
        return Ok(());
    }
    let record = scene.record.lock();
    let states = record.machines.iter().enumerate().map(|(i, machine)| {
        format!(
            "{}: done {:?}, {:?}",
            name_of(i),
            machine.done,
            machine.unready
        )
    });
    let states: Vec<String> = states.collect();
    violation(format!(
        "not live: {what} not within {limit:?}; {}",
        states.join("; ")
    ))
}

fn note_agreement(scene: &Scene) {
    let mut record = scene.record.lock();
    for shard in (0..scene.plan.shards).map(ShardId) {
        let agreed = record.replicas.agreed(shard, FOUNDERS, 0);
        record.note("--", format_args!("{shard} agreed {agreed:x?}"));
    }
}

/// A run in which nothing was acknowledged would pass anything.
fn enough_happened(scene: &Scene) -> Result<(), Violation> {
    let record = scene.record.lock();
    let ((rows, _), pushes) = (record.samples.counts(), record.groups.acknowledged());
    if rows < ROWS_MIN || pushes < PUSHES_MIN {
        return violation(format!("too little to judge: {rows} rows, {pushes} pushes"));
    }
    for joined in FOUNDERS..scene.plan.machines() {
        if record.replicas.of(joined).is_empty() {
            return violation(format!("no replica moved to {}", name_of(joined)));
        }
    }
    Ok(())
}
