//! What the log holds right now, in memory: each group's state, where its entries lie, and the
//! payloads that are still waiting for the disk or were there recently.
//!
//! What stays true:
//! - a group's entries are those written, then those pending, without a gap;
//! - a pending entry's payload is in memory, and of the written ones the newest are;
//! - payloads of written entries take at most the cache's bound, all groups together.
//!
//! It runs ahead of the disk: it changes when an operation is queued. It does no I/O.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

use bytes::Bytes;
use model::GroupId;

use crate::batch::mask;
use crate::run::{Position, Run};
use crate::state::{LOST, State};
use crate::{Entry, GroupState, LogId};

/// An entry that is queued.
#[derive(Debug)]
struct Pending {
    entry: Entry,
    /// Which append brought it: after a truncation the same index may be queued twice.
    append: u64,
}

#[derive(Debug, Default)]
struct Group {
    state: State,
    written: Run,
    /// Payloads of the newest written entries.
    recent: VecDeque<Bytes>,
    recent_bytes: usize,
    pending: VecDeque<Pending>,
}

/// Where a planned entry comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    Memory(Bytes),
    Disk(Position),
}

/// All groups.
#[derive(Debug, Default)]
pub(crate) struct Index {
    groups: BTreeMap<GroupId, Group>,
    lost: u64,
    appends: u64,
    cache_bytes: usize,
    cache_bytes_max: usize,
}

/// Why an append cannot follow what is there.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Gap {
    pub expected: Option<u64>,
    pub index: u64,
}

impl Index {
    pub fn new(
        states: BTreeMap<GroupId, State>,
        mut runs: BTreeMap<GroupId, Run>,
        lost: u64,
        cache_bytes_max: usize,
    ) -> Self {
        let groups = states
            .into_iter()
            .map(|(id, state)| {
                let written = runs.remove(&id).unwrap_or_default();
                let group = Group {
                    // Which segment holds what is in the positions.
                    state: State {
                        places: Vec::new(),
                        ..state
                    },
                    written,
                    ..Group::default()
                };
                (id, group)
            })
            .collect();
        Self {
            groups,
            lost,
            cache_bytes_max,
            ..Self::default()
        }
    }

    pub fn damage_of(&self, group: GroupId) -> Option<&str> {
        match self.groups.get(&group) {
            Some(group) => group.state.damaged.as_deref(),
            None => (self.lost & mask(group) != 0).then_some(LOST),
        }
    }

    /// Groups that are known by name to be in quarantine.
    pub fn quarantined(&self) -> usize {
        let groups = self.groups.values();
        groups.filter(|group| group.state.damaged.is_some()).count()
    }

    pub fn state(&self, group: GroupId) -> GroupState {
        self.groups
            .get(&group)
            .map_or(GroupState::default(), |group| group.state.held)
    }

    /// The state to change; the caller has made sure that the group is not in quarantine.
    pub fn held_mut(&mut self, group: GroupId) -> &mut GroupState {
        &mut self.groups.entry(group).or_default().state.held
    }

    /// Adds entries as pending; returns the append's number for [`Index::written`].
    pub fn append(&mut self, group: GroupId, entries: &[Entry]) -> Result<u64, Gap> {
        let last = self.state(group).last;
        let mut expected = last.map(|last| last.index.saturating_add(1));
        for entry in entries {
            let index = entry.id.index;
            if expected.is_some_and(|e| e != index) || index == u64::MAX {
                return Err(Gap { expected, index });
            }
            expected = Some(index + 1);
        }
        self.appends += 1;
        let append = self.appends;
        let group = self.groups.entry(group).or_default();
        for entry in entries {
            group.state.append(entry.id);
            let entry = entry.clone();
            group.pending.push_back(Pending { entry, append });
        }
        Ok(append)
    }

    /// Notes where the entries of an append were written, the first being `first`.
    pub fn written(&mut self, group: GroupId, append: u64, first: u64, positions: &[Position]) {
        let Some(group) = self.groups.get_mut(&group) else {
            return;
        };
        while let Some(pending) = group.pending.pop_front_if(|p| p.append == append) {
            let index = pending.entry.id.index;
            let position = positions[(index - first) as usize];
            group.written.push(index, position);
            group.recent_bytes += pending.entry.payload.len();
            self.cache_bytes += pending.entry.payload.len();
            group.recent.push_back(pending.entry.payload);
        }
        self.evict();
    }

    /// Removes entries after `last`; returns what is then the newest, or the purged one.
    pub fn truncate_after(&mut self, group: GroupId, last: Option<LogId>) -> Option<LogId> {
        let group = self.groups.entry(group).or_default();
        let keep_to = last.map_or(0, |last| last.index.saturating_add(1));
        while group
            .pending
            .pop_back_if(|p| p.entry.id.index >= keep_to)
            .is_some()
        {}
        for _ in 0..group.written.cut(keep_to) {
            self.cache_bytes -= group.forget(VecDeque::pop_back);
        }
        group.state.held.last = match group.pending.back() {
            Some(pending) => Some(pending.entry.id),
            None => group.written.last().or(group.state.held.purged),
        };
        group.state.held.last
    }

    /// Removes entries up to `upto`.
    pub fn purge(&mut self, group: GroupId, upto: LogId) {
        let group = self.groups.entry(group).or_default();
        group.state.purge(upto);
        while group
            .pending
            .pop_front_if(|p| p.entry.id.index <= upto.index)
            .is_some()
        {}
        group.written.drop_below(upto.index.saturating_add(1));
        while group.recent.len() > group.written.positions.len() {
            self.cache_bytes -= group.forget(VecDeque::pop_front);
        }
    }

    /// Puts a group into quarantine.
    pub fn damage(&mut self, group: GroupId, what: &str) {
        let gone = self.groups.insert(
            group,
            Group {
                state: State {
                    damaged: Some(what.to_owned()),
                    ..State::default()
                },
                ..Group::default()
            },
        );
        self.cache_bytes -= gone.map_or(0, |gone| gone.recent_bytes);
    }

    pub fn remove(&mut self, group: GroupId) {
        if let Some(gone) = self.groups.remove(&group) {
            self.cache_bytes -= gone.recent_bytes;
        }
        if self.lost & mask(group) != 0 {
            // Present, so that the bit no longer speaks for it.
            self.groups.insert(group, Group::default());
        }
    }

    /// Which entries a read gives, and from where.
    pub fn plan(
        &self,
        group: GroupId,
        range: Range<u64>,
        bytes_max: usize,
    ) -> Vec<(LogId, Source)> {
        let Some(group) = self.groups.get(&group) else {
            return Vec::new();
        };
        let held = group.state.indexes();
        let mut planned = Vec::new();
        let mut bytes = 0usize;
        for index in range.start.max(held.start)..range.end.min(held.end) {
            let Some((id, source)) = group.source(index) else {
                break;
            };
            bytes = bytes.saturating_add(match &source {
                Source::Memory(payload) => payload.len(),
                Source::Disk(position) => position.len as usize,
            });
            if bytes > bytes_max && !planned.is_empty() {
                break;
            }
            planned.push((id, source));
        }
        planned
    }

    pub fn entries(&self) -> usize {
        self.groups
            .values()
            .map(|g| g.written.positions.len() + g.pending.len())
            .sum()
    }

    pub fn cache_bytes(&self) -> usize {
        self.cache_bytes
    }

    /// Lets go of payloads until the bound holds, taking from the group that has most: so one
    /// busy group cannot push the others out.
    fn evict(&mut self) {
        while self.cache_bytes > self.cache_bytes_max {
            let largest = self.groups.values_mut().max_by_key(|g| g.recent_bytes);
            let Some(group) = largest.filter(|g| !g.recent.is_empty()) else {
                return;
            };
            self.cache_bytes -= group.forget(VecDeque::pop_front);
        }
    }
}

impl Group {
    /// Drops one recent payload; returns its bytes.
    fn forget(&mut self, pop: impl FnOnce(&mut VecDeque<Bytes>) -> Option<Bytes>) -> usize {
        let bytes = pop(&mut self.recent).map_or(0, |payload| payload.len());
        self.recent_bytes -= bytes;
        bytes
    }

    fn source(&self, index: u64) -> Option<(LogId, Source)> {
        if let Some(first) = self.pending.front().map(|p| p.entry.id.index)
            && index >= first
        {
            let pending = self.pending.get(usize::try_from(index - first).ok()?)?;
            let payload = pending.entry.payload.clone();
            return Some((pending.entry.id, Source::Memory(payload)));
        }
        let (id, position) = self.written.get(index)?;
        let recent_from = self.written.end() - self.recent.len() as u64;
        let payload = index
            .checked_sub(recent_from)
            .and_then(|at| self.recent.get(at as usize));
        Some(match payload {
            Some(payload) => (id, Source::Memory(payload.clone())),
            None => (id, Source::Disk(position)),
        })
    }
}

#[cfg(test)]
mod tests {
    use model::NodeId;

    use super::*;

    const G: GroupId = GroupId(1);

    fn entry(term: u64, index: u64) -> Entry {
        Entry {
            id: LogId {
                term,
                node: NodeId(1),
                index,
            },
            payload: Bytes::from(vec![term as u8; 10]),
        }
    }

    fn position(term: u64, offset: u32) -> Position {
        Position {
            term,
            node: NodeId(1),
            segment: 1,
            offset,
            len: 10,
            crc: 0,
        }
    }

    fn index(cache_bytes_max: usize) -> Index {
        Index::new(BTreeMap::new(), BTreeMap::new(), 0, cache_bytes_max)
    }

    fn terms(index: &Index) -> Vec<(u64, u64)> {
        let plan = index.plan(G, 0..u64::MAX, usize::MAX);
        plan.iter().map(|(id, _)| (id.index, id.term)).collect()
    }

    #[test]
    fn pending_entries_read_from_memory_and_must_follow() {
        let mut index = index(0);
        index.append(G, &[entry(1, 5), entry(1, 6)]).unwrap();
        let gap = Gap {
            expected: Some(7),
            index: 8,
        };
        assert_eq!(index.append(G, &[entry(1, 8)]), Err(gap));
        assert_eq!(terms(&index), [(5, 1), (6, 1)]);
    }

    #[test]
    fn a_late_position_never_lands_on_an_overwritten_entry() {
        let mut index = index(0);
        let first = index.append(G, &[entry(1, 0), entry(1, 1), entry(1, 2)]);
        index.truncate_after(G, Some(entry(1, 0).id));
        let second = index.append(G, &[entry(2, 1)]);
        let positions = [position(1, 0), position(1, 10), position(1, 20)];
        index.written(G, first.unwrap(), 0, &positions);
        assert_eq!(terms(&index), [(0, 1), (1, 2)]);
        index.written(G, second.unwrap(), 1, &[position(2, 30)]);
        let plan = index.plan(G, 1..2, 0);
        assert_eq!(plan[0].1, Source::Disk(position(2, 30)));
    }

    #[test]
    fn the_cache_keeps_to_its_bound_and_to_the_newest() {
        let mut index = index(25);
        for i in 0..6 {
            let append = index.append(G, &[entry(1, i)]).unwrap();
            index.written(G, append, i, &[position(1, 10 * i as u32)]);
        }
        assert_eq!(index.cache_bytes(), 20);
        let plan = index.plan(G, 0..6, usize::MAX);
        let in_memory = |(_, source): &(LogId, Source)| matches!(source, Source::Memory(_));
        let cached: Vec<bool> = plan.iter().map(in_memory).collect();
        assert_eq!(cached, [false, false, false, false, true, true]);
        index.truncate_after(G, Some(entry(1, 4).id));
        assert_eq!(index.cache_bytes(), 10);
        index.purge(G, entry(1, 4).id);
        assert_eq!((index.cache_bytes(), index.entries()), (0, 0));
    }

    #[test]
    fn a_read_gives_at_least_one_and_keeps_to_its_bytes() {
        let mut index = index(0);
        let entries: Vec<Entry> = (0..5).map(|i| entry(1, i)).collect();
        index.append(G, &entries).unwrap();
        assert_eq!(index.plan(G, 1..5, 1).len(), 1);
        assert_eq!(index.plan(G, 1..5, 29).len(), 2);
        assert_eq!(index.plan(G, 1..5, 30).len(), 3);
        assert_eq!(index.plan(G, 4..9, 100).len(), 1);
        assert_eq!(index.plan(GroupId(9), 0..9, 100).len(), 0);
    }
}
