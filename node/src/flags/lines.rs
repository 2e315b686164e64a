//! Flags of the receivers of lines over TCP and UDP.

use super::table::{Flag, Kind, State, flag};
use Kind::{Address, Duration, Text, Truth};
use State::Served;

/// Ours, all off by default: nothing listens that nobody asked for.
pub static LINES: [Flag; 7] = [
    flag(
        "graphite.listen-address",
        Address,
        "",
        Served,
        "Address to listen on for Graphite's plaintext protocol, by TCP and UDP. Empty: none.",
    ),
    flag(
        "graphite.pickle-listen-address",
        Address,
        "",
        Served,
        "Address to listen on for Graphite's pickle protocol, by TCP. Empty: none.",
    ),
    flag(
        "graphite.mapping-config",
        Text,
        "",
        Served,
        "File of rules that map Graphite's paths to names and labels, as graphite_exporter has it.",
    ),
    flag(
        "graphite.mapping-strict-match",
        Truth,
        "false",
        Served,
        "Only store Graphite metrics that a rule of the mapping names.",
    ),
    flag(
        "statsd.listen-address",
        Address,
        "",
        Served,
        "Address to listen on for StatsD, by TCP and UDP. Empty: none.",
    ),
    flag(
        "statsd.mapping-config",
        Text,
        "",
        Served,
        "File of rules that map StatsD's metrics to names and labels, as statsd_exporter has it.",
    ),
    flag(
        "statsd.flush-interval",
        Duration,
        "10s",
        Served,
        "How often a node pushes what it added up of StatsD's metrics.",
    ),
];
