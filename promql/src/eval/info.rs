//! `info`: labels of info series joined to the series of the same instance and job.

use std::collections::BTreeSet;
use std::ops::Range;

use model::hash::Map;
use model::labels::METRIC_NAME;
use model::{Labels, LabelsBuilder, MatchOp, Matcher};

use super::pace::turns;
use super::{ABSENT, Column, Columns, Evaluation, LABEL_COST, index, is_present};
use crate::ast::{Call, Expr};
use crate::error::QueryError;
use crate::plan::Grid;

/// The info metric when none is named.
const TARGET_INFO: &str = "target_info";
/// The labels that tell which series belong together.
const IDENTIFYING: [&str; 2] = ["instance", "job"];

/// What selects the info series of a call.
pub(crate) fn info_matchers(call: &Call) -> Vec<Matcher> {
    let mut matchers = asked(call).to_vec();
    if !matchers.iter().any(|m| m.name == METRIC_NAME) {
        matchers.insert(0, target_info());
    }
    matchers
}

/// The label selector that is the second argument.
fn asked(call: &Call) -> &[Matcher] {
    match call.args.get(1).map(Expr::unwrap_parens) {
        Some(Expr::Vector(selector)) => &selector.matchers,
        _ => &[],
    }
}

fn target_info() -> Matcher {
    let matcher = Matcher::new(MatchOp::Equal, METRIC_NAME, TARGET_INFO);
    matcher.expect("a plain comparison is a matcher")
}

/// Info series by metric name and identifying labels.
type Known<'a> = Map<(&'a str, Labels), Vec<usize>>;

impl Evaluation<'_> {
    pub(super) async fn info(
        &mut self,
        call: &Call,
        base: Vec<Column>,
        infos: Vec<Column>,
        grid: Grid,
    ) -> Result<Columns, QueryError> {
        let asked = asked(call);
        let is_info = |column: &Column| is_info_series(asked, column);
        let names_asked = !identifies(&base, is_info);
        let infos = joinable(&base, infos, is_info);
        self.read = self.pace.filled(0, grid.steps).await?;
        for info in &infos {
            for steps in turns(grid.steps) {
                self.pace.spend(steps.len()).await?;
                info.count_samples(steps.clone(), &mut self.read[steps]);
            }
        }
        if infos.iter().any(|column| !column.histograms.is_empty()) {
            return Err(execution("info sample should be float"));
        }
        let mut known = Known::default();
        for (at, column) in infos.iter().enumerate() {
            let key = (column.labels.metric_name(), identity(&column.labels));
            known.entry(key).or_default().push(at);
        }
        let names: BTreeSet<&str> = infos.iter().map(|c| c.labels.metric_name()).collect();
        let join = Join {
            asked,
            names_asked,
            infos: &infos,
            known: &known,
            names: &names,
        };
        let anyone = super::topk::used_steps(&base, grid.steps, &mut self.pace).await?;
        let newest = join.newest(&anyone, grid)?;
        let mut joined = Joined::default();
        for column in base {
            self.pace.spend(LABEL_COST).await?;
            self.pace.expect(joined.columns.len() + 1, grid.steps)?;
            let is_info = is_info(&column);
            for steps in turns(grid.steps) {
                self.pace.spend(steps.len()).await?;
                match is_info {
                    true => joined.merge(&column, steps)?,
                    false => join.column(&column, steps, &newest, &mut joined)?,
                }
            }
        }
        joined.columns.retain(Column::has_values);
        Ok(Columns::Vector(joined.columns))
    }
}

/// Whether the base series is itself what the call takes labels from: those are not enriched.
fn is_info_series(asked: &[Matcher], column: &Column) -> bool {
    let name = column.labels.metric_name();
    let mut named = asked.iter().filter(|m| m.name == METRIC_NAME).peekable();
    match (asked.is_empty(), named.peek()) {
        (true, _) => name == TARGET_INFO,
        (false, _) => named.any(|m| m.matches(name)),
    }
}

/// Whether any series that is to be enriched has an identifying label.
fn identifies(base: &[Column], is_info: impl Fn(&Column) -> bool) -> bool {
    let mut enriched = base.iter().filter(|c| !is_info(c));
    enriched.any(|c| IDENTIFYING.iter().any(|name| c.labels.get(name).is_some()))
}

/// Info series whose identifying labels have values that some base series has.
fn joinable(
    base: &[Column],
    mut infos: Vec<Column>,
    is_info: impl Fn(&Column) -> bool,
) -> Vec<Column> {
    let enriched: Vec<&Column> = base.iter().filter(|c| !is_info(c)).collect();
    let values = IDENTIFYING.map(|name| {
        let values = enriched.iter().filter_map(|c| c.labels.get(name));
        values.collect::<BTreeSet<&str>>()
    });
    if values.iter().all(BTreeSet::is_empty) {
        return Vec::new();
    }
    infos.retain(|info| {
        IDENTIFYING.iter().zip(&values).all(|(name, values)| {
            values.is_empty() || values.contains(info.labels.get(name).unwrap_or_default())
        })
    });
    infos
}

fn identity(labels: &Labels) -> Labels {
    let mut builder = labels.to_builder();
    builder.retain(|name, _| IDENTIFYING.contains(&name));
    builder.build()
}

fn execution(message: impl Into<String>) -> QueryError {
    QueryError::Execution(message.into())
}

struct Join<'a> {
    asked: &'a [Matcher],
    /// No series can be joined. Prometheus does not look for info series then, and takes the matcher
    /// of their name for one of labels: a series without them goes.
    names_asked: bool,
    infos: &'a [Column],
    known: &'a Known<'a>,
    names: &'a BTreeSet<&'a str>,
}

/// At each instant, the info series with the newest sample of a name and identity.
type Newest<'a> = Map<(&'a str, Labels), Vec<Option<usize>>>;

impl<'a> Join<'a> {
    /// Two series as new as each other cannot be told apart; with no base series nobody asks.
    fn newest(&self, anyone: &[bool], grid: Grid) -> Result<Newest<'a>, QueryError> {
        let mut newest = Newest::default();
        for (key, places) in self.known {
            let mut chosen: Vec<Option<usize>> = vec![None; grid.steps];
            for (step, chosen) in chosen.iter_mut().enumerate().filter(|(s, _)| anyone[*s]) {
                for &at in places {
                    let value = self.infos[at].values[step];
                    if !is_present(value) {
                        continue;
                    }
                    match *chosen {
                        Some(best) if self.infos[best].values[step] > value => {}
                        Some(best) if self.infos[best].values[step] == value => {
                            return Err(execution(format!(
                                "found duplicate series for info metric {}",
                                key.0
                            )));
                        }
                        _ => *chosen = Some(at),
                    }
                }
            }
            newest.insert(key.clone(), chosen);
        }
        Ok(newest)
    }

    /// Adds a base series, with the labels it has at each of some instants.
    fn column(
        &self,
        base: &Column,
        steps: Range<usize>,
        newest: &Newest<'a>,
        joined: &mut Joined,
    ) -> Result<(), QueryError> {
        let identity = identity(&base.labels);
        let of_names: Vec<&Vec<Option<usize>>> = self
            .names
            .iter()
            .filter_map(|name| newest.get(&(*name, identity.clone())))
            .collect();
        // Neighbouring instants mostly join the same series.
        let mut last: Option<(Vec<Option<usize>>, Option<usize>)> = None;
        for step in steps {
            let value = base.values.get(step).copied().unwrap_or(ABSENT);
            if !is_present(value) {
                continue;
            }
            let chosen: Vec<Option<usize>> = of_names.iter().map(|n| n[step]).collect();
            let place = match &last {
                Some((before, place)) if *before == chosen => *place,
                _ => {
                    let labels = self.labels(&base.labels, &chosen)?;
                    labels.map(|labels| joined.place(labels, base))
                }
            };
            last = Some((chosen, place));
            if let Some(place) = place {
                joined.put(place, step, base)?;
            }
        }
        Ok(())
    }

    /// The labels a series has when joined with the chosen info series; `None` when it goes because
    /// no info series was there to match.
    fn labels(
        &self,
        base: &Labels,
        chosen: &[Option<usize>],
    ) -> Result<Option<Labels>, QueryError> {
        let mut added: LabelsBuilder = LabelsBuilder::default();
        let mut seen: Map<&str, &str> = Map::default();
        for &at in chosen.iter().flatten() {
            for (name, value) in &self.infos[at].labels {
                let is_asked =
                    self.data_asked().next().is_none() || self.data_asked().any(|m| m.name == name);
                if name == METRIC_NAME || !is_asked {
                    continue;
                }
                if seen.get(name).is_some_and(|before| *before != value) {
                    return Err(execution(format!("conflicting label: {name}")));
                }
                if base.get(name).is_none() {
                    added.set(name, value);
                    seen.insert(name, value);
                }
            }
        }
        let mut must_be = self.asked.iter();
        let is_asked = |m: &Matcher| self.names_asked || m.name != METRIC_NAME;
        if seen.is_empty() && must_be.any(|m| is_asked(m) && !m.matches("")) {
            return Ok(None);
        }
        let mut builder = base.to_builder();
        for (name, value) in &added.build() {
            builder.set(name, value);
        }
        Ok(Some(builder.build()))
    }

    /// The matchers of labels that are to be joined.
    fn data_asked(&self) -> impl Iterator<Item = &Matcher> {
        self.asked.iter().filter(|m| m.name != METRIC_NAME)
    }
}

/// The result, by labels.
#[derive(Default)]
struct Joined {
    places: Map<Labels, usize>,
    columns: Vec<Column>,
}

impl Joined {
    fn place(&mut self, labels: Labels, like: &Column) -> usize {
        let next = self.columns.len();
        let at = *self.places.entry(labels.clone()).or_insert(next);
        if at == next {
            let values = vec![ABSENT; like.values.len()];
            self.columns.push(Column::new(labels, false, values));
        }
        at
    }

    fn put(&mut self, place: usize, step: usize, from: &Column) -> Result<(), QueryError> {
        let Some(point) = from.point(step) else {
            return Ok(());
        };
        let into = &mut self.columns[place];
        if is_present(into.values[step]) {
            return Err(super::same_labelset());
        }
        let behind = into.histograms.partition_point(|(at, _)| *at < index(step));
        let rest = into.histograms.split_off(behind);
        into.set(step, point);
        into.histograms.extend(rest);
        Ok(())
    }

    fn merge(&mut self, column: &Column, mut steps: Range<usize>) -> Result<(), QueryError> {
        let place = self.place(column.labels.clone(), column);
        steps.try_for_each(|step| self.put(place, step, column))
    }
}
