//! The tables the generator draws from: functions, operators, aggregations, names, numbers.

use super::expr::Type;

/// What an argument of a function is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arg {
    Vector,
    Matrix,
    Scalar,
    /// A fraction of one, and a little beyond.
    Quantile,
    /// The name of a label, as a text.
    Label,
    /// One of these texts.
    OneOf(&'static [&'static str]),
    /// A vector of classic or native histograms.
    Histograms,
    /// The second argument of `info`.
    InfoLabels,
}

use Arg::{Histograms, InfoLabels, Label, Matrix, OneOf, Quantile, Scalar, Vector};

/// Name, arguments, result.
pub type Function = (&'static str, &'static [Arg], Type);

const REGEXES: Arg = OneOf(&[
    "(.*)",
    "(.)(.*)",
    "a|b",
    "(?P<x>api|web)",
    "",
    "[0-9]+",
    "(",
    ".+",
    "(?i)A",
    "([a-z]+)-?(.*)",
]);
const REPLACEMENTS: Arg = OneOf(&[
    "$1", "${1}-x", "$x", "lit", "", "$2$1", "é", "$0", "$$", "$10", "${2}_",
]);
const SEPARATORS: Arg = OneOf(&["-", "", "é", ", "]);

const fn v(name: &'static str) -> Function {
    (name, &[Vector], Type::Vector)
}

const fn m(name: &'static str) -> Function {
    (name, &[Matrix], Type::Vector)
}

/// Every function of Prometheus 3.5, the experimental ones included.
pub const FUNCTIONS: &[Function] = &[
    v("abs"),
    v("absent"),
    v("acos"),
    v("acosh"),
    v("asin"),
    v("asinh"),
    v("atan"),
    v("atanh"),
    v("ceil"),
    v("cos"),
    v("cosh"),
    v("deg"),
    v("exp"),
    v("floor"),
    v("ln"),
    v("log10"),
    v("log2"),
    v("rad"),
    v("sgn"),
    v("sin"),
    v("sinh"),
    v("sort"),
    v("sort_desc"),
    v("sqrt"),
    v("tan"),
    v("tanh"),
    v("timestamp"),
    v("day_of_month"),
    v("day_of_week"),
    v("day_of_year"),
    v("days_in_month"),
    v("hour"),
    v("minute"),
    v("month"),
    v("year"),
    v("round"),
    m("absent_over_time"),
    m("avg_over_time"),
    m("changes"),
    m("count_over_time"),
    m("delta"),
    m("deriv"),
    m("idelta"),
    m("increase"),
    m("irate"),
    m("last_over_time"),
    m("mad_over_time"),
    m("max_over_time"),
    m("min_over_time"),
    m("present_over_time"),
    m("rate"),
    m("resets"),
    m("stddev_over_time"),
    m("stdvar_over_time"),
    m("sum_over_time"),
    m("ts_of_last_over_time"),
    m("ts_of_max_over_time"),
    m("ts_of_min_over_time"),
    ("rate", &[Matrix], Type::Vector),
    ("increase", &[Matrix], Type::Vector),
    ("quantile_over_time", &[Quantile, Matrix], Type::Vector),
    ("predict_linear", &[Matrix, Scalar], Type::Vector),
    (
        "double_exponential_smoothing",
        &[Matrix, Quantile, Quantile],
        Type::Vector,
    ),
    ("clamp", &[Vector, Scalar, Scalar], Type::Vector),
    ("clamp_max", &[Vector, Scalar], Type::Vector),
    ("clamp_min", &[Vector, Scalar], Type::Vector),
    ("round", &[Vector, Scalar], Type::Vector),
    ("histogram_avg", &[Histograms], Type::Vector),
    ("histogram_count", &[Histograms], Type::Vector),
    ("histogram_sum", &[Histograms], Type::Vector),
    ("histogram_stddev", &[Histograms], Type::Vector),
    ("histogram_stdvar", &[Histograms], Type::Vector),
    (
        "histogram_fraction",
        &[Scalar, Scalar, Histograms],
        Type::Vector,
    ),
    ("histogram_quantile", &[Quantile, Histograms], Type::Vector),
    ("histogram_quantile", &[Quantile, Histograms], Type::Vector),
    ("info", &[Vector], Type::Vector),
    ("info", &[Vector, InfoLabels], Type::Vector),
    (
        "label_join",
        &[Vector, Label, SEPARATORS, Label, Label],
        Type::Vector,
    ),
    ("label_join", &[Vector, Label, SEPARATORS], Type::Vector),
    (
        "label_replace",
        &[Vector, Label, REPLACEMENTS, Label, REGEXES],
        Type::Vector,
    ),
    (
        "label_replace",
        &[Vector, Label, REPLACEMENTS, Label, REGEXES],
        Type::Vector,
    ),
    ("sort_by_label", &[Vector, Label, Label], Type::Vector),
    ("sort_by_label_desc", &[Vector, Label], Type::Vector),
    ("vector", &[Scalar], Type::Vector),
    ("year", &[], Type::Vector),
    ("minute", &[], Type::Vector),
    ("scalar", &[Vector], Type::Scalar),
    ("time", &[], Type::Scalar),
    ("pi", &[], Type::Scalar),
];

/// Name, and what its parameter is.
pub const AGGREGATIONS: &[(&str, Option<Arg>)] = &[
    ("sum", None),
    ("sum", None),
    ("avg", None),
    ("min", None),
    ("max", None),
    ("count", None),
    ("group", None),
    ("stddev", None),
    ("stdvar", None),
    ("topk", Some(Scalar)),
    ("bottomk", Some(Scalar)),
    ("limitk", Some(Scalar)),
    ("limit_ratio", Some(Quantile)),
    ("quantile", Some(Quantile)),
    ("count_values", Some(Label)),
];

pub const ARITHMETIC: &[&str] = &["+", "-", "*", "/", "%", "^", "atan2"];
pub const COMPARISONS: &[&str] = &["==", "!=", ">", "<", ">=", "<="];
pub const SETS: &[&str] = &["and", "or", "unless"];

/// Metrics of floats, and those that are classic or native histograms.
pub const METRICS: &[&str] = &[
    "requests_total",
    "requests_total",
    "cpu_seconds_total",
    "cpu_seconds_total",
    "temp",
    "temp",
    "mem_bytes",
    "special",
    "flap",
    "flap",
    "build_info",
    "target_info",
    "http.requests",
    "odd",
    "dur_bucket",
    "dur_sum",
    "dur_count",
    "nothing",
];
pub const CLASSIC: &[&str] = &["dur_bucket", "dur_bucket", "odd_bucket"];
pub const NATIVE: &[&str] = &["lat", "lat", "latf", "latg", "latc", "mixed"];

/// Labels to group, match and write by.
pub const LABELS: &[&str] = &[
    "job",
    "job",
    "instance",
    "instance",
    "code",
    "mode",
    "le",
    "zone",
    "http.method",
    "v",
    "none",
    "__name__",
    "new",
    "é",
    "a b",
];

/// Name, operator, value.
pub const MATCHERS: &[(&str, &str, &str)] = &[
    ("job", "=", "api"),
    ("job", "!=", "api"),
    ("job", "=~", "api|web"),
    ("job", "!~", "w.*"),
    ("instance", "=", "a"),
    ("instance", "=~", "[ab]"),
    ("instance", "=~", ".+"),
    ("instance", "=", ""),
    ("code", "!~", "5.."),
    ("code", "=", "200"),
    ("mode", "=~", "(?i)IDLE"),
    ("le", "=~", "0.+|1"),
    ("le", "!=", "+Inf"),
    ("zone", "!=", ""),
    ("zone", "=~", "|x"),
    ("v", "=~", ".*\n.*"),
    ("v", "!~", "[\\p{Greek}\\p{Han}]+"),
    ("v", "=~", "\\W+"),
    ("v", "=", "💡"),
    ("v", "=~", "(?i)S|É"),
    ("http.method", "=~", "G.T"),
    ("case", "=", "twice"),
    ("case", "!=", "text"),
    ("job", "=~", "|api"),
    ("job", "=~", "^web$"),
    ("code", "!=", ""),
    ("none", "=", ""),
];

pub const NUMBERS: &[&str] = &[
    "0",
    "1",
    "2",
    "3",
    "5",
    "0.5",
    "-1",
    "1e3",
    "0x1F",
    "Inf",
    "-Inf",
    "NaN",
    "1e-9",
    "1.5",
    "60",
    "1e308",
    "100",
    "-0",
    "5m",
    "1h30m",
    "017",
    "1_000",
    ".5",
    "5.",
    "9007199254740993",
    "1e18",
    "-1e18",
    "1e-320",
];
pub const FRACTIONS: &[&str] = &[
    "0", "0.01", "0.25", "0.5", "0.9", "0.99", "1", "1.1", "-0.1", "NaN", "0.3", "-0.7",
];
/// Without `step()`, `min()` and `max()`, which came after 3.5.
pub const RANGES: &[&str] = &[
    "30s", "1m", "90s", "2m", "5m", "5m", "5m", "10m", "20m", "1h", "16s", "300", "4m*2", "10m-3m",
    "2^2*30s", "1ms", "0s", "(5m)", "-(-5m)", "1d", "90.5", "1e2", "7m%4m",
];
pub const SUBQUERY_RANGES: &[&str] = &["1m", "5m", "10m", "17m", "30m", "5m+30s"];
pub const STEPS: &[&str] = &["10s", "30s", "1m", "77s", "2m"];
pub const OFFSETS: &[&str] = &[
    "1m", "5m", "-1m", "17s", "1h", "0s", "-10m", "30s*2", "-30.5", "(1m)", "-(1m+1m)", "1d", "300",
];
pub const ATS: &[&str] = &["start()", "end()", "start()", "end()", "0", "-5", "1h"];
