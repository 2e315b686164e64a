//! The machines: hosts on one simulated network, each with a disk and a clock that outlive
//! its node, and everything that can be done to them from outside.
//!
//! Whatever is done is undone at a time set when it is done, or by [`Scene::heal`].

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use cluster::catalogue::{Catalogue, Memory};
use model::port::Dice;
use sim_world::{Operation, SimClock, SimDice, SimDisk};

use crate::determinism;
use crate::history::{Violation, violation};
use crate::node::{Place, Sabotage, live, name_of};
use crate::record::{Ending, Shared};
use crate::rot;
use crate::swarm::{FOUNDERS, Plan};

/// The simulation's step.
const TICK: Duration = Duration::from_millis(1);
/// A node that ended by itself is started again after this.
const RESTART_MS: u64 = 1_500;
/// Segments a connection, and connections a listener, may have waiting.
const TCP_CAPACITY: usize = 4_096;
/// Bits that rot in one run: each is looked after for some seconds.
const ROT_MAX: u64 = 4;
/// What a clock that jumps may be ahead, and then some.
const AHEAD_MS: i64 = 60_000;

struct Machine {
    clock: SimClock,
    disk: SimDisk,
    is_up: bool,
}

/// How a node's life is ended from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crash {
    Kill,
    PowerCut,
}

/// What is done when a fault is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Undo {
    Restart(usize),
    Link(usize, usize),
    Loss,
    LinkSpeed(usize, usize),
    DiskSpeed(usize),
    DiskSpace(usize),
    Clock(usize, i64),
}

/// The machines of one run.
pub struct Scene {
    pub plan: Arc<Plan>,
    pub record: Arc<Shared>,
    sim: turmoil::Sim<'static>,
    machines: Vec<Machine>,
    dice: SimDice,
    later: BTreeMap<(Duration, u64), Undo>,
    faults: u64,
    rotten: u64,
}

impl Scene {
    pub fn new(plan: Arc<Plan>, sabotage: Sabotage, record: Arc<Shared>) -> Self {
        let mut builder = turmoil::Builder::new();
        builder
            .rng_seed(plan.seed)
            .epoch(SystemTime::UNIX_EPOCH)
            .simulation_duration(Duration::from_secs(86_400))
            .tick_duration(TICK)
            .tcp_capacity(TCP_CAPACITY)
            .min_message_latency(Duration::from_millis(plan.latency_ms.start))
            .max_message_latency(Duration::from_millis(plan.latency_ms.end))
            .repair_rate(plan.repair_rate);
        if plan.random_order {
            builder.enable_random_order();
        }
        let mut sim = builder.build();
        let machines =
            (0..plan.machines()).map(|i| add_machine(&mut sim, &plan, sabotage, &record, i));
        let machines = machines.collect();
        let dice = SimDice::new(plan.seed ^ 0x5ce7e);
        let joins_after = plan.joins_after;
        let mut scene = Self {
            plan,
            record,
            sim,
            machines,
            dice,
            later: BTreeMap::new(),
            faults: 0,
            rotten: 0,
        };
        if let Some(after) = joins_after {
            scene.end(FOUNDERS, Crash::Kill);
            scene.later(after.as_millis() as u64, Undo::Restart(FOUNDERS));
        }
        scene
    }

    pub fn now(&self) -> Duration {
        self.sim.elapsed()
    }

    /// Faults so far, endings of nodes by themselves included.
    pub fn faults(&self) -> u64 {
        self.faults
    }

    /// Sealed blocks on the disks.
    pub fn blocks(&self) -> usize {
        let disks = self.machines.iter().map(|machine| &machine.disk);
        disks.map(|disk| files_of(disk, is_block).len()).sum()
    }

    pub fn is_up(&self, machine: usize) -> bool {
        self.machines[machine].is_up
    }

    /// One step of virtual time, and what is due after it.
    pub fn step(&mut self) -> Result<(), Violation> {
        let stepped = self.sim.step();
        for machine in &self.machines {
            machine.clock.jump(self.plan.haste - 1);
        }
        let now = self.now();
        self.record.lock().stepped_to = now;
        self.note_age(now);
        determinism::stepped_to(now);
        if let Some(panic) = determinism::panics().first() {
            return violation(format!("panic: {panic}"));
        }
        if let Err(e) = stepped {
            return violation(format!("a host ended: {e}"));
        }
        if let Some(found) = self.record.lock().violation.clone() {
            return Err(found);
        }
        for machine in 0..self.machines.len() {
            self.take_ending(machine)?;
        }
        while let Some((&(at, _), _)) = self.later.first_key_value()
            && at <= now
        {
            let (_, undo) = self.later.pop_first().expect("just seen");
            self.undo(undo);
        }
        Ok(())
    }

    /// Tells what the store may have dropped for its age by now.
    fn note_age(&self, now: Duration) {
        let Some(retention) = self.plan.retention else {
            return;
        };
        let newest = self.machines.iter().map(|machine| machine.clock.at(now));
        let newest = newest.max().map_or(0, |at| at.0);
        let ahead_ms = AHEAD_MS + 2 * self.plan.haste;
        let kept_from = newest + ahead_ms - retention.as_millis() as i64;
        self.record.lock().keep_from(kept_from);
    }

    /// Steps until `done`, at most for `limit`; whether it was done.
    pub fn step_until(
        &mut self,
        limit: Duration,
        mut done: impl FnMut(&Self) -> bool,
    ) -> Result<bool, Violation> {
        let end = self.now() + limit;
        while !done(self) {
            if self.now() >= end {
                return Ok(false);
            }
            self.step()?;
        }
        Ok(true)
    }

    /// Does `undo` after `after_ms`.
    pub fn later(&mut self, after_ms: u64, undo: Undo) {
        let at = self.now() + Duration::from_millis(after_ms);
        self.later.insert((at, self.dice.roll()), undo);
    }

    pub fn crash(&mut self, machine: usize, how: Crash) {
        self.fault(format_args!("{how:?} {}", name_of(machine)));
        self.end(machine, how);
    }

    /// Ends whatever is being done, and starts every node.
    pub fn heal(&mut self) {
        self.record.lock().note("--", "heal");
        while let Some((_, undo)) = self.later.pop_first() {
            self.undo(undo);
        }
        for machine in 0..self.machines.len() {
            for other in machine + 1..self.machines.len() {
                self.undo(Undo::Link(machine, other));
            }
            if self.machines[machine].is_up && self.machines[machine].disk.is_dark() {
                self.end(machine, Crash::PowerCut);
            }
            if !self.machines[machine].is_up {
                self.undo(Undo::Restart(machine));
            }
        }
        self.undo(Undo::Loss);
    }

    pub fn ask_to_stop(&mut self, machine: usize) {
        self.fault(format_args!("stop {}", name_of(machine)));
        self.record.lock().machines[machine].stop_asked = true;
    }

    /// Cuts the power of one machine after some more changes of its disk.
    pub fn cut_after(&mut self, machine: usize, changes: u64) {
        self.fault(format_args!(
            "power of {} goes in {changes} changes",
            name_of(machine)
        ));
        self.record.lock().machines[machine].excused = true;
        self.machines[machine].disk.crash_after(changes);
    }

    pub fn fail_disk(&mut self, machine: usize, operation: Operation, nth: u64) {
        self.fault(format_args!(
            "disk of {} fails {operation:?} {nth}",
            name_of(machine)
        ));
        self.record.lock().machines[machine].excused = true;
        self.machines[machine].disk.fail(operation, nth);
    }

    pub fn fill_disk(&mut self, machine: usize) {
        self.fault(format_args!("disk of {} is full", name_of(machine)));
        self.record.lock().machines[machine].excused = true;
        self.machines[machine].disk.limit_bytes(Some(0));
    }

    /// Turns a bit of one of such files a machine has.
    pub fn rot(&mut self, machine: usize, is_such: fn(&Path) -> bool) {
        let disk = self.machines[machine].disk.clone();
        let mut files = files_of(&disk, is_such);
        if files.is_empty() || self.rotten >= ROT_MAX {
            return;
        }
        self.rotten += 1;
        let (path, len) = files.swap_remove(self.dice.up_to(files.len() - 1));
        let offset = self.dice.below(len);
        self.flip(machine, &path, offset);
    }

    /// Turns a bit of what a machine's log holds of shards alone.
    pub fn rot_log(&mut self, machine: usize) {
        let disk = self.machines[machine].disk.clone();
        let spots = files_of(&disk, is_log).into_iter().flat_map(|(path, _)| {
            let content = disk.content(&path).unwrap_or_default();
            let spots = rot::spots(&content).into_iter();
            spots.map(move |spot| (path.clone(), spot))
        });
        let mut spots: Vec<_> = spots.collect();
        if spots.is_empty() || self.rotten >= ROT_MAX {
            return;
        }
        self.rotten += 1;
        let (path, spot) = spots.swap_remove(self.dice.up_to(spots.len() - 1));
        let offset = spot.start + self.dice.below(spot.end - spot.start);
        self.flip(machine, &path, offset);
    }

    fn flip(&mut self, machine: usize, path: &Path, offset: u64) {
        let bit = self.dice.below(8) as u8;
        self.fault(format_args!(
            "bit {bit} of byte {offset} of {} of {} rots",
            path.display(),
            name_of(machine)
        ));
        let disk = &self.machines[machine].disk;
        disk.flip_bit(path, offset, bit)
            .expect("chosen from what there is");
    }

    pub fn slow_disk(&mut self, machine: usize, max: Duration) {
        self.fault(format_args!(
            "disk of {} takes up to {max:?}",
            name_of(machine)
        ));
        self.machines[machine]
            .disk
            .set_latency(Some(Duration::ZERO..max));
    }

    pub fn jump_clock(&mut self, machine: usize, delta_ms: i64) {
        self.fault(format_args!(
            "clock of {} jumps {delta_ms} ms",
            name_of(machine)
        ));
        self.machines[machine].clock.jump(delta_ms);
    }

    pub fn partition(&mut self, one: usize, other: usize) {
        self.fault(format_args!(
            "partition {} {}",
            name_of(one),
            name_of(other)
        ));
        self.sim.partition(name_of(one), name_of(other));
    }

    pub fn partition_one_way(&mut self, from: usize, to: usize) {
        self.fault(format_args!(
            "partition {} to {}",
            name_of(from),
            name_of(to)
        ));
        self.sim.partition_oneway(name_of(from), name_of(to));
    }

    pub fn hold(&mut self, one: usize, other: usize) {
        self.fault(format_args!("hold {} {}", name_of(one), name_of(other)));
        self.sim.hold(name_of(one), name_of(other));
    }

    pub fn lose(&mut self, rate: f64) {
        self.fault(format_args!("lose {rate}"));
        self.sim.set_fail_rate(rate);
    }

    pub fn slow_link(&mut self, one: usize, other: usize, max: Duration) {
        self.fault(format_args!(
            "slow {} {} {max:?}",
            name_of(one),
            name_of(other)
        ));
        self.sim
            .set_link_max_message_latency(name_of(one), name_of(other), max);
    }

    /// From now on every disk lies: it answers flushes and does nothing.
    pub fn let_disks_lie(&mut self) {
        self.fault(format_args!("disks lie"));
        for machine in &self.machines {
            machine.disk.ignore_flushes(true);
        }
    }

    /// Writes what is on the disks into the trace.
    pub fn note_disks(&self) {
        let mut record = self.record.lock();
        for (i, machine) in self.machines.iter().enumerate() {
            let digest = machine.disk.digest();
            record.note(&name_of(i), format_args!("disk {digest:016x}"));
            for (path, len) in files_of(&machine.disk, is_block) {
                record.note(
                    &name_of(i),
                    format_args!("{} of {len} bytes", path.display()),
                );
            }
        }
    }

    fn fault(&mut self, what: std::fmt::Arguments<'_>) {
        self.faults += 1;
        self.record.lock().note("--", what);
    }

    /// Ends a machine's life; its disk is settled as after `how`.
    fn end(&mut self, machine: usize, how: Crash) {
        self.sim.crash(name_of(machine));
        let this = &mut self.machines[machine];
        match how {
            Crash::Kill => this.disk.kill(),
            Crash::PowerCut => this.disk.crash(),
        }
        this.is_up = false;
        let mut record = self.record.lock();
        record.machines[machine].ending = None;
        record.machines[machine].unready = "down".to_owned();
    }

    /// A node that ended by itself is started again, if there was a reason for it to end.
    fn take_ending(&mut self, machine: usize) -> Result<(), Violation> {
        if self.machines[machine].is_up && self.machines[machine].disk.is_dark() {
            self.crash(machine, Crash::PowerCut);
            self.later(self.dice.below(RESTART_MS), Undo::Restart(machine));
            return Ok(());
        }
        let (ending, excused) = {
            let mut record = self.record.lock();
            let this = &mut record.machines[machine];
            (this.ending.take(), this.excused)
        };
        let Some(ending) = ending else { return Ok(()) };
        if !excused && ending != Ending::Stopped {
            return violation(format!(
                "{} ended without a fault: {ending:?}",
                name_of(machine)
            ));
        }
        let how = if self.dice.one_in(2) {
            Crash::Kill
        } else {
            Crash::PowerCut
        };
        self.crash(machine, how);
        self.later(self.dice.below(RESTART_MS), Undo::Restart(machine));
        Ok(())
    }

    fn undo(&mut self, undo: Undo) {
        let latency = |max: u64| Duration::from_millis(max);
        self.record.lock().note("--", format_args!("undo {undo:?}"));
        match undo {
            Undo::Restart(machine) if self.machines[machine].is_up => {}
            Undo::Restart(machine) => {
                self.machines[machine].is_up = true;
                self.record.lock().machines[machine].excused = self
                    .later
                    .values()
                    .any(|later| *later == Undo::DiskSpace(machine));
                self.sim.bounce(name_of(machine));
            }
            Undo::Link(one, other) => {
                self.sim.release(name_of(one), name_of(other));
                self.sim.repair(name_of(one), name_of(other));
            }
            Undo::Loss => self.sim.set_fail_rate(0.0),
            Undo::LinkSpeed(one, other) => self.sim.set_link_max_message_latency(
                name_of(one),
                name_of(other),
                latency(self.plan.latency_ms.end),
            ),
            Undo::DiskSpeed(machine) => {
                self.machines[machine]
                    .disk
                    .set_latency(self.plan.disk_latency.clone());
            }
            Undo::DiskSpace(machine) => self.machines[machine].disk.limit_bytes(None),
            Undo::Clock(machine, delta_ms) => self.machines[machine].clock.jump(delta_ms),
        }
    }
}

/// Block files, and their lengths.
fn files_of(disk: &SimDisk, is_such: fn(&Path) -> bool) -> Vec<(PathBuf, u64)> {
    let mut files = disk.files();
    files.retain(|(path, len)| is_such(path) && *len > 0);
    files
}

pub fn is_block(path: &Path) -> bool {
    path.to_string_lossy().contains("/engine/block-")
}

fn is_log(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "log")
}

/// A checkpoint or a manifest.
pub fn is_state(path: &Path) -> bool {
    let text = path.to_string_lossy();
    text.contains("/engine/checkpoint-") || text.ends_with("/engine/manifest")
}

fn add_machine(
    sim: &mut turmoil::Sim<'static>,
    plan: &Arc<Plan>,
    sabotage: Sabotage,
    record: &Arc<Shared>,
    index: usize,
) -> Machine {
    let clock = SimClock::new();
    let disk = SimDisk::new(plan.seed ^ ((index as u64 + 1) << 48));
    disk.set_latency(plan.disk_latency.clone());
    let kept: Arc<dyn Catalogue> = Arc::new(Memory::default());
    let (plan, record) = (plan.clone(), record.clone());
    let machine = Machine {
        clock: clock.clone(),
        disk: disk.clone(),
        is_up: true,
    };
    sim.host(name_of(index), move || {
        let catalogue: Arc<dyn Catalogue> = match plan.catalogue_stays {
            true => kept.clone(),
            false => Arc::new(Memory::default()),
        };
        live(Place {
            machine: index,
            plan: plan.clone(),
            sabotage,
            record: record.clone(),
            clock: clock.clone(),
            disk: disk.clone(),
            catalogue,
        })
    });
    machine
}
