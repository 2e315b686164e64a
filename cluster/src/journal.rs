//! Pushes that are committed, on their way into the history: what their groups now stand for is
//! stored as ordinary samples, and the series they lost are ended. Only then are they answered, so
//! that a pushed value can be queried by whoever got the answer.
//!
//! The leader of a group's shard does it, for all pushes of an entry together, and one loop of the
//! node writes what several shards' entries brought meanwhile as one batch. Of pushes to one group in
//! one entry the last alone is history: they share their instant.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use futures::stream::{FuturesUnordered, StreamExt};
use model::group::{Group, GroupingKey};
use model::hash;
use model::sink::{Pushed, Reason, Rejection, Sink, Written};
use model::{Batch, Labels, Timestamp};
use tokio::sync::{Mutex, OwnedSemaphorePermit, mpsc, oneshot};

use crate::refusal::Refusal;
use crate::shard::room;

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
    /// Whether it is stored enough without series that are too many.
    pub partial: bool,
}

impl Waiting {
    pub fn answer(self, answer: Result<Pushed, Refusal>) {
        // A client that went away needs no answer.
        self.done.send(answer).ok();
    }
}

/// Which rows say what a group now stands for, one for each of [`Group::series`].
struct Stands {
    rows: Range<u32>,
    group: Arc<Group>,
}

struct Entry {
    batch: Batch,
    /// By row.
    stands: Vec<Stands>,
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
        let (batch, stands) = batch_of(&pushed);
        let entry = Entry {
            batch,
            stands,
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
        let before = gathered.batch.rows.len() as u32;
        gathered.batch.append(next.batch);
        let moved = next.stands.into_iter().map(|stands| Stands {
            rows: stands.rows.start + before..stands.rows.end + before,
            ..stands
        });
        gathered.stands.extend(moved);
        gathered.pushed.extend(next.pushed);
    }
    gathered
}

/// Rows that are refused are of no concern, something later is stored already: but for those of series
/// that are too many. Between the check and here others may have taken the room.
async fn write(sink: &dyn Sink, entry: Entry) {
    let written = match entry.batch.is_empty() {
        true => Ok(Written::default()),
        false => sink.write(entry.batch).await,
    };
    let refusal = written
        .as_ref()
        .err()
        .map(|error| Refusal::Unavailable(format!("pushed, but not stored as samples: {error}")));
    let rejected = written.map(|w| w.rejected).unwrap_or_default();
    let lacking = lacking(&entry.stands, &rejected);
    for (pushed, waiting) in entry.pushed {
        let group = pushed.after.as_ref().filter(|_| !waiting.partial);
        let lacking = group.and_then(|group| lacking.get(&group.key));
        let refusal = refusal.clone().or_else(|| lacking.map(room::full));
        waiting.answer(refusal.map_or(Ok(pushed), Err));
    }
}

/// The first series that there was no room for, of each group that has one.
fn lacking<'a>(stands: &'a [Stands], rejected: &[Rejection]) -> BTreeMap<&'a GroupingKey, Labels> {
    let mut lacking = BTreeMap::new();
    for rejection in rejected {
        let place = stands.partition_point(|stands| stands.rows.end <= rejection.row);
        let Some(found) = stands
            .get(place)
            .filter(|s| s.rows.contains(&rejection.row))
        else {
            continue;
        };
        let is_known = lacking.contains_key(&found.group.key);
        if rejection.reason == Reason::SeriesLimit && !is_known {
            let nth = (rejection.row - found.rows.start) as usize;
            let (labels, _) = found.group.series().swap_remove(nth);
            lacking.insert(&found.group.key, labels);
        }
    }
    lacking
}

/// What the pushes of one entry came to.
fn batch_of(pushed: &[Pushed]) -> (Batch, Vec<Stands>) {
    struct Change<'a> {
        before: Option<&'a Group>,
        after: Option<&'a Arc<Group>>,
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
        change.after = after;
        change.at = one.at;
    }
    let (mut batch, mut stands) = (Batch::default(), Vec::new());
    for Change { before, after, at } in changes.into_values() {
        let rows = add_change(&mut batch, before, after.map(|group| &**group), at);
        stands.extend(after.map(|group| Stands {
            rows,
            group: group.clone(),
        }));
    }
    (batch, stands)
}

/// What a group now stands for, behind the end of the series it lost; which rows are the former.
pub fn add_change(
    batch: &mut Batch,
    before: Option<&Group>,
    after: Option<&Group>,
    at: Timestamp,
) -> Range<u32> {
    let now = after.map(Group::series).unwrap_or_default();
    if let Some(before) = before.filter(|before| !keeps_all(before, after)) {
        let kept: hash::Set<&Labels> = now.iter().map(|(labels, _)| labels).collect();
        for (labels, _) in before.series() {
            if !kept.contains(&labels) {
                batch.add_sample(labels, at, model::sample::STALE_NAN);
            }
        }
    }
    let first = batch.rows.len() as u32;
    for (labels, value) in now {
        batch.add_value(labels, at, value);
    }
    first..batch.rows.len() as u32
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
        let (batch, stands) = batch_of(&[
            pushed(5, Some(&one), Some(&two)),
            pushed(6, None, Some(&other)),
            pushed(5, Some(&two), Some(&three)),
        ]);
        assert_eq!(names(&batch), ["-w", "-x", "x", "z"]);
        let of_group = |stands: &Stands| (stands.group.families[0].name.clone(), stands.rows.len());
        let of_groups: Vec<_> = stands.iter().map(of_group).collect();
        assert_eq!(of_groups, [("z".to_owned(), 3), ("x".to_owned(), 3)]);
        let (deleted, stands) = batch_of(&[
            pushed(5, Some(&one), Some(&two)),
            pushed(5, Some(&two), None),
        ]);
        assert_eq!(names(&deleted), ["-w", "-x"]);
        assert!(stands.is_empty());
    }

    #[test]
    fn what_changed_nothing_is_written_only_when_it_is_repeated() {
        let one = group("a", &["x"]);
        let mut same = pushed(5, Some(&one), Some(&one));
        let (batch, _) = batch_of(&[same.clone(), pushed(5, None, None)]);
        assert!(batch.is_empty());
        same.repeated = true;
        assert_eq!(names(&batch_of(&[same]).0), ["x"]);
    }

    #[test]
    fn series_that_stay_are_seen_without_looking_for_them() {
        let (one, more) = (group("a", &["x"]), group("a", &["x", "y"]));
        assert!(keeps_all(&one, Some(&more)));
        assert!(!keeps_all(&more, Some(&one)) && !keeps_all(&one, None));
        let (batch, _) = batch_of(&[pushed(5, Some(&one), Some(&more))]);
        assert_eq!(names(&batch), ["x", "y"]);
    }

    /// Refuses every series whose name is not known, as a full shard does.
    struct Full(&'static [&'static str]);

    #[async_trait::async_trait]
    impl Sink for Full {
        async fn write(&self, batch: Batch) -> Result<Written, model::sink::WriteError> {
            let rows = batch.rows.series.iter().enumerate();
            let new = rows.filter(|(_, series)| {
                let name = batch.series[**series as usize].metric_name();
                !name.starts_with("push_") && !self.0.contains(&name)
            });
            let reject = |(row, _): (usize, &u32)| Rejection {
                row: row as u32,
                reason: Reason::SeriesLimit,
            };
            let rejected = new.map(reject).collect();
            Ok(Written { rejected })
        }
    }

    #[tokio::test]
    async fn a_push_without_room_in_the_history_is_not_acknowledged() {
        let room = Arc::new(tokio::sync::Semaphore::new(9));
        let entry = |all: &[(Pushed, bool)]| {
            let mut answers = Vec::new();
            let (batch, stands) = batch_of(&all.iter().map(|(p, _)| p.clone()).collect::<Vec<_>>());
            let pushed = all.iter().map(|(pushed, partial)| {
                let (done, answer) = oneshot::channel();
                answers.push(answer);
                let room = room.clone().try_acquire_owned().unwrap();
                let partial = *partial;
                (
                    pushed.clone(),
                    Waiting {
                        done,
                        room,
                        partial,
                    },
                )
            });
            let pushed = pushed.collect();
            (
                Entry {
                    batch,
                    stands,
                    pushed,
                },
                answers,
            )
        };
        let known = group("a", &["x"]);
        let lost = group("b", &["never_stored"]);
        let new = group("c", &["x", "y"]);
        let (first, mut answers) = entry(&[(pushed(5, None, Some(&known)), false)]);
        let (second, more) = entry(&[
            // The end of a series that never had room is no reason to refuse its deletion.
            (pushed(5, Some(&lost), None), false),
            (pushed(5, None, Some(&new)), false),
            (pushed(5, Some(&new), Some(&new.clone())), true),
        ]);
        answers.extend(more);
        let (entries, mut receiver) = mpsc::channel(9);
        entries.try_send(second).ok().unwrap();
        write(&Full(&["x"]), gather(first, &mut receiver)).await;
        let answers = futures::future::join_all(answers).await;
        let answers: Vec<_> = answers.into_iter().map(Result::unwrap).collect();
        let refusal = "overloaded: limit of series reached (--cluster.max-series), new series \
                       refused: {__name__=\"y\", job=\"c\"}";
        let told: Vec<_> = answers
            .iter()
            .map(|a| a.as_ref().err().map(ToString::to_string))
            .collect();
        assert_eq!(told, [None, None, Some(refusal.to_owned()), None]);
    }
}
