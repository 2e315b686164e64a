//! Chooses what goes wrong next, and for how long.

use std::time::Duration;

use model::GroupId;
use model::port::Dice;
use sim_world::{Operation, SimDice};

use crate::scene::{Crash, Scene, Undo, is_block, is_state};
use crate::swarm::{Kind, pick};

/// Strikes again and again, as the plan says.
pub struct Nemesis {
    dice: SimDice,
    kinds: Vec<Kind>,
    next_at: Duration,
}

impl Nemesis {
    pub fn new(scene: &Scene) -> Self {
        let dice = SimDice::new(scene.plan.seed ^ 0xbad);
        let kinds = scene.plan.kinds.iter().copied().collect();
        Self {
            dice,
            kinds,
            next_at: scene.now(),
        }
    }

    /// Strikes when it is time to.
    pub fn act(&mut self, scene: &mut Scene) {
        if scene.now() < self.next_at {
            return;
        }
        let calm = scene.plan.calm_ms.clone();
        let calm_ms = calm.start + self.dice.below(calm.end - calm.start);
        self.next_at = scene.now() + Duration::from_millis(calm_ms);
        let kind = pick(&self.dice, &self.kinds);
        self.strike(scene, kind);
    }

    fn strike(&self, scene: &mut Scene, kind: Kind) {
        let victim = self.victim(scene);
        let machines = scene.plan.machines();
        let other = (victim + 1 + self.dice.below(machines as u64 - 1) as usize) % machines;
        let peers: Vec<usize> = (0..machines).filter(|peer| *peer != victim).collect();
        let lasts = scene.plan.fault_ms.clone();
        let lasts_ms = lasts.start + self.dice.below(lasts.end - lasts.start);
        match kind {
            Kind::Kill => self.crash(scene, victim, Crash::Kill, lasts_ms),
            Kind::PowerCut => self.crash(scene, victim, Crash::PowerCut, lasts_ms),
            Kind::PowerCutAll => {
                for machine in 0..machines {
                    self.crash(scene, machine, Crash::PowerCut, self.dice.below(lasts_ms));
                }
            }
            Kind::PowerCutMidway if scene.is_up(victim) => {
                scene.cut_after(victim, self.dice.below(pick(&self.dice, &[4, 40, 400])));
            }
            Kind::Stop if scene.is_up(victim) => scene.ask_to_stop(victim),
            Kind::DiskError if scene.is_up(victim) => {
                let operations = [Operation::Append, Operation::Flush, Operation::FlushDir];
                let operation = pick(&self.dice, &operations);
                scene.fail_disk(victim, operation, self.dice.below(30));
            }
            // A machine that is down has nothing to cut, to stop or to fail.
            Kind::PowerCutMidway | Kind::Stop | Kind::DiskError => {}
            Kind::Isolate => {
                for peer in peers {
                    scene.partition(victim, peer);
                    scene.later(lasts_ms, Undo::Link(victim, peer));
                }
            }
            Kind::OneWay => {
                let deaf = self.dice.one_in(2);
                for peer in peers {
                    let (from, to) = if deaf { (peer, victim) } else { (victim, peer) };
                    scene.partition_one_way(from, to);
                    scene.later(lasts_ms, Undo::Link(victim, peer));
                }
            }
            Kind::Link => {
                scene.partition(victim, other);
                scene.later(lasts_ms, Undo::Link(victim, other));
            }
            Kind::Hold => {
                scene.hold(victim, other);
                scene.later(lasts_ms, Undo::Link(victim, other));
            }
            Kind::Loss => {
                scene.lose(pick(&self.dice, &[0.0005, 0.005, 0.05]));
                scene.later(lasts_ms, Undo::Loss);
            }
            Kind::SlowLink => {
                let max_ms = scene.plan.latency_ms.end + 50 + self.dice.below(400);
                scene.slow_link(victim, other, Duration::from_millis(max_ms));
                scene.later(lasts_ms, Undo::LinkSpeed(victim, other));
            }
            Kind::SlowDisk => {
                scene.slow_disk(victim, Duration::from_millis(20 + self.dice.below(300)));
                scene.later(lasts_ms, Undo::DiskSpeed(victim));
            }
            Kind::DiskFull => {
                scene.fill_disk(victim);
                scene.later(lasts_ms, Undo::DiskSpace(victim));
            }
            Kind::ClockJump => {
                let delta_ms = self.dice.below(20_000) as i64 - 10_000;
                scene.jump_clock(victim, delta_ms);
                scene.later(lasts_ms, Undo::Clock(victim, -delta_ms));
            }
            Kind::Rot => {
                let rotten = scene.plan.rotten;
                match self.dice.below(3) {
                    0 => scene.rot(rotten, is_block),
                    // What a node or a shard opens with is read again when it is opened.
                    1 => {
                        self.crash(scene, rotten, Crash::Kill, lasts_ms);
                        scene.rot(rotten, is_state);
                    }
                    _ => {
                        self.crash(scene, rotten, Crash::Kill, lasts_ms);
                        scene.rot_log(rotten);
                    }
                }
            }
        }
    }

    /// Some machine; half of the time one that leads something.
    fn victim(&self, scene: &Scene) -> usize {
        let group = GroupId(self.dice.below(u64::from(scene.plan.shards) + 1) as u32);
        let anybody = self.dice.below(scene.plan.machines() as u64) as usize;
        let leader = scene
            .record
            .lock()
            .leaders
            .get(&group)
            .map(|(_, machine)| *machine);
        leader.filter(|_| self.dice.one_in(2)).unwrap_or(anybody)
    }

    fn crash(&self, scene: &mut Scene, machine: usize, how: Crash, down_ms: u64) {
        if !scene.is_up(machine) {
            return;
        }
        scene.crash(machine, how);
        scene.later(down_ms, Undo::Restart(machine));
    }
}
