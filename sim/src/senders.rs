//! What clients do as senders of OTLP do it: differences to be added up, each repeated until it is
//! decided, and words about families.

use model::labels::METRIC_NAME;
use model::port::Dice;
use model::sink::WriteError;
use model::{Batch, FamilyMetadata, Labels, MetricKind};
use tokio::time::timeout;

use crate::history::sums::Delta;
use crate::history::words::OF_FAMILY;
use crate::workload::{Client, PATIENCE};

const NAME: &str = "sim_delta";
const SENDER: &str = "sender";
/// Begins the name of every family that clients tell of.
const FAMILY: &str = "sim_family_";

impl Client {
    /// Sends the next difference, or the one that is not decided; whether the store decided it.
    pub async fn add(&self) -> bool {
        let delta = {
            let mut record = self.record.lock();
            let value = (1 + self.dice.below(1000)) as f64;
            let delta = record.sums.next(self.number, self.clock.now(), value);
            record.note(
                &self.name,
                format_args!("add {} {:?}", delta.value, delta.span),
            );
            delta
        };
        let answer = self.door.sink.write(batch_of(self.number, &delta));
        let answer = timeout(PATIENCE, answer).await;
        let mut record = self.record.lock();
        record.note(&self.name, format_args!("added {answer:?}"));
        let Ok(Ok(written)) = answer else {
            return false;
        };
        record
            .sums
            .decided(self.number, written.rejected.is_empty());
        true
    }

    /// Reads all sums; whether there was an answer.
    pub async fn read_sums(&self) -> bool {
        let counted = self.record.lock().sums.counted();
        let answer = timeout(PATIENCE, self.door.samples(NAME, SENDER)).await;
        let mut record = self.record.lock();
        let Ok(Ok(found)) = answer else {
            record.note(&self.name, "sums unanswered");
            return false;
        };
        let checked = found.and_then(|found| {
            record.note(&self.name, format_args!("sums: {} samples", found.len()));
            record.sums.shown(&counted, &found)
        });
        record.reads += 1;
        record.check(&self.name, checked);
        true
    }

    /// Tells a word about some family of this client.
    pub async fn describe(&self) {
        let family = self.dice.below(3);
        let word = FamilyMetadata {
            name: format!("{FAMILY}{:x}_{family}", self.number),
            kind: MetricKind::Gauge,
            help: self.dice.below(OF_FAMILY).to_string(),
            unit: String::new(),
        };
        {
            let mut record = self.record.lock();
            record.note(
                &self.name,
                format_args!("describe {} {}", word.name, word.help),
            );
            record.words.told(&word);
        }
        let answer = self.door.metadata.describe(vec![word.clone()]);
        let answer: Result<Result<(), WriteError>, _> = timeout(PATIENCE, answer).await;
        let mut record = self.record.lock();
        record.note(&self.name, format_args!("described {answer:?}"));
        if matches!(answer, Ok(Ok(()))) {
            record.words.acknowledged(&word);
        }
    }

    /// Reads all words; whether there was an answer.
    pub async fn read_words(&self) -> bool {
        let known = self.record.lock().words.known();
        let answer = timeout(PATIENCE, self.door.metadata.described(None)).await;
        let mut record = self.record.lock();
        let Ok(Ok(found)) = answer else {
            record.note(&self.name, "words unanswered");
            return false;
        };
        record.note(&self.name, format_args!("words: {}", found.len()));
        record.reads += 1;
        let checked = record.words.shown(FAMILY, &known, &found);
        record.check(&self.name, checked);
        true
    }
}

fn batch_of(sender: u64, delta: &Delta) -> Batch {
    let labels = [(METRIC_NAME, NAME), (SENDER, &sender.to_string())];
    let mut batch = Batch::default();
    batch.add_sample(Labels::from_pairs(labels), delta.at(), delta.value);
    batch.deltas.push(delta.span);
    batch
}
