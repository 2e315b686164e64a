//! Which parts of a tree a shard can compute from its own series alone.
//!
//! Local is what gives each series its own result, whatever other series there are: selectors,
//! functions of one series, arithmetic with numbers. An aggregation over that can be folded by
//! each shard. What joins, sorts or renames series is not local.
//!
//! Dropping the metric name can make two series one, which is an error that must be seen where all
//! series are: a part whose series may have several names ends where the name goes.

use model::MatchOp;
use model::hash::Map;
use model::labels::METRIC_NAME;

use crate::ast::{Aggregate, AggregateOp, Binary, Call, Expr, Type, VectorSelector};

/// How a shard takes part in computing a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Share {
    /// It computes the node for its series.
    Columns,
    /// It folds what the aggregation works on; the folds are joined.
    Fold,
}

/// The share of a shard in `expr`, when sending it pays.
pub(crate) fn share(expr: &Expr) -> Option<Share> {
    match expr {
        Expr::Aggregate(aggregate) => can_fold(aggregate).then_some(Share::Fold),
        Expr::Call(_) | Expr::Binary(_) | Expr::Unary(_) => locality(expr).map(|_| Share::Columns),
        _ => None,
    }
}

/// What is known of a local expression.
#[derive(Debug, Clone, Copy)]
struct Locality {
    /// All its series have one metric name, so that dropping it keeps them apart.
    has_one_name: bool,
    /// Series come out with other labels than they went in.
    drops_name: bool,
}

fn can_fold(aggregate: &Aggregate) -> bool {
    let folds = matches!(
        aggregate.op,
        AggregateOp::Sum
            | AggregateOp::Avg
            | AggregateOp::Count
            | AggregateOp::Min
            | AggregateOp::Max
            | AggregateOp::Group
    );
    // Two series that become one are an error, which folds of two shards could not tell.
    folds && locality(&aggregate.expr).is_some_and(|l| l.has_one_name || !l.drops_name)
}

/// Whether a shard may leave out what an aggregation does not choose of its own series: what it
/// chooses of all of them is among those.
pub(crate) fn can_choose(aggregate: &Aggregate) -> bool {
    let Some(Expr::Number(param)) = aggregate.param.as_deref() else {
        return false;
    };
    // Others are errors, or told of, where all series are.
    let is_plain = match aggregate.op {
        AggregateOp::Limitk => (1.0..=1e9).contains(&param.value),
        AggregateOp::LimitRatio => (-1.0..=1.0).contains(&param.value),
        _ => false,
    };
    // Of two series that become one, neither may be missing.
    is_plain && locality(&aggregate.expr).is_some_and(|l| l.has_one_name || !l.drops_name)
}

fn locality(expr: &Expr) -> Option<Locality> {
    match expr {
        Expr::Vector(selector) => Some(of_selector(selector)),
        Expr::Matrix(matrix) => Some(of_selector(&matrix.selector)),
        Expr::Subquery(subquery) => locality(&subquery.expr),
        Expr::Paren(paren) => locality(&paren.expr),
        Expr::Unary(unary) => locality(&unary.expr).and_then(renamed),
        Expr::Binary(binary) => of_binary(binary),
        Expr::Call(call) => of_call(call),
        Expr::Number(_) | Expr::String(_) | Expr::Aggregate(_) => None,
    }
}

fn of_selector(selector: &VectorSelector) -> Locality {
    let names =
        |m: &model::Matcher| m.op == MatchOp::Equal && m.name == METRIC_NAME && !m.value.is_empty();
    Locality {
        has_one_name: selector.matchers.iter().any(names),
        drops_name: false,
    }
}

fn of_binary(binary: &Binary) -> Option<Locality> {
    match (is_free(&binary.left), is_free(&binary.right)) {
        (true, false) => locality(&binary.right).and_then(renamed),
        (false, true) => locality(&binary.left).and_then(renamed),
        _ => None,
    }
}

/// Functions that make one series of one series, without a look at any other.
const OF_ONE_SERIES: [&str; 66] = [
    "abs",
    "acos",
    "acosh",
    "asin",
    "asinh",
    "atan",
    "atanh",
    "avg_over_time",
    "ceil",
    "changes",
    "clamp",
    "clamp_max",
    "clamp_min",
    "cos",
    "cosh",
    "count_over_time",
    "day_of_month",
    "day_of_week",
    "day_of_year",
    "days_in_month",
    "deg",
    "delta",
    "deriv",
    "double_exponential_smoothing",
    "exp",
    "first_over_time",
    "floor",
    "histogram_avg",
    "histogram_count",
    "histogram_stddev",
    "histogram_stdvar",
    "histogram_sum",
    "hour",
    "idelta",
    "increase",
    "irate",
    "last_over_time",
    "ln",
    "log10",
    "log2",
    "mad_over_time",
    "max_over_time",
    "min_over_time",
    "minute",
    "month",
    "predict_linear",
    "present_over_time",
    "quantile_over_time",
    "rad",
    "rate",
    "resets",
    "round",
    "sgn",
    "sin",
    "sinh",
    "sqrt",
    "stddev_over_time",
    "stdvar_over_time",
    "sum_over_time",
    "tan",
    "tanh",
    "timestamp",
    "ts_of_first_over_time",
    "ts_of_last_over_time",
    "ts_of_max_over_time",
    "year",
];

fn of_call(call: &Call) -> Option<Locality> {
    if !OF_ONE_SERIES.contains(&call.function.name) {
        return None;
    }
    let mut with_series = call.args.iter().filter(|arg| !is_free(arg));
    let only = with_series.next()?;
    match with_series.next() {
        None => locality(only).and_then(renamed),
        Some(_) => None,
    }
}

/// Nothing is computed by a shard on top of series that may have become one.
fn renamed(inner: Locality) -> Option<Locality> {
    let is_sure = inner.has_one_name || !inner.drops_name;
    is_sure.then_some(Locality {
        drops_name: true,
        ..inner
    })
}

/// A number whose value needs no series.
fn is_free(expr: &Expr) -> bool {
    expr.ty() == Type::Scalar && !has_series(expr)
}

fn has_series(expr: &Expr) -> bool {
    matches!(expr, Expr::Vector(_) | Expr::Matrix(_))
        || children(expr).iter().any(|c| has_series(c))
}

/// The operands of a node, in the order in which the text names them.
pub(crate) fn children(expr: &Expr) -> Vec<&Expr> {
    match expr {
        Expr::Number(_) | Expr::String(_) | Expr::Vector(_) | Expr::Matrix(_) => Vec::new(),
        Expr::Subquery(subquery) => vec![&subquery.expr],
        Expr::Call(call) => call.args.iter().collect(),
        Expr::Aggregate(aggregate) => {
            let param = aggregate.param.as_deref();
            param.into_iter().chain([&*aggregate.expr]).collect()
        }
        Expr::Binary(binary) => vec![&binary.left, &binary.right],
        Expr::Unary(unary) => vec![&unary.expr],
        Expr::Paren(paren) => vec![&paren.expr],
    }
}

/// The nodes of a tree with their numbers: a node before its operands.
#[derive(Debug, Default)]
pub(crate) struct Numbers(Map<usize, u32>);

impl Numbers {
    pub fn of(root: &Expr) -> Self {
        let mut numbers = Self::default();
        let mut next = vec![root];
        while let Some(expr) = next.pop() {
            let number = u32::try_from(numbers.0.len()).expect("a query's length is bounded");
            numbers.0.insert(std::ptr::from_ref(expr).addr(), number);
            next.extend(children(expr).into_iter().rev());
        }
        numbers
    }

    /// The number of a node of that very tree.
    pub fn get(&self, expr: &Expr) -> Option<u32> {
        self.0.get(&std::ptr::from_ref(expr).addr()).copied()
    }
}

/// The node that has `number`.
pub(crate) fn node(root: &Expr, number: u32) -> Option<&Expr> {
    let mut next = vec![root];
    let mut count = 0;
    while let Some(expr) = next.pop() {
        if count == number {
            return Some(expr);
        }
        count += 1;
        next.extend(children(expr).into_iter().rev());
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_shard_can_choose_among_its_own() {
        for (text, expected) in [
            ("limitk(2, x)", true),
            ("limitk by (a) (2, rate(x[5m]))", true),
            ("limit_ratio(-0.5, x > 3)", true),
            // Errors and warnings, which all series decide.
            ("limitk(0, x)", false),
            ("limitk(1e30, x)", false),
            ("limit_ratio(1.5, x)", false),
            ("limitk(scalar(y), x)", false),
            ("limitk(2, x + y)", false),
            // Two names, one result.
            ("limitk(2, rate({a=\"b\"}[5m]))", false),
            // Which of equal ones stay depends on all.
            ("topk(2, x)", false),
        ] {
            let options = crate::ParseOptions {
                experimental_functions: true,
                ..crate::ParseOptions::default()
            };
            let Ok(Expr::Aggregate(aggregate)) = crate::parse_with(text, options) else {
                panic!("{text} is an aggregation");
            };
            assert_eq!(can_choose(&aggregate), expected, "{text}");
        }
    }

    #[test]
    fn what_a_shard_can_do_alone() {
        use Share::{Columns, Fold};
        for (text, expected) in [
            ("x", None),
            ("(x)", None),
            ("-x", Some(Columns)),
            ("rate(x[5m])", Some(Columns)),
            ("rate(x[5m]) * 100 > 3", Some(Columns)),
            ("time() - x", Some(Columns)),
            ("max_over_time(rate(x[5m])[1h:1m])", Some(Columns)),
            ("clamp(x, 1, scalar(y))", None),
            ("x + y", None),
            ("sort(x)", None),
            ("label_replace(x, \"a\", \"b\", \"c\", \"d\")", None),
            ("histogram_quantile(0.9, x)", None),
            ("sum(x)", Some(Fold)),
            ("sum by (a) (rate(x[5m]))", Some(Fold)),
            ("avg({a=\"b\"})", Some(Fold)),
            // Two names, one result: an error that must be seen.
            ("sum(rate({a=\"b\"}[5m]))", None),
            ("rate({a=\"b\"}[5m])", Some(Columns)),
            ("rate({a=\"b\"}[5m]) > 3", None),
            ("-rate({a=\"b\"}[5m])", None),
            ("max_over_time(rate({a=\"b\"}[5m])[1h:])", None),
            ("stddev(x)", None),
            ("topk(3, x)", None),
            ("sum(sum(x))", None),
            ("1 + 2", None),
            ("absent(x)", None),
        ] {
            assert_eq!(share(&crate::parse(text).unwrap()), expected, "{text}");
        }
    }

    #[test]
    fn numbers_name_nodes() {
        let expr = crate::parse("topk(2, rate(x[5m])) + sum by (a) (y)").unwrap();
        let numbers = Numbers::of(&expr);
        let mut seen = Vec::new();
        let mut next = vec![&expr];
        while let Some(expr) = next.pop() {
            let number = numbers.get(expr).unwrap();
            seen.push(number);
            next.extend(children(expr));
        }
        seen.sort_unstable();
        assert_eq!(seen, (0..7).collect::<Vec<_>>());
        for number in seen {
            let found = node(&expr, number).unwrap();
            assert_eq!(numbers.get(found), Some(number));
        }
        assert!(node(&expr, 7).is_none());
    }
}
