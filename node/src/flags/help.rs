//! `--help` and `--version`.

use std::fmt::Write;

use super::Program;
use super::table::{self, Flag, Kind, State};

/// Columns before a flag's help, and of a whole line, as Prometheus' help has them.
const HELP_COLUMN: usize = 33;
const LINE_COLUMNS: usize = 80;

pub fn help(program: Program) -> String {
    let (name, about) = match program {
        Program::Quorate => (
            "quorate",
            "A clustered, Prometheus-compatible metrics store",
        ),
        Program::Prometheus => ("prometheus", "The Prometheus monitoring server, by quorate"),
        Program::Pushgateway => ("pushgateway", "The Pushgateway, by quorate"),
    };
    let mut text = format!("usage: {name} [<flags>]\n\n{about}\n\nFlags:\n");
    entry(&mut text, "  -h, --help", "Show this help.");
    entry(&mut text, "      --version", "Show the version.");
    for flag in table::of(program) {
        if matches!(flag.state, State::Hidden(_)) {
            continue;
        }
        entry(&mut text, &head(flag, program), &about_flag(flag));
    }
    text
}

/// Prometheus' lines; the tools that read them look at the first.
pub fn version(program: Program) -> String {
    let name = match program {
        Program::Quorate => "quorate",
        Program::Prometheus => "prometheus",
        Program::Pushgateway => "pushgateway",
    };
    let version = env!("CARGO_PKG_VERSION");
    let (os, arch) = (std::env::consts::OS, architecture());
    format!(
        "{name}, version {version} (branch: {branch}, revision: {revision})\n  build user:       {user}\n  build date:       {date}\n  go version:       none\n  platform:         {os}/{arch}\n  tags:             quorate\n",
        branch = BRANCH,
        revision = REVISION,
        user = "unknown",
        date = "unknown",
    )
}

/// The machine's kind, as Go names it.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// What a build without version control knows; a release build sets them.
pub const BRANCH: &str = match option_env!("QUORATE_BRANCH") {
    Some(branch) => branch,
    None => "unknown",
};
pub const REVISION: &str = match option_env!("QUORATE_REVISION") {
    Some(revision) => revision,
    None => "unknown",
};

fn head(flag: &Flag, program: Program) -> String {
    let name = flag.name;
    let default = table::default_of(flag, program);
    let many = matches!(flag.kind, Kind::Addresses | Kind::List);
    match flag.kind {
        Kind::Truth => format!("      --[no-]{name}"),
        Kind::Text | Kind::Regex => format!("      --{name}={default:?}"),
        _ if many => format!("      --{name}={default} ..."),
        _ => format!("      --{name}={default}"),
    }
}

fn about_flag(flag: &Flag) -> String {
    match flag.state {
        State::Served | State::Hidden(_) => flag.help.to_owned(),
        State::NotYet(why) => format!("{} No effect yet: {why}.", flag.help),
        State::Refused(why) => format!("{} Refused: {why}.", flag.help),
    }
}

fn entry(text: &mut String, head: &str, about: &str) {
    let mut column = head.len();
    text.push_str(head);
    if column + 1 >= HELP_COLUMN {
        text.push('\n');
        column = 0;
    }
    let mut first = true;
    for word in about.split_whitespace() {
        if !first && column + 1 + word.len() > LINE_COLUMNS {
            text.push('\n');
            column = 0;
            first = true;
        }
        let gap = if first {
            HELP_COLUMN.saturating_sub(column)
        } else {
            1
        };
        write!(text, "{:gap$}{word}", "").expect("a string takes all text");
        column += gap + word.len();
        first = false;
    }
    text.push('\n');
}
