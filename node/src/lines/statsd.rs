//! From the queue of StatsD's lines to one group of the whole cluster.
//!
//! Each node adds up what it gets during an interval and pushes the sums as one additive push on
//! the group `job="statsd"`, under an id of its own: it is repeated until it is acknowledged, and
//! counts once. So increments that reached different nodes become one series with their sum. What
//! was added up and not yet pushed is lost when the process is killed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use ingest::lines::split;
use ingest::statsd::fold::{Fold, Options, Refused};
use ingest::statsd::{self, Tally};
use model::Labels;
use model::group::{Family, FamilyKind, Group, GroupingKey, PushId, PushOp, PushOptions};
use model::port::Dice;
use model::sink::{Groups, WriteError};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tracing::warn;

use super::intake::Piece;
use super::mapping::MappingFile;
use super::metrics::{Fate, Lines};

/// The group's job, and so the label of every series.
const JOB: &str = "statsd";
/// Pauses between tries of a push, doubled up to the longest.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_LONGEST: Duration = Duration::from_secs(5);

/// Adds up what waits, and pushes it once in an interval.
pub struct Folder {
    pub groups: Arc<dyn Groups>,
    pub metrics: Lines,
    pub interval: Duration,
    fold: Fold,
    /// Lines in the fold.
    lines: u64,
    /// Names this process's pushes, with a number behind it.
    process: String,
    pushes: u64,
    /// Gauges as the cluster had them after the last push from here.
    gauges: BTreeMap<(String, Labels), f64>,
}

/// A push that was acknowledged, or can never be.
struct Done {
    lines: u64,
    outcome: Result<Option<Group>, WriteError>,
}

type Pushes = FuturesUnordered<BoxFuture<'static, Done>>;

impl Folder {
    pub fn new(
        groups: Arc<dyn Groups>,
        dice: &dyn Dice,
        file: MappingFile,
        interval: Duration,
        metrics: Lines,
    ) -> Self {
        let options = Options {
            rules: file.rules,
            observer: file.observer,
            buckets: file.buckets,
            quantiles: file.quantiles,
        };
        Self {
            groups,
            metrics,
            interval,
            fold: Fold::new(options),
            lines: 0,
            process: format!("statsd-{:016x}{:016x}", dice.roll(), dice.roll()),
            pushes: 0,
            gauges: BTreeMap::new(),
        }
    }

    /// Ends when the queue is closed and empty and the last push is acknowledged.
    pub async fn run(mut self, mut pieces: mpsc::Receiver<Piece>) {
        self.learn_gauges().await;
        let mut pushes = Pushes::new();
        let mut ticks = interval(self.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                piece = pieces.recv() => match piece {
                    Some(piece) => self.take(&piece.bytes),
                    None => break,
                },
                // One push at a time: meanwhile the fold goes on.
                _ = ticks.tick(), if pushes.is_empty() => pushes.extend(self.push()),
                Some(done) = pushes.next() => self.note(done),
            }
        }
        while let Some(done) = pushes.next().await {
            self.note(done);
        }
        if let Some(push) = self.push() {
            let done = push.await;
            self.note(done);
        }
    }

    /// What gauges are now, so that a change of one does not begin at zero after a restart.
    async fn learn_gauges(&mut self) {
        match self.groups.groups().await {
            Ok(groups) => {
                let own = key();
                let group = groups.into_iter().find(|group| group.key == own);
                self.keep_gauges(group.as_ref());
            }
            // The first push tells, too; until then changes begin at zero.
            Err(error) => warn!(%error, "gauges of statsd are not known yet"),
        }
    }

    fn keep_gauges(&mut self, group: Option<&Group>) {
        self.gauges.clear();
        let families = group.map_or(&[][..], |group| &group.families);
        for family in families.iter().filter(|f| f.kind == FamilyKind::Gauge) {
            for sample in &family.samples {
                let series = (family.name.clone(), sample.labels.clone());
                self.gauges.insert(series, sample.value);
            }
        }
    }

    fn take(&mut self, block: &[u8]) {
        let mut tally = Tally::default();
        for line in split(block) {
            let Ok(line) = std::str::from_utf8(line) else {
                tally.malformed += 1;
                continue;
            };
            let mut taken = 0;
            for event in statsd::parse(line, &mut tally) {
                match self.fold.add(&event) {
                    Ok(()) => taken = 1,
                    Err(Refused::Dropped) => self.metrics.count(Fate::Dropped, 1),
                    Err(Refused::Conflict) => self.metrics.count(Fate::Refused, 1),
                    Err(Refused::TooMany) => self.metrics.count(Fate::Overflow, 1),
                }
            }
            self.lines += taken;
        }
        self.metrics.count(Fate::Malformed, tally.malformed);
        self.metrics.bad_tags.inc_by(tally.bad_tags);
    }

    /// The fold as a push that goes on until it is acknowledged; `None` when there is nothing.
    fn push(&mut self) -> Option<BoxFuture<'static, Done>> {
        if self.fold.is_empty() {
            return None;
        }
        let known = |name: &str, labels: &Labels| {
            let series = (name.to_owned(), labels.clone());
            self.gauges.get(&series).copied()
        };
        let families = self.fold.take(known);
        self.pushes += 1;
        let id = format!("{}-{}", self.process, self.pushes);
        let id = PushId::new(id.as_bytes()).expect("short and not empty");
        let groups = Arc::clone(&self.groups);
        let lines = std::mem::take(&mut self.lines);
        Some(Box::pin(async move {
            let outcome = push_until_done(&*groups, families, id).await;
            Done { lines, outcome }
        }))
    }

    fn note(&mut self, done: Done) {
        match done.outcome {
            Ok(group) => {
                self.metrics.count(Fate::Stored, done.lines);
                self.keep_gauges(group.as_ref());
            }
            Err(error) => {
                warn!(%error, lines = done.lines, "lines of statsd were lost");
                self.metrics.count(Fate::Lost, done.lines);
            }
        }
    }
}

/// Repeats the same push, which counts once, while there is hope.
async fn push_until_done(
    groups: &dyn Groups,
    families: Vec<Family>,
    id: PushId,
) -> Result<Option<Group>, WriteError> {
    let mut pause = RETRY_FIRST;
    loop {
        let op = PushOp::Add {
            families: families.clone(),
            id: id.clone(),
        };
        // Unchecked, and without series that are too many: nobody would hear of a refusal, and one
        // name would lose all others.
        let options = PushOptions {
            unchecked: true,
            partial: true,
            ..PushOptions::default()
        };
        match groups.push(key(), op, options).await {
            Ok(pushed) => return Ok(pushed.after.map(Arc::unwrap_or_clone)),
            Err(error @ (WriteError::Invalid(_) | WriteError::Inconsistent(_))) => {
                return Err(error);
            }
            Err(_) => {}
        }
        sleep(pause).await;
        pause = (pause * 2).min(RETRY_LONGEST);
    }
}

fn key() -> GroupingKey {
    GroupingKey::new([("job".to_owned(), JOB.to_owned())]).expect("a job")
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use async_trait::async_trait;
    use model::Timestamp;
    use model::group::sum;
    use model::sink::Pushed;
    use model::source::SourceError;

    use super::super::intake::Intake;
    use super::*;

    /// One group; an answer gets lost now and then.
    #[derive(Default)]
    struct Store {
        families: Mutex<BTreeMap<String, Family>>,
        seen: Mutex<Vec<PushId>>,
        lose: Mutex<usize>,
    }

    impl Store {
        fn value(&self, name: &str) -> f64 {
            self.families.lock().unwrap()[name].samples[0].value
        }

        fn group(&self) -> Group {
            Group {
                families: self.families.lock().unwrap().values().cloned().collect(),
                ..Group::new(key())
            }
        }
    }

    #[async_trait]
    impl Groups for Store {
        async fn push(
            &self,
            _: GroupingKey,
            op: PushOp,
            _: PushOptions,
        ) -> Result<Pushed, WriteError> {
            let PushOp::Add { families, id } = op else {
                panic!("only additive pushes are made");
            };
            let mut seen = self.seen.lock().unwrap();
            let repeated = seen.contains(&id);
            if !repeated {
                seen.push(id);
                let mut all = self.families.lock().unwrap();
                for family in families {
                    let added = match all.get(&family.name) {
                        None => family,
                        Some(old) => sum::add(old, &family),
                    };
                    all.insert(added.name.clone(), added);
                }
            }
            let mut lose = self.lose.lock().unwrap();
            if *lose > 0 {
                *lose -= 1;
                return Err(WriteError::Unavailable(vec![]));
            }
            Ok(Pushed {
                at: Timestamp(1),
                before: None,
                after: Some(Arc::new(self.group())),
                repeated,
            })
        }

        async fn wipe(&self) -> Result<(), WriteError> {
            panic!("only additive pushes are made");
        }

        async fn groups(&self) -> Result<Vec<Group>, SourceError> {
            Ok(vec![self.group()])
        }
    }

    /// Counts up, so that no two processes have one name.
    struct Counting(std::sync::atomic::AtomicU64);

    impl Dice for Counting {
        fn roll(&self) -> u64 {
            self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst)
        }
    }

    /// What a node that gets these lines and is stopped leaves behind.
    async fn run(store: &Arc<Store>, dice: &dyn Dice, lines: &[u8]) -> Lines {
        let metrics = Lines::new("statsd");
        let (intake, pieces) = Intake::new(metrics.clone());
        let interval = Duration::from_secs(10);
        let file = MappingFile::default();
        let folder = Folder::new(store.clone(), dice, file, interval, metrics.clone());
        intake.offer(lines);
        drop(intake);
        folder.run(pieces).await;
        metrics
    }

    #[tokio::test(start_paused = true)]
    async fn increments_of_two_nodes_are_one_sum_though_answers_get_lost() {
        let store = Arc::new(Store::default());
        let dice = Counting(0.into());
        *store.lose.lock().unwrap() = 3;
        let metrics = run(&store, &dice, b"c:1|c\nc:2|c\nbad\nc:1|g\n").await;
        *store.lose.lock().unwrap() = 1;
        run(&store, &dice, b"c:4|c").await;
        assert_eq!(store.value("c"), 7.0);
        assert_eq!(store.seen.lock().unwrap().len(), 2);
        for (fate, lines) in [(Fate::Stored, 2), (Fate::Malformed, 1), (Fate::Refused, 1)] {
            assert_eq!(metrics.get(fate), lines, "{fate:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_of_a_gauge_begins_at_what_the_cluster_has() {
        let store = Arc::new(Store::default());
        let dice = Counting(0.into());
        run(&store, &dice, b"g:10|g").await;
        run(&store, &dice, b"g:-3|g").await;
        assert_eq!(store.value("g"), 7.0);
    }

    #[tokio::test(start_paused = true)]
    async fn what_came_in_is_pushed_once_in_an_interval() {
        let store = Arc::new(Store::default());
        let metrics = Lines::new("statsd");
        let (intake, pieces) = Intake::new(metrics.clone());
        let interval = Duration::from_secs(10);
        let dice = Counting(0.into());
        let file = MappingFile::default();
        let folder = Folder::new(store.clone(), &dice, file, interval, metrics);
        let send = async {
            for _ in 0..100 {
                intake.offer(b"c:1|c\n");
                sleep(Duration::from_secs(1)).await;
            }
            drop(intake);
        };
        tokio::join!(send, folder.run(pieces));
        assert_eq!(store.value("c"), 100.0);
        let pushes = store.seen.lock().unwrap().len();
        assert!((9..=12).contains(&pushes), "{pushes}");
    }
}
