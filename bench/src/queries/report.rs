//! Medians and ratios as Markdown, and every figure as JSON.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;

use super::ask::Cost;
use super::options::{Options, Shape};
use super::questions::Question;
use crate::system::Kind;
use crate::table::{Report, machine, version};

/// One question and what its answers cost, by system.
#[derive(Debug, Clone, Serialize)]
pub struct Answered {
    pub name: String,
    pub path: String,
    pub is_distributed_sum: bool,
    /// Systems that answered something else, with what; their times do not count.
    pub differ: BTreeMap<String, String>,
    /// Why it was not measured at all.
    pub failed: Option<String>,
    pub costs: BTreeMap<String, Vec<Cost>>,
}

/// All that was measured of a shape.
#[derive(Debug, Clone, Serialize)]
pub struct Figures {
    pub shape: Shape,
    pub answered: Vec<Answered>,
}

impl Answered {
    pub fn new(
        question: &Question,
        differ: &[(Kind, String)],
        costs: BTreeMap<String, Vec<Cost>>,
    ) -> Self {
        Self {
            name: question.name.clone(),
            path: question.path.clone(),
            is_distributed_sum: question.is_distributed_sum,
            differ: differ
                .iter()
                .map(|(kind, why)| (kind.name(), why.clone()))
                .collect(),
            failed: None,
            costs,
        }
    }

    pub fn failed(question: &Question, why: &str) -> Self {
        Self {
            failed: Some(why.to_owned()),
            ..Self::new(question, &[], BTreeMap::new())
        }
    }

    pub fn line(&self) -> String {
        let mut line = String::new();
        for system in self.costs.keys() {
            let latency = self.latency_ms(system).unwrap_or(f64::NAN);
            put(&mut line, format_args!(" {system} {latency:.2} ms;"));
        }
        for (system, why) in &self.differ {
            put(&mut line, format_args!(" {system} differs: {why};"));
        }
        line
    }

    /// The median over all rounds, in milliseconds.
    fn latency_ms(&self, system: &str) -> Option<f64> {
        let costs = self.costs.get(system)?;
        median(
            costs
                .iter()
                .flat_map(|cost| cost.latencies_ms.iter().copied())
                .collect(),
        )
    }

    fn cpu_ms(&self, system: &str) -> Option<f64> {
        let costs = self.costs.get(system)?;
        let cpu_ms = median(costs.iter().map(|cost| cost.cpu_ms).collect())?;
        // A clock of ticks sees nothing of what is much shorter than its tick.
        let floor_ms = 1.0 / costs.iter().map(|c| c.latencies_ms.len()).sum::<usize>() as f64;
        Some(cpu_ms.max(floor_ms))
    }

    fn peak_bytes(&self, system: &str) -> Option<u64> {
        self.costs
            .get(system)?
            .iter()
            .map(|cost| cost.peak_memory_bytes)
            .max()
    }

    /// Both answered the same, so that their figures may be compared.
    fn agrees(&self, system: &str) -> bool {
        !self.differ.contains_key(system)
    }
}

pub fn report(options: &Options, began_s: i64, all: &[Figures]) -> anyhow::Result<Report> {
    let programs = &options.programs;
    let binaries = [&programs.quorate, &programs.prometheus];
    let versions: Vec<String> = binaries
        .into_iter()
        .flatten()
        .map(|binary| version(binary))
        .collect();
    let text = markdown(options, &machine()?, &versions, all);
    let json = serde_json::json!({"machine": machine()?, "versions": versions, "figures": all});
    let place = (&*options.directory, began_s, "queries");
    Ok(Report::new(place, text, json))
}

fn markdown(options: &Options, machine: &str, versions: &[String], all: &[Figures]) -> String {
    let names: Vec<String> = options.systems.iter().map(|kind| kind.name()).collect();
    let mut text = format!(
        "Queries, {} rounds of {:?} each. {machine}.\n\n",
        options.rounds, options.ask
    );
    for version in versions {
        put(&mut text, format_args!("- {version}\n"));
    }
    for figures in all {
        let shape = figures.shape;
        put(
            &mut text,
            format_args!(
                "\n### {}: {} series, {} samples each\n\n",
                shape.name, shape.series, shape.samples
            ),
        );
        questions(&mut text, figures, &names);
        ratios(&mut text, figures, &names);
        between_nodes(&mut text, figures);
    }
    text += "\nLatency: median, as the client sees it. CPU: user and system time of all processes \
             for one answer. Memory: the largest sum of the processes' peaks during a question. \
             Figures with * are of another answer and in no ratio.\n";
    text
}

fn questions(text: &mut String, figures: &Figures, names: &[String]) {
    text.push_str("| question, p50 ms / CPU ms |");
    for name in names {
        put(text, format_args!(" {name} |"));
    }
    put(
        text,
        format_args!("\n|---|{}\n", "---:|".repeat(names.len())),
    );
    for answered in &figures.answered {
        put(text, format_args!("| {} |", answered.name));
        for name in names {
            let mark = if answered.agrees(name) { "" } else { "*" };
            match (
                answered.latency_ms(name),
                answered.cpu_ms(name),
                &answered.failed,
            ) {
                (Some(latency), Some(cpu), _) => {
                    put(text, format_args!(" {latency:.2} / {cpu:.2}{mark} |"));
                }
                (_, _, Some(why)) => put(text, format_args!(" {} |", one_line(why))),
                _ => text.push_str(" - |"),
            }
        }
        text.push('\n');
    }
    text.push_str("| peak memory, MiB |");
    for name in names {
        let peak = figures
            .answered
            .iter()
            .filter_map(|a| a.peak_bytes(name))
            .max();
        put(text, format_args!(" {} |", peak.unwrap_or(0) >> 20));
    }
    text.push('\n');
}

fn ratios(text: &mut String, figures: &Figures, names: &[String]) {
    text.push_str(
        "\n| ratio | latency, geometric mean | worst | CPU, geometric mean | worst | questions |\n\
         |---|---:|---|---:|---|---:|\n",
    );
    let (own, peers): (Vec<_>, Vec<_>) = names.iter().partition(|n| n.starts_with("quorate"));
    for one in &own {
        for peer in &peers {
            let latency = Ratio::of(figures, one, peer, Answered::latency_ms);
            let cpu = Ratio::of(figures, one, peer, Answered::cpu_ms);
            let (Some(latency), Some(cpu)) = (latency, cpu) else {
                continue;
            };
            put(
                text,
                format_args!(
                    "| {one} / {peer} | {:.2} | {:.2} {} | {:.2} | {:.2} {} | {} |\n",
                    latency.mean,
                    latency.worst,
                    latency.worst_name,
                    cpu.mean,
                    cpu.worst,
                    cpu.worst_name,
                    latency.count,
                ),
            );
        }
    }
}

/// One system's figures over another's, for all questions both answered alike.
#[derive(Debug, PartialEq)]
struct Ratio {
    mean: f64,
    worst: f64,
    worst_name: String,
    count: usize,
}

impl Ratio {
    fn of(
        figures: &Figures,
        one: &str,
        other: &str,
        figure: impl Fn(&Answered, &str) -> Option<f64>,
    ) -> Option<Self> {
        let fair = figures
            .answered
            .iter()
            .filter(|a| a.agrees(one) && a.agrees(other));
        let ratios: Vec<(f64, &str)> = fair
            .filter_map(|a| Some((figure(a, one)? / figure(a, other)?, a.name.as_str())))
            .collect();
        let (worst, worst_name) = ratios.iter().copied().max_by(|a, b| a.0.total_cmp(&b.0))?;
        let logs: f64 = ratios.iter().map(|(ratio, _)| ratio.ln()).sum();
        Some(Self {
            mean: (logs / ratios.len() as f64).exp(),
            worst,
            worst_name: worst_name.to_owned(),
            count: ratios.len(),
        })
    }
}

fn between_nodes(text: &mut String, figures: &Figures) {
    let three = Kind::Quorate { nodes: 3 }.name();
    for answered in figures.answered.iter().filter(|a| a.is_distributed_sum) {
        let costs = answered.costs.get(&three).into_iter().flatten();
        let bytes: Vec<f64> = costs.filter_map(|cost| cost.bytes_between_nodes).collect();
        let told = median(bytes).map_or("not told by /metrics".to_owned(), |b| format!("{b:.0}"));
        put(
            text,
            format_args!("\nBytes between nodes for {}: {told}\n", answered.name),
        );
    }
}

/// The upper of the two in the middle when there is no one.
fn median(mut numbers: Vec<f64>) -> Option<f64> {
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied()
}

fn one_line(text: &str) -> String {
    text.replace(['\n', '|'], " ").chars().take(80).collect()
}

fn put(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    text.write_fmt(arguments).expect("a String grows");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(name: &str, one_ms: f64, other_ms: f64) -> Answered {
        let cost = |ms: f64| {
            vec![Cost {
                latencies_ms: vec![ms; 3],
                cpu_ms: ms,
                peak_memory_bytes: 1,
                bytes_between_nodes: None,
            }]
        };
        Answered {
            name: name.to_owned(),
            path: String::new(),
            is_distributed_sum: false,
            differ: BTreeMap::new(),
            failed: None,
            costs: [
                ("a".to_owned(), cost(one_ms)),
                ("b".to_owned(), cost(other_ms)),
            ]
            .into(),
        }
    }

    #[test]
    fn ratios_are_geometric_and_leave_out_other_answers() {
        let mut other = answered("z", 900.0, 1.0);
        other.differ.insert("b".to_owned(), "values".to_owned());
        let figures = Figures {
            shape: Shape {
                name: "wide",
                series: 1,
                samples: 1,
                life_rounds: None,
            },
            answered: vec![answered("x", 8.0, 1.0), answered("y", 1.0, 2.0), other],
        };
        let ratio = Ratio::of(&figures, "a", "b", Answered::latency_ms).unwrap();
        assert!((ratio.mean - 2.0).abs() < 1e-9);
        assert_eq!(
            (ratio.worst, &*ratio.worst_name, ratio.count),
            (8.0, "x", 2)
        );
        assert_eq!(Ratio::of(&figures, "a", "none", Answered::cpu_ms), None);
    }
}
