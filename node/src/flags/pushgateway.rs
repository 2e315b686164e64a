//! The Pushgateway's flags, as its 1.11 has them. The help is in our words.

use super::table::Kind::{Addresses, Duration, Text, Truth};
use super::table::State::{Hidden, NotYet, Refused, Served};
use super::table::{Flag, State, flag};

const NO_SOCKET: State = Refused("socket activation is not built in, so nothing would listen");

/// The Pushgateway's flags, as its 1.11 has them.
pub static PUSHGATEWAY: [Flag; 13] = [
    flag(
        "web.systemd-socket",
        Truth,
        "false",
        NO_SOCKET,
        "Take listeners from systemd instead of opening them.",
    ),
    flag(
        "web.listen-address",
        Addresses,
        ":9091",
        Served,
        "Address to listen on for pushes, metrics and pages. Can be repeated.",
    ),
    flag(
        "web.config.file",
        Text,
        "",
        Served,
        "File that enables TLS or authentication.",
    ),
    flag(
        "web.local-assets",
        Text,
        "/usr/share/prometheus/pushgateway",
        Hidden("the pages are part of the binary"),
        "Directory of static assets.",
    ),
    flag(
        "web.telemetry-path",
        Text,
        "/metrics",
        Served,
        "Path under which metrics are exposed.",
    ),
    flag(
        "web.external-url",
        Text,
        "",
        Served,
        "URL under which this server is reached from outside.",
    ),
    flag(
        "web.route-prefix",
        Text,
        "",
        Served,
        "Prefix of the routes of all endpoints. Defaults to the path of --web.external-url.",
    ),
    flag(
        "web.enable-lifecycle",
        Truth,
        "false",
        Served,
        "Enable shutdown by HTTP request.",
    ),
    flag(
        "web.enable-admin-api",
        Truth,
        "false",
        NotYet("the admin endpoints are not served yet"),
        "Enable the endpoints of the admin API.",
    ),
    flag(
        "persistence.file",
        Text,
        "",
        Served,
        "Pushes always survive a restart here; the data lie in a directory of this name with .quorate added.",
    ),
    flag(
        "persistence.interval",
        Duration,
        "5m",
        Hidden("every push is on disk before it is acknowledged"),
        "How often the persistence file is written.",
    ),
    flag(
        "push.disable-consistency-check",
        Truth,
        "false",
        NotYet("pushed metrics are always checked"),
        "Do not check pushed metrics.",
    ),
    flag(
        "push.enable-utf8-names",
        Truth,
        "false",
        Served,
        "Allow UTF-8 in names of metrics and labels.",
    ),
];
