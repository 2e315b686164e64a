//! quorate beside itself: the same data and questions under other numbers of shards, in another
//! order of arrival, before and after a restart, on each node of a cluster. Every answer must be
//! the same to the byte.

use std::net::SocketAddr;

use anyhow::Context;
use bytes::Bytes;

use super::data::{Data, Series};
use super::generate::Generator;
use super::peers::{Client, Programs, Quorate};
use super::question::Asked;
use super::resting;
use super::settled::Settled;
use super::stages::newest;
use crate::splitmix::SplitMix64;

/// What is done to a store between the first half of the data and the second, and after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upset {
    Nothing,
    /// SIGTERM and start.
    Restart,
    /// SIGKILL of all and start.
    Kill,
    /// Until nothing is left to be cut into blocks.
    Settle,
}

/// One shape of the store; the first is what the others are compared with.
#[derive(Debug, Clone, Copy)]
struct Variant {
    name: &'static str,
    nodes: usize,
    shards: u32,
    shuffled: bool,
    upset: Upset,
}

const VARIANTS: [Variant; 7] = [
    variant("1 shard, in order", 1, 1, false, Upset::Nothing),
    variant("1 shard, shuffled", 1, 1, true, Upset::Nothing),
    variant("3 shards, in order, settled", 1, 3, false, Upset::Settle),
    variant("3 shards, shuffled, restarted", 1, 3, true, Upset::Restart),
    variant("16 shards, shuffled, killed", 1, 16, true, Upset::Kill),
    variant("3 nodes, 16 shards, shuffled", 3, 16, true, Upset::Nothing),
    variant("3 nodes, 3 shards, killed", 3, 3, false, Upset::Kill),
];

const fn variant(
    name: &'static str,
    nodes: usize,
    shards: u32,
    shuffled: bool,
    upset: Upset,
) -> Variant {
    Variant {
        name,
        nodes,
        shards,
        shuffled,
        upset,
    }
}

#[derive(Debug, Clone)]
pub struct Settings {
    pub seed: u64,
    pub seeds: u64,
    pub queries: usize,
    pub native: bool,
}

/// Questions asked in all, and where answers differ from those of the first variant.
#[derive(Debug, Default)]
pub struct Summary {
    pub compared: usize,
    /// Series that rested, in all stores.
    pub rested: usize,
    pub findings: Vec<String>,
}

pub async fn run(settings: &Settings, programs: &Programs) -> anyhow::Result<Summary> {
    let mut summary = Summary::default();
    for seed in settings.seed..settings.seed + settings.seeds {
        let data = Data::generate(seed, settings.native);
        let mut generator = Generator::new(seed, settings.native);
        let asked: Vec<Asked> = (0..settings.queries)
            .map(|_| generator.question().asked())
            .collect();
        let lines: Vec<String> = asked.iter().map(Asked::line).collect();
        let mut first: Option<Vec<(u16, Bytes)>> = None;
        for variant in VARIANTS {
            let all = answers(programs, variant, seed, &data, &asked)
                .await
                .with_context(|| format!("seed {seed}, {}", variant.name))?;
            for (node, answers) in all {
                let Some(first) = &first else {
                    first = Some(answers);
                    continue;
                };
                let name = format!("seed {seed}, {}, {node}", variant.name);
                summary.compare(&name, &lines, first, &answers);
            }
        }
        resting::run(seed, settings, programs, &mut summary).await?;
        println!("seed {seed}: {}", summary.line());
    }
    Ok(summary)
}

impl Summary {
    pub fn line(&self) -> String {
        let (compared, differ) = (self.compared, self.findings.len());
        let rested = self.rested;
        format!("{compared} answers compared, {differ} differ; {rested} series rested")
    }

    /// Answers to the same `lines`.
    pub fn compare(
        &mut self,
        name: &str,
        lines: &[String],
        first: &[(u16, Bytes)],
        answers: &[(u16, Bytes)],
    ) {
        for (n, (a, b)) in first.iter().zip(answers).enumerate() {
            self.compared += 1;
            if a != b {
                let (before, one, other) = around(&a.1, &b.1);
                self.findings.push(format!(
                    "{name}: {}\n  {} {} bytes or {} {} bytes; after {before}\n  {one}\n  {other}",
                    lines[n],
                    a.0,
                    a.1.len(),
                    b.0,
                    b.1.len(),
                ));
            }
        }
    }
}

/// Where two texts part: what they share last, and how each goes on.
fn around(a: &[u8], b: &[u8]) -> (String, String, String) {
    let at = a.iter().zip(b).take_while(|(x, y)| x == y).count();
    let cut = |bytes: &[u8], from: usize, upto: usize| {
        let bytes = &bytes[from.min(bytes.len())..upto.min(bytes.len())];
        String::from_utf8_lossy(bytes).into_owned()
    };
    (
        cut(a, at.saturating_sub(120), at),
        cut(a, at, at + 80),
        cut(b, at, at + 80),
    )
}

/// Every node's answers to everything that is asked, by the node's name.
async fn answers(
    programs: &Programs,
    variant: Variant,
    seed: u64,
    data: &Data,
    asked: &[Asked],
) -> anyhow::Result<Vec<(String, Vec<(u16, Bytes)>)>> {
    let mut quorate = Quorate::start(programs, variant.nodes, variant.shards).await?;
    let mut dice = SplitMix64::new(seed ^ 0x5487);
    let slices = data.slices();
    let (begin, rest) = slices.split_at(slices.len() / 2);
    load(&mut quorate, variant.shuffled, begin, &mut dice).await?;
    upset(&mut quorate, variant.upset, newest(begin)).await?;
    load(&mut quorate, variant.shuffled, rest, &mut dice).await?;
    upset(&mut quorate, variant.upset, newest(rest)).await?;
    let mut all = Vec::new();
    for (n, address) in quorate.addresses().into_iter().enumerate() {
        let mut client = Client::new(address);
        let mut answers = Vec::new();
        for one in asked {
            answers.push(client.ask(one).await?);
        }
        all.push((format!("node {n}"), answers));
    }
    Ok(all)
}

/// Writes slices one after another, to one node after another.
pub async fn load(
    quorate: &mut Quorate,
    is_shuffled: bool,
    slices: &[Vec<Series>],
    dice: &mut SplitMix64,
) -> anyhow::Result<()> {
    let addresses: Vec<SocketAddr> = quorate.addresses();
    let mut clients: Vec<Client> = addresses.into_iter().map(Client::new).collect();
    for (n, slice) in slices.iter().enumerate() {
        let requests = match is_shuffled {
            true => shuffled(slice, dice),
            false => vec![slice.clone()],
        };
        for (m, request) in requests.iter().enumerate() {
            let count = clients.len();
            clients[(n + m) % count].write(request).await?;
        }
    }
    Ok(())
}

/// A slice's points, one by one, in any order and over several requests.
fn shuffled(slice: &[Series], dice: &mut SplitMix64) -> Vec<Vec<Series>> {
    let mut single: Vec<Series> = slice
        .iter()
        .flat_map(|series| {
            series.points.iter().map(|point| Series {
                labels: series.labels.clone(),
                points: vec![point.clone()],
            })
        })
        .collect();
    dice.shuffle(&mut single);
    single.chunks(2_000).map(<[Series]>::to_vec).collect()
}

/// The newest sample of the store is at `newest_ms`.
pub async fn upset(quorate: &mut Quorate, upset: Upset, newest_ms: i64) -> anyhow::Result<()> {
    match upset {
        Upset::Nothing => return Ok(()),
        Upset::Settle => {
            return Settled::sealed(newest_ms).wait(quorate).await;
        }
        Upset::Kill => quorate.cluster.kill_all()?,
        Upset::Restart => {
            for n in 0..quorate.cluster.len() {
                quorate.cluster.process(n).stop().await?;
            }
        }
    }
    quorate.cluster.start_all()?;
    quorate.ready().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shuffling_loses_nothing() {
        let data = Data::generate(1, true);
        let mut dice = SplitMix64::new(1);
        for slice in data.slices().iter().take(3) {
            let points = |all: &[Vec<Series>]| {
                let one = |s: &Series| (s.labels.clone(), s.points[0].at_ms);
                let mut all: Vec<_> = all.iter().flatten().map(one).collect();
                all.sort();
                all
            };
            let count: usize = slice.iter().map(|s| s.points.len()).sum();
            let once = points(&shuffled(slice, &mut dice));
            assert_eq!(once.len(), count);
            assert_eq!(once, points(&shuffled(slice, &mut dice)));
        }
    }

    #[test]
    fn the_first_byte_that_differs_is_shown() {
        let (before, one, other) = around(b"abcdX1", b"abcdY");
        assert_eq!((&*before, &*one, &*other), ("abcd", "X1", "Y"));
    }

    #[test]
    fn a_difference_is_a_finding() {
        let lines = ["up".to_owned()];
        let answer = |text: &'static str| vec![(200, Bytes::from(text))];
        let mut summary = Summary::default();
        summary.compare("x", &lines, &answer("a"), &answer("a"));
        assert!(summary.findings.is_empty());
        summary.compare("x", &lines, &answer("a"), &answer("b"));
        assert_eq!((summary.compared, summary.findings.len()), (2, 1));
    }
}
