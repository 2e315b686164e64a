//! Push groups: each is a register, and a write of it tells what it replaced.
//!
//! Every put carries its own number, in two metrics, so that half a push is seen as such. A write
//! may be seen, by a read or as what another write replaced, unless a second write was
//! acknowledged that began after the first was known and ended before the observer began.

use std::collections::BTreeMap;

use model::group::{Family, FamilyKind, FamilySample, Group, GroupingKey};
use model::sink::Pushed;
use model::{Labels, Timestamp};

use super::{Violation, violation};

/// The names of the metrics that carry a put's number.
const TWINS: [&str; 2] = ["sim_left", "sim_right"];

/// What a write leaves behind: a put's number, or nothing.
pub type Content = Option<u64>;

#[derive(Debug)]
struct Written {
    group: u32,
    content: Content,
    started: u64,
    /// The first event by which somebody knew that it happened.
    known: Option<u64>,
    acknowledged: Option<u64>,
    not_taken: bool,
    /// The instant the log gave it.
    at: Option<Timestamp>,
}

/// Everything that happened to groups so far.
#[derive(Debug, Default)]
pub struct Groups {
    /// By the number that a put carries; deletes have one too.
    writes: BTreeMap<u64, Written>,
    /// Which write replaced which put.
    replaced: BTreeMap<u64, u64>,
    event: u64,
}

/// The key of the workload's group `group`.
pub fn key_of(group: u32) -> GroupingKey {
    let pairs = [("job", "sim".to_owned()), ("instance", group.to_string())];
    GroupingKey::new(pairs.map(|(name, value)| (name.to_owned(), value))).expect("has a job")
}

/// The families of put `number`.
pub fn families_of(number: u64) -> Vec<Family> {
    let family = |name: &str| Family {
        name: name.to_owned(),
        help: None,
        kind: FamilyKind::Gauge,
        samples: vec![FamilySample {
            suffix: "",
            labels: Labels::default(),
            value: number as f64,
            rare: None,
        }],
    };
    TWINS.map(family).to_vec()
}

/// What a group holds; an error when it is not exactly one whole put.
fn content_of(group: Option<&Group>) -> Result<Content, Violation> {
    let Some(group) = group.filter(|group| !group.families.is_empty()) else {
        return Ok(None);
    };
    let numbers: Vec<(&str, Vec<u64>)> = group
        .families
        .iter()
        .map(|f| {
            (
                f.name.as_str(),
                f.samples.iter().map(|s| s.value as u64).collect(),
            )
        })
        .collect();
    match &numbers[..] {
        [(left, one), (right, other)]
            if [*left, *right] == TWINS && one == other && one.len() == 1 =>
        {
            Ok(Some(one[0]))
        }
        _ => violation(format!("torn: a group holds {numbers:?}")),
    }
}

impl Groups {
    /// Acknowledged writes.
    pub fn acknowledged(&self) -> usize {
        self.writes
            .values()
            .filter(|w| w.acknowledged.is_some())
            .count()
    }

    /// A put, or a delete, is about to be sent; returns its number.
    pub fn begin(&mut self, group: u32, is_put: bool) -> u64 {
        self.event += 1;
        let number = self.writes.len() as u64 + 1;
        let written = Written {
            group,
            content: is_put.then_some(number),
            started: self.event,
            known: None,
            acknowledged: None,
            not_taken: false,
            at: None,
        };
        self.writes.insert(number, written);
        number
    }

    /// The store promised that it did not take the write.
    pub fn not_taken(&mut self, number: u64) {
        self.event += 1;
        self.write(number).not_taken = true;
    }

    /// The store committed the write and told what it changed.
    pub fn committed(&mut self, number: u64, pushed: &Pushed) -> Result<(), Violation> {
        self.event += 1;
        let event = self.event;
        let before = content_of(pushed.before.as_deref())?;
        let after = content_of(pushed.after.as_deref())?;
        let write = self.write(number);
        write.known.get_or_insert(event);
        write.acknowledged = Some(event);
        write.at = Some(pushed.at);
        let (group, content, started) = (write.group, write.content, write.started);
        if after != content {
            return violation(format!(
                "write {number} left {after:?} instead of {content:?}"
            ));
        }
        self.seen(group, before, started)?;
        self.later_than_earlier(number)?;
        let Some(before) = before else { return Ok(()) };
        match self.replaced.insert(before, number) {
            None => Ok(()),
            Some(other) => violation(format!(
                "writes {other} and {number} both replaced put {before}"
            )),
        }
    }

    /// The mark a read takes before it is sent.
    pub fn started(&mut self) -> u64 {
        self.event += 1;
        self.event
    }

    /// A read that began at `started` returned `found` as the state of every group.
    pub fn shown(&mut self, groups: u32, found: &[Group], started: u64) -> Result<(), Violation> {
        self.event += 1;
        let keys = found.windows(2).find(|pair| pair[0].key >= pair[1].key);
        if let Some(pair) = keys {
            return violation(format!("groups out of order or twice: {:?}", pair[0].key));
        }
        for group in 0..groups {
            let key = key_of(group);
            let content = content_of(found.iter().find(|g| g.key == key))?;
            self.seen(group, content, started)?;
        }
        Ok(())
    }

    fn write(&mut self, number: u64) -> &mut Written {
        self.writes.get_mut(&number).expect("begun before it ended")
    }

    /// Whether an observer that began at `started` and has just ended may see `content`.
    fn seen(&mut self, group: u32, content: Content, started: u64) -> Result<(), Violation> {
        let possible = match content {
            Some(number) => match self.writes.get(&number) {
                Some(w) if w.group == group && w.content.is_some() && !w.not_taken => {
                    !self.is_overwritten(group, w.known, started)
                }
                _ => return violation(format!("phantom: group {group} holds {number}")),
            },
            None => {
                let deletes = self
                    .writes
                    .values()
                    .filter(|w| w.group == group && w.content.is_none());
                !self.is_overwritten(group, Some(0), started)
                    || deletes
                        .filter(|w| !w.not_taken)
                        .any(|w| !self.is_overwritten(group, w.known, started))
            }
        };
        if !possible {
            let history: Vec<_> = self
                .writes
                .iter()
                .filter(|(_, w)| w.group == group)
                .collect();
            let tail = &history[history.len().saturating_sub(12)..];
            return violation(format!(
                "stale: group {group} shows {content:?} to one that began at {started}: {tail:?}"
            ));
        }
        let event = self.event;
        if let Some(number) = content {
            self.write(number).known.get_or_insert(event);
        }
        Ok(())
    }

    /// Whether some write surely came after one known since `known` and before `started`.
    fn is_overwritten(&self, group: u32, known: Option<u64>, started: u64) -> bool {
        let Some(known) = known else { return false };
        self.writes.values().any(|w| {
            w.group == group
                && w.started > known
                && w.acknowledged.is_some_and(|ended| ended < started)
        })
    }

    /// Push times never stand still nor go back.
    fn later_than_earlier(&self, number: u64) -> Result<(), Violation> {
        let write = &self.writes[&number];
        if write.content.is_none() {
            return Ok(());
        }
        let earlier = self.writes.iter().find(|(_, w)| {
            w.group == write.group
                && w.content.is_some()
                && w.acknowledged.is_some_and(|ended| ended < write.started)
                && w.at >= write.at
        });
        match earlier {
            None => Ok(()),
            Some((other, w)) => violation(format!(
                "put {number} at {:?} came after put {other} at {:?}",
                write.at, w.at
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn group(group: u32, number: u64, at: i64) -> Group {
        Group {
            key: key_of(group),
            families: families_of(number),
            push_time: Timestamp(at),
            push_failure_time: Timestamp(0),
            expires: None,
        }
    }

    fn put(groups: &mut Groups, before: Content) -> Result<u64, Violation> {
        let number = groups.begin(0, true);
        commit(groups, number, before).map(|()| number)
    }

    fn commit(groups: &mut Groups, number: u64, before: Content) -> Result<(), Violation> {
        let at = number as i64;
        let pushed = Pushed {
            at: Timestamp(at),
            before: before.map(|n| Arc::new(group(0, n, at - 1))),
            after: groups.writes[&number]
                .content
                .map(|n| Arc::new(group(0, n, at))),
            repeated: false,
        };
        groups.committed(number, &pushed)
    }

    fn read(groups: &mut Groups, content: Content) -> Result<(), Violation> {
        let started = groups.started();
        let found: Vec<Group> = content.map(|n| group(0, n, 1)).into_iter().collect();
        groups.shown(1, &found, started)
    }

    #[test]
    fn a_chain_of_writes_is_fine() {
        let mut groups = Groups::default();
        read(&mut groups, None).unwrap();
        let one = put(&mut groups, None).unwrap();
        read(&mut groups, Some(one)).unwrap();
        let two = put(&mut groups, Some(one)).unwrap();
        read(&mut groups, Some(two)).unwrap();
        let delete = groups.begin(0, false);
        commit(&mut groups, delete, Some(two)).unwrap();
        read(&mut groups, None).unwrap();
    }

    #[test]
    fn stale_reads_are_caught() {
        let mut groups = Groups::default();
        let one = put(&mut groups, None).unwrap();
        assert!(read(&mut groups, None).is_err());
        put(&mut groups, Some(one)).unwrap();
        assert!(read(&mut groups, Some(one)).is_err());
        assert!(read(&mut groups, None).is_err());
    }

    #[test]
    fn an_unanswered_write_may_come_late_but_then_stays() {
        let mut groups = Groups::default();
        let open = groups.begin(0, true);
        let one = put(&mut groups, None).unwrap();
        read(&mut groups, Some(one)).unwrap();
        read(&mut groups, Some(open)).unwrap();
        put(&mut groups, Some(open)).unwrap();
        assert!(read(&mut groups, Some(open)).is_err());
    }

    #[test]
    fn lost_updates_are_caught() {
        let mut groups = Groups::default();
        let one = put(&mut groups, None).unwrap();
        let (two, three) = (groups.begin(0, true), groups.begin(0, true));
        commit(&mut groups, two, Some(one)).unwrap();
        assert!(commit(&mut groups, three, Some(one)).is_err());
    }

    #[test]
    fn halves_phantoms_and_refused_writes_are_caught() {
        let mut groups = Groups::default();
        let one = put(&mut groups, None).unwrap();
        let mut torn = group(0, one, 1);
        torn.families[1].samples[0].value += 1.0;
        let started = groups.started();
        assert!(groups.shown(1, &[torn], started).is_err());
        assert!(read(&mut groups, Some(77)).is_err());
        let refused = groups.begin(0, true);
        groups.not_taken(refused);
        assert!(read(&mut groups, Some(refused)).is_err());
    }

    #[test]
    fn push_times_that_stand_still_are_caught() {
        let mut groups = Groups::default();
        let one = put(&mut groups, None).unwrap();
        let two = groups.begin(0, true);
        let at = one as i64;
        let pushed = Pushed {
            at: Timestamp(at),
            before: Some(Arc::new(group(0, one, at))),
            after: Some(Arc::new(group(0, two, at))),
            repeated: false,
        };
        assert!(groups.committed(two, &pushed).is_err());
    }
}
