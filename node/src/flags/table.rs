//! The one table of flags: name, kind, default, help, and whether it does something yet.
//!
//! `--help`, `/api/v1/status/flags`, parsing and the start-up warnings all read it.

use super::Program;
use super::lines::LINES;
use super::prometheus::SERVER;
use super::pushgateway::PUSHGATEWAY;

/// One flag.
#[derive(Debug)]
pub struct Flag {
    pub name: &'static str,
    pub kind: Kind,
    /// As text, as it would be written; empty when there is none.
    pub default: &'static str,
    pub help: &'static str,
    pub state: State,
}

/// What values a flag takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Text,
    /// Takes no value; `--no-name` turns it off.
    Truth,
    Duration,
    /// Bytes with a unit.
    Size,
    /// A whole number from 0, also in the form `5e7`.
    Number,
    Float,
    /// `host:port`, `:port`; may be given several times.
    Addresses,
    /// `host:port`, `:port`; empty for none.
    Address,
    /// Separated by commas, may be given several times.
    List,
    Choice(&'static [&'static str]),
    /// A regular expression.
    Regex,
}

/// Whether the flag does something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Served,
    /// Accepted so that existing units start; the text says what does not happen.
    NotYet(&'static str),
    /// Refused, because running without what it asks for would endanger data or answers.
    Refused(&'static str),
    /// Accepted, without meaning here and shown nowhere but in the list of flags.
    Hidden(&'static str),
}

use Kind::{Address, Addresses, Choice, Duration, List, Number, Text, Truth};
use State::Served;

pub const fn flag(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    state: State,
    help: &'static str,
) -> Flag {
    Flag {
        name,
        kind,
        default,
        help,
        state,
    }
}

/// Ours: the push listener of a server.
pub static PUSH: [Flag; 5] = [
    flag(
        "push.listen-address",
        Addresses,
        ":9091",
        Served,
        "Address to listen on for pushes, with the Pushgateway's API. Can be repeated; empty for none.",
    ),
    flag(
        "push.enable-utf8-names",
        Truth,
        "false",
        Served,
        "Allow UTF-8 in names of pushed metrics and labels.",
    ),
    flag(
        "push.disable-consistency-check",
        Truth,
        "false",
        Served,
        "Do not check whether pushed metrics contradict those of other groups.",
    ),
    flag(
        "push.enable-admin-api",
        Truth,
        "false",
        Served,
        "Enable the admin endpoints of the push listener.",
    ),
    flag(
        "push.enable-lifecycle",
        Truth,
        "false",
        Served,
        "Enable shutdown by HTTP request to the push listener.",
    ),
];

/// Ours: how nodes find each other and form a cluster, and what every node does.
pub static CLUSTER: [Flag; 12] = [
    flag(
        "cluster.listen-address",
        Address,
        ":9092",
        Served,
        "Address to listen on for the other nodes. Empty: this node stays alone.",
    ),
    flag(
        "cluster.advertise-address",
        Address,
        "",
        Served,
        "Address under which the other nodes reach this one. Defaults to --cluster.listen-address when that names a host.",
    ),
    flag(
        "cluster.join",
        List,
        "",
        Served,
        "Addresses of nodes to join, this one may be among them. Comma separated; can be repeated.",
    ),
    flag(
        "cluster.bootstrap-expect",
        Number,
        "1",
        Served,
        "How many nodes must have found each other before they form a new cluster.",
    ),
    flag(
        "cluster.shards",
        Number,
        "0",
        Served,
        "Shards of a new cluster, up to 4096, fixed when it is formed. 0: one for each node and each core, four at least.",
    ),
    flag(
        "cluster.max-series",
        Number,
        "0",
        Served,
        "Series the cluster registers, a share in each shard. New ones beyond are refused. 0: no limit.",
    ),
    flag(
        "cluster.replication-factor",
        Number,
        "3",
        Served,
        "Copies of each shard in a new cluster: 1, 3, 5 or 7.",
    ),
    flag(
        "cluster.zone",
        Text,
        "",
        Served,
        "Failure zone of this node. Copies of a shard are spread over zones.",
    ),
    flag(
        "consul.address",
        Address,
        "",
        Served,
        "Consul agent to register with and to find the other nodes through.",
    ),
    flag(
        "consul.service",
        Text,
        "quorate",
        Served,
        "Name of the service registered in Consul.",
    ),
    flag(
        "otlp.grpc-listen-address",
        Addresses,
        "",
        Served,
        "Address to listen on for OpenTelemetry's metrics by gRPC, such as :4317. Can be repeated; empty for none.",
    ),
    flag(
        "push.history-interval",
        Duration,
        "0s",
        Served,
        "How often a pushed group is repeated into the history while it lives. 0s: the global scrape_interval.",
    ),
];

/// What every program takes.
pub static LOG: [Flag; 2] = [
    flag(
        "log.level",
        Choice(&["debug", "info", "warn", "error"]),
        "info",
        Served,
        "Only log messages of this severity or above. One of: [debug, info, warn, error]",
    ),
    flag(
        "log.format",
        Choice(&["logfmt", "json"]),
        "logfmt",
        Served,
        "Format of log messages. One of: [logfmt, json]",
    ),
];

/// The flags of a program, in the order of its help.
pub fn of(program: Program) -> impl Iterator<Item = &'static Flag> {
    let (first, second): (&[Flag], &[Flag]) = match program {
        Program::Quorate | Program::Prometheus => (&SERVER, &PUSH),
        Program::Pushgateway => (&PUSHGATEWAY, &[]),
    };
    let ours = second.iter().chain(&LINES).chain(&CLUSTER);
    first.iter().chain(ours).chain(&LOG)
}

/// A flag's default in a program. A name that stands for another program opens just the ports
/// that program opens: a Pushgateway may run beside it.
pub fn default_of(flag: &Flag, program: Program) -> &'static str {
    match (program, flag.name) {
        (Program::Quorate, "web.enable-remote-write-receiver" | "web.enable-otlp-receiver") => {
            "true"
        }
        (Program::Prometheus, "push.listen-address") => "",
        (Program::Prometheus | Program::Pushgateway, "cluster.listen-address") => "",
        _ => flag.default,
    }
}
