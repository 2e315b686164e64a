//! Functions of histograms: native ones, and classic ones made of series with an `le` label.

use model::hash::Map;
use model::labels::METRIC_NAME;
use model::sample::Histograms;
use model::{Histogram, Labels};

use super::super::pace::turns;
use super::{ABSENT, Args, Column, Columns, Evaluation, argument, is_present};
use crate::ast::{Call, Expr};
use crate::error::QueryError;
use crate::histogram::{self as classic, Bucket};
use crate::native::{self, Nans};
use crate::plan::Grid;
use model::quote::quote;

/// The label that carries a bucket's upper bound.
const UPPER_BOUND: &str = "le";

/// A native histogram's own numbers.
pub(super) fn of_one_histogram(name: &str) -> Option<fn(&Histogram) -> f64> {
    Some(match name {
        "histogram_count" => |h| h.count,
        "histogram_sum" => |h| h.sum,
        "histogram_avg" => |h| h.sum / h.count,
        "histogram_stddev" => |h| native::variance(h).sqrt(),
        "histogram_stdvar" => native::variance,
        _ => return None,
    })
}

/// What is asked of every histogram.
enum Question {
    Quantile(Vec<f64>),
    Fraction(Vec<f64>, Vec<f64>),
}

impl Question {
    fn name(&self) -> &'static str {
        match self {
            Self::Quantile(_) => "histogram_quantile",
            Self::Fraction(..) => "histogram_fraction",
        }
    }

    fn of_classic(&self, step: usize, buckets: &mut Vec<Bucket>) -> (f64, bool) {
        match self {
            Self::Quantile(q) => classic::quantile(q[step], buckets),
            Self::Fraction(lower, upper) => {
                let fraction = classic::fraction(lower[step], upper[step], buckets);
                (fraction, false)
            }
        }
    }
}

impl Evaluation<'_> {
    /// A number of each native histogram; floats are left out.
    pub(super) async fn histogram_number(
        &mut self,
        mut columns: Vec<Column>,
        number: fn(&Histogram) -> f64,
    ) -> Result<Columns, QueryError> {
        for column in &mut columns {
            self.pace.spend(column.values.len()).await?;
            let mut values = vec![ABSENT; column.values.len()];
            for (step, histogram) in std::mem::take(&mut column.histograms) {
                self.pace.spend(histogram.positive_buckets.len()).await?;
                values[step as usize] = number(&histogram);
            }
            column.values = values;
            // Alone among functions these leave the labels of type and unit where they are.
            match self.rules.delayed_names {
                true => self.drop_name(column),
                false => column.labels = column.labels.without(METRIC_NAME),
            }
        }
        columns.retain(Column::has_values);
        Ok(Columns::Vector(
            super::super::merge(columns, &mut self.pace).await?,
        ))
    }

    pub(super) async fn histogram_quantile(
        &mut self,
        call: &Call,
        mut args: Args,
        grid: Grid,
    ) -> Result<Columns, QueryError> {
        let q = args.scalar();
        let columns = args.vector();
        for steps in turns(q.len()) {
            self.pace.spend(steps.len()).await?;
            for &q in q[steps].iter().filter(|q| !(0.0..=1.0).contains(*q)) {
                self.notes.warn_quantile(argument(call, 0), q);
            }
        }
        self.ask(call, Question::Quantile(q), columns, grid).await
    }

    pub(super) async fn histogram_fraction(
        &mut self,
        call: &Call,
        mut args: Args,
        grid: Grid,
    ) -> Result<Columns, QueryError> {
        let (lower, upper) = (args.scalar(), args.scalar());
        let columns = args.vector();
        self.ask(call, Question::Fraction(lower, upper), columns, grid)
            .await
    }

    async fn ask(
        &mut self,
        call: &Call,
        question: Question,
        columns: Vec<Column>,
        grid: Grid,
    ) -> Result<Columns, QueryError> {
        let place = call.args.last().map(|arg| super::place(call, arg));
        let place = place.expect("the parser counted the arguments");
        let groups = self.classics(place, &columns, grid);
        let natives = natives(&columns, &groups);
        let mut results = Vec::with_capacity(groups.len() + natives.len());
        for (column, histograms) in natives {
            self.pace.expect(results.len() + 1, grid.steps)?;
            let mut values = vec![ABSENT; grid.steps];
            let name = column.labels.metric_name();
            for (step, histogram) in histograms {
                self.pace.spend(histogram.positive_buckets.len()).await?;
                let step = step as usize;
                values[step] = self.ask_native(call, &question, step, &histogram, name);
            }
            let mut result = Column::new(column.labels.clone(), column.drop_name, values);
            self.drop_name(&mut result);
            results.push(result);
        }
        for group in groups {
            self.pace.expect(results.len() + 1, grid.steps)?;
            let values = self
                .ask_classic(place, &question, &group, &columns, grid)
                .await?;
            let mut result = Column::new(group.labels, group.drop_name, values);
            self.drop_name(&mut result);
            results.push(result);
        }
        results.retain(Column::has_values);
        Ok(Columns::Vector(
            super::super::merge(results, &mut self.pace).await?,
        ))
    }

    fn ask_native(
        &mut self,
        call: &Call,
        question: &Question,
        step: usize,
        histogram: &Histogram,
        name: &str,
    ) -> f64 {
        let (value, told) = match question {
            Question::Quantile(q) => {
                let (value, nans) = native::quantile(q[step], histogram);
                let told = match nans {
                    Nans::No => None,
                    Nans::Result => Some("result is NaN"),
                    Nans::Skew => Some("result is skewed higher"),
                };
                (value, told)
            }
            Question::Fraction(lower, upper) => {
                let (value, has_nans) = native::fraction(lower[step], upper[step], histogram);
                let told = has_nans.then_some("which are excluded from all fractions");
                (value, told)
            }
        };
        if let Some(told) = told {
            let (function, name) = (question.name(), quote(name));
            let text =
                format!("input to {function} has NaN observations, {told} for metric name {name}");
            self.notes.inform(argument(call, 0), &text);
        }
        value
    }

    async fn ask_classic(
        &mut self,
        place: &Expr,
        question: &Question,
        group: &Classic,
        columns: &[Column],
        grid: Grid,
    ) -> Result<Vec<f64>, QueryError> {
        let mut values = self.pace.filled(ABSENT, grid.steps).await?;
        let (mut is_first, mut fixed_first, mut fixed_later) = (true, false, false);
        let mut buckets = Vec::with_capacity(group.buckets.len());
        for (step, value) in values.iter_mut().enumerate() {
            self.pace.spend(group.buckets.len()).await?;
            if group.is_masked(step) {
                continue;
            }
            buckets.clear();
            for &(upper_bound, at) in &group.buckets {
                let (count, column) = (columns[at].values[step], &columns[at]);
                if is_present(count) && column.histogram(step).is_none() {
                    buckets.push(Bucket { upper_bound, count });
                }
            }
            if !buckets.is_empty() {
                let (result, fixed) = question.of_classic(step, &mut buckets);
                *value = result;
                fixed_first |= fixed && is_first;
                fixed_later |= fixed && !is_first;
                is_first = false;
            }
        }
        let name = group.labels.metric_name();
        // Prometheus has taken the name off after the first instant.
        let later_name = if self.rules.delayed_names { name } else { "" };
        for (fixed, name) in [(fixed_first, name), (fixed_later, later_name)] {
            if fixed {
                let name = quote(name);
                let text = format!(
                    "input to histogram_quantile needed to be fixed for monotonicity (see https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile) for metric name {name}"
                );
                self.notes.inform(place, &text);
            }
        }
        Ok(values)
    }

    /// Series that differ in their upper bound only, together.
    fn classics(&mut self, place: &Expr, columns: &[Column], grid: Grid) -> Vec<Classic> {
        // By the canonical form of what is left of their labels.
        let mut places: Map<Box<[u8]>, usize> = Map::default();
        let mut classics: Vec<Classic> = Vec::new();
        let mut key = Vec::new();
        for (at, column) in columns.iter().enumerate() {
            // Native ones only, or nothing at all.
            if column.histograms.len() == column.present() {
                continue;
            }
            let bound = column.labels.get(UPPER_BOUND).unwrap_or_default();
            let Some(upper_bound) = parse_bound(bound) else {
                let shown = quote(bound);
                let name = quote(column.labels.metric_name());
                let text = format!(
                    "bucket label \"le\" is missing or has a malformed value of {shown} for metric name {name}"
                );
                self.notes.warn(place, &text);
                continue;
            };
            key.clear();
            let is_left = |name: &[u8]| name != UPPER_BOUND.as_bytes();
            column.labels.write_kept(is_left, &mut key);
            let place = places.get(key.as_slice()).copied().unwrap_or_else(|| {
                places.insert(key.as_slice().into(), classics.len());
                classics.push(Classic {
                    labels: column.labels.without(UPPER_BOUND),
                    drop_name: column.drop_name,
                    buckets: Vec::new(),
                    masked: Vec::new(),
                });
                classics.len() - 1
            });
            classics[place].buckets.push((upper_bound, at));
        }
        self.mask_mixed(place, columns, &mut classics, grid);
        classics
    }

    /// Where a native histogram has the labels of a classic one, neither is looked at.
    fn mask_mixed(
        &mut self,
        place: &Expr,
        columns: &[Column],
        classics: &mut [Classic],
        grid: Grid,
    ) {
        for column in columns.iter().filter(|c| !c.histograms.is_empty()) {
            let labels = column.labels.without(UPPER_BOUND);
            let Some(classic) = classics.iter_mut().find(|c| c.labels == labels) else {
                continue;
            };
            for (step, _) in &column.histograms {
                let step = *step as usize;
                let has_buckets = classic.buckets.iter().any(|&(_, at)| {
                    is_present(columns[at].values[step]) && columns[at].histogram(step).is_none()
                });
                if has_buckets {
                    classic.masked.resize(grid.steps, false);
                    classic.masked[step] = true;
                    let name = quote(column.labels.metric_name());
                    let text = format!(
                        "vector contains a mix of classic and native histograms for metric name {name}"
                    );
                    self.notes.warn(place, &text);
                }
            }
        }
    }
}

/// Columns with native histograms, without those that classic ones mask.
fn natives<'c>(columns: &'c [Column], classics: &[Classic]) -> Vec<(&'c Column, Histograms)> {
    let mut natives = Vec::new();
    for column in columns.iter().filter(|c| !c.histograms.is_empty()) {
        let labels = column.labels.without(UPPER_BOUND);
        let classic = classics.iter().find(|c| c.labels == labels);
        let mut histograms = column.histograms.clone();
        histograms.retain(|(step, _)| classic.is_none_or(|c| !c.is_masked(*step as usize)));
        natives.push((column, histograms));
    }
    natives
}

/// A float as Go's `ParseFloat` reads it.
fn parse_bound(text: &str) -> Option<f64> {
    model::number::parse_literal(text)
}

/// A classic histogram.
struct Classic {
    labels: Labels,
    drop_name: bool,
    /// Upper bound, and the column that counts up to it.
    buckets: Vec<(f64, usize)>,
    /// At which instants a native histogram has the same labels; empty for never.
    masked: Vec<bool>,
}

impl Classic {
    fn is_masked(&self, step: usize) -> bool {
        self.masked.get(step).copied().unwrap_or(false)
    }
}
