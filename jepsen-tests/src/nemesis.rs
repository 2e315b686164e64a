//! Carries out the planned faults on a [`Cluster`] and records when each struck and when it was
//! over. Also notices processes that ended without being asked, and starts them again as a
//! supervisor would; that a node died is for the checkers to judge.

use std::time::Duration;

use anyhow::Context;
use tokio::time::Instant;

use crate::cluster::{Cluster, Target, all_ready, most_leading};
use crate::history::{FaultRecord, Recorder};
use crate::plan::{Fault, FaultKind};

/// A fault waits this long for the cluster to recover from the one before.
const RECOVERY_DEADLINE: Duration = Duration::from_secs(20);
const WATCH_INTERVAL: Duration = Duration::from_millis(100);

/// One run's nemesis.
pub struct Nemesis<'a> {
    cluster: &'a mut Cluster,
    targets: Vec<Target>,
    recorder: &'a Recorder,
    records: Vec<FaultRecord>,
}

impl<'a> Nemesis<'a> {
    pub fn new(cluster: &'a mut Cluster, recorder: &'a Recorder) -> Self {
        let targets = cluster.targets();
        Self {
            cluster,
            targets,
            recorder,
            records: Vec::new(),
        }
    }

    /// Carries out the faults, then watches until `end`; returns what happened.
    pub async fn run(
        mut self,
        faults: &[Fault],
        begin: Instant,
        end: Instant,
    ) -> anyhow::Result<Vec<FaultRecord>> {
        for fault in faults {
            let at = begin + Duration::from_millis(fault.at_ms);
            if !fault.stack {
                self.await_recovery().await?;
            }
            self.watch_until(at).await?;
            if Instant::now() >= end {
                break;
            }
            self.strike(fault).await?;
        }
        self.watch_until(end).await?;
        self.cluster.heal()?;
        Ok(self.records)
    }

    async fn strike(&mut self, fault: &Fault) -> anyhow::Result<()> {
        self.reap()?;
        let (nodes, mut note) = self.victims(fault).await;
        let mut done = note.is_none();
        let t0 = self.recorder.now();
        let struck = Instant::now();
        eprintln!("  fault {} on {nodes:?}", fault.kind.as_str());
        let result = match fault.kind {
            FaultKind::Pause => nodes
                .iter()
                .try_for_each(|&n| self.cluster.process(n).pause()),
            FaultKind::Restart => self.cluster.process(nodes[0]).stop().await,
            FaultKind::KillAll => self.cluster.kill_all(),
            _ => nodes
                .iter()
                .try_for_each(|&n| self.cluster.process(n).kill()),
        };
        if let Err(error) = result {
            done = false;
            note = Some(format!("{error:#}"));
        }
        let undo = struck + Duration::from_millis(fault.down_ms);
        if fault.kind != FaultKind::Restart {
            tokio::time::sleep_until(undo).await;
        }
        let t1 = self.recorder.now();
        for &n in &nodes {
            match fault.kind {
                FaultKind::Pause => self.cluster.process(n).resume().context("resume")?,
                _ => self.cluster.process(n).start()?,
            }
        }
        self.records.push(FaultRecord {
            kind: fault.kind,
            nodes,
            t0,
            t1,
            ready: None,
            done,
            note,
        });
        if fault.stack {
            return Ok(());
        }
        self.await_recovery().await
    }

    async fn victims(&self, fault: &Fault) -> (Vec<usize>, Option<String>) {
        match fault.kind {
            FaultKind::KillAll => ((0..self.cluster.len()).collect(), None),
            FaultKind::KillLeader => match most_leading(&self.targets).await {
                Some(n) => (vec![n], None),
                None => (
                    vec![fault.node],
                    Some("no node said that it leads a shard".to_owned()),
                ),
            },
            _ => (vec![fault.node], None),
        }
    }

    /// Waits until all nodes are ready, and notes in the last record when they were.
    async fn await_recovery(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + RECOVERY_DEADLINE;
        while Instant::now() < deadline {
            self.reap()?;
            if !all_ready(&self.targets, WATCH_INTERVAL).await {
                continue;
            }
            let now = self.recorder.now();
            if let Some(last) = self.records.last_mut() {
                last.ready.get_or_insert(now);
            }
            break;
        }
        Ok(())
    }

    async fn watch_until(&mut self, until: Instant) -> anyhow::Result<()> {
        loop {
            self.reap()?;
            let now = Instant::now();
            if now >= until {
                return Ok(());
            }
            tokio::time::sleep(WATCH_INTERVAL.min(until - now)).await;
        }
    }

    fn reap(&mut self) -> anyhow::Result<()> {
        for (n, status) in self.cluster.reap()? {
            eprintln!("  node {n} ended by itself: {status}");
            let now = self.recorder.now();
            self.records.push(FaultRecord {
                kind: FaultKind::Died,
                nodes: vec![n],
                t0: now,
                t1: now,
                ready: None,
                done: true,
                note: Some(status),
            });
            self.cluster.process(n).start()?;
        }
        Ok(())
    }
}
