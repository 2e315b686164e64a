//! `histogram_quantile` over series with an `le` label.

use model::Labels;
use model::hash::Map;

use super::{ABSENT, Args, Column, Columns, Evaluation, argument, is_present};
use crate::ast::{Call, Expr};
use crate::error::QueryError;
use crate::histogram::{Bucket, quantile};
use crate::plan::Grid;
use crate::quote::quote;

/// The label that carries a bucket's upper bound.
const UPPER_BOUND: &str = "le";

impl Evaluation<'_> {
    pub(super) async fn histogram_quantile(
        &mut self,
        call: &Call,
        mut args: Args,
        grid: Grid,
    ) -> Result<Columns, QueryError> {
        let q = args.scalar();
        let columns = args.vector();
        q.iter()
            .for_each(|&q| self.notes.warn_quantile(self.query, argument(call, 0), q));
        let histograms = self.histograms(argument(call, 1), &columns);
        let mut results = Vec::with_capacity(histograms.len());
        for histogram in histograms {
            self.pace.expect(results.len() + 1, grid.steps)?;
            let mut values = vec![ABSENT; grid.steps];
            let (mut is_first, mut fixed_first, mut fixed_later) = (true, false, false);
            for (step, value) in values.iter_mut().enumerate() {
                self.pace.spend(histogram.buckets.len()).await?;
                let at_step = histogram.buckets.iter().map(|&(upper_bound, at)| Bucket {
                    upper_bound,
                    count: columns[at].values[step],
                });
                let mut buckets: Vec<Bucket> = at_step.filter(|b| is_present(b.count)).collect();
                if !buckets.is_empty() {
                    let (result, fixed) = quantile(q[step], &mut buckets);
                    *value = result;
                    fixed_first |= fixed && is_first;
                    fixed_later |= fixed && !is_first;
                    is_first = false;
                }
            }
            let name = histogram.labels.metric_name();
            // Prometheus has taken the name off after the first instant.
            let later_name = if self.delayed_names { name } else { "" };
            for (fixed, name) in [(fixed_first, name), (fixed_later, later_name)] {
                if fixed {
                    let name = quote(name);
                    let text = format!(
                        "input to histogram_quantile needed to be fixed for monotonicity (see https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile) for metric name {name}"
                    );
                    self.notes.inform(self.query, argument(call, 1), &text);
                }
            }
            let mut column = Column {
                labels: histogram.labels,
                drop_name: histogram.drop_name,
                values,
            };
            self.drop_name(&mut column);
            results.push(column);
        }
        Ok(Columns::Vector(super::super::merge(results)?))
    }

    /// Series that differ in their upper bound only, together.
    fn histograms(&mut self, place: &Expr, columns: &[Column]) -> Vec<Histogram> {
        let mut places: Map<Labels, usize> = Map::default();
        let mut histograms: Vec<Histogram> = Vec::new();
        for (at, column) in columns.iter().enumerate() {
            let bound = column.labels.get(UPPER_BOUND).unwrap_or_default();
            let Ok(upper_bound) = bound.parse::<f64>() else {
                let shown = quote(bound);
                let name = quote(column.labels.metric_name());
                let text = format!(
                    "bucket label \"le\" is missing or has a malformed value of {shown} for metric name {name}"
                );
                self.notes.warn(self.query, place, &text);
                continue;
            };
            let labels = column.labels.without(UPPER_BOUND);
            let next = histograms.len();
            let place = *places.entry(labels.clone()).or_insert(next);
            if place == next {
                histograms.push(Histogram {
                    labels,
                    drop_name: column.drop_name,
                    buckets: Vec::new(),
                });
            }
            histograms[place].buckets.push((upper_bound, at));
        }
        histograms
    }
}

struct Histogram {
    labels: Labels,
    drop_name: bool,
    /// Upper bound, and the column that counts up to it.
    buckets: Vec<(f64, usize)>,
}
