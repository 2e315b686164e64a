//! `limitk` and `limit_ratio`: some series of each group, always the same ones.

use model::Labels;
use model::hash::xxh64;

use super::aggregate::Groups;
use super::{ABSENT, Column, Columns, Evaluation, is_present, with_values};
use crate::ast::{Aggregate, Expr};
use crate::error::QueryError;
use crate::plan::Grid;
use crate::printer::format_float;

impl Evaluation<'_> {
    /// What an aggregation for which [`crate::local::can_choose`] is true chooses.
    pub async fn choose(
        &mut self,
        aggregate: &Aggregate,
        columns: Vec<Column>,
        grid: Grid,
    ) -> Result<Vec<Column>, QueryError> {
        let param = match aggregate.param.as_deref() {
            Some(Expr::Number(param)) => param.value,
            other => unreachable!("no choice without a number: {other:?}"),
        };
        let param = Some(Columns::Scalar(vec![param; grid.steps]));
        let chosen = self.aggregate(aggregate, param, columns, grid).await?;
        Ok(chosen.into_vector())
    }

    /// The first `k` series of each group that have a value.
    pub(super) async fn limit(
        &mut self,
        aggregate: &Aggregate,
        k: &[f64],
        mut columns: Vec<Column>,
        grid: Grid,
    ) -> Result<Columns, QueryError> {
        let counts = super::topk::counts(k, &columns, &mut self.pace).await?;
        let groups = Groups::of(aggregate, &columns, &mut self.pace).await?;
        self.pace.expect(groups.count(), grid.steps)?;
        let mut seen: Vec<Vec<usize>> = vec![Vec::new(); groups.count()];
        for (column, &group) in columns.iter_mut().zip(&groups.numbers) {
            let seen = &mut seen[group];
            if seen.is_empty() {
                *seen = self.pace.filled(0, grid.steps).await?;
            }
            let limited = self.pace.each(&mut column.values, |step, value| {
                if is_present(*value) {
                    seen[step] += 1;
                    if seen[step] > counts[step] {
                        *value = ABSENT;
                    }
                }
            });
            limited.await?;
            column.drop_masked();
        }
        let mut columns = with_values(columns, &mut self.pace).await?;
        // An instant's answer lists group by group.
        if grid.steps == 1 {
            columns = groups.sorted(columns, aggregate);
        }
        Ok(Columns::Vector(columns))
    }

    /// The series whose hash is in the first `ratio` of all, or for negative ones in the last.
    pub(super) async fn limit_ratio(
        &mut self,
        aggregate: &Aggregate,
        ratios: &[f64],
        mut columns: Vec<Column>,
        grid: Grid,
    ) -> Result<Columns, QueryError> {
        columns.retain(Column::has_values);
        self.warn_of_ratios(aggregate, ratios);
        let used = super::topk::used_steps(&columns, grid.steps, &mut self.pace).await?;
        let ratios = cut_ratios(ratios, &used)?;
        for column in &mut columns {
            self.pace.spend(grid.steps + super::LABEL_COST).await?;
            let offset = offset(&column.labels);
            for (value, &ratio) in column.values.iter_mut().zip(&ratios) {
                let is_in = ratio >= 0.0 && offset < ratio || ratio < 0.0 && offset >= 1.0 + ratio;
                if !is_in {
                    *value = ABSENT;
                }
            }
            column.drop_masked();
        }
        columns.retain(Column::has_values);
        if grid.steps == 1 {
            let groups = Groups::of(aggregate, &columns, &mut self.pace).await?;
            columns = groups.sorted(columns, aggregate);
        }
        Ok(Columns::Vector(columns))
    }

    /// Tells the largest and the smallest ratio that will be cut; nothing where one is no number.
    fn warn_of_ratios(&mut self, aggregate: &Aggregate, ratios: &[f64]) {
        let Some(place) = aggregate.param.as_deref() else {
            return;
        };
        if ratios.iter().any(|ratio| ratio.is_nan()) {
            return;
        }
        let largest = ratios.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let smallest = ratios.iter().copied().fold(f64::INFINITY, f64::min);
        if largest > 1.0 {
            self.notes.warn_ratio(place.unwrap_parens(), largest, 1.0);
        }
        if smallest < -1.0 && !ratios.is_empty() {
            self.notes.warn_ratio(place.unwrap_parens(), smallest, -1.0);
        }
    }
}

/// Ratios between -1 and 1; others are cut there. What is no number matters where it is used.
fn cut_ratios(ratios: &[f64], used: &[bool]) -> Result<Vec<f64>, QueryError> {
    let ratios = ratios.iter().zip(used);
    let cut = ratios.map(|(&ratio, &is_used)| match ratio.is_nan() && is_used {
        true => Err(QueryError::Execution(format!(
            "Ratio value {} is NaN",
            format_float(ratio)
        ))),
        false => Ok(ratio.clamp(-1.0, 1.0)),
    });
    cut.collect()
}

/// Where a series stands between 0 and 1.
fn offset(labels: &Labels) -> f64 {
    hash(labels) as f64 / u64::MAX as f64
}

/// XXH64 of names and values, each behind its length, as Prometheus holds labels in memory.
fn hash(labels: &Labels) -> u64 {
    let mut bytes = Vec::new();
    for (name, value) in labels {
        for text in [name, value] {
            put_length(&mut bytes, text.len());
            bytes.extend(text.as_bytes());
        }
    }
    xxh64(0, &bytes)
}

/// One byte, or 255 and three bytes.
fn put_length(bytes: &mut Vec<u8>, length: usize) {
    match u8::try_from(length) {
        Ok(length) if length < 255 => bytes.push(length),
        _ => {
            bytes.push(255);
            bytes.extend(&(length as u32).to_le_bytes()[..3]);
        }
    }
}
