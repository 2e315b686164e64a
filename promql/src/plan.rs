//! What to select, and in which order to compute.
//!
//! A tree becomes a list of steps for a stack machine, operands before operators. Every step
//! knows the instants it is computed at, also inside subqueries, so each selector's whole window
//! is known before anything is fetched: one selection per selector, none per instant. A part of
//! the tree that is the same at every instant is computed once and spread.

use model::limits::QUERY_POINTS_MAX;
use model::source::{Consistency, Selection, Take};
use model::{Matcher, Timestamp};

use crate::ast::{Aggregate, At, Binary, Call, Expr, Shift, Subquery, VectorSelector};
use crate::duration::{Length, QueryTimes};
use crate::error::QueryError;
use crate::local::{self, Numbers, Share};

/// Instants at equal distances, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Grid {
    pub start: i64,
    pub step: i64,
    pub steps: usize,
    /// What was asked for: the last instant or less than a step after it. Subqueries go on to there.
    pub end: i64,
}

impl Grid {
    pub fn single(at: i64) -> Self {
        Self {
            start: at,
            step: 1,
            steps: 1,
            end: at,
        }
    }

    /// From `start` as long as `end` is not passed; none when it already is.
    pub fn between(start: i64, end: i64, step: i64) -> Self {
        let steps = match end.checked_sub(start) {
            Some(length) if length >= 0 => (length / step).saturating_add(1),
            Some(_) => 0,
            None => i64::MAX,
        };
        Self {
            start,
            step,
            steps: usize::try_from(steps).unwrap_or(usize::MAX),
            end,
        }
    }

    pub fn at(&self, step: usize) -> i64 {
        self.start
            .saturating_add(self.step.saturating_mul(step as i64))
    }

    fn last(&self) -> i64 {
        self.at(self.steps.saturating_sub(1))
    }
}

/// Where a selector looks from an instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Look {
    pub offset_ms: i64,
    pub at: Option<i64>,
}

impl Look {
    /// The instant looked at from `now`.
    pub fn from(&self, now: i64) -> i64 {
        self.at.unwrap_or(now).saturating_sub(self.offset_ms)
    }
}

/// One computation: its operands are on the stack, its result replaces them.
#[derive(Debug)]
pub(crate) struct Step<'e> {
    pub op: Op<'e>,
    pub grid: Grid,
}

#[derive(Debug)]
pub(crate) enum Op<'e> {
    Number(f64),
    String(&'e str, Option<&'e [u8]>),
    /// The newest sample at each instant.
    Select {
        selection: usize,
        look: Look,
    },
    /// That sample's own time, in seconds: `timestamp(selector)`.
    SelectTime {
        selection: usize,
        look: Look,
    },
    /// That sample's own time, in milliseconds, of series that `info` may join.
    SelectInfo {
        selection: usize,
        look: Look,
    },
    /// `info`: labels of the info series above are joined to the vector below.
    Info(&'e Call),
    /// All samples; later cut to `range_ms` at each instant.
    Range {
        selection: usize,
        look: Look,
        range_ms: i64,
    },
    /// Makes ranges out of the vector computed at `inner`.
    Subquery {
        inner: Grid,
        look: Look,
        range_ms: i64,
    },
    /// What the shards computed of the node, joined.
    Part {
        part: usize,
        expr: &'e Expr,
    },
    /// What the shards folded, or the aggregation of what they computed.
    Combine {
        part: usize,
        aggregate: &'e Aggregate,
    },
    Call(&'e Call),
    Aggregate(&'e Aggregate),
    Binary(&'e Binary),
    Negate,
    /// Repeats a result of one instant at each of the grid's.
    Spread,
}

/// The steps and the selections they refer to.
#[derive(Debug)]
pub(crate) struct Plan<'e> {
    pub steps: Vec<Step<'e>>,
    pub selections: Vec<Selection>,
    pub parts: Vec<PartPlan>,
}

/// A node of the tree that the shards compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PartPlan {
    pub node: u32,
    /// What to ask for when the aggregation `node` does not fold; `None` when it is none.
    pub unfolded: Option<u32>,
    /// The aggregation that chooses among the series of `node`, so that shards may choose first.
    pub chosen_by: Option<u32>,
    pub grid: Grid,
}

/// What the plan depends on besides the tree.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Context {
    pub grid: Grid,
    /// `start()` and `end()`.
    pub start: i64,
    pub end: i64,
    /// Between the query's instants; none for a query at one.
    pub query_step_ms: i64,
    pub lookback_ms: i64,
    pub subquery_step_ms: i64,
    pub consistency: Consistency,
    pub samples_max: usize,
}

impl Context {
    /// What durations may refer to: the query's own times, also inside subqueries.
    pub fn query_times(&self) -> QueryTimes {
        QueryTimes {
            step_ms: self.query_step_ms,
            range_ms: self.end.saturating_sub(self.start),
        }
    }
}

/// Plans `expr`. With `numbers`, nodes that shards can compute are left to them.
pub(crate) fn plan<'e>(
    expr: &'e Expr,
    context: Context,
    numbers: Option<&Numbers>,
) -> Result<Plan<'e>, QueryError> {
    let mut planner = Planner {
        context,
        numbers,
        plan: Plan {
            steps: Vec::new(),
            selections: Vec::new(),
            parts: Vec::new(),
        },
    };
    planner.visit(expr, context.grid)?;
    Ok(planner.plan)
}

struct Planner<'e, 'n> {
    context: Context,
    numbers: Option<&'n Numbers>,
    plan: Plan<'e>,
}

impl<'e> Planner<'e, '_> {
    fn push(&mut self, op: Op<'e>, grid: Grid) {
        self.plan.steps.push(Step { op, grid });
    }

    fn visit(&mut self, expr: &'e Expr, grid: Grid) -> Result<(), QueryError> {
        // More instants than a query may have and than samples allowed: of a subquery that finds nothing
        // alone Prometheus computes them all the same.
        if grid.steps > self.context.samples_max.max(QUERY_POINTS_MAX as usize + 1) {
            return Err(QueryError::TooManySamples);
        }
        if grid.steps > 1 && is_step_invariant(expr) && !is_ranges(expr) {
            self.visit(expr, Grid::single(grid.start))?;
            self.push(Op::Spread, grid);
            return Ok(());
        }
        if self.leave_to_shards(expr, grid) {
            return Ok(());
        }

        refuse_newer(expr)?;
        match expr {
            Expr::Number(number) => self.push(Op::Number(number.value), grid),
            Expr::String(string) => {
                self.push(Op::String(&string.value, string.not_utf8.as_deref()), grid);
            }
            Expr::Vector(selector) => {
                let (selection, look) = self.instant(selector, grid)?;
                self.push(Op::Select { selection, look }, grid);
            }
            Expr::Matrix(matrix) => {
                let look = self.look(&matrix.selector.shift)?;
                let range_ms = self.positive_ms(&matrix.range)?;
                let selection =
                    self.select(&matrix.selector.matchers, look, range_ms, grid, Take::All);
                let op = Op::Range {
                    selection,
                    look,
                    range_ms,
                };
                self.push(op, grid);
            }
            Expr::Subquery(subquery) => self.subquery(subquery, grid)?,
            Expr::Call(call) => self.call(call, grid)?,
            Expr::Aggregate(aggregate) => {
                if let Some(param) = &aggregate.param {
                    self.visit(param, grid)?;
                }
                if !self.leave_choice_to_shards(expr, aggregate, grid) {
                    self.visit(&aggregate.expr, grid)?;
                }
                self.push(Op::Aggregate(aggregate), grid);
            }
            Expr::Binary(binary) => {
                self.visit(&binary.left, grid)?;
                self.visit(&binary.right, grid)?;
                self.push(Op::Binary(binary), grid);
            }
            Expr::Unary(unary) => {
                self.visit(&unary.expr, grid)?;
                if unary.negative {
                    self.push(Op::Negate, grid);
                }
            }
            Expr::Paren(paren) => self.visit(&paren.expr, grid)?,
        }
        Ok(())
    }

    /// What shards can do about `expr`. The values of a selector at the query's instants travel
    /// lighter than its samples, unless the instants lie closer than samples do.
    fn share(expr: &Expr, grid: Grid) -> Option<Share> {
        let is_sparse = grid.steps > 1 && grid.step >= SPARSE_STEP_MS;
        match expr {
            Expr::Vector(_) => is_sparse.then_some(Share::Columns),
            _ => local::share(expr),
        }
    }

    /// Plans a part where the shards can compute `expr`.
    fn leave_to_shards(&mut self, expr: &'e Expr, grid: Grid) -> bool {
        let Some(numbers) = self.numbers.filter(|_| grid.steps > 0) else {
            return false;
        };
        let (Some(share), Some(node)) = (Self::share(expr, grid), numbers.get(expr)) else {
            return false;
        };
        if let Some(part) = self.known_part(expr, grid) {
            self.push(Op::Part { part, expr }, grid);
            return true;
        }
        let part = self.plan.parts.len();
        let (op, unfolded) = match (share, expr) {
            (Share::Fold, Expr::Aggregate(aggregate)) => (
                Op::Combine { part, aggregate },
                numbers.get(&aggregate.expr),
            ),
            _ => (Op::Part { part, expr }, None),
        };
        let plan = PartPlan {
            node,
            unfolded,
            chosen_by: None,
            grid,
        };
        self.plan.parts.push(plan);
        self.push(op, grid);
        true
    }

    /// The part that brings the same selector's values already. Whatever else shards compute may have to tell
    /// something of its place in the text.
    fn known_part(&self, expr: &Expr, grid: Grid) -> Option<usize> {
        let Expr::Vector(wanted) = expr else {
            return None;
        };
        let found = self.plan.steps.iter().find_map(|step| match &step.op {
            Op::Part {
                part,
                expr: Expr::Vector(selector),
            } if step.grid == grid && selector.selects_as(wanted) => Some(*part),
            _ => None,
        })?;
        self.plan.parts[found].chosen_by.is_none().then_some(found)
    }

    /// Plans a part for what `aggregate` chooses among, where the shards can choose first.
    fn leave_choice_to_shards(
        &mut self,
        expr: &'e Expr,
        aggregate: &'e Aggregate,
        grid: Grid,
    ) -> bool {
        let numbers = self.numbers.filter(|_| grid.steps > 0);
        let Some(numbers) = numbers.filter(|_| local::can_choose(aggregate)) else {
            return false;
        };
        let operand = &*aggregate.expr;
        let (Some(node), Some(chosen_by)) = (numbers.get(operand), numbers.get(expr)) else {
            return false;
        };
        let part = self.plan.parts.len();
        self.plan.parts.push(PartPlan {
            node,
            unfolded: None,
            chosen_by: Some(chosen_by),
            grid,
        });
        let expr = operand;
        self.push(Op::Part { part, expr }, grid);
        true
    }

    fn call(&mut self, call: &'e Call, grid: Grid) -> Result<(), QueryError> {
        if let ("timestamp", [arg]) = (call.function.name, call.args.as_slice())
            && let Expr::Vector(selector) = arg.unwrap_parens()
        {
            refuse_newer(arg.unwrap_parens())?;
            let (selection, look) = self.instant(selector, grid)?;
            self.push(Op::SelectTime { selection, look }, grid);
            return Ok(());
        }
        if let ("info", [base, ..]) = (call.function.name, call.args.as_slice()) {
            self.visit(base, grid)?;
            let look = first_look(base).map(|shift| self.look(shift)).transpose()?;
            let look = look.unwrap_or(NO_LOOK);
            let matchers = crate::eval::info_matchers(call);
            let lookback = self.context.lookback_ms;
            let selection = self.select(&matchers, look, lookback, grid, Take::All);
            // Prometheus shifts what it fetches, not where it looks.
            let look = NO_LOOK;
            self.push(Op::SelectInfo { selection, look }, grid);
            self.push(Op::Info(call), grid);
            return Ok(());
        }
        for arg in &call.args {
            self.visit(arg, grid)?;
        }
        self.push(Op::Call(call), grid);
        Ok(())
    }

    fn subquery(&mut self, subquery: &'e Subquery, grid: Grid) -> Result<(), QueryError> {
        let look = self.look(&subquery.shift)?;
        let range_ms = self.positive_ms(&subquery.range)?;
        let step = match &subquery.step {
            // A computed step may come out shorter than a millisecond.
            Some(step) => self.positive_ms(step)?.max(1),
            None => self.context.subquery_step_ms,
        };
        let first = look.from(grid.start);
        let last = first.saturating_add(grid.end.saturating_sub(grid.start));
        // The first multiple of the step after the left end, which is open.
        let left = first.saturating_sub(range_ms);
        let start = left.div_euclid(step).saturating_add(1).saturating_mul(step);
        let mut inner = Grid::between(start, last, step);
        if grid.steps == 0 {
            inner.steps = 0;
        }
        self.visit(&subquery.expr, inner)?;
        let op = Op::Subquery {
            inner,
            look,
            range_ms,
        };
        self.push(op, grid);
        Ok(())
    }

    fn positive_ms(&self, length: &Length) -> Result<i64, QueryError> {
        match length {
            Length::Fixed(ms) => Ok(*ms),
            Length::Computed(expr) => Ok(expr.positive_millis(self.context.query_times())?),
        }
    }

    fn offset_ms(&self, length: &Length) -> Result<i64, QueryError> {
        match length {
            Length::Fixed(ms) => Ok(*ms),
            Length::Computed(expr) => Ok(expr.millis(self.context.query_times())?),
        }
    }

    fn look(&self, shift: &Shift) -> Result<Look, QueryError> {
        let at = shift.at.map(|at| match at {
            At::Timestamp(ms) => ms,
            At::Start => self.context.start,
            At::End => self.context.end,
        });
        Ok(Look {
            offset_ms: self.offset_ms(&shift.offset)?,
            at,
        })
    }

    fn instant(
        &mut self,
        selector: &VectorSelector,
        grid: Grid,
    ) -> Result<(usize, Look), QueryError> {
        let look = self.look(&selector.shift)?;
        let lookback = self.context.lookback_ms;
        let is_one = look.from(grid.start) == look.from(grid.last());
        let take = if is_one { Take::Last } else { Take::All };
        let selection = self.select(&selector.matchers, look, lookback, grid, take);
        Ok((selection, look))
    }

    /// Index of the selection that holds what a window of `back_ms` sees from every instant; one
    /// that is already there if it is the same.
    fn select(
        &mut self,
        matchers: &[Matcher],
        look: Look,
        back_ms: i64,
        grid: Grid,
        take: Take,
    ) -> usize {
        let (first, last) = (look.from(grid.start), look.from(grid.last()));
        let selection = Selection {
            matchers: matchers.to_vec(),
            // Windows are open on the left.
            start: Timestamp(first.saturating_sub(back_ms).saturating_add(1)),
            end: Timestamp(last),
            take,
            consistency: self.context.consistency,
        };
        let selections = &mut self.plan.selections;
        selections
            .iter()
            .position(|s| *s == selection)
            .unwrap_or_else(|| {
                selections.push(selection);
                selections.len() - 1
            })
    }
}

/// Instants so far apart are fewer than samples, as most are scraped.
const SPARSE_STEP_MS: i64 = 15_000;

const NO_LOOK: Look = Look {
    offset_ms: 0,
    at: None,
};

/// Where the first selector inside looks: `info` looks for info series there.
fn first_look(expr: &Expr) -> Option<&Shift> {
    match expr {
        Expr::Number(_) | Expr::String(_) => None,
        Expr::Vector(selector) => Some(&selector.shift),
        Expr::Matrix(matrix) => Some(&matrix.selector.shift),
        Expr::Subquery(subquery) => first_look(&subquery.expr),
        Expr::Call(call) => call.args.iter().find_map(first_look),
        Expr::Aggregate(aggregate) => {
            first_look(&aggregate.expr).or_else(|| first_look(aggregate.param.as_deref()?))
        }
        Expr::Binary(binary) => first_look(&binary.left).or_else(|| first_look(&binary.right)),
        Expr::Unary(unary) => first_look(&unary.expr),
        Expr::Paren(paren) => first_look(&paren.expr),
    }
}

/// What is read, but not computed yet.
fn refuse_newer(expr: &Expr) -> Result<(), QueryError> {
    let newer = match expr {
        Expr::Vector(selector) => selector.reach.as_str(),
        Expr::Matrix(matrix) => matrix.selector.reach.as_str(),
        Expr::Binary(binary) => match &binary.matching {
            Some(matching) if !matching.fill.is_none() => "fill",
            _ => "",
        },
        _ => "",
    };
    match newer {
        "" => Ok(()),
        newer => Err(QueryError::Execution(format!(
            "{newer} is not supported yet"
        ))),
    }
}

/// Ranges are cut when used, so there is nothing to spread.
fn is_ranges(expr: &Expr) -> bool {
    matches!(
        expr.unwrap_parens(),
        Expr::Matrix(_) | Expr::Subquery(_) | Expr::String(_)
    )
}

/// Functions whose result depends on the instant itself, whatever their arguments.
const BOUND_TO_TIME: [&str; 11] = [
    "time",
    "timestamp",
    "predict_linear",
    "day_of_month",
    "day_of_week",
    "day_of_year",
    "days_in_month",
    "hour",
    "minute",
    "month",
    "year",
];

/// Whether Prometheus takes `expr` to have the same value at every instant, and computes it at the
/// first one only.
pub(crate) fn is_step_invariant(expr: &Expr) -> bool {
    match expr {
        Expr::Number(_) | Expr::String(_) => true,
        Expr::Vector(selector) => selector.shift.at.is_some(),
        Expr::Matrix(matrix) => matrix.selector.shift.at.is_some(),
        Expr::Subquery(subquery) => subquery.shift.at.is_some(),
        Expr::Call(call) => is_invariant_call(call),
        // Prometheus does not look at the parameter.
        Expr::Aggregate(aggregate) => is_step_invariant(&aggregate.expr),
        Expr::Binary(binary) => is_step_invariant(&binary.left) && is_step_invariant(&binary.right),
        Expr::Unary(unary) => is_step_invariant(&unary.expr),
        Expr::Paren(paren) => is_step_invariant(&paren.expr),
    }
}

/// [`is_step_invariant`] of a call.
pub(crate) fn is_invariant_call(call: &Call) -> bool {
    !BOUND_TO_TIME.contains(&call.function.name) && call.args.iter().all(is_step_invariant)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selections(text: &str, start: i64, end: i64, step: i64) -> Vec<(i64, i64, Take)> {
        windows(text, start, end, step).unwrap()
    }

    fn context(start: i64, end: i64, step: i64) -> Context {
        Context {
            grid: Grid::between(start, end, step),
            start,
            end,
            query_step_ms: step,
            lookback_ms: 300_000,
            subquery_step_ms: 60_000,
            consistency: Consistency::Strong,
            samples_max: 1_000_000,
        }
    }

    fn windows(
        text: &str,
        start: i64,
        end: i64,
        step: i64,
    ) -> Result<Vec<(i64, i64, Take)>, QueryError> {
        let options = crate::ParseOptions {
            experimental_functions: true,
            duration_expressions: true,
            ..crate::ParseOptions::default()
        };
        let expr = crate::parse_with(text, options)?;
        let plan = plan(&expr, context(start, end, step), None)?;
        let windows = plan.selections.iter();
        Ok(windows.map(|s| (s.start.0, s.end.0, s.take)).collect())
    }

    #[test]
    fn computed_durations_are_those_of_the_query() {
        let window = |text| selections(text, 600_000, 900_000, 60_000);
        assert_eq!(window("rate(x[2m/2])"), window("rate(x[1m])"));
        assert_eq!(window("rate(x[step()])"), window("rate(x[1m])"));
        assert_eq!(window("x offset -(1m * 2)"), window("x offset -2m"));
        assert_eq!(window("x offset range()"), window("x offset 5m"));
        // Inside a subquery, too, the step is the query's.
        let inner = window("max_over_time(rate(x[step() * 2])[1m:1s * 30])");
        assert_eq!(inner, window("max_over_time(rate(x[2m])[1m:30s])"));
        // 0.3 ms between instants would be none.
        assert_eq!(window("max_over_time(x[1m:1s / 3000])").len(), 1);
    }

    #[test]
    fn a_duration_without_a_value_is_told_where_prometheus_tells_it() {
        for (text, message) in [
            (
                "sum_over_time(up[5m-5m])",
                "17:22: duration must be greater than 0",
            ),
            (
                "sum_over_time(up[1m:5m-10m])",
                "20:26: duration must be greater than 0",
            ),
            ("up offset (5m/(1-1))", "11:18: division by zero"),
            ("rate(up[2^100])", "8:13: duration is out of range"),
            ("up offset -(2^100)", "10:17: duration is out of range"),
            (
                "sum_over_time(up[-(5m+1)])",
                "17:23: duration must be greater than 0",
            ),
            ("sum_over_time(up[-(5m/(2-2))])", "19:26: division by zero"),
            ("1 + sum_over_time(up[5m%(2-2)])", "21:28: modulo by zero"),
        ] {
            let refused = windows(text, 0, 60_000, 1_000).unwrap_err();
            let expected = message.to_owned();
            assert_eq!(refused, QueryError::Invalid(expected), "{text}");
        }
    }

    #[test]
    fn a_selection_covers_exactly_what_its_selector_can_see() {
        let window = |text| selections(text, 600_000, 900_000, 60_000);
        assert_eq!(window("x"), [(300_001, 900_000, Take::All)]);
        assert_eq!(window("x offset 1m"), [(240_001, 840_000, Take::All)]);
        assert_eq!(window("rate(x[1m])"), [(540_001, 900_000, Take::All)]);
        assert_eq!(window("x @ 1000"), [(700_001, 1_000_000, Take::Last)]);
        assert_eq!(window("x @ end()"), [(600_001, 900_000, Take::Last)]);
        // Instants of the subquery: 9m30s to 15m, in steps of 30 s.
        assert_eq!(window("rate(x[1m:30s])"), [(270_001, 900_000, Take::All)]);
        assert_eq!(
            selections("x", 600_000, 600_000, 1),
            [(300_001, 600_000, Take::Last)]
        );
    }

    #[test]
    fn newer_syntax_is_read_and_refused() {
        let options = crate::ParseOptions {
            experimental_functions: true,
            duration_expressions: true,
            fill_modifiers: true,
            extended_ranges: true,
        };
        for text in [
            "rate(x[5m] anchored)",
            "timestamp((x smoothed))",
            "x + fill (0) y",
        ] {
            let expr = crate::parse_with(text, options).unwrap();
            let refused = plan(&expr, context(0, 0, 1), None).unwrap_err();
            assert!(
                matches!(refused, QueryError::Execution(_)),
                "{text}: {refused}"
            );
        }
    }

    #[test]
    fn equal_selections_are_made_once() {
        assert_eq!(selections("x / x + rate(x[5m])", 0, 60_000, 1_000).len(), 1);
        assert_eq!(selections("x / x offset 1s", 0, 60_000, 1_000).len(), 2);
    }

    #[test]
    fn what_never_changes_is_computed_once() {
        for (text, invariant) in [
            ("1 + 2", true),
            ("sum(x @ 5)", true),
            ("rate(x[5m] @ end())", true),
            ("sum_over_time(x[5m:1m] @ 5)", true),
            ("time()", false),
            ("timestamp(x @ 5)", false),
            ("x @ 5 + x", false),
            ("topk(time(), x @ 5)", true),
        ] {
            assert_eq!(
                is_step_invariant(&crate::parse(text).unwrap()),
                invariant,
                "{text}"
            );
        }
    }
}
