//! The engine beside its twin: random lives with seals, checkpoints, power cuts and installed
//! snapshots. Whatever happens to the files, outcomes and answers stay those of the log.

mod support;

use std::collections::BTreeSet;
use std::path::Path;

use futures::stream;
use model::matcher::MatchOp;
use model::source::{Source, Take};
use model::{Exemplar, Labels, Matcher, SeriesId, Timestamp};
use proptest::prelude::*;
use support::replica::{Replica, metadata, run};
use support::twin::{Content, Twin};
use support::{Step, command, step};
use tsdb::collecting::Look;
use tsdb::{CleanCommand, CollectCommand, Command, CompactCommand, Outcome};

/// Two replicas of one log, and the truth.
struct Life {
    replicas: [Replica; 2],
    twin: Twin,
    log: Vec<Command>,
    outcomes: Vec<String>,
    /// Replica 1 is not fed.
    lags: bool,
}

impl Life {
    async fn new(seed: u64) -> Self {
        Self {
            replicas: [Replica::new(seed).await, Replica::new(seed + 1).await],
            twin: Twin::default(),
            log: Vec::new(),
            outcomes: Vec::new(),
            lags: false,
        }
    }

    async fn step(&mut self, step: &Step) {
        let leader = &self.replicas[0].shard;
        let named = command(step, |labels| leader.resolve(labels));
        if let Some(command) = named {
            return match step {
                Step::Race(.., before) => self.race(step, command, *before).await,
                _ => self.propose(command).await,
            };
        }
        match step {
            Step::Clean(n) => {
                let unclean = leader.unclean_blocks();
                let chosen = unclean.get(n % unclean.len().max(1));
                let block = chosen.copied().unwrap_or(u64::MAX);
                self.propose(Command::Clean(CleanCommand { block })).await;
            }
            Step::Compact(bits) => {
                let candidates = leader.candidates();
                let clean = candidates.iter().filter(|block| !block.unclean);
                let chosen = (1..8).zip(clean).filter(|(n, _)| bits >> n & 1 == 1);
                let mut blocks: Vec<u64> = chosen.map(|(_, block)| block.id).collect();
                blocks.extend((bits & 15 == 1).then_some(u64::MAX));
                self.propose(Command::Compact(CompactCommand { blocks }))
                    .await;
            }
            Step::Collect(before, all) => self.collect(*before, *all).await,
            Step::Merge(n) => {
                let merged = self.replicas[*n].shard.merge_one().await;
                merged.expect("a merged block");
            }
            Step::Checkpoint(n) => {
                let replica = &self.replicas[*n];
                let position = replica.checkpoint().await.expect("a checkpoint");
                assert_eq!(position.index, replica.shard.applied_index());
                assert_eq!(replica.shard.position(), Some(position));
            }
            Step::Reopen(n) => {
                let known = self.log.len() as u64;
                let log = match *n == 1 && self.lags {
                    true => &self.log[..self.replicas[1].shard.applied_index() as usize],
                    false => &self.log[..],
                };
                let outcomes = self.replicas[*n].reopen(log).await.expect("opens");
                self.same_outcomes(log.len(), &outcomes);
                assert!(self.replicas[*n].shard.applied_index() <= known);
            }
            Step::Lag => self.lags = true,
            Step::CatchUp => self.catch_up().await,
            Step::Install => self.install().await,
            _ => unreachable!("the others go through the log"),
        }
    }

    /// A write that comes too late to know its series is not taken in part; said again it is taken.
    async fn race(&mut self, step: &Step, command: Command, before: i64) {
        self.collect(before, false).await;
        self.propose(command).await;
        let refused = format!("{:?}", Outcome::NotRegistered);
        if self.outcomes.last() == Some(&refused) {
            let again = support::command(step, |labels| self.replicas[0].shard.resolve(labels));
            self.propose(again.expect("a write")).await;
            assert_ne!(self.outcomes.last(), Some(&refused));
        }
    }

    async fn collect(&mut self, before: i64, all: bool) {
        let before = Timestamp(before);
        let from = SeriesId(0);
        let look = Look { before, from };
        let (mut series, next) = self.replicas[0].shard.idle_series(look).await;
        assert_eq!(next, None);
        let dead = series.len() as u64;
        if all {
            series = (0..self.twin.ids.len() as u64 + 1).map(SeriesId).collect();
        }
        let command = CollectCommand {
            before,
            series,
            rest: true,
        };
        self.propose(Command::Collect(command)).await;
        let collected = format!("{:?}", Outcome::Collected(dead));
        assert_eq!(self.outcomes.last(), Some(&collected), "all that are dead");
    }

    async fn propose(&mut self, command: Command) {
        let command = Command::decode(command.encode()).expect("decodes");
        let expected = self.twin.apply(&command);
        self.log.push(command);
        let outcomes = self.replicas[0].catch_up(&self.log).await.expect("applies");
        assert_eq!(outcomes.len(), 1);
        match &outcomes[0] {
            Outcome::Written { rejected } => assert_eq!(Some(rejected), expected.as_ref()),
            Outcome::NotRegistered => assert_eq!(expected, None),
            _ => assert!(expected.is_some()),
        }
        self.outcomes.push(format!("{:?}", outcomes[0]));
        if !self.lags {
            self.catch_up().await;
        }
    }

    async fn catch_up(&mut self) {
        self.lags = false;
        let outcomes = self.replicas[1].catch_up(&self.log).await.expect("applies");
        self.same_outcomes(self.log.len(), &outcomes);
    }

    /// The outcomes of the last commands before index `end` are those of the first time.
    fn same_outcomes(&self, end: usize, again: &[Outcome]) {
        let again: Vec<_> = again.iter().map(|o| format!("{o:?}")).collect();
        assert_eq!(again, self.outcomes[end - again.len()..end]);
    }

    async fn install(&mut self) {
        let [leader, follower] = &self.replicas;
        leader.checkpoint().await.expect("a checkpoint");
        let snapshot = leader.shard.snapshot().await.expect("a snapshot");
        if snapshot.position.index <= follower.shard.applied_index() {
            return snapshot.release().await.expect("released");
        }
        // The leader goes on while the files travel, and drops what it no longer needs.
        leader.checkpoint().await.expect("a checkpoint");
        let staged = Path::new("staged");
        follower
            .receive(leader, &snapshot, staged)
            .await
            .expect("received");
        let position = snapshot.position.clone();
        let installed = follower.shard.install(staged, &snapshot.files, position);
        installed.await.expect("installed");
        drop(snapshot);
        assert_eq!(follower.shard.position(), follower_position(follower).await);
        self.catch_up().await;
    }

    /// Blocks that both replicas have written are one file.
    async fn check_blocks(&self) {
        let [one, other] = [&self.replicas[0], &self.replicas[1]].map(|r| r.shard.files());
        let (one, other) = (one.await, other.await);
        let stem = |name: &str| name.rsplit_once('-').map(|(stem, _)| stem.to_owned());
        for file in one.iter().filter(|file| file.name.starts_with("block-")) {
            let same = other.iter().find(|o| stem(&o.name) == stem(&file.name));
            assert!(same.is_none_or(|same| same == file));
        }
    }

    fn exemplars(&self, start: i64, end: i64) -> Vec<(Labels, Exemplar)> {
        let inside = |at: i64| at >= start && at <= end;
        let all = self.twin.exemplars.iter();
        let mut found: Vec<_> = all
            .filter(|(_, e)| inside(e.timestamp.0))
            .cloned()
            .collect();
        found.sort_by(|a, b| a.0.cmp(&b.0));
        found
    }

    async fn check(&self) {
        self.check_blocks().await;
        for (n, replica) in self.replicas.iter().enumerate() {
            if n == 1 && self.lags {
                continue;
            }
            assert_eq!(replica.everything().await, self.twin.content);
            assert_eq!(
                format!("{:?}", replica.shard.groups()),
                format!("{:?}", self.twin.groups.values().collect::<Vec<_>>())
            );
            assert_eq!(exemplars(replica, 10, 40).await, self.exemplars(10, 40));
            let shard = &replica.shard;
            assert_eq!(shard.digest(), self.replicas[0].shard.digest());
            let stats = shard.stats();
            let stored: usize = self.twin.content.values().map(|s| s.len()).sum();
            if shard.unclean_blocks().is_empty() {
                assert_eq!(stats.head_samples + stats.block_samples, stored as u64);
            }
            if let Some((oldest, _)) = stats.head_range {
                assert!(shard.sealing().expect("something was stored").begins <= oldest);
            }
            shard.verify().await.expect("verifies");
            for labels in (0..8).map(support::labels) {
                let id = self.twin.id_of(&labels).map(|id| SeriesId(id as u64));
                assert_eq!(shard.resolve(&labels), id);
            }
            let registered = self.twin.ids.iter().flatten().count();
            assert_eq!(stats.series, registered as u64);
            assert_eq!(stats.series_ever, self.twin.ids.len() as u64);
        }
    }
}

async fn exemplars(replica: &Replica, start: i64, end: i64) -> Vec<(Labels, Exemplar)> {
    let selection = metadata(vec![], start, end);
    let answer = replica
        .shard
        .exemplars(&selection)
        .await
        .expect("an answer");
    let flat = answer.into_iter().flat_map(|series| {
        let labels = series.labels;
        series
            .exemplars
            .into_iter()
            .map(move |e| (labels.clone(), e))
    });
    flat.collect()
}

/// The position the disk itself tells, by opening it a second time.
async fn follower_position(replica: &Replica) -> Option<tsdb::Position> {
    let copy = replica.disk.fork(7);
    let opened = Replica::on(copy).await.expect("an installed shard opens");
    opened.shard.position()
}

fn matchers() -> impl Strategy<Value = Vec<Matcher>> {
    let matcher = prop_oneof![
        Just((MatchOp::Equal, "__name__", "up")),
        Just((MatchOp::NotEqual, "zone", "eu")),
        Just((MatchOp::Equal, "zone", "")),
        Just((MatchOp::Regex, "instance", "i[0-3]")),
        Just((MatchOp::NotRegex, "zone", "u.*|")),
        Just((MatchOp::Equal, "nothing", "x")),
    ];
    let matcher = matcher.prop_map(|(op, name, value)| Matcher::new(op, name, value).unwrap());
    prop::collection::vec(matcher, 0..3)
}

async fn check_selection(life: &Life, matchers: &[Matcher], start: i64, end: i64) {
    let replica = &life.replicas[0];
    let expected = life.twin.select(matchers, start, end);
    let (from, to) = (Timestamp(start), Timestamp(end));
    let all = replica.select(matchers, from, to, Take::All).await;
    assert_eq!(all, expected);

    let mut newest = expected.clone();
    for samples in newest.values_mut() {
        *samples = samples.split_off(&samples.last_key_value().unwrap().0.clone());
    }
    let last = replica.select(matchers, from, to, Take::Last).await;
    assert_eq!(last, newest);

    let selection = metadata(vec![matchers.to_vec(), matchers.to_vec()], start, end);
    let series = replica.shard.series(&selection).await.unwrap();
    // Chunks and blocks are looked at, no samples: nothing that is there is missing, nothing comes
    // that is nowhere, and at a single block's own range it is exact.
    let (series, least): (BTreeSet<_>, BTreeSet<_>) =
        (series.iter().collect(), expected.keys().collect());
    assert!(series.is_superset(&least));
    let known = life.twin.known(matchers);
    assert!(series.iter().all(|labels| known.contains_key(*labels)));
    let shard = &replica.shard;
    let names: BTreeSet<_> = shard
        .label_names(&selection)
        .await
        .unwrap()
        .into_iter()
        .collect();
    let values = shard.label_values("zone", &selection).await.unwrap();
    let values: BTreeSet<_> = values.into_iter().collect();
    let names_of = |content: &Content| -> BTreeSet<String> {
        content
            .keys()
            .flatten()
            .map(|(n, _)| n.to_owned())
            .collect()
    };
    let zones_of = |content: &Content| -> BTreeSet<String> {
        let zones = content.keys().filter_map(|l| l.get("zone"));
        zones.map(str::to_owned).collect()
    };
    assert!(names.is_superset(&names_of(&expected)) && names.is_subset(&names_of(&known)));
    assert!(values.is_superset(&zones_of(&expected)) && values.is_subset(&zones_of(&known)));
}

proptest! {
    #[test]
    fn every_life_is_the_logs(seed in 0u64..1000, steps in prop::collection::vec(step(1), 1..50)) {
        run(async {
            let mut life = Life::new(seed).await;
            for step in &steps {
                life.step(step).await;
                if !matches!(step, Step::Write(..) | Step::Push(..)) {
                    life.check().await;
                }
            }
            life.catch_up().await;
            life.check().await;
        });
    }

    #[test]
    fn selections_answer_as_the_twin(
        steps in prop::collection::vec(step(0), 1..15),
        checkpoint in any::<bool>(),
        asks in prop::collection::vec((matchers(), -10i64..5_000, -10i64..5_000), 1..8),
    ) {
        run(async {
            let mut life = Life::new(1).await;
            for step in &steps {
                life.step(step).await;
            }
            if checkpoint {
                life.step(&Step::Checkpoint(0)).await;
            }
            for (matchers, start, end) in &asks {
                check_selection(&life, matchers, *start, *end).await;
            }
            check_selection(&life, &[], i64::MIN, i64::MAX).await;
        });
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn replaying_a_log_is_applying_its_entries(
        steps in prop::collection::vec(support::mostly_floats(), 1..40),
        piece in 1usize..40,
    ) {
        run(async {
            let mut life = Life::new(1).await;
            for step in &steps {
                life.step(step).await;
            }
            let replica = Replica::new(9).await;
            let commands = life.log.iter().map(|command| Some(command.encode()));
            let entries: Vec<_> = (1..).zip(commands).collect();
            // And an entry that holds no command.
            let end = entries.len() as u64 + 1;
            let last = [(end, None)];
            let batches = entries.chunks(piece).chain([&last[..]]);
            let batches = batches.map(|batch| Ok(batch.to_vec()));
            let replayed = replica.shard.replay(stream::iter(batches));
            replayed.await.expect("applies");
            life.replicas[0].shard.advance(end);
            // To the last bit of what a checkpoint keeps.
            let mut files = Vec::new();
            for replica in [&replica, &life.replicas[0]] {
                replica.checkpoint().await.expect("a checkpoint");
                files.push(replica.shard.files().await);
            }
            assert_eq!(files[0], files[1]);
        });
    }
}
