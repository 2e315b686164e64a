//! The clients: they write samples that tell who wrote them, resend what was not answered, race
//! for places, push groups, and read; all they do and see goes into the record.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use model::admin::Admin;
use model::group::{PushOp, PushOptions};
use model::labels::METRIC_NAME;
use model::port::{Clock, Dice};
use model::sink::{Groups, Sink, WriteError};
use model::source::{Consistency, Selection, Source, SourceError, Take};
use model::{
    Batch, Exemplar, Histogram, Labels, MatchOp, Matcher, MetadataStore, Series, Timestamp,
};
use sim_world::SimDice;
use tokio::time::{sleep, timeout};

use crate::history::groups::{families_of, key_of};
use crate::history::samples::Place;
use crate::history::{Violation, violation};
use crate::record::{Shared, Stage};
use crate::swarm::Plan;

const NAME: &str = "sim_sample";
const SERIES: &str = "series";
/// Series behind those of the plan that few samples are taken of.
pub const FLEETING: u32 = 16;
/// A client gives up on an answer; the store's own deadlines are shorter.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// Unanswered batches a client keeps to send again.
const RESENDS_MAX: usize = 8;

/// The store, as a client next to one node sees it.
#[derive(Clone)]
pub struct Door {
    pub sink: Arc<dyn Sink>,
    pub groups: Arc<dyn Groups>,
    pub metadata: Arc<dyn MetadataStore>,
    pub admin: Arc<dyn Admin>,
    pub sources: Arc<dyn Fn() -> Vec<Arc<dyn Source>> + Send + Sync>,
}

impl Door {
    /// Asks every shard; an error when none is known.
    pub async fn select(&self, selection: &Selection) -> Result<Vec<Answer>, SourceError> {
        let sources = (self.sources)();
        if sources.is_empty() {
            return Err(SourceError::Unavailable(Vec::new()));
        }
        Ok(join_all(sources.iter().map(|source| source.select(selection))).await)
    }

    /// What every shard has of a metric whose series are told apart by a number, by that and the instant.
    pub async fn samples<N: FromStr + Ord + Copy + Debug>(
        &self,
        metric: &str,
        number: &str,
    ) -> Result<Result<BTreeMap<(N, i64), f64>, Violation>, SourceError> {
        let matchers = vec![Matcher::equal(METRIC_NAME, metric)];
        let selection = ever(matchers, Consistency::Strong);
        let mut found = BTreeMap::new();
        for answer in self.select(&selection).await? {
            for series in answer? {
                let number = series.labels.get(number).and_then(|n| n.parse().ok());
                let Some(number) = number else {
                    return Ok(violation(format!("phantom: series {}", series.labels)));
                };
                for sample in series.samples.iter() {
                    let place = (number, sample.timestamp.0);
                    if found.insert(place, sample.value).is_some() {
                        return Ok(violation(format!("twice: {place:?}")));
                    }
                }
            }
        }
        Ok(Ok(found))
    }
}

/// All samples, whenever.
fn ever(matchers: Vec<Matcher>, consistency: Consistency) -> Selection {
    Selection {
        matchers,
        start: Timestamp(i64::MIN / 2),
        end: Timestamp(i64::MAX / 2),
        take: Take::All,
        consistency,
    }
}

/// What one shard has.
type Answer = Result<Vec<Series>, SourceError>;

/// One client.
pub struct Client {
    pub name: String,
    /// Told apart from every other client of the run.
    pub number: u64,
    pub plan: Arc<Plan>,
    pub record: Arc<Shared>,
    pub dice: SimDice,
    pub clock: Arc<dyn Clock>,
    pub door: Door,
    pub unanswered: Vec<Vec<(Place, f64)>>,
}

impl Client {
    /// Works until the load is over.
    pub async fn run(mut self) {
        loop {
            let pause = &self.plan.pause_ms;
            let pause_ms = pause.start + self.dice.below(pause.end - pause.start);
            sleep(Duration::from_millis(pause_ms)).await;
            if self.record.lock().stage > Stage::Load {
                return;
            }
            self.act().await;
        }
    }

    async fn act(&mut self) {
        match self.dice.below(27) {
            0..=8 => {
                let rows = self.fresh_rows();
                self.write(rows).await;
            }
            9 | 10 => {
                let rows = self.contested_rows();
                self.write(rows).await;
            }
            11 | 12 if !self.unanswered.is_empty() => {
                let index = self.dice.below(self.unanswered.len() as u64) as usize;
                let rows = self.unanswered.swap_remove(index);
                self.write(rows).await;
            }
            13 => drop(self.read(self.some_series(), Consistency::Local).await),
            14 | 15 => drop(self.read(self.some_series(), Consistency::Strong).await),
            16 => drop(self.read_groups().await),
            17 => {
                let rows = self.fleeting_row();
                self.write(rows).await;
            }
            18 | 19 => drop(self.push(!self.dice.one_in(4)).await),
            20 | 21 => drop(self.add().await),
            22 => self.describe().await,
            23 => drop(self.write_doomed().await),
            24 => drop(self.delete().await),
            25 => drop(self.read_doomed().await),
            _ => drop(self.read_sums().await),
        }
    }

    /// Rows at places nobody has tried.
    fn fresh_rows(&self) -> Vec<(Place, f64)> {
        let now = self.clock.now().0;
        let mut rows = BTreeMap::new();
        for _ in 0..=self.dice.below(self.plan.rows_max as u64) {
            let series = self.dice.below(u64::from(self.plan.series)) as u32;
            let at = now - self.dice.below(self.plan.reach_ms as u64) as i64;
            if !self.record.lock().samples.is_taken((series, at)) {
                rows.insert((series, at), self.value_of((series, at)));
            }
        }
        let mut rows: Vec<_> = rows.into_iter().collect();
        // Out of order inside the batch too.
        for i in (1..rows.len()).rev() {
            rows.swap(i, self.dice.up_to(i));
        }
        rows
    }

    /// A row that is mostly refused for its age, of a series that is then forgotten, and comes back.
    fn fleeting_row(&self) -> Vec<(Place, f64)> {
        let series = self.plan.series + self.dice.below(u64::from(FLEETING)) as u32;
        let ago = match self.dice.one_in(8) {
            true => 0,
            false => 3 * self.plan.out_of_order_window_ms,
        };
        let place = (series, self.clock.now().0 - ago);
        match self.record.lock().samples.is_taken(place) {
            true => Vec::new(),
            false => vec![(place, self.value_of(place))],
        }
    }

    /// Rows at places that clients of other nodes choose as well: on whole seconds.
    fn contested_rows(&self) -> Vec<(Place, f64)> {
        let second = self.clock.now().0 / 1_000 * 1_000;
        let series = self.dice.below(u64::from(self.plan.series.min(3))) as u32;
        let place = (series, second - 1_000 * self.dice.below(3) as i64);
        vec![(place, self.value_of(place))]
    }

    /// A number below 2^52 that only this client writes at this place.
    fn value_of(&self, (series, at): Place) -> f64 {
        let mut bytes = [0; 20];
        bytes[..4].copy_from_slice(&series.to_le_bytes());
        bytes[4..12].copy_from_slice(&at.to_le_bytes());
        bytes[12..].copy_from_slice(&self.number.to_le_bytes());
        (model::hash::xxh3(self.plan.seed, &bytes) >> 12) as f64
    }

    fn some_series(&self) -> RangeInclusive<u32> {
        let last = self.plan.series - 1;
        let start = self.dice.below(u64::from(self.plan.series)) as u32;
        start..=(start + self.dice.below(4) as u32).min(last)
    }

    /// Writes rows; whether the store decided them.
    pub async fn write(&mut self, rows: Vec<(Place, f64)>) -> bool {
        if rows.is_empty() {
            return true;
        }
        let write = {
            let mut record = self.record.lock();
            record.note(&self.name, format_args!("write {rows:?}"));
            record.samples.begin(rows.iter().copied())
        };
        let answer = timeout(PATIENCE, self.door.sink.write(batch_of(&rows))).await;
        let mut record = self.record.lock();
        record.note(&self.name, format_args!("wrote {answer:?}"));
        match answer {
            Ok(Ok(written)) => {
                let checked = record.samples.decided(&write, &written.rejected);
                record.check(&self.name, checked);
                true
            }
            Ok(Err(
                WriteError::Overloaded(_) | WriteError::Invalid(_) | WriteError::Inconsistent(_),
            )) => {
                record.samples.not_taken(&write);
                false
            }
            Ok(Err(WriteError::Unavailable(_) | WriteError::Failed(_))) | Err(_) => {
                drop(record);
                self.unanswered.push(rows);
                if self.unanswered.len() > RESENDS_MAX {
                    self.unanswered.remove(0);
                }
                false
            }
        }
    }

    /// Writes one new sample of each series; whether the store decided them.
    pub async fn write_everywhere(&mut self) -> bool {
        let now = self.clock.now().0;
        let free = |series| {
            let mut at = now;
            while self.record.lock().samples.is_taken((series, at)) {
                at += 1;
            }
            (series, at)
        };
        let places: Vec<Place> = (0..self.plan.series).map(free).collect();
        let rows = places
            .into_iter()
            .map(|place| (place, self.value_of(place)))
            .collect();
        self.write(rows).await
    }

    /// Puts or deletes some group; whether it was committed.
    pub async fn push(&self, is_put: bool) -> bool {
        let group = self.dice.below(u64::from(self.plan.groups)) as u32;
        let number = {
            let mut record = self.record.lock();
            let number = record.groups.begin(group, is_put);
            record.note(
                &self.name,
                format_args!("push {number} put={is_put} group={group}"),
            );
            number
        };
        let op = match (is_put, self.dice.one_in(2)) {
            (false, _) => PushOp::Delete,
            (true, false) => PushOp::Put(families_of(number)),
            (true, true) => PushOp::Post(families_of(number)),
        };
        let answer = timeout(
            PATIENCE,
            self.door
                .groups
                .push(key_of(group), op, PushOptions::default()),
        )
        .await;
        let mut record = self.record.lock();
        match answer {
            Ok(Ok(pushed)) => {
                let (at, before) = (pushed.at, pushed.before.as_ref().map(|g| g.push_time));
                record.note(
                    &self.name,
                    format_args!("pushed {number} {at} after {before:?}"),
                );
                let checked = record.groups.committed(number, &pushed);
                record.check(&self.name, checked);
                true
            }
            Ok(Err(error)) => {
                record.note(&self.name, format_args!("pushed {number} {error:?}"));
                if !matches!(error, WriteError::Unavailable(_)) {
                    record.groups.not_taken(number);
                }
                false
            }
            Err(_) => {
                record.note(&self.name, format_args!("pushed {number} unanswered"));
                false
            }
        }
    }

    /// Reads every group; whether there was an answer.
    pub async fn read_groups(&self) -> bool {
        let started = self.record.lock().groups.started();
        let answer = timeout(PATIENCE, self.door.groups.groups()).await;
        let mut record = self.record.lock();
        let Ok(Ok(groups)) = answer else {
            record.note(&self.name, "groups unanswered");
            return false;
        };
        let times: Vec<Timestamp> = groups.iter().map(|group| group.push_time).collect();
        record.note(&self.name, format_args!("groups {times:?}"));
        record.reads += 1;
        let checked = record.groups.shown(self.plan.groups, &groups, started);
        record.check(&self.name, checked);
        true
    }

    /// Reads some series; returns the event at which it was asked, if there was an answer. A
    /// local read may miss what is new.
    pub async fn read(&self, series: RangeInclusive<u32>, consistency: Consistency) -> Option<u64> {
        let started = self.record.lock().samples.started();
        let since = (consistency == Consistency::Strong).then_some(started);
        self.read_since(series, consistency, since)
            .await
            .then_some(started)
    }

    /// Reads series that must hold all that was known at the event `since`; whether there was an
    /// answer.
    pub async fn read_since(
        &self,
        series: RangeInclusive<u32>,
        consistency: Consistency,
        since: Option<u64>,
    ) -> bool {
        let matchers = matchers_of(&series, self.plan.series + FLEETING);
        let selection = ever(matchers, consistency);
        let answer = timeout(PATIENCE, select(&self.door, &selection)).await;
        let mut record = self.record.lock();
        let found = match answer {
            Ok(Ok(Ok(found))) => found,
            Ok(Ok(Err(violation))) => {
                record.check(&self.name, Err(violation));
                return true;
            }
            Ok(Err(error)) => {
                record.note(&self.name, format_args!("read {series:?} {error:?}"));
                return false;
            }
            Err(_) => {
                record.note(&self.name, format_args!("read {series:?} unanswered"));
                return false;
            }
        };
        let (count, hash) = (found.len(), hash_of(&found));
        record.note(
            &self.name,
            format_args!("read {series:?} {consistency:?}: {count} samples, {hash:016x}"),
        );
        record.reads += 1;
        let checked = record.samples.shown(&series, &found, since);
        record.check(&self.name, checked);
        true
    }
}

fn labels_of(series: u32) -> Labels {
    Labels::from_pairs([(METRIC_NAME, NAME), (SERIES, &series.to_string())])
}

fn batch_of(rows: &[(Place, f64)]) -> Batch {
    let mut batch = Batch::default();
    let mut indexes = BTreeMap::new();
    for &((series, at), value) in rows {
        let index = *indexes
            .entry(series)
            .or_insert_with(|| batch.add_series(labels_of(series)));
        match histogram_of(value) {
            Some(histogram) => batch.rows.push_histogram(index, Timestamp(at), histogram),
            None => batch.rows.push(index, Timestamp(at), value),
        }
        let exemplar = Exemplar {
            labels: Labels::from_pairs([("value", value.to_string())]),
            value,
            timestamp: Timestamp(at),
        };
        batch.exemplars.push((index, exemplar));
    }
    batch
}

/// Some values are written as a histogram's sum, so that clients that race for a place may differ
/// in kind as well.
fn histogram_of(value: f64) -> Option<Arc<Histogram>> {
    let histogram = || Histogram {
        is_integer: true,
        count: value,
        sum: value,
        ..Histogram::default()
    };
    (value as u64)
        .is_multiple_of(3)
        .then(|| Arc::new(histogram()))
}

fn matchers_of(series: &RangeInclusive<u32>, all: u32) -> Vec<Matcher> {
    let mut matchers = vec![Matcher::equal(METRIC_NAME, NAME)];
    if *series != (0..=all - 1) {
        let numbers: Vec<String> = series.clone().map(|n| n.to_string()).collect();
        let chosen = Matcher::new(MatchOp::Regex, SERIES, numbers.join("|"));
        matchers.push(chosen.expect("numbers are a pattern"));
    }
    matchers
}

type Found = Result<BTreeMap<Place, f64>, Violation>;

/// Asks every shard. A series that is sent twice or out of order is a violation.
async fn select(door: &Door, selection: &Selection) -> Result<Found, SourceError> {
    let mut found = BTreeMap::new();
    for answer in door.select(selection).await? {
        for series in answer? {
            let number = series
                .labels
                .get(SERIES)
                .and_then(|text| text.parse::<u32>().ok());
            let Some(number) = number.filter(|_| series.labels.metric_name() == NAME) else {
                return Ok(violation(format!(
                    "phantom: series {} was read",
                    series.labels
                )));
            };
            if !series.samples.timestamps.is_sorted_by(|a, b| a < b) {
                return Ok(violation(format!(
                    "{}: samples out of order",
                    series.labels
                )));
            }
            for (index, sample) in series.samples.iter().enumerate() {
                if series.samples.histogram(index) != histogram_of(sample.value).as_ref() {
                    return Ok(violation(format!(
                        "{} at {}: another kind of sample",
                        series.labels, sample.timestamp
                    )));
                }
                if found
                    .insert((number, sample.timestamp.0), sample.value)
                    .is_some()
                {
                    return Ok(violation(format!(
                        "twice: {} at {}",
                        number, sample.timestamp
                    )));
                }
            }
        }
    }
    Ok(Ok(found))
}

fn hash_of(found: &BTreeMap<Place, f64>) -> u64 {
    found.iter().fold(0, |hash, ((series, at), value)| {
        let mut bytes = [0; 20];
        bytes[..4].copy_from_slice(&series.to_le_bytes());
        bytes[4..12].copy_from_slice(&at.to_le_bytes());
        bytes[12..].copy_from_slice(&value.to_bits().to_le_bytes());
        model::hash::xxh3(hash, &bytes)
    })
}
