//! Names of OTLP metrics and attributes as Prometheus has them.
//!
//! Rules: the OpenTelemetry specification's "Prometheus and OpenMetrics compatibility", as Prometheus
//! 3.5 applies them: units become words behind the name, a counter ends in `_total`, a gauge of unit
//! 1 in `_ratio`; unless names may stay as they are, what no old Prometheus name may contain becomes
//! an underscore.

/// `otlp.translation_strategy`.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Strategy {
    #[default]
    UnderscoreEscapingWithSuffixes,
    /// Of later versions than 3.5.
    UnderscoreEscapingWithoutSuffixes,
    NoUtf8EscapingWithSuffixes,
    NoTranslation,
}

impl Strategy {
    pub const ALL: [Self; 4] = [
        Self::UnderscoreEscapingWithSuffixes,
        Self::UnderscoreEscapingWithoutSuffixes,
        Self::NoUtf8EscapingWithSuffixes,
        Self::NoTranslation,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::UnderscoreEscapingWithSuffixes => "UnderscoreEscapingWithSuffixes",
            Self::UnderscoreEscapingWithoutSuffixes => "UnderscoreEscapingWithoutSuffixes",
            Self::NoUtf8EscapingWithSuffixes => "NoUTF8EscapingWithSuffixes",
            Self::NoTranslation => "NoTranslation",
        }
    }

    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.name() == name)
    }

    /// Whether names are made what an old Prometheus can read.
    pub fn escapes(self) -> bool {
        match self {
            Self::UnderscoreEscapingWithSuffixes | Self::UnderscoreEscapingWithoutSuffixes => true,
            Self::NoUtf8EscapingWithSuffixes | Self::NoTranslation => false,
        }
    }
}

/// What a name ends in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Other,
}

/// The series' name of a metric; empty when nothing of it is left.
pub fn metric(name: &str, unit: &str, kind: Kind, strategy: Strategy) -> String {
    match strategy {
        Strategy::UnderscoreEscapingWithSuffixes => escaped(name, unit, kind),
        Strategy::UnderscoreEscapingWithoutSuffixes => bare(name),
        Strategy::NoUtf8EscapingWithSuffixes => suffixed(name, unit, kind),
        Strategy::NoTranslation => name.to_owned(),
    }
}

/// A unit in words, as a label's value; empty when there is none.
pub fn unit(unit: &str, strategy: Strategy) -> String {
    let (mut main, mut per) = units(unit);
    if strategy.escapes() {
        (main, per) = (tidy(&main), tidy(&per));
    }
    let words = [main, per].into_iter().filter(|word| !word.is_empty());
    let unit = words.collect::<Vec<_>>().join("_");
    let unit = unit.strip_prefix('_').unwrap_or(&unit);
    unit.strip_suffix('_').unwrap_or(unit).to_owned()
}

/// The label of an attribute.
pub fn label(name: &str, strategy: Strategy) -> String {
    if !strategy.escapes() {
        return name.to_owned();
    }
    let keep = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    let label: String = name.chars().map(keep).collect();
    if label.starts_with(|c: char| c.is_ascii_digit()) {
        return format!("key_{label}");
    }
    match label.starts_with('_') && !label.starts_with("__") {
        true => format!("key{label}"),
        false => label,
    }
}

fn is_name_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == ':'
}

fn escaped(name: &str, unit: &str, kind: Kind) -> String {
    let parts = name.split(|c| !is_name_char(c));
    let mut words: Vec<String> = parts
        .filter(|part| !part.is_empty())
        .map(str::to_owned)
        .collect();
    let (main, per) = units(unit);
    let (mut main, per) = (tidy(&main), tidy(&per));
    let per = match per.as_str() {
        "per_" => "",
        per => per.strip_suffix('_').unwrap_or(per),
    };
    let is_there = |word: &str, words: &[String]| words.iter().any(|own| own == word);
    if is_there(&main, &words) {
        main.clear();
    }
    let per = if is_there(per, &words) { "" } else { per };
    if !per.is_empty() && main.ends_with('_') {
        main.pop();
    }
    words.extend([main, per.to_owned()].into_iter().filter(|w| !w.is_empty()));
    let ending = ending(unit, kind);
    if !ending.is_empty() {
        words.retain(|word| word != ending);
        words.push(ending.to_owned());
    }
    not_a_number(words.join("_"))
}

/// Underscores of its own stay as they are.
fn bare(name: &str) -> String {
    let parts = name.split(|c| !is_name_char(c) && c != '_');
    let words: Vec<&str> = parts.filter(|part| !part.is_empty()).collect();
    not_a_number(words.join("_"))
}

fn not_a_number(name: String) -> String {
    match name.starts_with(|c: char| c.is_ascii_digit()) {
        true => format!("_{name}"),
        false => name,
    }
}

fn suffixed(name: &str, unit: &str, kind: Kind) -> String {
    let ending = ending(unit, kind);
    let mut name = without(name, ending).to_owned();
    let (main, per) = units(unit);
    name = without(&name, &per).to_owned();
    if !main.is_empty() && !name.ends_with(&main) {
        name = format!("{name}_{main}");
    }
    for suffix in [per.as_str(), ending] {
        if !suffix.is_empty() {
            name = format!("{name}_{suffix}");
        }
    }
    name
}

fn ending(unit: &str, kind: Kind) -> &'static str {
    match kind {
        Kind::Counter => "total",
        Kind::Gauge if unit == "1" => "ratio",
        _ => "",
    }
}

/// A name without a suffix and the character in front of it, which is taken for a delimiter.
fn without<'a>(name: &'a str, suffix: &str) -> &'a str {
    let rest = match suffix.is_empty() || name.len() <= suffix.len() + 1 {
        true => None,
        false => name.strip_suffix(suffix),
    };
    rest.map_or(name, |rest| {
        let mut chars = rest.chars();
        chars.next_back();
        chars.as_str()
    })
}

/// Runs of what no name contains become one underscore; none is in front.
fn tidy(unit: &str) -> String {
    let mut tidy = String::new();
    for c in unit.chars() {
        let c = if is_name_char(c) { c } else { '_' };
        if c != '_' || !tidy.ends_with('_') {
            tidy.push(c);
        }
    }
    tidy.strip_prefix('_').map(str::to_owned).unwrap_or(tidy)
}

/// A unit in words, and that below its first slash behind `per_`. What has braces is none.
fn units(unit: &str) -> (String, String) {
    let (main, per) = unit.split_once('/').unwrap_or((unit, ""));
    let word = |unit: &str, words: &[(&str, &str)]| {
        let unit = unit.trim();
        if unit.contains(['{', '}']) {
            return String::new();
        }
        let found = words.iter().find(|(short, _)| *short == unit);
        found.map_or(unit, |(_, word)| *word).to_owned()
    };
    let per = word(per, &PER_UNITS);
    let per = match per.is_empty() {
        true => per,
        false => format!("per_{per}"),
    };
    (word(main, &UNITS), per)
}

/// UCUM's codes.
const UNITS: [(&str, &str); 26] = [
    ("d", "days"),
    ("h", "hours"),
    ("min", "minutes"),
    ("s", "seconds"),
    ("ms", "milliseconds"),
    ("us", "microseconds"),
    ("ns", "nanoseconds"),
    ("By", "bytes"),
    ("KiBy", "kibibytes"),
    ("MiBy", "mebibytes"),
    ("GiBy", "gibibytes"),
    ("TiBy", "tibibytes"),
    ("KBy", "kilobytes"),
    ("MBy", "megabytes"),
    ("GBy", "gigabytes"),
    ("TBy", "terabytes"),
    ("m", "meters"),
    ("V", "volts"),
    ("A", "amperes"),
    ("J", "joules"),
    ("W", "watts"),
    ("g", "grams"),
    ("Cel", "celsius"),
    ("Hz", "hertz"),
    ("1", ""),
    ("%", "percent"),
];

const PER_UNITS: [(&str, &str); 7] = [
    ("s", "second"),
    ("m", "minute"),
    ("h", "hour"),
    ("d", "day"),
    ("w", "week"),
    ("mo", "month"),
    ("y", "year"),
];

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert, proptest};

    use super::*;

    const ESCAPED: Strategy = Strategy::UnderscoreEscapingWithSuffixes;
    const BARE: Strategy = Strategy::UnderscoreEscapingWithoutSuffixes;
    const UTF8: Strategy = Strategy::NoUtf8EscapingWithSuffixes;

    #[test]
    fn units_are_words() {
        for (given, escaped, whole) in [
            ("", "", ""),
            ("s", "seconds", "seconds"),
            ("1", "", ""),
            ("{request}", "", ""),
            ("m/s", "meters_per_second", "meters_per_second"),
            ("{packet}/s", "per_second", "per_second"),
            ("weird unit%", "weird_unit", "weird unit%"),
        ] {
            assert_eq!(unit(given, ESCAPED), escaped, "{given}");
            assert_eq!(unit(given, UTF8), whole, "{given}");
        }
    }

    /// Cases of github.com/prometheus/otlptranslator's tests.
    #[test]
    fn names_are_those_of_prometheus() {
        use Kind::{Counter, Gauge, Other};
        for (name, unit, kind, strategy, expected) in [
            ("requests", "", Counter, ESCAPED, "requests_total"),
            ("requests_total", "", Counter, ESCAPED, "requests_total"),
            ("cpu_usage", "1", Gauge, ESCAPED, "cpu_usage_ratio"),
            ("cpu_usage_ratio", "1", Gauge, ESCAPED, "cpu_usage_ratio"),
            ("items", "1", Counter, ESCAPED, "items_total"),
            (
                "response_time",
                "ms",
                Gauge,
                ESCAPED,
                "response_time_milliseconds",
            ),
            (
                "response_time_seconds",
                "s",
                Gauge,
                ESCAPED,
                "response_time_seconds",
            ),
            ("requests", "1/s", Gauge, ESCAPED, "requests_per_second"),
            (
                "throughput",
                "By/s",
                Gauge,
                ESCAPED,
                "throughput_bytes_per_second",
            ),
            (
                "custom",
                "custom_unit",
                Gauge,
                ESCAPED,
                "custom_custom_unit",
            ),
            ("custom", "{custom}", Gauge, ESCAPED, "custom"),
            ("custom", "By/{custom}", Gauge, ESCAPED, "custom_bytes"),
            ("123_requests", "", Counter, ESCAPED, "_123_requests_total"),
            (
                "metric__with__multiple__underscores",
                "unit__multiple__underscores",
                Gauge,
                ESCAPED,
                "metric_with_multiple_underscores_unit_multiple_underscores",
            ),
            (
                "custom_metric",
                "unit@with#special/chars",
                Gauge,
                ESCAPED,
                "custom_metric_unit_with_special_per_chars",
            ),
            ("@#$%", "", Gauge, ESCAPED, ""),
            (
                "http.server.duration",
                "s",
                Other,
                ESCAPED,
                "http_server_duration_seconds",
            ),
            ("requêsts", "", Counter, UTF8, "requêsts_total"),
            ("requêsts", "1/s", Gauge, UTF8, "requêsts_per_second"),
            ("cpu_seconds_total", "s", Counter, UTF8, "cpu_seconds_total"),
            ("cpu_usage_ratio", "1", Gauge, UTF8, "cpu_usage_ratio"),
            ("@#$%", "", Counter, UTF8, "@#$%_total"),
            ("a.b", "s", Counter, Strategy::NoTranslation, "a.b"),
            ("a.b", "s", Counter, BARE, "a_b"),
            ("a__b", "By", Gauge, BARE, "a__b"),
            (".a..é-b.", "1", Gauge, BARE, "a_b"),
            ("7days", "d", Counter, BARE, "_7days"),
            ("@#$%", "", Gauge, BARE, ""),
        ] {
            assert_eq!(
                metric(name, unit, kind, strategy),
                expected,
                "{name} {unit}"
            );
        }
    }

    #[test]
    fn labels_are_those_of_prometheus() {
        for (name, expected) in [
            ("label:with:colons", "label_with_colons"),
            ("label!with&special$chars)", "label_with_special_chars_"),
            ("foreign_字符", "foreign___"),
            ("123label", "key_123label"),
            ("_label", "key_label"),
            ("__label", "__label"),
            ("", ""),
        ] {
            assert_eq!(label(name, ESCAPED), expected);
            assert_eq!(label(name, BARE), expected);
            assert_eq!(label(name, UTF8), name);
        }
    }

    proptest! {
        #[test]
        fn any_text_is_named(name in "\\PC{0,20}", unit in "\\PC{0,8}(/\\PC{0,8})?", kind in 0..3usize) {
            let kind = [Kind::Counter, Kind::Gauge, Kind::Other][kind];
            for strategy in Strategy::ALL {
                let named = metric(&name, &unit, kind, strategy);
                let legal = named.chars().all(|c| is_name_char(c) || c == '_');
                prop_assert!(legal || !strategy.escapes(), "{}", named);
                label(&name, strategy);
            }
        }
    }
}
