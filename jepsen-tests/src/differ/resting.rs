//! quorate whose series rest beside quorate whose series never do: whatever is asked, every answer
//! must be the same to the byte.
//!
//! One store keeps all series registered, for each has an exemplar, which blocks do not hold. In the
//! others most of them rest ([`stages`]): with their labels in memory, or in the files of blocks,
//! after a kill, on several nodes. They are asked once series rest, once some came back, once all of
//! them rest again in blocks made of several, once some are deleted, and once their room is given back.

use anyhow::{Context, bail};
use bytes::Bytes;
use futures::future::try_join_all;

use super::call::Call;
use super::calls::{Calls, RANGES, WIDE_RANGES, deletions};
use super::data::{Data, END_MS, Series};
use super::generate::Generator;
use super::metamorphic::{Settings, Summary, Upset, load, upset};
use super::peers::{Client, Programs, Quorate};
use super::settled::Settled;
use super::stages::{FAR_MS, LATER_MS, Stages, is_kept, registered};
use super::wire;
use crate::splitmix::SplitMix64;

/// So that an instant is answered by whatever came last.
const FLAGS: [&str; 1] = ["--query.lookback-delta=30y"];

/// One store; series of the first never rest.
#[derive(Debug, Clone, Copy)]
struct Variant {
    name: &'static str,
    nodes: usize,
    shards: u32,
    rests: bool,
    shuffled: bool,
    /// Blocks get their files before they are asked.
    in_files: bool,
    /// What is done to it whenever series have come to rest.
    upset: Upset,
}

const REFERENCE: Variant = Variant {
    name: "1 shard, none rests",
    nodes: 1,
    shards: 1,
    rests: false,
    shuffled: false,
    in_files: false,
    upset: Upset::Nothing,
};

const VARIANTS: [Variant; 5] = [
    REFERENCE,
    Variant {
        name: "1 shard, rested",
        rests: true,
        ..REFERENCE
    },
    Variant {
        name: "1 shard, shuffled, rested in files, restarted",
        rests: true,
        shuffled: true,
        in_files: true,
        upset: Upset::Restart,
        ..REFERENCE
    },
    Variant {
        name: "3 shards, rested, killed",
        shards: 3,
        rests: true,
        upset: Upset::Kill,
        ..REFERENCE
    },
    Variant {
        name: "3 nodes, 3 shards, rested in files",
        nodes: 3,
        shards: 3,
        rests: true,
        in_files: true,
        ..REFERENCE
    },
];

/// When they are asked.
const ACTS: [&str; 5] = ["rested", "come back", "rested again", "deleted", "cleaned"];

/// A node's answers, act by act.
type Answers = Vec<Vec<(u16, Bytes)>>;

/// What is sent and asked, the same for every store.
struct Play {
    data: Data,
    stages: Stages,
    /// For each act.
    calls: Vec<Vec<Call>>,
}

impl Play {
    fn of(seed: u64, settings: &Settings) -> anyhow::Result<Self> {
        let data = Data::generate(seed, settings.native);
        let stages = Stages::of(&data);
        let mut generator = Generator::new(seed, settings.native);
        let mut calls = Calls::new(seed);
        let count = settings.queries;
        let mut acts = Vec::new();
        for act in ACTS {
            let ranges = match act {
                "rested" | "come back" => RANGES,
                _ => WIDE_RANGES,
            };
            let queries = (0..count / 4).map(|_| Call::query(&generator.question().asked()));
            let mut act: Vec<Call> = queries.collect();
            act.extend(calls.of_labels(count / 3, ranges));
            act.extend(calls.of_samples(count / 6));
            act.extend(calls.of_queries(count / 2));
            act.push(Call::write(&Stages::late(&data))?);
            acts.push(act);
        }
        Ok(Self {
            data,
            stages,
            calls: acts,
        })
    }
}

/// Plays the same with every variant and compares each with the first.
pub async fn run(
    seed: u64,
    settings: &Settings,
    programs: &Programs,
    summary: &mut Summary,
) -> anyhow::Result<()> {
    let play = Play::of(seed, settings)?;
    let all = VARIANTS.map(|variant| {
        let played = Store::play(programs, variant, seed, &play);
        async move {
            let name = format!("seed {seed}, {}", variant.name);
            anyhow::Ok((variant, played.await.context(name)?))
        }
    });
    let all: Vec<(Variant, Vec<Answers>)> = try_join_all(all).await?;
    let Some(reference) = all.first().and_then(|(_, nodes)| nodes.first()) else {
        bail!("the first store has no node");
    };
    for (variant, nodes) in &all[1..] {
        for (n, answers) in nodes.iter().enumerate() {
            for (act, calls) in play.calls.iter().enumerate() {
                let name = format!("seed {seed}, {}, node {n}, {}", variant.name, ACTS[act]);
                let lines: Vec<String> = calls.iter().map(|call| call.line.clone()).collect();
                summary.compare(&name, &lines, &reference[act], &answers[act]);
            }
        }
    }
    let (sent, left) = registered(&[&play.stages.old, &play.stages.later]);
    summary.rested += (VARIANTS.len() - 1) * (sent - left);
    Ok(())
}

/// A store that is written to and asked.
struct Store<'a> {
    quorate: Quorate,
    variant: Variant,
    play: &'a Play,
    dice: SplitMix64,
    /// By node.
    answers: Vec<Answers>,
}

impl<'a> Store<'a> {
    async fn play(
        programs: &Programs,
        variant: Variant,
        seed: u64,
        play: &'a Play,
    ) -> anyhow::Result<Vec<Answers>> {
        let (nodes, shards) = (variant.nodes, variant.shards);
        let mut store = Self {
            quorate: Quorate::start_with(programs, nodes, shards, &FLAGS).await?,
            variant,
            play,
            dice: SplitMix64::new(seed ^ 0x4e57),
            answers: vec![Vec::new(); nodes],
        };
        let Stages {
            old,
            later,
            back,
            far,
        } = &play.stages;
        store.write(old, variant.shuffled).await?;
        store.mark(&play.data.series).await?;
        Settled::sealed(END_MS).wait(&mut store.quorate).await?;

        let stages: [&[Vec<Series>]; 4] = [old, later, back, far];
        store.write(later, false).await?;
        store.mark(later.iter().flatten()).await?;
        let settled = store.settled(&stages[..2], LATER_MS);
        settled.wait(&mut store.quorate).await?;
        store.upset().await?;
        settled.wait(&mut store.quorate).await?;
        store.ask(0).await?;

        store.write(back, false).await?;
        store.mark(back.iter().flatten()).await?;
        let settled = store.settled(&stages[..3], LATER_MS);
        // The series of the write that was refused is back too.
        let refused = usize::from(variant.rests);
        let series = settled.series.map(|series| series + refused);
        let settled = Settled { series, ..settled };
        settled.wait(&mut store.quorate).await?;
        store.ask(1).await?;

        store.write(far, false).await?;
        let settled = store.settled(&stages, FAR_MS);
        settled.wait(&mut store.quorate).await?;
        store.upset().await?;
        store.made_one(settled).wait(&mut store.quorate).await?;
        store.ask(2).await?;

        for deletion in deletions() {
            store.order(&deletion).await?;
        }
        store.ask(3).await?;
        store
            .order(&Call::order("/api/v1/admin/tsdb/clean_tombstones", &[]))
            .await?;
        store.ask(4).await?;
        Ok(store.answers)
    }

    async fn write(&mut self, slices: &[Vec<Series>], is_shuffled: bool) -> anyhow::Result<()> {
        load(&mut self.quorate, is_shuffled, slices, &mut self.dice).await
    }

    /// Exemplars of the series that are to stay registered.
    async fn mark(&mut self, series: impl IntoIterator<Item = &'a Series>) -> anyhow::Result<()> {
        let stays = |series: &&Series| !self.variant.rests || is_kept(series);
        let body = wire::exemplars(series.into_iter().filter(stays))?;
        self.client(0)?.write_as_is(body).await
    }

    /// What it comes to once these stages are written.
    fn settled(&self, stages: &[&[Vec<Series>]], newest_ms: i64) -> Settled {
        let (sent, left) = registered(stages);
        Settled {
            series: Some(if self.variant.rests { left } else { sent }),
            ..Settled::sealed(newest_ms)
        }
    }

    /// Two blocks of twelve hours have become one, beside what was before them.
    fn made_one(&self, settled: Settled) -> Settled {
        let Variant {
            in_files, shards, ..
        } = self.variant;
        // A count that an end of the process does not take back.
        let is_counted = in_files && self.variant.upset == Upset::Nothing;
        Settled {
            blocks: Some(2 * shards as usize),
            merged: if is_counted { shards as usize } else { 0 },
            ..settled
        }
    }

    async fn upset(&mut self) -> anyhow::Result<()> {
        if self.variant.in_files {
            // What is pinned has its files.
            self.order(&Call::order("/api/v1/admin/tsdb/snapshot", &[]))
                .await?;
        }
        upset(&mut self.quorate, self.variant.upset, i64::MIN).await
    }

    async fn order(&mut self, call: &Call) -> anyhow::Result<()> {
        match self.client(0)?.call(call).await? {
            (200..=299, _) => Ok(()),
            (status, body) => bail!("{}: {status} {}", call.line, String::from_utf8_lossy(&body)),
        }
    }

    async fn ask(&mut self, act: usize) -> anyhow::Result<()> {
        for n in 0..self.variant.nodes {
            let mut client = self.client(n)?;
            let mut answers = Vec::new();
            for call in &self.play.calls[act] {
                answers.push(client.call(call).await?);
            }
            self.answers[n].push(answers);
        }
        Ok(())
    }

    fn client(&self, n: usize) -> anyhow::Result<Client> {
        let address = *self.quorate.addresses().get(n).context("no such node")?;
        Ok(Client::new(address))
    }
}
