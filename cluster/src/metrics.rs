//! The cluster's figures, built once and handed down.

use prometheus::{IntCounter, IntGauge, IntGaugeVec, Opts, Registry};

use crate::status::{GroupStatus, Role};

/// What the control loop sees of this node's Raft groups.
pub struct Metrics {
    groups: IntGaugeVec,
    leader_changes: IntCounter,
    without_leader: IntGauge,
    apply_lag: IntGauge,
    log_entries: IntGauge,
    /// Comparisons of states that every replica of a shard took part in.
    pub comparisons: IntCounter,
    /// Comparisons of states that found different ones.
    pub mismatches: IntCounter,
    /// Replicas with a damaged log that this node, leading the meta group, moved away.
    pub relieved: IntCounter,
    /// Bytes that answers of other nodes to queries took.
    pub query_bytes: IntCounter,
}

impl Metrics {
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str| -> Result<IntGauge, prometheus::Error> {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let groups = IntGaugeVec::new(
            Opts::new(
                "quorate_raft_groups",
                "Raft groups on this node, by the part it plays.",
            ),
            &["role"],
        )?;
        registry.register(Box::new(groups.clone()))?;
        let leader_changes = IntCounter::new(
            "quorate_raft_leader_changes_total",
            "Changes of a group's leader that this node has seen.",
        )?;
        registry.register(Box::new(leader_changes.clone()))?;
        let query_bytes = IntCounter::new(
            "quorate_query_received_bytes_total",
            "Series and parts of queries that other nodes sent, in bytes.",
        )?;
        registry.register(Box::new(query_bytes.clone()))?;
        let comparisons = IntCounter::new(
            "quorate_shard_comparisons_total",
            "Times this node, leading a shard, found the states of all its replicas alike.",
        )?;
        registry.register(Box::new(comparisons.clone()))?;
        let mismatches = IntCounter::new(
            "quorate_shard_mismatches_total",
            "Times this node, leading a shard, found replicas with different states at one log index.",
        )?;
        registry.register(Box::new(mismatches.clone()))?;
        let relieved = IntCounter::new(
            "quorate_shard_relieved_total",
            "Times this node, leading the meta group, moved a replica with a damaged log away for it to come back.",
        )?;
        registry.register(Box::new(relieved.clone()))?;
        Ok(Self {
            groups,
            relieved,
            leader_changes,
            comparisons,
            mismatches,
            query_bytes,
            without_leader: gauge(
                "quorate_raft_groups_without_leader",
                "Raft groups on this node whose leader it does not know.",
            )?,
            apply_lag: gauge(
                "quorate_raft_apply_lag_entries",
                "Entries committed but not yet applied here, all groups together.",
            )?,
            log_entries: gauge(
                "quorate_raft_last_log_index_sum",
                "Sum of the last log index of every group on this node.",
            )?,
        })
    }

    pub fn leader_changed(&self) {
        self.leader_changes.inc();
    }

    /// Takes one look at every group.
    pub fn observe(&self, groups: &[GroupStatus]) {
        for role in [Role::Leader, Role::Follower, Role::Learner, Role::Candidate] {
            let count = groups.iter().filter(|group| group.role == role).count();
            self.groups
                .with_label_values(&[role.as_str()])
                .set(count as i64);
        }
        let without = groups.iter().filter(|group| group.leader.is_none()).count();
        self.without_leader.set(without as i64);
        self.apply_lag
            .set(groups.iter().map(|group| group.lag as i64).sum());
        self.log_entries
            .set(groups.iter().map(|group| group.last_log as i64).sum());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_counted_by_role() {
        let registry = Registry::new();
        let metrics = Metrics::new(&registry).unwrap();
        let led = GroupStatus {
            leader: Some(1),
            role: Role::Leader,
            lag: 3,
            ..crate::status::absent(vec![1])
        };
        let lost = GroupStatus {
            leader: None,
            role: Role::Candidate,
            ..led.clone()
        };
        metrics.observe(&[led.clone(), led, lost]);
        let role = |role: Role| metrics.groups.with_label_values(&[role.as_str()]).get();
        assert_eq!(
            (
                role(Role::Leader),
                role(Role::Candidate),
                role(Role::Learner)
            ),
            (2, 1, 0)
        );
        assert_eq!(
            (metrics.without_leader.get(), metrics.apply_lag.get()),
            (1, 9)
        );
    }
}
