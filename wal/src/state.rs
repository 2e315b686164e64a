//! What every group is at one point of the log, apart from its entries: written whole at the
//! head of each segment, so no old segment is kept for a vote or a mark.
//!
//! What stays true: applying the records of a log in order gives the state at its end; a group
//! marked damaged stays so, whatever is said of it, until it is removed; the places of a group
//! cover exactly the entries it holds.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::{Buf, BufMut, BytesMut};
use model::{GroupId, NodeId};

use crate::batch::mask;
use crate::record::{Change, get_log_id, put_log_id};
use crate::{GroupState, LogId, Vote};

/// From which index on a group's entries lie in which segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub first: u64,
    pub segment: u32,
}

/// One group without its entries.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct State {
    pub held: GroupState,
    /// The oldest entry's index, or the one that comes next when there is none.
    pub first: u64,
    /// Where the entries lie, oldest first: tells, when a file is gone, whether it is missed, and
    /// that an older copy of an index does not stand in for it.
    pub places: Vec<Place>,
    /// Why the group is in quarantine.
    pub damaged: Option<String>,
}

impl State {
    /// Indexes of the entries held.
    pub fn indexes(&self) -> Range<u64> {
        match self.held.last {
            Some(last) => self.first..last.index.saturating_add(1).max(self.first),
            None => 0..0,
        }
    }

    pub fn append(&mut self, id: LogId) {
        if self.held.last.is_none() {
            self.first = id.index;
        }
        self.held.last = Some(id);
    }

    pub fn purge(&mut self, upto: LogId) {
        if self.held.purged.is_some_and(|p| p.index >= upto.index) {
            return;
        }
        self.held.purged = Some(upto);
        let next = upto.index.saturating_add(1);
        if self.held.last.is_some_and(|last| last.index > upto.index) {
            self.first = self.first.max(next);
        } else {
            self.first = next;
            self.held.last = Some(upto);
        }
    }

    /// The segment in which the entry `index` lies.
    pub fn segment_of(&self, index: u64) -> Option<u32> {
        let after = self.places.partition_point(|place| place.first <= index);
        Some(self.places.get(after.checked_sub(1)?)?.segment)
    }

    /// Applies a record of `segment`.
    fn apply(&mut self, change: &Change, segment: u32) {
        match *change {
            Change::Append { id, .. } => {
                self.append(id);
                self.places.retain(|place| place.first < id.index);
                if self.places.last().is_none_or(|p| p.segment != segment) {
                    let first = id.index;
                    self.places.push(Place { first, segment });
                }
            }
            Change::Vote(vote) => self.held.vote = Some(vote),
            Change::Committed(mark) => self.held.committed = mark,
            Change::Truncate(last) => {
                self.held.last = last;
                self.trim_places();
            }
            Change::Purge(upto) => {
                self.purge(upto);
                self.trim_places();
            }
            Change::Remove => unreachable!("removing is a matter of all states"),
        }
    }

    fn trim_places(&mut self) {
        let held = self.indexes();
        self.places.retain(|place| place.first < held.end);
        let past = self.places.partition_point(|p| p.first <= held.start);
        self.places.drain(..past.saturating_sub(1));
        if let Some(oldest) = self.places.first_mut() {
            oldest.first = held.start;
        }
        if held.is_empty() {
            self.places.clear();
        }
    }
}

/// All groups.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct States {
    pub groups: BTreeMap<GroupId, State>,
    /// Groups (as [`mask`] bits) that may have had records in a damaged batch though nothing
    /// else is known of them: what is not in `groups` but has its bit here is in quarantine.
    pub lost: u64,
}

pub(crate) const EARLIER_DAMAGE: &str = "its records were found damaged by an earlier start";
pub(crate) const LOST: &str = "a damaged batch may have held its only records";

impl States {
    /// Why the group is in quarantine, if it is.
    pub fn damage_of(&self, group: GroupId) -> Option<&str> {
        match self.groups.get(&group) {
            Some(state) => state.damaged.as_deref(),
            None => (self.lost & mask(group) != 0).then_some(LOST),
        }
    }

    /// Applies a record of `segment`. False when the group is in quarantine, so nothing was done.
    pub fn apply(&mut self, group: GroupId, change: &Change, segment: u32) -> bool {
        if *change == Change::Remove {
            self.remove(group);
            return true;
        }
        if self.damage_of(group).is_some() {
            // From now on known by name.
            self.damage(group, LOST);
            return false;
        }
        self.groups.entry(group).or_default().apply(change, segment);
        true
    }

    /// Forgets the group, and its damage.
    pub fn remove(&mut self, group: GroupId) {
        if self.lost & mask(group) != 0 {
            // Present, so that the bit no longer speaks for it.
            self.groups.insert(group, State::default());
        } else {
            self.groups.remove(&group);
        }
    }

    /// Puts a group into quarantine; the first reason stays.
    pub fn damage(&mut self, group: GroupId, what: &str) {
        let state = self.groups.entry(group).or_default();
        if state.damaged.is_none() {
            *state = State {
                damaged: Some(what.to_owned()),
                ..State::default()
            };
        }
    }

    /// Puts every group with a bit in `groups` into quarantine, the unseen ones too.
    pub fn damage_all(&mut self, groups: u64, what: &str) {
        let known: Vec<GroupId> = self.groups.keys().copied().collect();
        for group in known.into_iter().filter(|&g| mask(g) & groups != 0) {
            self.damage(group, what);
        }
        self.lost |= groups;
    }

    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u64_le(self.lost);
        out.put_u32_le(u32::try_from(self.groups.len()).expect("groups are few"));
        out.put_u32_le(0);
        for (group, state) in &self.groups {
            encode_state(out, *group, state);
        }
    }

    /// Takes all states off the front of `bytes`.
    pub fn decode(bytes: &mut &[u8]) -> Option<Self> {
        let lost = bytes.try_get_u64_le().ok()?;
        let count = bytes.try_get_u32_le().ok()?;
        bytes.try_get_u32_le().ok()?;
        let mut groups = BTreeMap::new();
        for _ in 0..count {
            let (group, state) = decode_state(bytes)?;
            groups.insert(group, state);
        }
        Some(Self { groups, lost })
    }
}

const HAS_VOTE: u32 = 1;
const VOTE_COMMITTED: u32 = 1 << 1;
const HAS_COMMITTED: u32 = 1 << 2;
const HAS_PURGED: u32 = 1 << 3;
const HAS_LAST: u32 = 1 << 4;
const DAMAGED: u32 = 1 << 5;

fn encode_state(out: &mut BytesMut, group: GroupId, state: &State) {
    let held = &state.held;
    let flags = [
        (HAS_VOTE, held.vote.is_some()),
        (VOTE_COMMITTED, held.vote.is_some_and(|v| v.committed)),
        (HAS_COMMITTED, held.committed.is_some()),
        (HAS_PURGED, held.purged.is_some()),
        (HAS_LAST, held.last.is_some()),
        (DAMAGED, state.damaged.is_some()),
    ];
    let nowhere = LogId {
        term: 0,
        node: NodeId(0),
        index: 0,
    };
    out.put_u32_le(group.0);
    out.put_u32_le(flags.iter().filter(|f| f.1).map(|f| f.0).sum());
    out.put_u64_le(state.first);
    out.put_u64_le(held.vote.map_or(0, |v| v.term));
    out.put_u64_le(held.vote.map_or(0, |v| v.node.0));
    for id in [held.committed, held.purged, held.last] {
        put_log_id(out, id.unwrap_or(nowhere));
    }
    out.put_u32_le(u32::try_from(state.places.len()).expect("segments have 32-bit numbers"));
    for place in &state.places {
        out.put_u64_le(place.first);
        out.put_u32_le(place.segment);
    }
}

fn decode_state(bytes: &mut &[u8]) -> Option<(GroupId, State)> {
    let group = GroupId(bytes.try_get_u32_le().ok()?);
    let flags = bytes.try_get_u32_le().ok()?;
    let has = |flag: u32| flags & flag != 0;
    let first = bytes.try_get_u64_le().ok()?;
    let vote = Vote {
        term: bytes.try_get_u64_le().ok()?,
        node: NodeId(bytes.try_get_u64_le().ok()?),
        committed: has(VOTE_COMMITTED),
    };
    let committed = get_log_id(bytes)?;
    let purged = get_log_id(bytes)?;
    let last = get_log_id(bytes)?;
    let held = GroupState {
        vote: has(HAS_VOTE).then_some(vote),
        committed: has(HAS_COMMITTED).then_some(committed),
        purged: has(HAS_PURGED).then_some(purged),
        last: has(HAS_LAST).then_some(last),
    };
    let damaged = has(DAMAGED).then(|| EARLIER_DAMAGE.to_owned());
    let mut places = Vec::new();
    for _ in 0..bytes.try_get_u32_le().ok()? {
        places.push(Place {
            first: bytes.try_get_u64_le().ok()?,
            segment: bytes.try_get_u32_le().ok()?,
        });
    }
    let state = State {
        held,
        first,
        places,
        damaged,
    };
    Some((group, state))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(term: u64, index: u64) -> LogId {
        LogId {
            term,
            node: NodeId(term),
            index,
        }
    }

    #[test]
    fn states_survive_their_bytes() {
        let mut states = States {
            lost: 5,
            ..States::default()
        };
        states.groups.insert(
            GroupId(3),
            State {
                held: GroupState {
                    vote: Some(Vote {
                        term: 9,
                        node: NodeId(2),
                        committed: true,
                    }),
                    committed: Some(id(8, 40)),
                    purged: Some(id(7, 30)),
                    last: Some(id(9, 50)),
                },
                first: 31,
                places: vec![
                    Place {
                        first: 31,
                        segment: 4,
                    },
                    Place {
                        first: 40,
                        segment: 7,
                    },
                ],
                damaged: None,
            },
        );
        states.groups.insert(GroupId(4), State::default());
        states.damage(GroupId(5), EARLIER_DAMAGE);
        let mut bytes = BytesMut::new();
        states.encode(&mut bytes);
        assert_eq!(States::decode(&mut &bytes[..]), Some(states));
        for len in 0..bytes.len() {
            assert_eq!(States::decode(&mut &bytes[..len]), None);
        }
    }

    #[test]
    fn purging_past_the_end_moves_the_end() {
        let mut state = State::default();
        state.append(id(1, 0));
        state.append(id(1, 1));
        state.purge(id(1, 0));
        assert_eq!((state.indexes(), state.held.last), (1..2, Some(id(1, 1))));
        state.purge(id(3, 10));
        assert_eq!(
            (state.indexes(), state.held.last),
            (11..11, Some(id(3, 10)))
        );
        state.purge(id(2, 5));
        assert_eq!(state.held.purged, Some(id(3, 10)));
    }

    #[test]
    fn places_follow_the_entries() {
        let group = GroupId(1);
        let mut states = States::default();
        let mut places = |change, segment| -> Vec<(u64, u32)> {
            assert!(states.apply(group, &change, segment));
            let places = &states.groups[&group].places;
            places.iter().map(|p| (p.first, p.segment)).collect()
        };
        let append = |term, index| Change::Append {
            id: id(term, index),
            len: 0,
            crc: 0,
        };
        assert_eq!(places(append(1, 5), 1), [(5, 1)]);
        assert_eq!(places(append(1, 6), 1), [(5, 1)]);
        assert_eq!(places(append(1, 7), 2), [(5, 1), (7, 2)]);
        assert_eq!(places(append(1, 8), 3), [(5, 1), (7, 2), (8, 3)]);
        assert_eq!(places(Change::Purge(id(1, 5)), 3), [(6, 1), (7, 2), (8, 3)]);
        assert_eq!(places(Change::Purge(id(1, 6)), 3), [(7, 2), (8, 3)]);
        let cut = Change::Truncate(Some(id(1, 7)));
        assert_eq!(places(cut, 3), [(7, 2)]);
        assert_eq!(places(append(2, 8), 5), [(7, 2), (8, 5)]);
        assert_eq!(places(Change::Truncate(Some(id(1, 6))), 5), []);
        assert_eq!(places(append(3, 7), 6), [(7, 6)]);
        assert_eq!(places(Change::Purge(id(9, 50)), 6), []);
        let state = &states.groups[&group];
        assert_eq!(state.segment_of(51), None);
    }

    #[test]
    fn removing_ends_a_quarantine_also_of_a_group_never_seen() {
        let mut states = States::default();
        states.damage_all(mask(GroupId(1)) | mask(GroupId(2)), "damaged");
        states.damage(GroupId(7), "damaged");
        assert!(!states.apply(GroupId(1), &Change::Purge(id(1, 1)), 1));
        for group in [1, 2, 7].map(GroupId) {
            assert!(states.damage_of(group).is_some());
            assert!(states.apply(group, &Change::Remove, 1));
            assert_eq!(states.damage_of(group), None);
        }
        assert_eq!(states.damage_of(GroupId(3)), None);
        assert!(
            states.damage_of(GroupId(65)).is_some(),
            "shares a bit with 1"
        );
    }
}
