//! The functions of the language: names, argument types, result types.
//!
//! This is what the parser checks calls against. What a function computes is in `eval::functions`.

use crate::ast::Type;

/// A function's signature.
#[derive(Debug, PartialEq, Eq)]
pub struct Function {
    pub name: &'static str,
    pub args: &'static [Type],
    pub variadic: Variadic,
    pub returns: Type,
    /// Refused unless experimental functions are switched on.
    pub is_experimental: bool,
}

/// How often the last argument type may be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variadic {
    /// Exactly once.
    No,
    /// Not at all, or up to so many times.
    UpTo(usize),
    /// Not at all, or any number of times.
    Any,
}

impl Function {
    /// The function of that name.
    pub fn find(name: &str) -> Option<&'static Self> {
        FUNCTIONS.iter().find(|f| f.name == name)
    }

    /// Whether Prometheus 3.5 does not know it, not even as an experiment.
    pub fn is_newer(&self) -> bool {
        NEWER.contains(&self.name)
    }
}

use Type::{Matrix as M, Scalar as S, String as T, Vector as V};

const fn simple(name: &'static str, args: &'static [Type], returns: Type) -> Function {
    with(name, args, Variadic::No, returns)
}

const fn with(
    name: &'static str,
    args: &'static [Type],
    variadic: Variadic,
    returns: Type,
) -> Function {
    Function {
        name,
        args,
        variadic,
        returns,
        is_experimental: false,
    }
}

const fn experimental(name: &'static str, args: &'static [Type], variadic: Variadic) -> Function {
    Function {
        name,
        args,
        variadic,
        returns: V,
        is_experimental: true,
    }
}

const NEWER: [&str; 2] = ["first_over_time", "ts_of_first_over_time"];

static FUNCTIONS: &[Function] = &[
    simple("abs", &[V], V),
    simple("absent", &[V], V),
    simple("absent_over_time", &[M], V),
    simple("acos", &[V], V),
    simple("acosh", &[V], V),
    simple("asin", &[V], V),
    simple("asinh", &[V], V),
    simple("atan", &[V], V),
    simple("atanh", &[V], V),
    simple("avg_over_time", &[M], V),
    simple("ceil", &[V], V),
    simple("changes", &[M], V),
    simple("clamp", &[V, S, S], V),
    simple("clamp_max", &[V, S], V),
    simple("clamp_min", &[V, S], V),
    simple("cos", &[V], V),
    simple("cosh", &[V], V),
    simple("count_over_time", &[M], V),
    with("day_of_month", &[V], Variadic::UpTo(1), V),
    with("day_of_week", &[V], Variadic::UpTo(1), V),
    with("day_of_year", &[V], Variadic::UpTo(1), V),
    with("days_in_month", &[V], Variadic::UpTo(1), V),
    simple("deg", &[V], V),
    simple("delta", &[M], V),
    simple("deriv", &[M], V),
    experimental("double_exponential_smoothing", &[M, S, S], Variadic::No),
    simple("exp", &[V], V),
    experimental("first_over_time", &[M], Variadic::No),
    simple("floor", &[V], V),
    simple("histogram_avg", &[V], V),
    simple("histogram_count", &[V], V),
    simple("histogram_fraction", &[S, S, V], V),
    simple("histogram_quantile", &[S, V], V),
    simple("histogram_stddev", &[V], V),
    simple("histogram_stdvar", &[V], V),
    simple("histogram_sum", &[V], V),
    with("hour", &[V], Variadic::UpTo(1), V),
    simple("idelta", &[M], V),
    simple("increase", &[M], V),
    experimental("info", &[V, V], Variadic::UpTo(1)),
    simple("irate", &[M], V),
    with("label_join", &[V, T, T, T], Variadic::Any, V),
    simple("label_replace", &[V, T, T, T, T], V),
    simple("last_over_time", &[M], V),
    simple("ln", &[V], V),
    simple("log10", &[V], V),
    simple("log2", &[V], V),
    experimental("mad_over_time", &[M], Variadic::No),
    simple("max_over_time", &[M], V),
    simple("min_over_time", &[M], V),
    with("minute", &[V], Variadic::UpTo(1), V),
    with("month", &[V], Variadic::UpTo(1), V),
    simple("pi", &[], S),
    simple("predict_linear", &[M, S], V),
    simple("present_over_time", &[M], V),
    simple("quantile_over_time", &[S, M], V),
    simple("rad", &[V], V),
    simple("rate", &[M], V),
    simple("resets", &[M], V),
    with("round", &[V, S], Variadic::UpTo(1), V),
    simple("scalar", &[V], S),
    simple("sgn", &[V], V),
    simple("sin", &[V], V),
    simple("sinh", &[V], V),
    simple("sort", &[V], V),
    experimental("sort_by_label", &[V, T], Variadic::Any),
    experimental("sort_by_label_desc", &[V, T], Variadic::Any),
    simple("sort_desc", &[V], V),
    simple("sqrt", &[V], V),
    simple("stddev_over_time", &[M], V),
    simple("stdvar_over_time", &[M], V),
    simple("sum_over_time", &[M], V),
    simple("tan", &[V], V),
    simple("tanh", &[V], V),
    simple("time", &[], S),
    simple("timestamp", &[V], V),
    experimental("ts_of_first_over_time", &[M], Variadic::No),
    experimental("ts_of_last_over_time", &[M], Variadic::No),
    experimental("ts_of_max_over_time", &[M], Variadic::No),
    experimental("ts_of_min_over_time", &[M], Variadic::No),
    simple("vector", &[S], V),
    with("year", &[V], Variadic::UpTo(1), V),
];
