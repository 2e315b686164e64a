//! `promtool`, as far as it goes: `promtool check config` and `check web-config`, with the words, streams and exit codes
//! of Prometheus' own. Contents of rule files are not checked yet, and the report says so.

use std::path::{Path, PathBuf};
use std::time::Duration;

use model::time::format_duration;

use crate::config::http_client::{Auth, SecretSource, joined};
use crate::config::scrape::ScrapeConfig;
use crate::config::surroundings::glob;
use crate::config::yaml::{Node, Value};
use crate::config::{self, Config, Surroundings};
use crate::nearest::nearest;

/// What to print where, in order, and how to exit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    pub lines: Vec<Line>,
    pub exit_code: u8,
}

/// A piece of output, without its last line's end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    Out(String),
    Err(String),
}

const FAILED: u8 = 1;
/// A lint found something and `--lint-fatal` was given.
const LINT_FAILED: u8 = 3;
/// An interval from which on a series looks stale between two scrapes.
const LOOKBACK: Duration = Duration::from_secs(300);

/// Runs promtool with its arguments, without its name.
pub fn run(arguments: &[String], surroundings: &dyn Surroundings) -> Report {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["--version", ..] => out(version(), 0),
        [] | ["--help" | "-h" | "help", ..] => out(HELP.to_owned(), 0),
        ["check", "config", ..] => check_config(&words[2..], surroundings),
        ["check", "web-config", ref files @ ..] => check_web_configs(files, surroundings),
        ["check"] => usage("must select a subcommand of 'check'"),
        ["check", what, ..] => usage(&unserved(&format!("check {what}"), what)),
        [what, ..] => usage(&unserved(what, what)),
    }
}

const HELP: &str = "\
usage: promtool check config [<flags>] <config-files>...

Check if the config files are valid or not.

       promtool check web-config <web-config-files>...

Check if the web config files are valid or not.

Flags:
  -h, --help         Show this help.
      --version      Show the version.
      --syntax-only  Only check the config file, not the files it names.
      --lint=\"duplicate-rules\"
                     Lints to apply, comma separated: all, duplicate-rules, none,
                     too-long-scrape-interval.
      --lint-fatal   Exit with 3 when a lint finds something.

The other commands of promtool are not built in yet.";

/// Commands of Prometheus' promtool that are not built in.
const COMMANDS: [&str; 7] = ["check", "query", "debug", "push", "test", "tsdb", "promql"];
const CHECKS: [&str; 5] = ["service-discovery", "healthy", "ready", "rules", "metrics"];

fn unserved(command: &str, word: &str) -> String {
    match COMMANDS.contains(&word) || CHECKS.contains(&word) {
        true => format!("{command:?} is not built in yet"),
        false => format!("expected command but got {word:?}"),
    }
}

fn version() -> String {
    let version = env!("CARGO_PKG_VERSION");
    format!("promtool, version {version} (by quorate)")
}

fn out(text: String, exit_code: u8) -> Report {
    let lines = vec![Line::Out(text)];
    Report { lines, exit_code }
}

fn usage(error: &str) -> Report {
    let text = format!("promtool: error: {error}, try --help");
    let lines = vec![Line::Err(text)];
    let exit_code = FAILED;
    Report { lines, exit_code }
}

/// `check web-config`: each file by itself.
fn check_web_configs(files: &[&str], surroundings: &dyn Surroundings) -> Report {
    if files.is_empty() {
        return usage("required argument 'web-config-files' not provided");
    }
    let mut report = Report {
        lines: Vec::new(),
        exit_code: 0,
    };
    for file in files {
        match crate::access::tls::check(Path::new(file), surroundings) {
            Ok(()) => report.lines.push(Line::Out(format!("{file} SUCCESS"))),
            Err(error) => {
                report
                    .lines
                    .push(Line::Err(format!("{file} FAILED: {error}")));
                report.exit_code = FAILED;
            }
        }
    }
    report
}

/// How `check config` was called.
#[derive(Default)]
struct Call<'a> {
    files: Vec<&'a str>,
    syntax_only: bool,
    lint_intervals: bool,
    lint_fatal: bool,
    unknown_lints: Vec<&'a str>,
}

fn check_config(words: &[&str], surroundings: &dyn Surroundings) -> Report {
    let call = match read_call(words) {
        Ok(call) => call,
        Err(report) => return report,
    };
    for file in &call.files {
        if let Err(error) = surroundings.read(Path::new(file)) {
            match error.kind() {
                std::io::ErrorKind::NotFound => {
                    return usage(&format!("path '{file}' does not exist"));
                }
                std::io::ErrorKind::IsADirectory => {
                    return usage(&format!("'{file}' is a directory"));
                }
                _ => {}
            }
        }
    }
    let unknown = call.unknown_lints.iter();
    let mut report = Report {
        lines: unknown
            .map(|lint| Line::Out(format!("WARNING: unknown lint option: {lint:?}")))
            .collect(),
        exit_code: 0,
    };
    for file in &call.files {
        check_file(Path::new(file), &call, surroundings, &mut report);
    }
    report
}

fn read_call<'a>(words: &[&'a str]) -> Result<Call<'a>, Report> {
    const KNOWN: [&str; 9] = [
        "syntax-only",
        "lint",
        "lint-fatal",
        "agent",
        "extended",
        "ignore-unknown-fields",
        "experimental",
        "enable-feature",
        "query.lookback-delta",
    ];
    let mut call = Call::default();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let Some(long) = word.strip_prefix("--") else {
            match *word {
                "-h" => return Err(out(HELP.to_owned(), 0)),
                file => call.files.push(file),
            }
            continue;
        };
        let (name, value) = match long.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (long, None),
        };
        let mut value = || {
            let value = value.or_else(|| words.next().copied());
            value.ok_or_else(|| usage(&format!("expected argument for flag '--{name}'")))
        };
        match name {
            "help" => return Err(out(HELP.to_owned(), 0)),
            "version" => return Err(out(version(), 0)),
            "syntax-only" => call.syntax_only = true,
            "no-syntax-only" => call.syntax_only = false,
            "lint-fatal" => call.lint_fatal = true,
            "no-lint-fatal" => call.lint_fatal = false,
            "lint" => take_lints(value()?, &mut call),
            "agent" => return Err(usage("there is no agent mode: --agent")),
            "extended" | "ignore-unknown-fields" | "experimental" => {}
            "enable-feature" | "query.lookback-delta" => {
                value()?;
            }
            _ => {
                let meant = nearest(name, KNOWN).map(|m| format!("; did you mean --{m}?"));
                let meant = meant.unwrap_or_default();
                return Err(usage(&format!("unknown long flag '--{name}'{meant}")));
            }
        }
    }
    match call.files.is_empty() {
        true => Err(usage("required argument 'config-files' not provided")),
        false => Ok(call),
    }
}

fn take_lints<'a>(lints: &'a str, call: &mut Call<'a>) {
    for lint in lints.split(',') {
        match lint {
            "all" | "too-long-scrape-interval" => call.lint_intervals = true,
            "none" => call.lint_intervals = false,
            "duplicate-rules" => {}
            unknown => call.unknown_lints.push(unknown),
        }
    }
}

fn check_file(file: &Path, call: &Call<'_>, surroundings: &dyn Surroundings, report: &mut Report) {
    report.out(format!("Checking {}", file.display()));
    let config = match config::load(file, surroundings) {
        Ok(config) => config,
        Err(error) => {
            report.err(format!("  FAILED: {error}"), FAILED);
            for line in error.explanation().lines() {
                report.err(format!("  {line}"), FAILED);
            }
            report.out(String::new());
            return;
        }
    };
    let directory = file.parent().unwrap_or(Path::new(""));
    let rules = match call.syntax_only {
        true => Ok(Vec::new()),
        false => check_named_files(&config, directory, surroundings, report),
    };
    let rules = match rules {
        Ok(rules) => rules,
        Err(error) => {
            report.err(format!("  FAILED: {error}"), FAILED);
            report.out(String::new());
            return;
        }
    };
    if !rules.is_empty() {
        report.out(format!("  SUCCESS: {} rule files found", rules.len()));
    }
    let shown = file.display();
    report.out(format!(
        " SUCCESS: {shown} is valid prometheus config file syntax"
    ));
    report.out(String::new());
    if call.lint_intervals && !call.syntax_only {
        lint_intervals(&config, call.lint_fatal, report);
    }
    for rule_file in rules {
        report.out(format!("Checking {}", rule_file.display()));
        report.out("  WARNING: rules are not checked yet".to_owned());
        report.out(String::new());
    }
}

/// Whether the files a configuration names are there. Gives its rule files.
fn check_named_files(
    config: &Config,
    directory: &Path,
    surroundings: &dyn Surroundings,
    report: &mut Report,
) -> Result<Vec<PathBuf>, String> {
    let mut rules = Vec::new();
    for pattern in config.rule_files() {
        let path = joined(directory, Path::new(pattern));
        let found = glob(&path, surroundings);
        if !pattern.contains(['*', '?']) && !exists(&path, surroundings) {
            return Err(format!(
                "{:?} does not point to an existing file",
                path.display().to_string()
            ));
        }
        rules.extend(found);
    }
    for job in &config.scrape_configs {
        check_job(job, directory, surroundings, report)?;
    }
    Ok(rules)
}

fn check_job(
    job: &ScrapeConfig,
    directory: &Path,
    surroundings: &dyn Surroundings,
    report: &mut Report,
) -> Result<(), String> {
    let missing = |what: &str, file: &Path| match exists(file, surroundings) {
        true => Ok(()),
        false => {
            let file = file.display().to_string();
            Err(format!(
                "error checking {what} {file:?}: stat {file}: no such file or directory"
            ))
        }
    };
    if let Auth::Authorization {
        credentials: SecretSource::File(file),
        ..
    } = &job.http.auth
    {
        missing("authorization credentials or bearer token file", file)?;
    }
    if let Some(file) = &job.http.tls.cert_file {
        missing("client cert file", file)?;
    }
    if let Some(file) = &job.http.tls.key_file {
        missing("client key file", file)?;
    }
    for pattern in file_discovery(job) {
        let path = joined(directory, Path::new(pattern));
        let found = glob(&path, surroundings);
        if !found.iter().any(|file| exists(file, surroundings)) {
            let (path, job) = (path.display().to_string(), &job.job_name);
            report.out(format!(
                "  WARNING: file {path:?} for file_sd in scrape job {job:?} does not exist"
            ));
        }
    }
    for (i, group) in job.static_configs.iter().enumerate() {
        if let Some(at) = group.targets.iter().position(String::is_empty) {
            return Err(format!("instance {at} in group {i}: no address"));
        }
    }
    Ok(())
}

/// The patterns of `file_sd_configs`.
fn file_discovery(job: &ScrapeConfig) -> Vec<&str> {
    let sections = job
        .discovery
        .iter()
        .filter(|(name, _)| *name == "file_sd_configs");
    let configs = sections.flat_map(|(_, kept)| list(&kept.0));
    let files = configs.filter_map(|config| config.get("files"));
    files.flat_map(list).filter_map(Node::text).collect()
}

fn list(node: &Node) -> &[Node] {
    match &node.value {
        Value::Sequence(items) => items,
        _ => &[],
    }
}

fn exists(file: &Path, surroundings: &dyn Surroundings) -> bool {
    let read = surroundings.read(file);
    !read.is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
}

fn lint_intervals(config: &Config, fatal: bool, report: &mut Report) {
    for job in &config.scrape_configs {
        if job.scrape_interval >= LOOKBACK {
            let (name, interval) = (&job.job_name, format_duration(job.scrape_interval));
            report.err(
                format!("  FAILED: too long scrape interval found, data point will be marked as stale - job: {name}, interval: {interval}"),
                if fatal { LINT_FAILED } else { 0 },
            );
        }
    }
}

impl Report {
    fn out(&mut self, line: String) {
        self.lines.push(Line::Out(line));
    }

    /// A failed check outweighs a lint.
    fn err(&mut self, line: String, exit_code: u8) {
        self.lines.push(Line::Err(line));
        if self.exit_code != FAILED && exit_code != 0 {
            self.exit_code = exit_code;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    const TITAN: &str = "scrape_configs:\n- job_name: a\n  targets: [b]\n";

    fn files(file: &Path) -> io::Result<String> {
        let text = match file.to_str().unwrap_or_default() {
            "good.yml" => "scrape_configs: [{job_name: a, scrape_interval: 10m}]\n",
            "titan.yml" => TITAN,
            "etc/rules.yml" => "rule_files: [alert.rules]\n",
            "etc/alert.rules" => "groups: []\n",
            "etc/gone.yml" => "rule_files: [gone.rules]\n",
            "token.yml" => "scrape_configs: [{job_name: a, bearer_token_file: /nope}]\n",
            "discovery.yml" => {
                "scrape_configs: [{job_name: a, file_sd_configs: [{files: [n.json]}]}]\n"
            }
            "empty.yml" => {
                "scrape_configs: [{job_name: a, static_configs: [{targets: [b]}, {targets: [c, '']}]}]\n"
            }
            "directory" => return Err(io::Error::from(io::ErrorKind::IsADirectory)),
            _ => return Err(io::Error::from(io::ErrorKind::NotFound)),
        };
        Ok(text.to_owned())
    }

    fn ran(line: &str) -> (String, String, u8) {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let report = run(&words, &files);
        let (mut out, mut err) = (String::new(), String::new());
        for line in report.lines {
            match line {
                Line::Out(line) => out.push_str(&format!("{line}\n")),
                Line::Err(line) => err.push_str(&format!("{line}\n")),
            }
        }
        (out, err, report.exit_code)
    }

    /// Words, streams and codes of promtool 3.5.3.
    #[test]
    fn it_speaks_as_prometheus_promtool() {
        let valid = " is valid prometheus config file syntax\n\n";
        for (line, out, err, code) in [
            (
                "check config good.yml",
                format!("Checking good.yml\n SUCCESS: good.yml{valid}"),
                "",
                0,
            ),
            (
                "check config",
                String::new(),
                "promtool: error: required argument 'config-files' not provided, try --help\n",
                1,
            ),
            (
                "check config good.yml /nope.yml",
                String::new(),
                "promtool: error: path '/nope.yml' does not exist, try --help\n",
                1,
            ),
            (
                "check config directory",
                String::new(),
                "promtool: error: 'directory' is a directory, try --help\n",
                1,
            ),
            (
                "check",
                String::new(),
                "promtool: error: must select a subcommand of 'check', try --help\n",
                1,
            ),
            (
                "foo",
                String::new(),
                "promtool: error: expected command but got \"foo\", try --help\n",
                1,
            ),
            (
                "check config --lint=all good.yml",
                format!("Checking good.yml\n SUCCESS: good.yml{valid}"),
                "  FAILED: too long scrape interval found, data point will be marked as stale - job: a, interval: 10m\n",
                0,
            ),
            (
                "check config --lint all --lint-fatal good.yml",
                format!("Checking good.yml\n SUCCESS: good.yml{valid}"),
                "  FAILED: too long scrape interval found, data point will be marked as stale - job: a, interval: 10m\n",
                3,
            ),
            (
                "check config --lint=foo good.yml",
                format!(
                    "WARNING: unknown lint option: \"foo\"\nChecking good.yml\n SUCCESS: good.yml{valid}"
                ),
                "",
                0,
            ),
            (
                "check config token.yml",
                "Checking token.yml\n\n".to_owned(),
                "  FAILED: error checking authorization credentials or bearer token file \"/nope\": stat /nope: no such file or directory\n",
                1,
            ),
            (
                "check config --syntax-only token.yml",
                format!("Checking token.yml\n SUCCESS: token.yml{valid}"),
                "",
                0,
            ),
            (
                "check config etc/gone.yml",
                "Checking etc/gone.yml\n\n".to_owned(),
                "  FAILED: \"etc/gone.rules\" does not point to an existing file\n",
                1,
            ),
            (
                "check config empty.yml",
                "Checking empty.yml\n\n".to_owned(),
                "  FAILED: instance 1 in group 1: no address\n",
                1,
            ),
            (
                "check config discovery.yml",
                format!(
                    "Checking discovery.yml\n  WARNING: file \"n.json\" for file_sd in scrape job \"a\" does not exist\n SUCCESS: discovery.yml{valid}"
                ),
                "",
                0,
            ),
            (
                "check config etc/rules.yml",
                format!(
                    "Checking etc/rules.yml\n  SUCCESS: 1 rule files found\n SUCCESS: etc/rules.yml{valid}Checking etc/alert.rules\n  WARNING: rules are not checked yet\n\n"
                ),
                "",
                0,
            ),
        ] {
            assert_eq!(ran(line), (out, err.to_owned(), code), "{line}");
        }
    }

    #[test]
    fn a_refused_configuration_is_explained() {
        let (out, err, code) = ran("check config titan.yml");
        assert_eq!((out.as_str(), code), ("Checking titan.yml\n\n", 1));
        let start = "  FAILED: parsing YAML file titan.yml: yaml: unmarshal errors:\n  line 3: field targets not found in type config.ScrapeConfig\n";
        assert!(err.starts_with(start), "{err}");
        assert!(
            err.contains("`targets` belongs under `static_configs`"),
            "{err}"
        );
    }

    #[test]
    fn what_is_not_built_in_says_so() {
        let (_, err, code) = ran("check rules a.yml");
        assert_eq!(
            err,
            "promtool: error: \"check rules\" is not built in yet, try --help\n"
        );
        assert_eq!(code, 1);
    }
}
