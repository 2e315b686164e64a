//! Mapping rules: from the dotted names of Graphite and StatsD to names and labels.
//!
//! Rules mean what they mean in statsd_exporter (README, "Metric Mapping and Configuration"),
//! whose mapper graphite_exporter uses too: globs come before regular expressions, whatever their
//! order in the file; among the globs the first that fits decides, or with `glob_disable_ordering`
//! the one that is exact earliest; among the expressions the first. Not here: the YAML around them.

mod template;
#[cfg(test)]
mod tests;

use model::regex::{PatternError, Regex};

use template::expand;

/// What a metric is, for rules that ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricType {
    Counter,
    Gauge,
    /// Timers, histograms and distributions.
    Observer,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum MatchType {
    #[default]
    Glob,
    Regex,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    #[default]
    Map,
    Drop,
}

/// How observations are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Observer {
    Histogram,
    Summary,
}

/// One rule as the file has it, defaults filled in.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Spec {
    /// A glob or an expression.
    pub pattern: String,
    pub match_type: MatchType,
    /// Only metrics of this type.
    pub metric_type: Option<MetricType>,
    pub action: Action,
    /// A template: `$1`, `${1}`.
    pub name: String,
    pub labels: Vec<(String, String)>,
    pub help: Option<String>,
    pub observer: Option<Observer>,
    /// Upper bounds of a histogram, ascending, without infinity; empty for the default.
    pub buckets: Vec<f64>,
    /// Of a summary; empty for the default.
    pub quantiles: Vec<f64>,
    /// Factor for every value.
    pub scale: Option<f64>,
    /// Whether tags of the sample win over labels of the rule.
    pub honor_labels: bool,
}

/// A rule that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MappingError {
    #[error("invalid match: {0}")]
    Match(String),
    #[error("invalid regex {pattern} in mapping")]
    Regex {
        pattern: String,
        #[source]
        source: PatternError,
    },
    #[error("mapping of {0:?} has no name")]
    NoName(String),
    #[error("metric name {0:?} is neither a name nor a template of one")]
    Name(String),
    #[error("invalid label key: {0}")]
    Label(String),
    #[error("buckets of {0:?} do not ascend")]
    Buckets(String),
    #[error("quantiles of {0:?} are not between 0 and 1")]
    Quantiles(String),
}

/// All rules of a file.
#[derive(Debug, Default, Clone)]
pub struct Rules {
    globs: Vec<Glob>,
    patterns: Vec<(Regex, Spec)>,
    /// `glob_disable_ordering`.
    unordered: bool,
}

#[derive(Debug, Clone)]
struct Glob {
    parts: Vec<Part>,
    spec: Spec,
}

/// What stands between two dots.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Any,
    Exactly(String),
}

/// A rule that fits, and what its templates came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Mapped<'r> {
    pub rule: &'r Spec,
    pub name: String,
    pub labels: Vec<(String, String)>,
}

impl Rules {
    pub fn new(specs: Vec<Spec>, unordered: bool) -> Result<Self, MappingError> {
        let mut rules = Self {
            unordered,
            ..Self::default()
        };
        for spec in specs {
            check(&spec)?;
            match spec.match_type {
                MatchType::Glob => rules.globs.push(Glob::new(spec)?),
                MatchType::Regex => rules.patterns.push((find_anywhere(&spec)?, spec)),
            }
        }
        Ok(rules)
    }

    pub fn is_empty(&self) -> bool {
        self.globs.is_empty() && self.patterns.is_empty()
    }

    /// The rule for a metric; none when it is to keep its name.
    pub fn find(&self, metric: &str, metric_type: MetricType) -> Option<Mapped<'_>> {
        self.find_glob(metric, metric_type)
            .or_else(|| self.find_pattern(metric, metric_type))
    }

    fn find_glob(&self, metric: &str, metric_type: MetricType) -> Option<Mapped<'_>> {
        if self.globs.is_empty() {
            return None;
        }
        let parts: Vec<&str> = metric.split('.').collect();
        let fits = |glob: &&Glob| wants(&glob.spec, metric_type) && glob.fits(&parts);
        let mut fitting = self.globs.iter().filter(fits);
        let glob = match self.unordered {
            false => fitting.next(),
            true => fitting.min_by_key(|glob| glob.vagueness()),
        }?;
        let captures: Vec<&str> = glob.captures(&parts);
        Some(mapped(&glob.spec, |template, into| {
            expand(template, &captures, into);
        }))
    }

    fn find_pattern(&self, metric: &str, metric_type: MetricType) -> Option<Mapped<'_>> {
        let mut rules = self.patterns.iter();
        rules.find_map(|(regex, spec)| {
            if !wants(spec, metric_type) {
                return None;
            }
            let captures = regex.captures(metric)?;
            Some(mapped(spec, |template, into| {
                captures.expand(template, into);
            }))
        })
    }
}

fn wants(spec: &Spec, metric_type: MetricType) -> bool {
    spec.metric_type.is_none_or(|wanted| wanted == metric_type)
}

fn mapped(spec: &Spec, expand: impl Fn(&str, &mut String)) -> Mapped<'_> {
    let text = |template: &str| {
        let mut out = String::new();
        expand(template, &mut out);
        out
    };
    let labels = spec.labels.iter();
    Mapped {
        name: text(&spec.name),
        labels: labels
            .map(|(name, template)| (name.clone(), text(template)))
            .collect(),
        rule: spec,
    }
}

impl Glob {
    fn new(spec: Spec) -> Result<Self, MappingError> {
        let parts = spec.pattern.split('.').enumerate();
        let part = |(index, text): (usize, &str)| match text {
            "*" => Some(Part::Any),
            text if is_part(text, index == 0) => Some(Part::Exactly(text.to_owned())),
            _ => None,
        };
        match parts.map(part).collect() {
            Some(parts) => Ok(Self { parts, spec }),
            None => Err(MappingError::Match(spec.pattern)),
        }
    }

    fn fits(&self, parts: &[&str]) -> bool {
        let fits = |(part, text): (&Part, &&str)| match part {
            Part::Any => true,
            Part::Exactly(exactly) => exactly == text,
        };
        self.parts.len() == parts.len() && self.parts.iter().zip(parts).all(fits)
    }

    fn captures<'t>(&self, parts: &[&'t str]) -> Vec<&'t str> {
        let pairs = self.parts.iter().zip(parts);
        pairs
            .filter(|(part, _)| **part == Part::Any)
            .map(|(_, text)| *text)
            .collect()
    }

    /// Of two globs that fit, the one that is exact earlier is the less vague.
    fn vagueness(&self) -> Vec<bool> {
        self.parts.iter().map(|part| *part == Part::Any).collect()
    }
}

/// Letters, digits, `_` and `-`; the first part begins with no digit and no dash.
fn is_part(text: &str, first: bool) -> bool {
    let starts = |c: char| c == '_' || c.is_ascii_alphabetic() || (!first && c.is_ascii_digit());
    text.starts_with(starts)
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))
}

/// The expression, to be found anywhere: a lazy run in front makes it the leftmost match, as Go
/// finds it.
fn find_anywhere(spec: &Spec) -> Result<Regex, MappingError> {
    let wrong = |source| MappingError::Regex {
        pattern: spec.pattern.clone(),
        source,
    };
    Regex::anchored(&spec.pattern).map_err(wrong)?;
    Regex::anchored(&format!(".*?(?-s:{}).*", spec.pattern)).map_err(wrong)
}

fn check(spec: &Spec) -> Result<(), MappingError> {
    if spec.name.is_empty() {
        return Err(MappingError::NoName(spec.pattern.clone()));
    }
    if !template::is_name(&spec.name) {
        return Err(MappingError::Name(spec.name.clone()));
    }
    let legal = |name: &str| {
        name.starts_with(|c: char| c == '_' || c.is_ascii_alphabetic())
            && name.chars().all(|c| c == '_' || c.is_ascii_alphanumeric())
    };
    if let Some((name, _)) = spec.labels.iter().find(|(name, _)| !legal(name)) {
        return Err(MappingError::Label(name.clone()));
    }
    if !spec.buckets.is_sorted_by(|a, b| a < b) || spec.buckets.iter().any(|b| b.is_nan()) {
        return Err(MappingError::Buckets(spec.pattern.clone()));
    }
    if spec.quantiles.iter().any(|q| !(0.0..=1.0).contains(q)) {
        return Err(MappingError::Quantiles(spec.pattern.clone()));
    }
    Ok(())
}
