//! The differential tester: the same data and questions, quorate beside a real Prometheus.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::Context;

use super::answer::{Answer, Outcome, Tally};
use super::call::Call;
use super::calls::{Calls, WIDE_RANGES};
use super::canonical::{apart, canonical};
use super::case::Case;
use super::cut;
use super::data::{Data, Series};
use super::generate::Generator;
use super::instants;
use super::known::{Known, RANGE, known};
use super::peers::{Client, Programs, Prometheus, Quorate};
use super::question::{Asked, Question};
use super::settled::Settled;
use super::shrink;
use super::stages::{LATER_MS, Stages, is_kept, newest, registered};
use super::wire;

/// Smaller questions tried for one difference, and smaller sets of data.
const QUESTIONS_TRIED_MAX: usize = 1_000;
const DATA_TRIED_MAX: usize = 60;
/// By then a store has cut blocks of what was loaded.
const REST: std::time::Duration = std::time::Duration::from_secs(12);
const NOTES_KEPT_MAX: usize = 10;

/// What is asked for, by seed.
#[derive(Debug, Clone)]
pub struct Settings {
    pub seed: u64,
    pub seeds: u64,
    /// Questions for each seed.
    pub queries: usize,
    pub native: bool,
    /// Also makes the data of a finding smaller, which starts both anew many times.
    pub shrink_data: bool,
    /// Distinct findings after which it stops.
    pub findings_max: usize,
}

/// What a run has seen.
#[derive(Debug, Default)]
pub struct Summary {
    pub asked: usize,
    /// Of labels, series, exemplars and samples, not of expressions.
    pub calls: usize,
    /// Series that rested, over all seeds.
    pub rested: usize,
    pub agreed: usize,
    /// Agreed, and both are errors.
    pub errors: usize,
    /// Agreed, and both have no series.
    pub empty: usize,
    pub values: u64,
    pub bit_exact: u64,
    pub notes_differ: usize,
    pub texts_differ: usize,
    pub order_differs: usize,
    pub known: BTreeMap<&'static str, usize>,
    /// Minimal cases, told.
    pub findings: Vec<String>,
    /// How many questions came down to which kind of difference.
    pub kinds: BTreeMap<String, usize>,
    /// Some questions whose warnings, infos or errors are in other words, with both.
    pub notes: Vec<String>,
}

impl Summary {
    fn agree(&mut self, asked: &Asked, tally: Tally, reference: &Answer, own: &Answer) {
        self.agreed += 1;
        match &reference.outcome {
            Outcome::Error { .. } => self.errors += 1,
            Outcome::Data { rows, .. } => self.empty += usize::from(rows.is_empty()),
        }
        self.values += tally.values;
        self.bit_exact += tally.bit_exact;
        self.order_differs += usize::from(tally.order_differs);
        self.notes_differ += usize::from(tally.notes_differ);
        self.texts_differ += usize::from(tally.texts_differ);
        let kept = self.notes.len() < NOTES_KEPT_MAX;
        if kept && (tally.notes_differ || tally.texts_differ) {
            let (a, b) = (reference.words(), own.words());
            self.notes.push(format!(
                "{}\n  Prometheus: {a:?}\n  quorate:    {b:?}",
                asked.line()
            ));
        }
    }

    pub fn line(&self) -> String {
        let known: Vec<String> = self
            .known
            .iter()
            .map(|(name, n)| format!("{n} {name}"))
            .collect();
        format!(
            "{} calls, {} series rested; {} asked, {} agree ({} errors, {} empty), {} of {} values bit-exact, {} findings, \
             annotations differ in {}, texts of errors in {}, order of a matrix in {}; known: {}",
            self.calls,
            self.rested,
            self.asked,
            self.agreed,
            self.errors,
            self.empty,
            self.bit_exact,
            self.values,
            self.findings.len(),
            self.notes_differ,
            self.texts_differ,
            self.order_differs,
            if known.is_empty() {
                "none".to_owned()
            } else {
                known.join(", ")
            }
        )
    }
}

/// Both, loaded with the same data.
pub struct Pair {
    quorate: Quorate,
    prometheus: Prometheus,
    own: Client,
    reference: Client,
}

/// How the two answered.
pub enum Verdict {
    Agreed(Tally, Answer, Answer),
    Known(&'static Known),
    Differ(String, Answer, Answer),
}

impl Pair {
    pub async fn start(programs: &Programs, data: &Data) -> anyhow::Result<Self> {
        let (quorate, prometheus) =
            futures::future::try_join(Quorate::start(programs, 1, 4), Prometheus::start(programs))
                .await?;
        let address = *quorate.addresses().first().context("one node")?;
        let (mut own, mut reference) = (Client::new(address), Client::new(prometheus.address));
        let slices = data.slices();
        let loads = futures::future::try_join(own.load(&slices), reference.load(&slices));
        if let Err(error) = loads.await {
            return Err(error.context(prometheus.last_words()));
        }
        let mut pair = Self {
            quorate,
            prometheus,
            own,
            reference,
        };
        if data.rests {
            pair.rest(data).await?;
        }
        Ok(pair)
    }

    /// Most of the data rests in quorate, some of it has come back, and Prometheus has cut its head.
    async fn rest(&mut self, data: &Data) -> anyhow::Result<()> {
        let Stages {
            old, later, back, ..
        } = &Stages::of(data);
        let kept = data.series.iter().filter(|series| is_kept(series));
        let exemplars = wire::exemplars(kept)?;
        self.own.write_as_is(exemplars.clone()).await?;
        self.reference.write_as_is(exemplars).await?;
        // As Prometheus, it seals the data before what comes behind it.
        Settled::sealed(newest(old)).wait(&mut self.quorate).await?;
        for (slices, so_far) in [(later, &[old, later][..]), (back, &[old, later, back])] {
            self.own.load(slices).await?;
            self.reference.load(slices).await?;
            let so_far: Vec<&[Vec<Series>]> = so_far.iter().map(|stage| &stage[..]).collect();
            let sealed = Settled::sealed(LATER_MS);
            let rested = Settled {
                series: Some(registered(&so_far).1),
                ..sealed
            };
            rested.wait(&mut self.quorate).await?;
            sealed
                .wait_for(&mut self.reference)
                .await
                .with_context(|| self.prometheus.last_words())?;
        }
        Ok(())
    }

    /// How the answers to a call differ, if they do.
    async fn differ(&mut self, call: &Call) -> anyhow::Result<Option<String>> {
        let (status, body) = self.reference.call(call).await?;
        let reference = canonical(call, status, &body)?;
        let (status, body) = self.own.call(call).await?;
        let own = canonical(call, status, &body)?;
        Ok((reference != own).then(|| apart(&reference, &own)))
    }

    pub async fn judge(&mut self, asked: &Asked) -> anyhow::Result<Verdict> {
        let both = futures::future::join(self.reference.answer(asked), self.own.answer(asked));
        let (reference, own) = both.await;
        let reference = reference.with_context(|| self.prometheus.last_words())?;
        // An answer that cannot be read is a difference, not trouble of the harness.
        let own = own.unwrap_or_else(|error| Answer::unreadable(&format!("{error:#}")));
        Ok(match reference.compare(&own, asked.ordered) {
            Ok(tally) => Verdict::Agreed(tally, reference, own),
            Err(why) => match known(asked, &reference, &own) {
                Some(known) => Verdict::Known(known),
                None if self.instants_say(asked, &own).await? => Verdict::Known(&RANGE),
                None => Verdict::Differ(why, reference, own),
            },
        })
    }

    /// Whether Prometheus, asked step by step, says what quorate says of the whole range.
    async fn instants_say(&mut self, asked: &Asked, own: &Answer) -> anyhow::Result<bool> {
        let mut answers = Vec::new();
        for instant in instants::of_range(asked) {
            answers.push(self.reference.answer(&instant).await?);
        }
        let joined = instants::joined(&answers).filter(|_| !answers.is_empty());
        Ok(joined.is_some_and(|joined| joined.compare(own, false).is_ok()))
    }
}

/// Runs all seeds; findings are printed as they are made and left in `directory`.
pub async fn run(
    settings: &Settings,
    programs: &Programs,
    directory: &Path,
) -> anyhow::Result<Summary> {
    let mut summary = Summary::default();
    for seed in settings.seed..settings.seed + settings.seeds {
        let data = Data::generate(seed, settings.native);
        let mut pair = Pair::start(programs, &data).await?;
        let mut generator = Generator::new(seed, settings.native);
        let mut fresh = Vec::new();
        let rested = Data {
            rests: true,
            ..data.clone()
        };
        for data in [&data, &rested] {
            if data.rests {
                pair.rest(data).await?;
                summary.rested += rested_of(data);
                ask_calls(&mut pair, seed, settings.queries / 5, &mut summary).await?;
            }
            let queries = match data.rests {
                true => settings.queries / 2,
                false => settings.queries,
            };
            for _ in 0..queries {
                let question = generator.question();
                if let Some(small) = ask(&mut pair, question, &mut summary).await? {
                    fresh.push((data, small));
                }
                if summary.findings.len() + fresh.len() >= settings.findings_max {
                    break;
                }
            }
        }
        drop(pair);
        for (data, small) in fresh {
            let found = find(
                settings,
                programs,
                directory,
                seed,
                data,
                &small,
                summary.findings.len(),
            );
            let text = found.await?;
            println!("{text}");
            summary.findings.push(text);
        }
        println!("seed {seed}: {}", summary.line());
        if summary.findings.len() >= settings.findings_max {
            println!("stopped: {} findings are enough", settings.findings_max);
            break;
        }
    }
    Ok(summary)
}

/// How many series rest once others have come back.
fn rested_of(data: &Data) -> usize {
    let stages = Stages::of(data);
    let (sent, left) = registered(&[&stages.old, &stages.later, &stages.back]);
    sent - left
}

/// Asks for labels, series, exemplars and samples.
async fn ask_calls(
    pair: &mut Pair,
    seed: u64,
    count: usize,
    summary: &mut Summary,
) -> anyhow::Result<()> {
    let mut calls = Calls::new(seed);
    let mut all = calls.of_labels(count, WIDE_RANGES);
    all.extend(calls.of_samples(count));
    // Each has a look-back of its own there.
    all.retain(|call| !call.path.starts_with("/federate"));
    for call in all {
        summary.calls += 1;
        if let Some(difference) = pair.differ(&call).await? {
            let text = format!("\nDIFFERENCE {}, rested\n{difference}", call.line);
            println!("{text}");
            summary.findings.push(text);
        }
    }
    Ok(())
}

/// Asks one question; a difference of a new shape comes back as small as the question gets.
async fn ask(
    pair: &mut Pair,
    question: Question,
    summary: &mut Summary,
) -> anyhow::Result<Option<Question>> {
    let asked = question.asked();
    summary.asked += 1;
    match pair.judge(&asked).await? {
        Verdict::Agreed(tally, reference, own) => {
            summary.agree(&asked, tally, &reference, &own);
            Ok(None)
        }
        Verdict::Known(known) => {
            *summary.known.entry(known.name).or_default() += 1;
            Ok(None)
        }
        Verdict::Differ(..) => {
            let small = shrunk(pair, question).await?;
            let kind = match pair.judge(&small.asked()).await? {
                Verdict::Differ(why, reference, own) => {
                    println!("found: {}\n  {why}", small.line());
                    println!(
                        "  Prometheus: {}\n  quorate:    {}",
                        reference.line(),
                        own.line()
                    );
                    kind_of(&small, &reference, &own)
                }
                _ => {
                    // Answered one way and then another, with nothing written in between.
                    println!("UNSTEADY {}", small.line());
                    format!("unsteady {}", small.expr.shape())
                }
            };
            let count = summary.kinds.entry(kind).or_default();
            *count += 1;
            Ok((*count == 1).then_some(small))
        }
    }
}

/// Two findings of one kind likely have one cause: the same shape, or the same refusal of what
/// the reference answers.
fn kind_of(question: &Question, reference: &Answer, own: &Answer) -> String {
    match (&reference.outcome, &own.outcome) {
        (Outcome::Data { .. }, Outcome::Error { text, .. }) => {
            text.chars().filter(|c| !c.is_ascii_digit()).collect()
        }
        _ => question.expr.shape(),
    }
}

async fn shrunk(pair: &mut Pair, question: Question) -> anyhow::Result<Question> {
    let mut best = question;
    let mut tried = BTreeSet::new();
    'smaller: loop {
        for candidate in shrink::smaller(&best) {
            if tried.len() >= QUESTIONS_TRIED_MAX {
                return Ok(best);
            }
            if !tried.insert(candidate.line()) {
                continue;
            }
            if let Verdict::Differ(..) = pair.judge(&candidate.asked()).await? {
                best = candidate;
                continue 'smaller;
            }
        }
        return Ok(best);
    }
}

/// Makes the data of a finding smaller, writes the case down and tells it.
async fn find(
    settings: &Settings,
    programs: &Programs,
    directory: &Path,
    seed: u64,
    data: &Data,
    question: &Question,
    n: usize,
) -> anyhow::Result<String> {
    let asked = question.asked();
    let mut case = Case {
        asked: asked.clone(),
        data: data.clone(),
    };
    if settings.shrink_data {
        let differs = async |data: &Data| {
            let mut pair = Pair::start(programs, data).await?;
            Ok(matches!(pair.judge(&asked).await?, Verdict::Differ(..)))
        };
        case.data = cut::smallest(data, DATA_TRIED_MAX, differs).await?;
    }
    let path = case.write(directory, seed, n)?;
    let told = tell(programs, &case).await?;
    Ok(format!(
        "{told}replay: jepsen-tests differ --case {}\n",
        path.display()
    ))
}

/// The case as text: the question, the data, what each answers.
pub async fn tell(programs: &Programs, case: &Case) -> anyhow::Result<String> {
    let mut pair = Pair::start(programs, &case.data).await?;
    let head = format!("\nDIFFERENCE {}\n", case.asked.line());
    let few = case.data.series.len() <= 40;
    let listing = if few {
        case.data.listing()
    } else {
        String::new()
    };
    let mut verdict = pair.judge(&case.asked).await?;
    let mut waited = "";
    if matches!(verdict, Verdict::Agreed(..)) {
        // What differed of a store at rest may not differ of one that was loaded just now.
        tokio::time::sleep(REST).await;
        verdict = pair.judge(&case.asked).await?;
        waited = "only some time after the load: ";
    }
    let body = match verdict {
        Verdict::Differ(why, reference, own) => format!(
            "  {waited}{why}\n  Prometheus: {}\n  quorate:    {}\n",
            reference.line(),
            own.line()
        ),
        Verdict::Known(known) => format!("  known: {}: {}\n", known.name, known.reason),
        Verdict::Agreed(tally, reference, _) => {
            format!("  they agree now, {tally:?}: {}\n", reference.line())
        }
    };
    Ok(format!("{head}{body}{listing}"))
}
