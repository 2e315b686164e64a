//! What groups hold, found by name: which families of which types there are, and which labels the
//! groups of a job are told apart by. Derived from the groups, so that a push is checked at the
//! cost of its own size, whatever else is stored.

use std::collections::BTreeMap;

use model::group::{Family, FamilyKind, Group, GroupingKey};

/// How many groups hold a family, by its type.
type Kinds = BTreeMap<FamilyKind, usize>;

#[derive(Debug, Default, Clone)]
pub struct Index {
    families: BTreeMap<String, Kinds>,
    /// Label names of grouping keys by job, and how many groups have just these.
    shapes: BTreeMap<String, BTreeMap<Vec<String>, usize>>,
}

impl Index {
    /// Follows a change of one group.
    pub fn replace(&mut self, before: Option<&Group>, after: Option<&Group>) {
        if let (Some(before), Some(after)) = (before, after) {
            let same = |(a, b): (&Family, &Family)| a.kind == b.kind && a.name == b.name;
            let pairs = before.families.iter().zip(&after.families);
            if before.families.len() == after.families.len() && pairs.into_iter().all(same) {
                return;
            }
        }
        before.into_iter().for_each(|group| self.remove(group));
        after.into_iter().for_each(|group| self.add(group));
    }

    fn add(&mut self, group: &Group) {
        for family in &group.families {
            let kinds = self.families.entry(family.name.clone()).or_default();
            *kinds.entry(family.kind).or_default() += 1;
        }
        let shapes = self
            .shapes
            .entry(job_of(&group.key).to_owned())
            .or_default();
        *shapes.entry(shape_of(&group.key)).or_default() += 1;
    }

    fn remove(&mut self, group: &Group) {
        for family in &group.families {
            let kinds = self.families.get_mut(&family.name);
            let kinds = kinds.expect("a stored family is indexed");
            take_one(kinds, &family.kind);
            if kinds.is_empty() {
                self.families.remove(&family.name);
            }
        }
        let job = job_of(&group.key);
        let shapes = self.shapes.get_mut(job).expect("a stored job is indexed");
        take_one(shapes, &shape_of(&group.key));
        if shapes.is_empty() {
            self.shapes.remove(job);
        }
    }

    /// How many groups hold the family as this type.
    pub fn count(&self, family: &str, kind: FamilyKind) -> usize {
        let kinds = self.families.get(family);
        kinds
            .and_then(|kinds| kinds.get(&kind))
            .copied()
            .unwrap_or(0)
    }

    /// The types the family is held as, and how often.
    pub fn kinds(&self, family: &str) -> impl Iterator<Item = (FamilyKind, usize)> {
        let kinds = self.families.get(family).into_iter().flatten();
        kinds.map(|(kind, count)| (*kind, *count))
    }

    /// The label names by which groups of the job are told apart.
    pub fn shapes(&self, job: &str) -> impl Iterator<Item = &[String]> {
        let shapes = self.shapes.get(job).into_iter().flatten();
        shapes.map(|(names, _)| names.as_slice())
    }
}

fn take_one<K: Ord>(counts: &mut BTreeMap<K, usize>, key: &K) {
    let count = counts.get_mut(key).expect("counted before");
    *count -= 1;
    if *count == 0 {
        counts.remove(key);
    }
}

pub fn job_of(key: &GroupingKey) -> &str {
    let job = key.iter().find(|(name, _)| *name == "job");
    job.map_or("", |(_, job)| job)
}

fn shape_of(key: &GroupingKey) -> Vec<String> {
    key.iter().map(|(name, _)| name.to_owned()).collect()
}
