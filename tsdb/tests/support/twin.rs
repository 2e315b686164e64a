//! What the engine should do, told as plainly as possible.

use std::collections::{BTreeMap, BTreeSet};

use model::group::{Family, Group, GroupingKey, PushId, PushOp, sum};
use model::matcher::matches_all;
use model::sink::{Reason, Rejection};
use model::{Exemplar, Labels, Matcher, Timestamp};
use tsdb::value::Value;
use tsdb::{CollectCommand, Command, DeleteCommand, PushCommand, SeriesRef, WriteCommand};

/// Samples by series: instant to value.
pub type Content = BTreeMap<Labels, BTreeMap<i64, Value>>;

#[derive(Debug, Default)]
pub struct Twin {
    /// By id; none of those that were collected.
    pub ids: Vec<Option<Labels>>,
    /// Those of these that rest: their ids.
    pub resting: BTreeMap<Labels, usize>,
    pub content: Content,
    pub groups: BTreeMap<GroupingKey, Group>,
    /// By arrival.
    pub exemplars: Vec<(Labels, Exemplar)>,
    /// Series that ever had a sample.
    seen: BTreeSet<Labels>,
    added: BTreeSet<(GroupingKey, PushId)>,
    /// The newest instant of each, whatever became of it.
    last: BTreeMap<Labels, i64>,
    newest_deleted: i64,
    max: Option<i64>,
    epochs: BTreeMap<u64, u64>,
    /// Samples not sealed yet, and those of each block.
    head: BTreeSet<(i64, Labels)>,
    blocks: Vec<Block>,
    /// Commands applied.
    index: u64,
}

#[derive(Debug)]
struct Block {
    id: u64,
    /// Of what it was made of.
    newest: i64,
    samples: BTreeSet<(i64, Labels)>,
    /// Whose samples it was made of, deleted since or not, and the newest of each.
    series: BTreeMap<Labels, i64>,
}

impl Block {
    fn new(id: u64, samples: BTreeSet<(i64, Labels)>) -> Option<Self> {
        Some(Self {
            id,
            newest: samples.last()?.0,
            series: samples
                .iter()
                .map(|(at, labels)| (labels.clone(), *at))
                .collect(),
            samples,
        })
    }
}

impl Twin {
    /// The rejections of a write, none at all when it names a series that is not there; nothing for
    /// other commands.
    pub fn apply(&mut self, command: &Command) -> Option<Vec<Rejection>> {
        self.index += 1;
        match command {
            Command::Write(write) => return self.knows(write).then(|| self.write(write)),
            Command::Collect(collect) => self.collect(collect),
            Command::Push(push) => drop(self.push(push, None)),
            Command::Pushes(pushes) => self.push_all(pushes),
            Command::Seal(seal) => self.seal(seal.before.0),
            Command::Retain(retain) => self.retain(retain.before.0),
            Command::Delete(delete) => self.delete(delete),
            Command::Clean(clean) => self.clean(clean.block),
            Command::Wipe(_) => {
                for group in std::mem::take(&mut self.groups).into_values() {
                    let newest = group.push_time.max(group.push_failure_time).0;
                    self.newest_deleted = self.newest_deleted.max(newest);
                }
            }
            Command::Compact(compact) => self.compact(&compact.blocks),
            Command::Describe(_) | Command::Add(_) => unreachable!("these have tests of their own"),
        }
        Some(Vec::new())
    }

    pub fn id_of(&self, labels: &Labels) -> Option<usize> {
        let mut ids = self.ids.iter();
        ids.position(|own| own.as_ref() == Some(labels))
    }

    fn labels_of(&self, series: SeriesRef, write: &WriteCommand) -> Option<Labels> {
        match series {
            SeriesRef::Known(id) => self.ids.get(id.0 as usize)?.clone(),
            SeriesRef::New(n) => write.labels.get(n as usize).cloned(),
        }
    }

    fn knows(&self, write: &WriteCommand) -> bool {
        let exemplars = write.exemplars.iter().map(|(series, _)| series);
        let mut all = write.rows.series.iter().chain(exemplars);
        all.all(|series| self.labels_of(*series, write).is_some())
    }

    fn collect(&mut self, collect: &CollectCommand) {
        for id in &collect.series {
            let Some(Some(labels)) = self.ids.get(id.0 as usize).cloned() else {
                continue;
            };
            let exemplars = self.exemplars.iter().filter(|(own, _)| *own == labels);
            let exemplar = exemplars.map(|(_, exemplar)| exemplar.timestamp.0).max();
            let recent = |at: Option<i64>| at.is_some_and(|at| at >= collect.before.0);
            let in_head = self.head.iter().any(|(_, own)| *own == labels);
            if in_head || recent(self.last.get(&labels).copied()) {
                continue;
            }
            if self.sealed(&labels).is_some() {
                if collect.rest && exemplar.is_none() {
                    self.ids[id.0 as usize] = None;
                    self.resting.insert(labels, id.0 as usize);
                }
                continue;
            }
            if recent(exemplar) {
                continue;
            }
            assert!(!self.content.contains_key(&labels), "nothing is lost");
            self.ids[id.0 as usize] = None;
            self.seen.remove(&labels);
            self.last.remove(&labels);
            self.exemplars.retain(|(own, _)| *own != labels);
        }
    }

    /// The newest instant that blocks hold of a series.
    fn sealed(&self, labels: &Labels) -> Option<i64> {
        let held = self
            .blocks
            .iter()
            .filter_map(|block| block.series.get(labels));
        held.copied().max()
    }

    /// One that rests comes back under its id, as long as a block holds it.
    fn register(&mut self, labels: &Labels) {
        if self.id_of(labels).is_some() {
            return;
        }
        let id = self.resting.remove(labels);
        if let (Some(id), Some(newest)) = (id, self.sealed(labels)) {
            self.ids[id] = Some(labels.clone());
            self.last.insert(labels.clone(), newest);
            return;
        }
        self.seen.remove(labels);
        self.last.remove(labels);
        self.ids.push(Some(labels.clone()));
    }

    fn write(&mut self, write: &WriteCommand) -> Vec<Rejection> {
        write.labels.iter().for_each(|labels| self.register(labels));
        let mut stale = BTreeSet::new();
        for (rows, fence) in &write.fences {
            let reached = self.epochs.entry(fence.target).or_default();
            if fence.epoch < *reached {
                stale.extend(rows.clone());
            }
            *reached = (*reached).max(fence.epoch);
        }
        let max_before = self.max;
        let mut rejected = Vec::new();
        for row in 0..write.rows.len() {
            let labels = self.labels_of(write.rows.series[row], write);
            let labels = labels.expect("its series are known");
            let at = write.rows.timestamps[row].0;
            let histograms = &write.rows.histograms;
            let histogram = histograms.iter().find(|(n, _)| *n as usize == row);
            let value = match histogram {
                Some((_, bytes)) => Value::Histogram(bytes.clone()),
                None => Value::Float(write.rows.values[row].to_bits()),
            };
            let stored = self.content.get(&labels).and_then(|s| s.get(&at));
            let reason = if stale.contains(&(row as u32)) {
                Some(Reason::Fenced)
            } else if stored.is_some() {
                (stored != Some(&value)).then_some(Reason::Duplicate)
            } else if let Some(reason) =
                max_before.and_then(|max| self.too_late(&labels, at, max, write))
            {
                Some(reason)
            } else if write.future_window_ms > 0
                && older(write.proposed_at.0, at, write.future_window_ms)
            {
                Some(Reason::TooNew)
            } else {
                self.content
                    .entry(labels.clone())
                    .or_default()
                    .insert(at, value);
                self.seen.insert(labels.clone());
                let last = self.last.entry(labels.clone()).or_insert(at);
                *last = at.max(*last);
                self.head.insert((at, labels));
                self.max = self.max.max(Some(at));
                None
            };
            let row = row as u32;
            rejected.extend(reason.map(|reason| Rejection { row, reason }));
        }
        self.keep_exemplars(write);
        rejected
    }

    fn too_late(&self, labels: &Labels, at: i64, max: i64, write: &WriteCommand) -> Option<Reason> {
        if !older(at, max, write.out_of_order_window_ms.max(0)) {
            return None;
        }
        if older(at, max, write.in_order_window_ms.max(0)) {
            return Some(Reason::TooOld);
        }
        let late = self.last.get(labels).is_some_and(|last| at <= *last);
        late.then_some(Reason::OutOfOrder)
    }

    fn keep_exemplars(&mut self, write: &WriteCommand) {
        for (series, exemplar) in &write.exemplars {
            let labels = self.labels_of(*series, write);
            let labels = labels.expect("its series are known");
            let newest = self.exemplars.iter().rfind(|(own, _)| *own == labels);
            let key = |e: &Exemplar| (e.timestamp, e.value.to_bits(), e.labels.clone());
            let behind = newest.is_none_or(|(_, newest)| key(exemplar) > key(newest));
            if behind && self.seen.contains(&labels) {
                self.exemplars.push((labels, exemplar.clone()));
                while self.exemplars.len() > write.exemplars_max as usize {
                    self.exemplars.remove(0);
                }
            }
        }
    }

    fn push_all(&mut self, pushes: &[PushCommand]) {
        let mut met = BTreeMap::new();
        for push in pushes {
            let at = self.push(push, met.get(&push.key).copied());
            met.insert(push.key.clone(), at);
        }
    }

    /// Its instant. `together` is that of the push on the same group before it in the same entry.
    fn push(&mut self, push: &PushCommand, together: Option<i64>) -> i64 {
        let old = self.groups.get(&push.key).cloned();
        let mut group = old.clone().unwrap_or(Group::new(push.key.clone()));
        let after = |last: i64| {
            let step = i64::from(together != Some(last));
            Timestamp(push.proposed_at.0.max(last + step))
        };
        let floor = self.newest_deleted;
        let last = |time: Timestamp| old.as_ref().map_or(floor, |_| time.0);
        match &push.op {
            PushOp::Put(families) => {
                group.push_time = after(last(group.push_time));
                group.families = named(&[], families);
            }
            PushOp::Post(families) => {
                group.push_time = after(last(group.push_time));
                group.families = named(&group.families, families);
            }
            PushOp::Reject => {
                group.push_failure_time = after(last(group.push_failure_time));
            }
            PushOp::Add { families, id } => {
                if !self.added.insert((push.key.clone(), id.clone())) {
                    return after(last(group.push_time)).0;
                }
                group.push_time = after(last(group.push_time));
                let mut new: BTreeMap<String, Family> = BTreeMap::new();
                let added = group.families.iter().chain(families);
                for family in added {
                    let sum = match new.get(&family.name) {
                        Some(old) => sum::add(old, family),
                        None => family.clone(),
                    };
                    new.insert(family.name.clone(), sum);
                }
                group.families = new.into_values().collect();
            }
            PushOp::Expire if group.expires.is_none_or(|end| end > push.proposed_at) => {
                return after(last(group.push_time)).0;
            }
            PushOp::Delete | PushOp::Expire => {
                if let Some(old) = self.groups.remove(&push.key) {
                    let newest = old.push_time.max(old.push_failure_time).0;
                    self.newest_deleted = self.newest_deleted.max(newest);
                }
                return after(last(group.push_time)).0;
            }
        }
        if !matches!(push.op, PushOp::Reject) {
            let ttl = push.options.ttl_ms;
            group.expires = ttl.map(|ttl| Timestamp(group.push_time.0 + ttl as i64));
        }
        let at = match push.op {
            PushOp::Reject => group.push_failure_time.0,
            _ => group.push_time.0,
        };
        self.groups.insert(push.key.clone(), group);
        at
    }

    fn seal(&mut self, before: i64) {
        let head = std::mem::take(&mut self.head);
        let (old, new) = head.into_iter().partition(|(at, _)| *at < before);
        self.head = new;
        self.blocks.extend(Block::new(self.index, old));
    }

    fn retain(&mut self, before: i64) {
        for block in std::mem::take(&mut self.blocks) {
            if block.newest >= before {
                self.blocks.push(block);
                continue;
            }
            for (at, labels) in block.samples {
                self.content.get_mut(&labels).expect("stored").remove(&at);
            }
        }
        self.content.retain(|_, samples| !samples.is_empty());
    }

    fn delete(&mut self, delete: &DeleteCommand) {
        let chosen = |labels: &Labels| delete.any_of.iter().any(|m| matches_all(m, labels));
        let gone =
            |at: i64, labels: &Labels| at >= delete.start.0 && at <= delete.end.0 && chosen(labels);
        for (labels, samples) in &mut self.content {
            samples.retain(|at, _| !gone(*at, labels));
        }
        self.content.retain(|_, samples| !samples.is_empty());
        self.head.retain(|(at, labels)| !gone(*at, labels));
        for block in &mut self.blocks {
            block.samples.retain(|(at, labels)| !gone(*at, labels));
        }
    }

    /// Of a block with deletions. What is stored stays what it was; retention sees another block.
    fn clean(&mut self, id: u64) {
        let Some(place) = self.blocks.iter().position(|block| block.id == id) else {
            return;
        };
        let samples = self.blocks.remove(place).samples;
        self.blocks.extend(Block::new(self.index, samples));
    }

    /// Of blocks without deletions.
    fn compact(&mut self, ids: &[u64]) {
        let known = |id: &u64| self.blocks.iter().any(|block| block.id == *id);
        if ids.len() < 2 || !ids.iter().all(known) {
            return;
        }
        let chosen = self.blocks.extract_if(.., |block| ids.contains(&block.id));
        let one = chosen.reduce(|mut one, other| {
            one.newest = one.newest.max(other.newest);
            one.samples.extend(other.samples);
            for (labels, at) in other.series {
                let newest = one.series.entry(labels).or_insert(at);
                *newest = at.max(*newest);
            }
            one
        });
        let one = one.expect("two or more");
        self.blocks.push(Block {
            id: self.index,
            ..one
        });
    }

    /// Chosen series that ever had a sample, without samples.
    pub fn known(&self, matchers: &[Matcher]) -> Content {
        let chosen = self
            .seen
            .iter()
            .filter(|labels| matches_all(matchers, labels));
        chosen
            .map(|labels| (labels.clone(), BTreeMap::new()))
            .collect()
    }

    pub fn select(&self, matchers: &[Matcher], start: i64, end: i64) -> Content {
        let mut chosen = Content::new();
        for (labels, samples) in &self.content {
            if start > end || !matches_all(matchers, labels) {
                continue;
            }
            let inside: BTreeMap<_, _> = samples
                .range(start..=end)
                .map(|(a, b)| (*a, b.clone()))
                .collect();
            if !inside.is_empty() {
                chosen.insert(labels.clone(), inside);
            }
        }
        chosen
    }
}

/// `a < b - by`, without overflow.
fn older(a: i64, b: i64, by: i64) -> bool {
    i128::from(a) < i128::from(b) - i128::from(by)
}

fn named(old: &[Family], new: &[Family]) -> Vec<Family> {
    let mut families = BTreeMap::new();
    for family in old.iter().chain(new) {
        families.insert(family.name.clone(), family.clone());
    }
    families.into_values().collect()
}
