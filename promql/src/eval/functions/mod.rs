//! What the functions compute. Their signatures are in [`crate::function`].

mod absent;
mod dates;
mod elementary;
mod histogram;
mod in_turn;
mod labels;
mod long;
mod math;
mod over_histograms;
mod over_time;
mod rate;
mod sort;

pub(super) use elementary::atan2;
pub(super) use math::pow;
pub(crate) use math::{log2, scale};

use model::Labels;

use super::{ABSENT, Column, Columns, Evaluation, is_present};
use crate::ast::{Call, Expr};
use crate::error::QueryError;
use crate::plan::{Grid, is_invariant_call, is_step_invariant};

/// Arguments as they come from the stack, in order.
struct Args(std::vec::IntoIter<Columns>);

impl Args {
    fn next(&mut self) -> Columns {
        self.0.next().expect("the parser counted the arguments")
    }

    fn vector(&mut self) -> Vec<Column> {
        self.next().into_vector()
    }

    fn scalar(&mut self) -> Vec<f64> {
        self.next().into_scalar()
    }

    /// The next scalar, if it was given.
    fn maybe_scalar(&mut self) -> Option<Vec<f64>> {
        self.0.next().map(Columns::into_scalar)
    }

    fn string(&mut self) -> (String, Option<Vec<u8>>) {
        self.next().into_string()
    }
}

impl Evaluation<'_> {
    pub(super) async fn call(
        &mut self,
        call: &Call,
        args: Vec<Columns>,
        grid: Grid,
    ) -> Result<Columns, QueryError> {
        let mut args = Args(args.into_iter());
        if let Some(function) = math::of_one_value(call.function.name) {
            return self.map(args.vector(), function).await;
        }
        if let Some(function) = dates::of_one_instant(call.function.name) {
            let vector = args.0.next();
            return self.date(call.function.name, function, vector, grid).await;
        }
        if let Some(function) = over_time::of_windows(call.function.name) {
            return self.over_windows(call, function, args, grid).await;
        }
        if let Some(number) = histogram::of_one_histogram(call.function.name) {
            return self.histogram_number(args.vector(), number).await;
        }
        match call.function.name {
            "time" => self.scalars(grid, |step| seconds(grid, step)).await,
            "pi" => self.scalars(grid, |_| std::f64::consts::PI).await,
            "vector" => Ok(Columns::Vector(vec![unlabelled(args.scalar())])),
            "scalar" => self.scalar(args.vector(), grid).await,
            "timestamp" => self.timestamp(args.vector(), grid).await,
            "clamp" | "clamp_min" | "clamp_max" => self.clamp(call.function.name, args).await,
            "round" => self.round(args, grid).await,
            "absent" => self.absent(argument(call, 0), args.vector(), grid).await,
            "absent_over_time" => {
                self.absent_over_time(argument(call, 0), args.next().into_ranges(), grid)
                    .await
            }
            "label_replace" => self.label_replace(args).await,
            "label_join" => self.label_join(args).await,
            "sort" => Ok(sort::sorted(args.vector(), grid, false)),
            "sort_desc" => Ok(sort::sorted(args.vector(), grid, true)),
            "sort_by_label" => sort::sorted_by_labels(args, grid, false, &mut self.pace).await,
            "sort_by_label_desc" => sort::sorted_by_labels(args, grid, true, &mut self.pace).await,
            "histogram_quantile" => self.histogram_quantile(call, args, grid).await,
            "histogram_fraction" => self.histogram_fraction(call, args, grid).await,
            name => Err(QueryError::Execution(format!(
                "{name} is not supported yet"
            ))),
        }
    }

    async fn scalar(&mut self, columns: Vec<Column>, grid: Grid) -> Result<Columns, QueryError> {
        let mut values = self.pace.filled(f64::NAN, grid.steps).await?;
        let mut seen = self.pace.filled(0_u8, grid.steps).await?;
        for column in &columns {
            let looked = self.pace.each(&mut values, |step, scalar| {
                let value = column.values.get(step).copied().unwrap_or(ABSENT);
                if is_present(value) && column.histogram(step).is_none() {
                    seen[step] = seen[step].saturating_add(1);
                    *scalar = if seen[step] == 1 { value } else { f64::NAN };
                }
            });
            looked.await?;
        }
        Ok(Columns::Scalar(values))
    }

    /// Of anything but a selector: the instants themselves.
    async fn timestamp(
        &mut self,
        mut columns: Vec<Column>,
        grid: Grid,
    ) -> Result<Columns, QueryError> {
        for column in &mut columns {
            let timed = self.pace.each(&mut column.values, |step, value| {
                if is_present(*value) {
                    *value = seconds(grid, step);
                }
            });
            timed.await?;
            column.histograms.clear();
            self.drop_name(column);
        }
        Ok(Columns::Vector(
            super::merge(columns, &mut self.pace).await?,
        ))
    }

    /// A function of instants: of the vector's values, or of the evaluation's own instants.
    async fn date(
        &mut self,
        name: &str,
        function: fn(i64) -> f64,
        vector: Option<Columns>,
        grid: Grid,
    ) -> Result<Columns, QueryError> {
        let columns = match vector {
            Some(vector) => vector.into_vector(),
            None => {
                self.pace.glimpse(grid.steps as u64)?;
                let mut instants = self.pace.filled(0.0, grid.steps).await?;
                let timed = self.pace.each(&mut instants, |step, value| {
                    *value = seconds(grid, step);
                });
                timed.await?;
                vec![unlabelled(instants)]
            }
        };
        let limit = i64::MAX as f64;
        let part = |seconds: f64| match seconds >= -limit && seconds < limit {
            true => function(seconds as i64),
            false => dates::of_no_instant(name),
        };
        self.map(columns, part).await
    }
}

/// Whether the call looks at windows of samples.
pub(super) fn is_over_windows(call: &Call) -> bool {
    let name = call.function.name;
    name == "absent_over_time" || over_time::of_windows(name).is_some()
}

/// Whether the call only renames what it is given, which Prometheus does in place.
pub(super) fn keeps_samples(call: &Call) -> bool {
    matches!(call.function.name, "label_replace" | "label_join")
}

/// An instant in seconds.
fn seconds(grid: Grid, step: usize) -> f64 {
    grid.at(step) as f64 / 1000.0
}

fn unlabelled(values: Vec<f64>) -> Column {
    Column::new(Labels::default(), false, values)
}

fn argument(call: &Call, at: usize) -> &Expr {
    let arg = call.args.get(at).expect("the parser counted the arguments");
    place(call, arg)
}

/// An argument as messages point at it: without the parentheses around it, unless it alone is computed
/// once for all instants.
fn place<'e>(call: &Call, arg: &'e Expr) -> &'e Expr {
    match is_step_invariant(arg) && !is_invariant_call(call) {
        true => arg,
        false => arg.unwrap_parens(),
    }
}
