//! What administrators do: samples of series made for it are deleted, and blocks written anew
//! without them.

use std::collections::BTreeMap;

use model::labels::METRIC_NAME;
use model::port::Dice;
use model::{Batch, Labels, MatchOp, Matcher, Timestamp};
use tokio::time::timeout;

use crate::history::deletions::{Chosen, Place};
use crate::workload::{Client, PATIENCE};

const NAME: &str = "sim_doomed";
const SERIES: &str = "series";
/// So few that a deletion meets something.
const SERIES_COUNT: u64 = 4;

impl Client {
    /// Writes rows that will be deleted some day; whether the store decided them.
    pub async fn write_doomed(&self) -> bool {
        let now = self.clock.now().0;
        let mut rows = BTreeMap::new();
        for _ in 0..=self.dice.below(self.plan.rows_max as u64) {
            let series = self.dice.below(SERIES_COUNT) as u32;
            let at = now - self.dice.below(self.plan.reach_ms as u64) as i64;
            if !self.record.lock().deletions.is_taken((series, at)) {
                rows.insert((series, at), self.dice.below(1 << 20) as f64);
            }
        }
        let rows: Vec<(Place, f64)> = rows.into_iter().collect();
        {
            let mut record = self.record.lock();
            record.note(&self.name, format_args!("doom {rows:?}"));
            record.deletions.begin(&rows);
        }
        let answer = timeout(PATIENCE, self.door.sink.write(batch_of(&rows))).await;
        let mut record = self.record.lock();
        record.note(&self.name, format_args!("doomed {answer:?}"));
        let Ok(Ok(written)) = answer else {
            return false;
        };
        let checked = record.deletions.decided(&rows, &written.rejected);
        record.check(&self.name, checked);
        true
    }

    /// Deletes some of them, and then at times cleans; whether it was done.
    pub async fn delete(&self) -> bool {
        let now = self.clock.now().0;
        let first = self.dice.below(SERIES_COUNT) as u32;
        let last = (first + self.dice.below(2) as u32).min(SERIES_COUNT as u32 - 1);
        let reach = self.plan.reach_ms as u64 * 2;
        let start = now - self.dice.below(reach) as i64;
        let chosen = Chosen {
            series: first..=last,
            times: start..=start + self.dice.below(reach) as i64,
        };
        let number = {
            let mut record = self.record.lock();
            record.note(&self.name, format_args!("delete {chosen:?}"));
            record.deletions.begin_deletion(chosen.clone())
        };
        let admin = &self.door.admin;
        let start = Timestamp(*chosen.times.start());
        let end = Timestamp(*chosen.times.end());
        let any_of = vec![matchers_of(&chosen)];
        let answer = timeout(PATIENCE, admin.delete_series(any_of, start, end)).await;
        let is_done = matches!(answer, Ok(Ok(())));
        {
            let mut record = self.record.lock();
            record.note(&self.name, format_args!("deleted {answer:?}"));
            if is_done {
                record.deletions.deleted(number);
            }
        }
        if self.dice.one_in(3) {
            let answer = timeout(PATIENCE, admin.clean_tombstones()).await;
            let mut record = self.record.lock();
            record.note(&self.name, format_args!("cleaned {answer:?}"));
        }
        is_done
    }

    /// Reads what is left of them; whether there was an answer.
    pub async fn read_doomed(&self) -> bool {
        let started = self.record.lock().deletions.started();
        let answer = timeout(PATIENCE, self.door.samples(NAME, SERIES)).await;
        let mut record = self.record.lock();
        let Ok(Ok(found)) = answer else {
            record.note(&self.name, "doomed unanswered");
            return false;
        };
        let checked = found.and_then(|found| {
            record.note(&self.name, format_args!("doomed: {} left", found.len()));
            record.deletions.shown(&found, started)
        });
        record.reads += 1;
        record.check(&self.name, checked);
        true
    }
}

fn batch_of(rows: &[(Place, f64)]) -> Batch {
    let mut batch = Batch::default();
    for &((series, at), value) in rows {
        let labels = [(METRIC_NAME, NAME), (SERIES, &series.to_string())];
        batch.add_sample(Labels::from_pairs(labels), Timestamp(at), value);
    }
    batch
}

fn matchers_of(chosen: &Chosen) -> Vec<Matcher> {
    let numbers: Vec<String> = chosen.series.clone().map(|n| n.to_string()).collect();
    let of_numbers = Matcher::new(MatchOp::Regex, SERIES, numbers.join("|"));
    vec![
        Matcher::equal(METRIC_NAME, NAME),
        of_numbers.expect("numbers are a pattern"),
    ]
}
