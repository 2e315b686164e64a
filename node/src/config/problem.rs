//! What is wrong with a configuration file: told first in Prometheus' words, for the tools that
//! look for them, then in ours, for the person who has to mend it.

use std::cell::RefCell;
use std::fmt;
use std::path::{Path, PathBuf};

use super::secret::names_secret;

/// Why a configuration was not loaded. Nothing of it has been applied.
///
/// `Display` is what Prometheus says of the same file; [`ConfigError::explanation`] is for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigError {
    /// There is no such file: what the caller makes of it depends on who named it.
    Missing { file: PathBuf },
    /// The file could not be read.
    Unreadable { file: PathBuf, reason: String },
    /// The text is not YAML.
    Syntax {
        file: PathBuf,
        line: u32,
        reason: String,
    },
    /// The text is YAML, but not a configuration.
    Invalid(Invalid),
}

/// A configuration with at least one problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    file: PathBuf,
    /// Sorted by line; never empty.
    problems: Vec<Problem>,
    /// The lines the problems are on, as written; empty where a secret may stand.
    shown: Vec<String>,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub line: u32,
    /// Whose field it is: `job "node"`, `global`; empty at the top of the file.
    pub place: String,
    pub kind: Kind,
    /// Prometheus' words.
    pub text: String,
    /// What to write instead, when that is known.
    pub help: Option<Help>,
}

/// How Prometheus treats a problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A key or a type its YAML library refuses: it collects and numbers these.
    Shape,
    /// A value refused where it stands: the first one ends the loading.
    Value,
    /// A check of everything between two lines, made only when all of that has the right shape.
    Whole(Scope),
}

/// The lines of a part of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scope {
    pub first: u32,
    pub last: u32,
}

impl Scope {
    pub const FILE: Self = Self {
        first: 0,
        last: u32::MAX,
    };
}

/// Our words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Help {
    /// One sentence, without a full stop.
    pub sentence: String,
    /// Corrected lines, without indentation.
    pub write_instead: Vec<String>,
}

impl Help {
    pub fn sentence(sentence: impl Into<String>) -> Self {
        Self {
            sentence: sentence.into(),
            write_instead: Vec::new(),
        }
    }
}

/// Collects problems while a file is read.
#[derive(Debug, Default)]
pub struct Problems(RefCell<Vec<Problem>>);

impl Problems {
    pub fn add(&self, problem: Problem) {
        self.0.borrow_mut().push(problem);
    }

    pub fn count(&self) -> usize {
        self.0.borrow().len()
    }

    /// `Err` when there were any.
    pub fn into_result(self, file: &Path, text: &str) -> Result<(), ConfigError> {
        let mut problems = self.0.into_inner();
        if problems.is_empty() {
            return Ok(());
        }
        drop_consequences(&mut problems);
        problems.sort_by_key(|problem| problem.line);
        let lines: Vec<&str> = text.lines().collect();
        let shown = problems
            .iter()
            .map(|p| shown_line(&lines, p.line))
            .collect();
        Err(ConfigError::Invalid(Invalid {
            file: file.to_owned(),
            problems,
            shown,
        }))
    }
}

/// What a misshapen part fails as a whole is not worth telling: the shape is.
fn drop_consequences(problems: &mut Vec<Problem>) {
    let shapes = problems.iter().filter(|p| p.kind == Kind::Shape);
    let misshapen: Vec<u32> = shapes.map(|p| p.line).collect();
    problems.retain(|problem| match problem.kind {
        Kind::Shape | Kind::Value => true,
        Kind::Whole(scope) => !misshapen
            .iter()
            .any(|line| (scope.first..=scope.last).contains(line)),
    });
}

/// A line of the file, unless it or the key it belongs to may hold a secret.
fn shown_line(lines: &[&str], line: u32) -> String {
    let at = (line as usize).saturating_sub(1);
    let text = lines.get(at).copied().unwrap_or_default();
    let above = at.checked_sub(1).and_then(|i| lines.get(i)).copied();
    let hides = |text: &str| {
        let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        let mut words = words.into_iter();
        words.any(|word| names_secret(word) || HOLDS_SECRETS.contains(&word)) || text.contains('@')
    };
    if hides(text) || above.is_some_and(hides) {
        return String::new();
    }
    text.chars().take(SHOWN_CHARS_MAX).collect()
}

const SHOWN_CHARS_MAX: usize = 200;

/// Sections in whose place people write the secret itself.
pub const HOLDS_SECRETS: [&str; 3] = ["authorization", "basic_auth", "oauth2"];

impl ConfigError {
    /// The file that was being loaded.
    pub fn file(&self) -> &Path {
        match self {
            Self::Missing { file } | Self::Unreadable { file, .. } | Self::Syntax { file, .. } => {
                file
            }
            Self::Invalid(invalid) => &invalid.file,
        }
    }

    /// What is wrong, where, and what to write instead; several lines.
    pub fn explanation(&self) -> String {
        match self {
            Self::Missing { file } => format!("{}: there is no such file", file.display()),
            Self::Unreadable { file, reason } => {
                format!("{}: cannot be read: {reason}", file.display())
            }
            Self::Syntax { file, line, reason } => {
                format!("{}:{line}: this is not YAML: {reason}", file.display())
            }
            Self::Invalid(invalid) => invalid.explanation(),
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { file } => {
                write!(f, "open {}: no such file or directory", file.display())
            }
            Self::Unreadable { file, reason } => write!(f, "open {}: {reason}", file.display()),
            Self::Syntax { file, line, reason } => {
                let file = file.display();
                write!(f, "parsing YAML file {file}: yaml: line {line}: {reason}")
            }
            Self::Invalid(invalid) => {
                let file = invalid.file.display();
                write!(f, "parsing YAML file {file}: {}", invalid.prometheus_text())
            }
        }
    }
}

impl std::error::Error for ConfigError {}

impl Invalid {
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// The first refused value, else every refused key and type: as Prometheus says it.
    fn prometheus_text(&self) -> String {
        let order = |p: &&Problem| match p.kind {
            Kind::Value => (p.line, 0),
            Kind::Whole(scope) => (scope.last, 1),
            Kind::Shape => (u32::MAX, 2),
        };
        let values = self.problems.iter().filter(|p| p.kind != Kind::Shape);
        if let Some(first) = values.min_by_key(order) {
            return first.text.clone();
        }
        let mut text = "yaml: unmarshal errors:".to_owned();
        for problem in &self.problems {
            text.push_str(&format!("\n  line {}: {}", problem.line, problem.text));
        }
        text
    }

    fn explanation(&self) -> String {
        let mut paragraphs: Vec<String> = Vec::new();
        let mut told: Vec<usize> = Vec::new();
        for i in 0..self.problems.len() {
            if told.contains(&i) {
                continue;
            }
            let same: Vec<usize> = (i + 1..self.problems.len())
                .filter(|&j| self.problems[j].is_like(&self.problems[i]))
                .collect();
            paragraphs.push(self.paragraph(i, &same));
            told.extend(same);
        }
        paragraphs.join("\n")
    }

    fn paragraph(&self, i: usize, same: &[usize]) -> String {
        let problem = &self.problems[i];
        let mut text = format!("{}:{}: ", self.file.display(), problem.line);
        if !problem.place.is_empty() {
            text.push_str(&format!("{}: ", problem.place));
        }
        match &problem.help {
            Some(help) => text.push_str(&help.sentence),
            None => text.push_str(&problem.text),
        }
        if !self.shown[i].trim().is_empty() {
            text.push_str(&format!("\n    {} | {}", problem.line, self.shown[i]));
        }
        let corrected = problem.help.as_ref().map_or(&[][..], |h| &h.write_instead);
        if !corrected.is_empty() {
            text.push_str("\n  write instead:");
            for line in corrected {
                text.push_str(&format!("\n      {line}"));
            }
        }
        for &j in same {
            let other = &self.problems[j];
            text.push_str(&format!("\n  same mistake at line {}", other.line));
            if other.place != problem.place {
                text.push_str(&format!(" ({})", other.place));
            }
        }
        text
    }
}

impl Problem {
    /// Whether telling both in full would say the same twice.
    fn is_like(&self, other: &Self) -> bool {
        let sentence = |p: &Self| p.help.as_ref().map(|h| h.sentence.clone());
        self.kind == Kind::Shape
            && self.kind == other.kind
            && self.text == other.text
            && sentence(self) == sentence(other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(line: u32, kind: Kind, text: &str) -> Problem {
        Problem {
            line,
            place: "global".to_owned(),
            kind,
            text: text.to_owned(),
            help: None,
        }
    }

    #[test]
    fn a_refused_value_is_told_before_refused_keys() {
        let problems = Problems::default();
        problems.add(problem(3, Kind::Whole(Scope { first: 2, last: 9 }), "late"));
        problems.add(problem(
            1,
            Kind::Shape,
            "field x not found in type config.plain",
        ));
        problems.add(problem(2, Kind::Value, "early"));
        let error = problems
            .into_result(Path::new("p.yml"), "a\nb\nc\n")
            .unwrap_err();
        assert_eq!(error.to_string(), "parsing YAML file p.yml: early");
        let told = error.explanation();
        assert!(
            told.contains("p.yml:1: global: field x not found"),
            "{told}"
        );
        assert!(told.contains("    3 | c"), "{told}");
    }

    #[test]
    fn lines_that_may_hold_a_secret_are_not_shown() {
        for text in [
            "  basic_auth: {usernme: a, password: hunter2}",
            "url: http://u:hunter2@h/",
            "bearer_token: [hunter2]",
        ] {
            assert_eq!(shown_line(&[text], 1), "", "{text}");
        }
        assert_eq!(shown_line(&["password:", "  - hunter2"], 2), "");
        assert_eq!(shown_line(&["a: b"], 1), "a: b");
        assert_eq!(shown_line(&[], 7), "");
    }
}
