//! What one segment amounts to: the state of all groups at its end and where the entries lie
//! that it added and that were still there then. A sealed segment ends with it, so that reopening
//! need not read the segment.
//!
//! Promise: applying a segment's records one by one and reading its footer give the same summary.

use std::collections::BTreeMap;

use bytes::{Buf, BufMut, BytesMut};
use model::{GroupId, NodeId};

use crate::batch::mask;
use crate::record::{Change, Record};
use crate::run::{Position, Run};
use crate::state::States;

/// The net effect of one segment.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Summary {
    pub states: States,
    /// Entries of this segment alone; no group with none.
    pub entries: BTreeMap<GroupId, Run>,
}

impl Summary {
    /// The summary of a segment that has nothing yet, after `states`.
    pub fn after(states: States) -> Self {
        Self {
            states,
            ..Self::default()
        }
    }

    /// Applies one record, whose payload lies at `offset` of `segment`.
    pub fn apply(&mut self, record: &Record, segment: u32, offset: u64) {
        let group = record.group;
        if !self.states.apply(group, &record.change, segment) {
            return;
        }
        match record.change {
            Change::Append { id, len, crc } => {
                let position = Position {
                    term: id.term,
                    node: id.node,
                    segment,
                    offset: u32::try_from(offset).expect("segments are below 4 GiB"),
                    len,
                    crc,
                };
                self.entries
                    .entry(group)
                    .or_default()
                    .push(id.index, position);
            }
            Change::Truncate(last) => self.trim(group, |run| {
                run.cut(last.map_or(0, |id| id.index.saturating_add(1)));
            }),
            Change::Purge(upto) => self.trim(group, |run| {
                run.drop_below(upto.index.saturating_add(1));
            }),
            Change::Remove => drop(self.entries.remove(&group)),
            Change::Vote(_) | Change::Committed(_) => {}
        }
    }

    /// Notes that a record of `group` is lost. A truncation may be among what is lost, so its
    /// entries from before prove nothing any more.
    pub fn damage(&mut self, group: GroupId, what: &str) {
        self.states.damage(group, what);
        self.entries.remove(&group);
    }

    /// Notes that records of any group with a bit in `groups` may be lost.
    pub fn damage_all(&mut self, groups: u64, what: &str) {
        self.states.damage_all(groups, what);
        self.entries.retain(|&group, _| mask(group) & groups == 0);
    }

    fn trim(&mut self, group: GroupId, change: impl FnOnce(&mut Run)) {
        if let Some(run) = self.entries.get_mut(&group) {
            change(run);
            if run.is_empty() {
                self.entries.remove(&group);
            }
        }
    }

    /// The footer's index.
    pub fn encode(&self, out: &mut BytesMut) {
        self.states.encode(out);
        for (group, run) in &self.entries {
            encode_run(out, *group, run);
        }
    }

    /// Reads the index of the footer that starts at `footer_at` of `segment`.
    pub fn decode(mut bytes: &[u8], segment: u32, footer_at: u64) -> Option<Self> {
        let mut summary = Self::after(States::decode(&mut bytes)?);
        while !bytes.is_empty() {
            summary.decode_stretch(&mut bytes, segment, footer_at)?;
        }
        Some(summary)
    }

    /// Reads one stretch of entries made under one leader.
    fn decode_stretch(&mut self, bytes: &mut &[u8], segment: u32, footer_at: u64) -> Option<()> {
        let group = GroupId(bytes.try_get_u32_le().ok()?);
        let count = bytes.try_get_u32_le().ok()?;
        let first = bytes.try_get_u64_le().ok()?;
        let term = bytes.try_get_u64_le().ok()?;
        let node = NodeId(bytes.try_get_u64_le().ok()?);
        first.checked_add(u64::from(count))?;
        if count == 0 {
            return None;
        }
        let run = self.entries.entry(group).or_default();
        for index in first..first + u64::from(count) {
            let position = Position {
                term,
                node,
                segment,
                offset: bytes.try_get_u32_le().ok()?,
                len: bytes.try_get_u32_le().ok()?,
                crc: bytes.try_get_u32_le().ok()?,
            };
            let end = u64::from(position.offset) + u64::from(position.len);
            if end > footer_at {
                return None;
            }
            run.push(index, position);
        }
        Some(())
    }
}

/// Writes a run as stretches of one leader each.
fn encode_run(out: &mut BytesMut, group: GroupId, run: &Run) {
    let mut first = run.first;
    while let Some((_, leader)) = run.get(first) {
        let same = |index: u64| {
            run.get(index)
                .is_some_and(|(_, p)| (p.term, p.node) == (leader.term, leader.node))
        };
        let end = (first..run.end()).find(|&i| !same(i)).unwrap_or(run.end());
        out.put_u32_le(group.0);
        out.put_u32_le(u32::try_from(end - first).expect("a segment is below 4 GiB"));
        out.put_u64_le(first);
        out.put_u64_le(leader.term);
        out.put_u64_le(leader.node.0);
        for (_, position) in (first..end).filter_map(|index| run.get(index)) {
            out.put_u32_le(position.offset);
            out.put_u32_le(position.len);
            out.put_u32_le(position.crc);
        }
        first = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{LogId, Vote};

    fn id(term: u64, index: u64) -> LogId {
        LogId {
            term,
            node: NodeId(term),
            index,
        }
    }

    fn append(summary: &mut Summary, group: u32, term: u64, index: u64, offset: u64) {
        let change = Change::Append {
            id: id(term, index),
            len: 10,
            crc: 1,
        };
        let record = Record {
            group: GroupId(group),
            change,
        };
        summary.apply(&record, 4, offset);
    }

    fn apply(summary: &mut Summary, group: u32, change: Change) {
        let record = Record {
            group: GroupId(group),
            change,
        };
        summary.apply(&record, 4, 0);
    }

    fn example() -> Summary {
        let mut summary = Summary::default();
        for index in 0..6 {
            append(&mut summary, 1, 1 + index / 4, index, 100 + 10 * index);
        }
        apply(&mut summary, 1, Change::Truncate(Some(id(2, 4))));
        append(&mut summary, 1, 3, 5, 900);
        apply(&mut summary, 1, Change::Purge(id(1, 1)));
        append(&mut summary, 2, 1, 0, 400);
        apply(&mut summary, 2, Change::Remove);
        append(&mut summary, 3, 1, 0, 500);
        apply(&mut summary, 3, Change::Truncate(None));
        let vote = Vote {
            term: 4,
            node: NodeId(4),
            committed: false,
        };
        apply(&mut summary, 4, Change::Vote(vote));
        summary
    }

    #[test]
    fn records_add_up() {
        let summary = example();
        assert_eq!(summary.entries.keys().collect::<Vec<_>>(), [&GroupId(1)]);
        let run = &summary.entries[&GroupId(1)];
        let ids: Vec<LogId> = (2..6).map(|i| run.get(i).unwrap().0).collect();
        assert_eq!(ids, [id(1, 2), id(1, 3), id(2, 4), id(3, 5)]);
        assert_eq!(summary.states.groups[&GroupId(1)].indexes(), 2..6);
        assert!(!summary.states.groups.contains_key(&GroupId(2)));
        assert_eq!(summary.states.groups[&GroupId(3)].held.last, None);
    }

    #[test]
    fn a_footer_survives_its_bytes() {
        let summary = example();
        let mut bytes = BytesMut::new();
        summary.encode(&mut bytes);
        assert_eq!(Summary::decode(&bytes, 4, 1000).as_ref(), Some(&summary));
        assert_eq!(
            Summary::decode(&bytes, 4, 905),
            None,
            "points into the footer"
        );
        for len in 0..bytes.len() {
            assert_ne!(
                Summary::decode(&bytes[..len], 4, 1000).as_ref(),
                Some(&summary)
            );
        }
    }

    #[test]
    fn a_stretch_of_nothing_is_not_written() {
        let mut bytes = BytesMut::new();
        Summary::default().encode(&mut bytes);
        assert_eq!(Summary::decode(&bytes, 4, 1000), Some(Summary::default()));
        // Group, how many, and three words of which entries.
        bytes.put_bytes(0, 4 + 4 + 3 * 8);
        assert_eq!(Summary::decode(&bytes, 4, 1000), None);
    }

    #[test]
    fn damage_takes_the_group_out_until_it_is_removed() {
        let mut summary = example();
        summary.damage_all(mask(GroupId(1)), "damaged");
        append(&mut summary, 1, 3, 6, 910);
        assert!(summary.entries.is_empty());
        assert!(summary.states.damage_of(GroupId(1)).is_some());
        assert_eq!(summary.states.damage_of(GroupId(4)), None);
        apply(&mut summary, 1, Change::Remove);
        append(&mut summary, 1, 5, 0, 920);
        assert_eq!(summary.entries[&GroupId(1)].last(), Some(id(5, 0)));
    }
}
