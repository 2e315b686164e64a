//! Pushes that are committed, on their way into the history: what their groups now stand for is
//! stored as ordinary samples, and the series they lost are ended. Only then are they answered, so
//! that a pushed value can be queried by whoever got the answer.
//!
//! The leader of a group's shard does it, for all pushes of an entry together, and one loop of the
//! node writes what several shards' entries brought meanwhile as one batch. Of pushes to one group in
//! one entry the last alone is history: they share their instant.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::stream::{FuturesUnordered, StreamExt};
use model::group::{Group, GroupingKey};
use model::hash;
use model::sink::{Pushed, Sink};
use model::{Batch, Labels, Timestamp};
use tokio::sync::{Mutex, OwnedSemaphorePermit, mpsc, oneshot};

use crate::refusal::Refusal;

/// Entries waiting; a shard's next one waits for room.
const ENTRIES_MAX: usize = 256;
/// Rows of one write; one entry alone may have more.
const ROWS_MAX: usize = 20_000;
/// Writes under way.
const WRITES_MAX: usize = 2;

/// Somebody who waits for a push.
pub struct Waiting {
    pub done: oneshot::Sender<Result<Pushed, Refusal>>,
    /// Of the shard's queue.
    pub room: OwnedSemaphorePermit,
}

impl Waiting {
    pub fn answer(self, answer: Result<Pushed, Refusal>) {
        // A client that went away needs no answer.
        self.done.send(answer).ok();
    }
}

struct Entry {
    batch: Batch,
    pushed: Vec<(Pushed, Waiting)>,
}

/// The way of committed pushes into the history.
pub struct Journal {
    entries: mpsc::Sender<Entry>,
    receiver: Mutex<mpsc::Receiver<Entry>>,
}

impl Default for Journal {
    fn default() -> Self {
        let (entries, receiver) = mpsc::channel(ENTRIES_MAX);
        Self {
            entries,
            receiver: Mutex::new(receiver),
        }
    }
}

impl Journal {
    /// Takes over the answers to the pushes of one entry of the log.
    pub async fn note(&self, pushed: Vec<Pushed>, waiting: Vec<Waiting>) {
        let entry = Entry {
            batch: batch_of(&pushed),
            pushed: pushed.into_iter().zip(waiting).collect(),
        };
        let sent = self.entries.send(entry).await;
        sent.expect("the receiver lives as long as this");
    }

    /// Writes what is noted; ends with the node.
    pub async fn run(&self, sink: &dyn Sink) {
        let mut entries = self.receiver.lock().await;
        let mut under_way = FuturesUnordered::new();
        loop {
            tokio::select! {
                biased;
                Some(()) = under_way.next() => {}
                first = entries.recv(), if under_way.len() < WRITES_MAX => {
                    let Some(first) = first else { return };
                    under_way.push(write(sink, gather(first, &mut entries)));
                }
            }
        }
    }
}

fn gather(first: Entry, entries: &mut mpsc::Receiver<Entry>) -> Entry {
    let mut gathered = first;
    while gathered.batch.rows.len() < ROWS_MAX {
        let Ok(next) = entries.try_recv() else { break };
        gathered.batch.append(next.batch);
        gathered.pushed.extend(next.pushed);
    }
    gathered
}

/// Rows that are refused are of no concern: something later is stored already.
async fn write(sink: &dyn Sink, entry: Entry) {
    let written = match entry.batch.is_empty() {
        true => Ok(()),
        false => sink.write(entry.batch).await.map(drop),
    };
    let refusal = written.map_err(|error| {
        Refusal::Unavailable(format!("pushed, but not stored as samples: {error}"))
    });
    for (pushed, waiting) in entry.pushed {
        waiting.answer(refusal.clone().map(|()| pushed));
    }
}

/// What the pushes of one entry came to.
fn batch_of(pushed: &[Pushed]) -> Batch {
    struct Change<'a> {
        before: Option<&'a Group>,
        after: Option<&'a Group>,
        at: Timestamp,
    }
    let mut changes: BTreeMap<&GroupingKey, Change<'_>> = BTreeMap::new();
    for one in pushed {
        let (before, after) = (one.before.as_ref(), one.after.as_ref());
        let Some(group) = after.or(before) else {
            continue;
        };
        // A group whose time has not come. But the first of a repeated push may have been lost
        // between the log and its samples: they are written again.
        let same = before.zip(after).is_some_and(|(b, a)| Arc::ptr_eq(b, a));
        if same && !one.repeated {
            continue;
        }
        let change = changes.entry(&group.key).or_insert(Change {
            before: before.map(|group| &**group),
            after: None,
            at: one.at,
        });
        change.after = after.map(|group| &**group);
        change.at = one.at;
    }
    let mut batch = Batch::default();
    for Change { before, after, at } in changes.into_values() {
        add_change(&mut batch, before, after, at);
    }
    batch
}

/// What a group now stands for, and the end of the series it lost.
pub fn add_change(batch: &mut Batch, before: Option<&Group>, after: Option<&Group>, at: Timestamp) {
    let now = after.map(Group::series).unwrap_or_default();
    if let Some(before) = before.filter(|before| !keeps_all(before, after)) {
        let kept: hash::Set<&Labels> = now.iter().map(|(labels, _)| labels).collect();
        for (labels, _) in before.series() {
            if !kept.contains(&labels) {
                batch.add_sample(labels, at, model::sample::STALE_NAN);
            }
        }
    }
    for (labels, value) in now {
        batch.add_value(labels, at, value);
    }
}

/// Whether it is plain that no series was lost: nearly every push has those of the one before, in
/// their order.
fn keeps_all(before: &Group, after: Option<&Group>) -> bool {
    let Some(after) = after else { return false };
    let same_end = before.expires.is_some() == after.expires.is_some();
    same_end
        && before.families.iter().all(|old| {
            after.family(&old.name).is_some_and(|new| {
                let pairs = old.samples.iter().zip(&new.samples);
                let mut same = pairs.map(|(a, b)| {
                    let same = a.suffix == b.suffix && a.labels == b.labels;
                    same && (a.native().is_none() || b.native().is_some())
                });
                new.samples.len() >= old.samples.len() && same.all(|same| same)
            })
        })
}

#[cfg(test)]
mod tests {
    use model::group::{Family, FamilySample};

    use super::*;

    fn group(job: &str, names: &[&str]) -> Arc<Group> {
        let key = GroupingKey::new([("job".to_owned(), job.to_owned())]).unwrap();
        let family = |name: &&str| Family {
            name: (*name).to_owned(),
            samples: vec![FamilySample {
                suffix: "",
                labels: Labels::default(),
                value: 1.0,
                rare: None,
            }],
            ..Family::default()
        };
        Arc::new(Group {
            families: names.iter().map(family).collect(),
            ..Group::new(key)
        })
    }

    fn pushed(at: i64, before: Option<&Arc<Group>>, after: Option<&Arc<Group>>) -> Pushed {
        Pushed {
            at: Timestamp(at),
            before: before.cloned(),
            after: after.cloned(),
            repeated: false,
        }
    }

    /// Names with `-` before them where the series ends.
    fn names(batch: &Batch) -> Vec<String> {
        let rows = batch.rows.series.iter().zip(&batch.rows.values);
        let mut names: Vec<String> = rows
            .map(|(series, value)| {
                let name = batch.series[*series as usize].metric_name();
                let end = value.to_bits() == model::sample::STALE_NAN.to_bits();
                format!("{}{name}", if end { "-" } else { "" })
            })
            .filter(|name| !name.contains("push_"))
            .collect();
        names.sort();
        names
    }

    #[test]
    fn of_an_entry_the_last_state_of_each_group_is_history() {
        let (one, two, three) = (
            group("a", &["w", "x"]),
            group("a", &["x", "y"]),
            group("a", &["z"]),
        );
        let other = group("b", &["x"]);
        let batch = batch_of(&[
            pushed(5, Some(&one), Some(&two)),
            pushed(6, None, Some(&other)),
            pushed(5, Some(&two), Some(&three)),
        ]);
        assert_eq!(names(&batch), ["-w", "-x", "x", "z"]);
        let deleted = batch_of(&[
            pushed(5, Some(&one), Some(&two)),
            pushed(5, Some(&two), None),
        ]);
        assert_eq!(names(&deleted), ["-w", "-x"]);
    }

    #[test]
    fn what_changed_nothing_is_written_only_when_it_is_repeated() {
        let one = group("a", &["x"]);
        let mut same = pushed(5, Some(&one), Some(&one));
        assert!(batch_of(&[same.clone(), pushed(5, None, None)]).is_empty());
        same.repeated = true;
        assert_eq!(names(&batch_of(&[same])), ["x"]);
    }

    #[test]
    fn series_that_stay_are_seen_without_looking_for_them() {
        let (one, more) = (group("a", &["x"]), group("a", &["x", "y"]));
        assert!(keeps_all(&one, Some(&more)));
        assert!(!keeps_all(&more, Some(&one)) && !keeps_all(&one, None));
        let batch = batch_of(&[pushed(5, Some(&one), Some(&more))]);
        assert_eq!(names(&batch), ["x", "y"]);
    }
}
