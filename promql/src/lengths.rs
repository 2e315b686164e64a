//! Whether every computed length of an expression has a value, before any part of it is left to a
//! shard: what is wrong with a query is told as such, as in Prometheus, and not as a part's failure.

use crate::ast::{Expr, Shift};
use crate::duration::{DurationError, Length, QueryTimes};

/// The first length without a value, in the order in which Prometheus computes them.
pub(crate) fn check(expr: &Expr, query: QueryTimes) -> Result<(), DurationError> {
    let check = |expr: &Expr| check(expr, query);
    match expr {
        Expr::Number(_) | Expr::String(_) => Ok(()),
        Expr::Vector(selector) => offset(&selector.shift, query),
        Expr::Matrix(matrix) => {
            positive(&matrix.range, query)?;
            offset(&matrix.selector.shift, query)
        }
        Expr::Subquery(subquery) => {
            offset(&subquery.shift, query)?;
            let mut lengths = subquery.step.iter().chain([&subquery.range]);
            lengths.try_for_each(|length| positive(length, query))?;
            check(&subquery.expr)
        }
        Expr::Call(call) => call.args.iter().try_for_each(check),
        Expr::Aggregate(aggregate) => {
            let mut inside = aggregate.param.iter().chain([&aggregate.expr]);
            inside.try_for_each(|expr| check(expr))
        }
        Expr::Binary(binary) => {
            check(&binary.left)?;
            check(&binary.right)
        }
        Expr::Unary(unary) => check(&unary.expr),
        Expr::Paren(paren) => check(&paren.expr),
    }
}

fn offset(shift: &Shift, query: QueryTimes) -> Result<(), DurationError> {
    match &shift.offset {
        Length::Fixed(_) => Ok(()),
        Length::Computed(expr) => expr.millis(query).map(|_| ()),
    }
}

fn positive(length: &Length, query: QueryTimes) -> Result<(), DurationError> {
    match length {
        Length::Fixed(_) => Ok(()),
        Length::Computed(expr) => expr.positive_millis(query).map(|_| ()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parser::{ParseOptions, parse_with};

    /// Prometheus 3.5.3 with `--enable-feature=promql-duration-expr`.
    #[test]
    fn the_first_length_without_a_value_is_told_wherever_it_stands() {
        let options = ParseOptions {
            duration_expressions: true,
            ..ParseOptions::default()
        };
        let query = QueryTimes {
            step_ms: 0,
            range_ms: 0,
        };
        for (text, told) in [
            ("rate(x[5m-4m]) + sum(x offset (1m*2))", ""),
            (
                "(rate(x[5m-5m]) + s) * 2",
                "8:13: duration must be greater than 0",
            ),
            ("topk(1, rate(x[2^100]))", "15:20: duration is out of range"),
            (
                "1 - sum_over_time(x[5m:1m%1m])",
                "23:28: duration must be greater than 0",
            ),
            ("-abs(x offset (1m/(1-1)))", "15:22: division by zero"),
        ] {
            let expr = parse_with(text, options).unwrap();
            let outcome = check(&expr, query).map_or_else(|e| e.to_string(), |()| String::new());
            assert_eq!(outcome, told, "{text}");
        }
    }
}
