//! Push groups: the sequential specification of `model::group`, applied in log order.
//!
//! Push times are strictly monotone per group. So that they stay so when a group is deleted and
//! pushed again, the newest instant of any deleted group is remembered once per shard and a new
//! group starts behind it. Pushes to one group that came together, in one entry of the log, share an
//! instant: thousands in a second do not run ahead of the clock, and what the group went through in
//! between is no history of it.

mod check;
mod ids;
mod index;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::group::{Family, FamilyKind, Group, GroupingKey, PushOp, sum};
use model::limits::PUSH_TTL_MS_MAX;
use model::sink::Pushed;
use model::{FamilyMetadata, MetricKind, Timestamp};

use crate::command::{PushCommand, put_families, put_key, take_families, take_key, take_push_id};
use crate::digest::Digest;
use crate::fields::{Fields, Malformed, put_bytes, put_optional_time, put_time, put_u64};

use index::Index;

pub use ids::{Ids, Seen};

/// What a wipe removed.
#[derive(Debug, Clone, PartialEq)]
pub struct Wiped {
    pub at: Timestamp,
    /// By key.
    pub groups: Vec<Arc<Group>>,
}

/// All groups of a shard. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Groups {
    by_key: BTreeMap<GroupingKey, Arc<Group>>,
    /// No group created from now on is pushed at or before this instant.
    floor: Timestamp,
    /// Of additive pushes.
    ids: Ids,
    /// Derived from the groups.
    index: Index,
}

impl Default for Groups {
    fn default() -> Self {
        Self::new(Timestamp(0), [], [])
    }
}

impl Groups {
    /// From a checkpoint.
    pub fn new(
        floor: Timestamp,
        groups: impl IntoIterator<Item = Group>,
        seen: impl IntoIterator<Item = Seen>,
    ) -> Self {
        let mut ids = Ids::default();
        seen.into_iter().for_each(|seen| ids.insert(seen));
        let by_key: BTreeMap<_, _> = groups
            .into_iter()
            .map(|group| (group.key.clone(), Arc::new(group)))
            .collect();
        let mut index = Index::default();
        for group in by_key.values() {
            index.replace(None, Some(group));
        }
        Self {
            by_key,
            floor,
            ids,
            index,
        }
    }

    pub fn floor(&self) -> Timestamp {
        self.floor
    }

    pub fn ids(&self) -> &Ids {
        &self.ids
    }

    pub fn get(&self, key: &GroupingKey) -> Option<&Group> {
        self.by_key.get(key).map(|group| &**group)
    }

    /// By key.
    pub fn iter(&self) -> impl Iterator<Item = &Group> {
        self.by_key.values().map(|group| &**group)
    }

    /// Groups whose time has come at `now`.
    pub fn expired(&self, now: Timestamp) -> Vec<GroupingKey> {
        let over = |g: &&Arc<Group>| g.expires.is_some_and(|end| end <= now);
        let over = self.by_key.values().filter(over);
        over.map(|group| group.key.clone()).collect()
    }

    /// What groups say of all families, or of one; each once.
    pub fn described(&self, family: Option<&str>) -> Vec<FamilyMetadata> {
        let families = self.by_key.values().flat_map(|group| &group.families);
        let chosen = families.filter(|f| family.is_none_or(|family| f.name == family));
        let words = chosen.map(|f| (&f.name, kind_of(f.kind), f.help.as_deref()));
        let words: BTreeSet<_> = words.collect();
        let words = words.into_iter();
        words
            .map(|(name, kind, help)| FamilyMetadata {
                name: name.clone(),
                kind,
                help: help.unwrap_or_default().to_owned(),
                unit: String::new(),
            })
            .collect()
    }

    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    pub fn apply(&mut self, push: &PushCommand) -> Pushed {
        self.step(push, None)
    }

    /// Pushes of one entry, in their order.
    pub fn apply_all(&mut self, pushes: &[PushCommand]) -> Vec<Pushed> {
        let mut met: BTreeMap<&GroupingKey, Timestamp> = BTreeMap::new();
        let mut step = |push| {
            let pushed = self.step(push, met.get(&push.key).copied());
            met.insert(&push.key, pushed.at);
            pushed
        };
        pushes.iter().map(&mut step).collect()
    }

    /// `together` is the instant that an earlier push of this entry gave the group.
    fn step(&mut self, push: &PushCommand, together: Option<Timestamp>) -> Pushed {
        let before = self.by_key.get(&push.key).cloned();
        let last = match (&push.op, &before) {
            (_, None) => self.floor,
            (PushOp::Reject, Some(group)) => group.push_failure_time,
            (_, Some(group)) => group.push_time,
        };
        let at = push.proposed_at.max(match together == Some(last) {
            true => last,
            false => last.plus_ms(1),
        });
        let mut group = match &before {
            Some(group) => Group::clone(group),
            None => Group::new(push.key.clone()),
        };
        match &push.op {
            PushOp::Put(families) => group.families = by_name(families.iter()),
            PushOp::Post(families) => {
                let all = std::mem::take(&mut group.families);
                group.families = by_name(all.iter().chain(families));
            }
            PushOp::Add { families, id } => {
                let seen = (ids::group_of(&push.key), id.clone());
                if self.ids.contains(&seen) {
                    return unchanged(before, at, true);
                }
                self.ids.insert(seen);
                add(&mut group.families, families);
            }
            PushOp::Reject => group.push_failure_time = at,
            PushOp::Delete => return self.delete(push, before, at),
            PushOp::Expire => {
                return match group.expires.is_some_and(|end| end <= push.proposed_at) {
                    true => self.delete(push, before, at),
                    false => unchanged(before, at, false),
                };
            }
        }
        if !matches!(push.op, PushOp::Reject) {
            group.push_time = at;
            let ttl_ms = push.options.ttl_ms;
            group.expires = ttl_ms.map(|ttl| at.plus_ms(ttl.min(PUSH_TTL_MS_MAX) as i64));
        }
        self.index.replace(before.as_deref(), Some(&group));
        let group = Arc::new(group);
        self.by_key.insert(push.key.clone(), group.clone());
        Pushed {
            at,
            before,
            after: Some(group),
            repeated: false,
        }
    }

    fn delete(&mut self, push: &PushCommand, before: Option<Arc<Group>>, at: Timestamp) -> Pushed {
        if let Some(group) = &before {
            self.index.replace(Some(group), None);
            self.by_key.remove(&push.key);
            let newest = group.push_time.max(group.push_failure_time);
            self.floor = self.floor.max(newest);
        }
        Pushed {
            at,
            before,
            after: None,
            repeated: false,
        }
    }

    /// Removes every group at one instant, which is behind every push before it.
    pub fn wipe(&mut self, proposed_at: Timestamp) -> Wiped {
        let groups: Vec<Arc<Group>> = std::mem::take(&mut self.by_key).into_values().collect();
        self.index = Index::default();
        let newest = |g: &Arc<Group>| g.push_time.max(g.push_failure_time);
        let newest = groups.iter().map(newest).fold(self.floor, Timestamp::max);
        self.floor = newest;
        Wiped {
            at: proposed_at.max(newest.plus_ms(1)),
            groups,
        }
    }

    /// Adds everything that must be equal on every replica.
    pub fn digest(&self, digest: &mut Digest) {
        digest.word(self.floor.0 as u64).word(self.len() as u64);
        let mut bytes = Vec::new();
        for group in self.iter() {
            bytes.clear();
            put_old_group(&mut bytes, group);
            // What older nodes do not know of does not enter the digest while it is not used.
            if group.expires.is_some() {
                put_optional_time(&mut bytes, group.expires);
            }
            digest.word(model::hash::xxh3(0, &bytes));
        }
        if !self.ids.is_empty() {
            bytes.clear();
            self.ids.iter().for_each(|seen| put_seen(&mut bytes, seen));
            digest.word(model::hash::xxh3(0, &bytes));
        }
    }
}

/// Sorted by name; of a name given twice the last one stays.
fn by_name<'a>(families: impl Iterator<Item = &'a Family>) -> Vec<Family> {
    let map: BTreeMap<&str, &Family> = families.map(|f| (f.name.as_str(), f)).collect();
    map.into_values().cloned().collect()
}

/// Adds families to those of a group, which are sorted by name.
fn add(families: &mut Vec<Family>, new: &[Family]) {
    for family in new {
        match families.binary_search_by(|f| f.name.cmp(&family.name)) {
            Ok(at) => families[at] = sum::add(&families[at], family),
            Err(at) => families.insert(at, sum::first(family)),
        }
    }
}

/// A push that left the group as it was.
fn unchanged(group: Option<Arc<Group>>, at: Timestamp, repeated: bool) -> Pushed {
    Pushed {
        at,
        before: group.clone(),
        after: group,
        repeated,
    }
}

fn kind_of(kind: FamilyKind) -> MetricKind {
    match kind {
        FamilyKind::Counter => MetricKind::Counter,
        FamilyKind::Gauge => MetricKind::Gauge,
        FamilyKind::Histogram => MetricKind::Histogram,
        FamilyKind::Summary => MetricKind::Summary,
        FamilyKind::Untyped => MetricKind::Unknown,
    }
}

/// A group as checkpoints keep it.
pub fn put_group(out: &mut Vec<u8>, group: &Group) {
    put_old_group(out, group);
    put_optional_time(out, group.expires);
}

/// An id as checkpoints keep it.
pub fn put_seen(out: &mut Vec<u8>, (group, id): &Seen) {
    put_u64(out, *group);
    put_bytes(out, id.as_bytes());
}

pub fn take_seen(fields: &mut Fields<'_>) -> Result<Seen, Malformed> {
    Ok((fields.u64()?, take_push_id(fields)?))
}

/// As it was before groups could expire.
fn put_old_group(out: &mut Vec<u8>, group: &Group) {
    put_key(out, &group.key);
    put_time(out, group.push_time);
    put_time(out, group.push_failure_time);
    put_families(out, &group.families);
}

/// `expires` says whether this form has that field.
pub fn take_group(fields: &mut Fields<'_>, expires: bool) -> Result<Group, Malformed> {
    Ok(Group {
        key: take_key(fields)?,
        push_time: fields.time()?,
        push_failure_time: fields.time()?,
        families: take_families(fields)?,
        expires: match expires {
            true => fields.optional_time()?,
            false => None,
        },
    })
}

#[cfg(test)]
mod tests {
    use model::Labels;
    use model::group::{FamilyKind, FamilySample, PushId, PushOptions};

    use super::*;

    fn key(job: &str) -> GroupingKey {
        GroupingKey::new([("job".to_owned(), job.to_owned())]).unwrap()
    }

    fn family(name: &str, value: f64) -> Family {
        Family {
            name: name.to_owned(),
            help: None,
            kind: FamilyKind::Gauge,
            samples: vec![FamilySample {
                suffix: "",
                labels: Labels::default(),
                value,
                rare: None,
            }],
        }
    }

    fn push(groups: &mut Groups, at: i64, op: PushOp) -> Pushed {
        groups.apply(&PushCommand {
            proposed_at: Timestamp(at),
            key: key("a"),
            op,
            options: PushOptions::default(),
        })
    }

    fn families(pushed: &Pushed) -> Vec<(String, f64)> {
        let group = pushed.after.as_ref().unwrap();
        let sample = |f: &Family| (f.name.clone(), f.samples[0].value);
        group.families.iter().map(sample).collect()
    }

    #[test]
    fn put_replaces_all_and_post_what_it_names() {
        let mut groups = Groups::default();
        let put = PushOp::Put(vec![family("y", 1.0), family("x", 1.0), family("x", 2.0)]);
        let first = push(&mut groups, 10, put);
        assert_eq!(first.before, None);
        assert_eq!(families(&first), [("x".into(), 2.0), ("y".into(), 1.0)]);
        let post = push(&mut groups, 20, PushOp::Post(vec![family("y", 5.0)]));
        assert_eq!(families(&post), [("x".into(), 2.0), ("y".into(), 5.0)]);
        assert_eq!(post.before, first.after);
        let put = push(&mut groups, 30, PushOp::Put(vec![family("z", 0.0)]));
        assert_eq!(families(&put), [("z".into(), 0.0)]);
        let touched = push(&mut groups, 40, PushOp::Post(vec![]));
        assert_eq!(families(&touched), [("z".into(), 0.0)]);
        assert_eq!(touched.after.unwrap().push_time, Timestamp(40));
    }

    #[test]
    fn pushes_that_came_together_share_an_instant_and_keep_their_order() {
        let mut groups = Groups::default();
        let command = |job: &str, op| PushCommand {
            proposed_at: Timestamp(100),
            key: key(job),
            op,
            options: PushOptions::default(),
        };
        let put = |value| PushOp::Put(vec![family("x", value)]);
        push(&mut groups, 300, put(0.0));
        let pushed = groups.apply_all(&[
            command("a", put(1.0)),
            command("b", put(2.0)),
            command("a", PushOp::Post(vec![family("y", 3.0)])),
            command("a", PushOp::Delete),
            command("a", put(4.0)),
            command("a", PushOp::Reject),
        ]);
        let at: Vec<i64> = pushed.iter().map(|pushed| pushed.at.0).collect();
        assert_eq!(at, [301, 100, 301, 301, 301, 100]);
        assert_eq!(families(&pushed[2]), [("x".into(), 1.0), ("y".into(), 3.0)]);
        assert_eq!(
            (&pushed[2].before, &pushed[3].after),
            (&pushed[0].after, &None)
        );
        assert_eq!(families(&pushed[5]), [("x".into(), 4.0)]);
        // The next entry is behind them.
        assert_eq!(push(&mut groups, 1, put(5.0)).at, Timestamp(302));
    }

    #[test]
    fn push_time_never_stands_still_nor_goes_back() {
        let mut groups = Groups::default();
        assert_eq!(push(&mut groups, 100, PushOp::Put(vec![])).at.0, 100);
        assert_eq!(push(&mut groups, 100, PushOp::Put(vec![])).at.0, 101);
        assert_eq!(push(&mut groups, 7, PushOp::Post(vec![])).at.0, 102);
        push(&mut groups, 50, PushOp::Delete);
        assert_eq!(push(&mut groups, 60, PushOp::Put(vec![])).at.0, 103);
    }

    #[test]
    fn a_refused_push_changes_the_failure_time_alone() {
        let mut groups = Groups::default();
        let refused = push(&mut groups, 5, PushOp::Reject).after.unwrap();
        assert_eq!(refused.push_time, Timestamp(0));
        assert_eq!(refused.push_failure_time, Timestamp(5));
        push(&mut groups, 6, PushOp::Put(vec![family("x", 1.0)]));
        let refused = push(&mut groups, 7, PushOp::Reject).after.unwrap();
        assert_eq!(refused.push_time, Timestamp(6));
        assert_eq!(refused.families.len(), 1);
    }

    #[test]
    fn an_additive_push_counts_once() {
        let mut groups = Groups::default();
        let counter = |value| Family {
            kind: FamilyKind::Counter,
            ..family("x", value)
        };
        let add = |id: &[u8]| PushOp::Add {
            families: vec![counter(2.0)],
            id: PushId::new(id).unwrap(),
        };
        push(&mut groups, 1, add(b"1"));
        let second = push(&mut groups, 2, add(b"2"));
        assert_eq!(families(&second), [("x".into(), 4.0)]);
        let again = push(&mut groups, 3, add(b"1"));
        assert!(again.repeated && again.before == again.after);
        assert_eq!(families(&again), [("x".into(), 4.0)]);
        // A deletion does not make the store forget what it has counted.
        push(&mut groups, 4, PushOp::Delete);
        let late = push(&mut groups, 5, add(b"2"));
        assert!(late.repeated && late.after.is_none());
    }

    #[test]
    fn a_group_expires_when_its_time_has_come() {
        let mut groups = Groups::default();
        let put = |ttl_ms| PushCommand {
            proposed_at: Timestamp(100),
            key: key("a"),
            op: PushOp::Put(vec![]),
            options: PushOptions {
                ttl_ms,
                ..PushOptions::default()
            },
        };
        assert_eq!(
            groups.apply(&put(Some(50))).after.unwrap().expires,
            Some(Timestamp(150))
        );
        let early = push(&mut groups, 149, PushOp::Expire);
        assert!(early.after.is_some() && early.before == early.after);
        // The next push says anew how long the group lives.
        assert_eq!(groups.apply(&put(None)).after.unwrap().expires, None);
        assert!(push(&mut groups, 999, PushOp::Expire).after.is_some());
        groups.apply(&put(Some(50)));
        assert!(push(&mut groups, 999, PushOp::Expire).after.is_none());
        assert!(groups.is_empty());
    }

    #[test]
    fn deleting_what_is_not_there_is_fine() {
        let mut groups = Groups::default();
        let deleted = push(&mut groups, 5, PushOp::Delete);
        assert_eq!((deleted.before, deleted.after), (None, None));
        push(&mut groups, 6, PushOp::Put(vec![]));
        let deleted = push(&mut groups, 7, PushOp::Delete);
        assert!(deleted.before.is_some() && deleted.after.is_none());
        assert!(groups.is_empty());
    }
}
