//! From given texts to checked [`Flags`]: each value by itself, then what they must be together.

use std::collections::BTreeMap;
use std::path::PathBuf;

use model::time::{format_duration, parse_duration};

use super::table::{self, Kind, State};
use super::value::{self, Address, refused};
use super::{
    Cluster, Flags, Given, Lines, LogFormat, LogLevel, Program, Push, Query, Storage, UsageError,
    Web,
};
use crate::config::size::{format_size, parse_size};
use crate::web::write::Message;

/// Upper bounds that keep a slip of the hand from becoming a cluster.
const SHARDS_MAX: u64 = 4096;
const REPLICATION_FACTOR_MAX: u64 = 7;
const BOOTSTRAP_EXPECT_MAX: u64 = 1000;

/// Checks everything.
pub fn check(program: Program, given: Given) -> Result<Flags, UsageError> {
    let mut warnings = Vec::new();
    for flag in table::of(program) {
        let Some(values) = given.get(flag.name) else {
            continue;
        };
        for text in values {
            value::check(flag, text)?;
        }
        let last = values.last().map_or("", String::as_str);
        let changed = last != table::default_of(flag, program);
        match flag.state {
            State::Refused(why) if changed && !last.is_empty() => {
                return Err(refused(flag.name, last, why));
            }
            State::NotYet(why) if changed => {
                warnings.push(format!("--{} has no effect yet: {why}", flag.name));
            }
            _ => {}
        }
    }
    let texts = Texts { program, given };
    let mut flags = texts.flags(warnings)?;
    flags.values = texts.listing(&flags);
    Ok(flags)
}

/// The texts of all flags, given or default.
struct Texts {
    program: Program,
    given: Given,
}

impl Texts {
    fn flags(&self, mut warnings: Vec<String>) -> Result<Flags, UsageError> {
        let web_addresses = self.addresses("web.listen-address")?;
        let (web_listen_addresses, push_listen_addresses) = match self.program {
            Program::Pushgateway => (Vec::new(), web_addresses),
            _ => (web_addresses, self.addresses("push.listen-address")?),
        };
        let features = self.list("enable-feature");
        check_features(&features, &mut warnings)?;
        Ok(Flags {
            program: self.program,
            config_file: PathBuf::from(self.text("config.file")),
            config_file_given: self.given.contains_key("config.file"),
            web_listen_addresses,
            otlp_listen_addresses: self.addresses("otlp.grpc-listen-address")?,
            push_listen_addresses,
            web: self.web()?,
            storage: self.storage()?,
            query: self.query()?,
            cluster: self.cluster()?,
            push: Push {
                history_interval: Some(value::duration(
                    "push.history-interval",
                    self.text("push.history-interval"),
                )?)
                .filter(|interval| !interval.is_zero()),
                enable_utf8_names: self.truth("push.enable-utf8-names"),
                disable_consistency_check: self.truth("push.disable-consistency-check"),
                enable_admin_api: self.truth(self.own("enable-admin-api")),
                enable_lifecycle: self.truth(self.own("enable-lifecycle")),
            },
            lines: self.lines()?,
            features,
            log_level: match self.text("log.level") {
                "debug" => LogLevel::Debug,
                "warn" => LogLevel::Warn,
                "error" => LogLevel::Error,
                _ => LogLevel::Info,
            },
            log_format: match self.text("log.format") {
                "json" => LogFormat::Json,
                _ => LogFormat::Logfmt,
            },
            warnings,
            values: BTreeMap::new(),
        })
    }

    /// The text given last, else the default. A flag that this program does not have has the
    /// default it has elsewhere.
    fn text(&self, name: &str) -> &str {
        let given = self.given.get(name).and_then(|values| values.last());
        given.map_or_else(|| self.default(name), String::as_str)
    }

    fn default(&self, name: &str) -> &'static str {
        let own = table::of(self.program).find(|flag| flag.name == name);
        let any = || table::of(Program::Quorate).find(|flag| flag.name == name);
        own.or_else(any)
            .map_or("", |flag| table::default_of(flag, self.program))
    }

    /// The flag of the push listener, which a Pushgateway calls as its only one.
    fn own(&self, name: &str) -> &'static str {
        match (self.program, name) {
            (Program::Pushgateway, "enable-lifecycle") => "web.enable-lifecycle",
            (Program::Pushgateway, _) => "web.enable-admin-api",
            (_, "enable-lifecycle") => "push.enable-lifecycle",
            _ => "push.enable-admin-api",
        }
    }

    fn truth(&self, name: &str) -> bool {
        self.text(name) == "true"
    }

    /// All values of a flag that may be repeated, split at commas.
    fn list(&self, name: &str) -> Vec<String> {
        let default = [self.default(name).to_owned()];
        let values = self.given.get(name).map_or(&default[..], Vec::as_slice);
        let parts = values.iter().flat_map(|value| value.split(','));
        parts
            .map(|part| part.trim().to_owned())
            .filter(|part| !part.is_empty())
            .collect()
    }

    fn addresses(&self, name: &str) -> Result<Vec<Address>, UsageError> {
        let texts = self.list(name);
        let addresses = texts
            .iter()
            .map(|text| Address::parse(text).map_err(|why| refused(name, text, &why)));
        addresses.collect()
    }

    fn number(&self, name: &str, min: u64, max: u64) -> Result<u64, UsageError> {
        let text = self.text(name);
        let number = value::number(name, text)?;
        if !(min..=max).contains(&number) {
            let why = format!("expected a number from {min} to {max}");
            return Err(refused(name, text, &why));
        }
        Ok(number)
    }

    fn web(&self) -> Result<Web, UsageError> {
        let external_url = self.text("web.external-url").to_owned();
        let trimmed = |path: &str| match path.trim_matches('/') {
            "" => String::new(),
            inner => format!("/{inner}"),
        };
        let external_path = trimmed(path_of(&external_url));
        let route_prefix = match self.text("web.route-prefix") {
            "" => external_path.clone(),
            given => trimmed(given),
        };
        let connections = self.number("web.max-connections", 1, 1 << 20)?;
        let telemetry_path = match self.text("web.telemetry-path") {
            "" => "/metrics",
            path => path,
        };
        let config_file = self.text("web.config.file");
        Ok(Web {
            config_file: (!config_file.is_empty()).then(|| PathBuf::from(config_file)),
            read_timeout: self.duration("web.read-timeout")?,
            connections_max: to_usize(connections),
            external_url,
            route_prefix,
            external_path,
            telemetry_path: format!("/{}", telemetry_path.trim_start_matches('/')),
            page_title: self.text("web.page-title").to_owned(),
            cors_origin: self.text("web.cors.origin").to_owned(),
            enable_lifecycle: self.truth("web.enable-lifecycle"),
            enable_admin_api: self.truth("web.enable-admin-api"),
            enable_remote_write_receiver: self.truth("web.enable-remote-write-receiver")
                || self
                    .list("enable-feature")
                    .contains(&"remote-write-receiver".to_owned()),
            enable_otlp_receiver: self.truth("web.enable-otlp-receiver"),
            remote_write_messages: self.write_messages()?,
        })
    }

    fn write_messages(&self) -> Result<Vec<Message>, UsageError> {
        let name = "web.remote-write-receiver.accepted-protobuf-messages";
        let mut messages = Vec::new();
        for text in self.list(name) {
            let message = Message::of_name(&text)
                .ok_or_else(|| refused(name, &text, "unknown remote write protobuf message"))?;
            if messages.contains(&message) {
                return Err(refused(name, &text, "given twice"));
            }
            messages.push(message);
        }
        Ok(messages)
    }

    fn duration(&self, name: &str) -> Result<std::time::Duration, UsageError> {
        value::duration(name, self.text(name))
    }

    fn lines(&self) -> Result<Lines, UsageError> {
        let address = |name| value::address(name, self.text(name));
        let file = |name| Some(self.text(name)).filter(|path| !path.is_empty());
        let statsd_interval = self.duration("statsd.flush-interval")?;
        if statsd_interval.is_zero() {
            return Err(refused(
                "statsd.flush-interval",
                "0s",
                "expected more than 0s",
            ));
        }
        Ok(Lines {
            statsd_address: address("statsd.listen-address")?,
            statsd_mapping: file("statsd.mapping-config").map(PathBuf::from),
            statsd_interval,
            graphite_address: address("graphite.listen-address")?,
            graphite_pickle_address: address("graphite.pickle-listen-address")?,
            graphite_mapping: file("graphite.mapping-config").map(PathBuf::from),
            graphite_strict: self.truth("graphite.mapping-strict-match"),
        })
    }

    fn storage(&self) -> Result<Storage, UsageError> {
        let path = match (self.program, self.text("persistence.file")) {
            (Program::Pushgateway, "") => "pushgateway-data/".to_owned(),
            (Program::Pushgateway, file) => format!("{file}.quorate"),
            _ => self.text("storage.tsdb.path").to_owned(),
        };
        if path.is_empty() {
            return Err(refused("storage.tsdb.path", "", "expected a directory"));
        }
        let size = value::size(
            "storage.tsdb.retention.size",
            self.text("storage.tsdb.retention.size"),
        )?;
        let time_given = self.given.contains_key("storage.tsdb.retention.time");
        let time = self.duration("storage.tsdb.retention.time")?;
        let default = parse_duration(self.default("storage.tsdb.retention.time")).ok();
        let retention_time = match (time.is_zero(), time_given, size) {
            // Prometheus: a size alone takes the place of the default time; 0 means unset.
            (_, false, 1..) | (true, _, 1..) => None,
            (true, _, 0) => default,
            _ => Some(time),
        };
        Ok(Storage {
            path: PathBuf::from(path),
            retention_time,
            retention_size_bytes: Some(size).filter(|size| *size > 0),
        })
    }

    fn query(&self) -> Result<Query, UsageError> {
        let lookback_delta = self.duration("query.lookback-delta")?;
        if lookback_delta.is_zero() {
            let why = "expected more than 0s: with none, no query finds a sample";
            return Err(refused("query.lookback-delta", "0s", why));
        }
        Ok(Query {
            lookback_delta,
            timeout: self.duration("query.timeout")?,
            concurrency_max: to_usize(self.number("query.max-concurrency", 1, 1 << 16)?),
            samples_max: to_usize(self.number("query.max-samples", 1, 1 << 40)?),
        })
    }

    fn cluster(&self) -> Result<Cluster, UsageError> {
        let join = self.addresses("cluster.join")?;
        let consul_address = value::address("consul.address", self.text("consul.address"))?;
        let expect = self.number("cluster.bootstrap-expect", 1, BOOTSTRAP_EXPECT_MAX)?;
        let has_peers = !join.is_empty() || consul_address.is_some();
        if expect > 1 && !has_peers {
            let why = "the other nodes cannot be found: give --cluster.join or --consul.address";
            return Err(refused(
                "cluster.bootstrap-expect",
                &expect.to_string(),
                why,
            ));
        }
        if let Some(peer) = join.iter().find(|peer| peer.is_unspecified()) {
            let why = "expected host:port: this names no host to connect to";
            return Err(refused("cluster.join", &peer.to_string(), why));
        }
        let factor = self.number("cluster.replication-factor", 1, REPLICATION_FACTOR_MAX)?;
        if factor.is_multiple_of(2) {
            let why = "expected 1, 3, 5 or 7: an even number of copies survives no more failures than one less";
            return Err(refused(
                "cluster.replication-factor",
                &factor.to_string(),
                why,
            ));
        }
        let (listen_address, advertise_address) = self.cluster_addresses(has_peers)?;
        let service = self.text("consul.service");
        if service.is_empty() {
            return Err(refused("consul.service", "", "expected a name"));
        }
        Ok(Cluster {
            listen_address,
            advertise_address,
            join,
            bootstrap_expect: to_u32(expect),
            series_max: self.number("cluster.max-series", 0, u64::MAX)?,
            shards: to_u32(self.number("cluster.shards", 0, SHARDS_MAX)?),
            replication_factor: to_u32(factor),
            zone: self.text("cluster.zone").to_owned(),
            consul_address,
            consul_service: service.to_owned(),
        })
    }

    fn cluster_addresses(
        &self,
        has_peers: bool,
    ) -> Result<(Option<Address>, Option<Address>), UsageError> {
        let name = "cluster.listen-address";
        let listen = value::address(name, self.text(name))?;
        let listen = match listen {
            None if has_peers && self.given.contains_key(name) => {
                let why = "expected an address: without one the other nodes cannot reach this one";
                return Err(refused(name, "", why));
            }
            // A program that stays alone unless told otherwise has now been told.
            None if has_peers => Address::parse(":9092").ok(),
            listen => listen,
        };
        let Some(listen) = listen else {
            return Ok((None, None));
        };
        let name = "cluster.advertise-address";
        let given = value::address(name, self.text(name))?;
        if given.as_ref().is_some_and(Address::is_unspecified) {
            let why = "expected host:port: this names no host to connect to";
            return Err(refused(name, self.text(name), why));
        }
        let advertise = match given {
            None if listen.is_unspecified() && has_peers => {
                let why = format!(
                    "{listen} is every interface: give the address under which the other nodes reach this one"
                );
                return Err(refused(name, "", &why));
            }
            None if listen.is_unspecified() => Address {
                host: "127.0.0.1".to_owned(),
                port: listen.port,
            },
            None => listen.clone(),
            Some(given) => given,
        };
        Ok((Some(listen), Some(advertise)))
    }

    fn listing(&self, flags: &Flags) -> BTreeMap<&'static str, String> {
        let mut values = BTreeMap::new();
        for flag in table::of(self.program) {
            values.insert(flag.name, self.shown(flag));
        }
        let advertised = &flags.cluster.advertise_address;
        let advertised = advertised.as_ref().map(Address::to_string);
        values.insert("cluster.advertise-address", advertised.unwrap_or_default());
        values.insert("web.route-prefix", format!("{}/", flags.web.route_prefix));
        values.insert(
            "storage.tsdb.path",
            flags.storage.path.display().to_string(),
        );
        if flags.storage.retention_time.is_none() {
            values.insert("storage.tsdb.retention.time", "0s".to_owned());
        }
        values
    }

    /// The value in Prometheus' canonical form, in which the defaults are written.
    fn shown(&self, flag: &table::Flag) -> String {
        let text = self.text(flag.name);
        if !self.given.contains_key(flag.name) {
            return text.to_owned();
        }
        match flag.kind {
            Kind::Duration => parse_duration(text).map_or(text.to_owned(), format_duration),
            Kind::Size => parse_size(text).map_or(text.to_owned(), format_size),
            Kind::Number => {
                value::number(flag.name, text).map_or(text.to_owned(), |n| n.to_string())
            }
            Kind::Addresses | Kind::List => self.list(flag.name).join(","),
            _ => text.to_owned(),
        }
    }
}

/// Features without which nothing is lost, and those that change what is stored or answered.
fn check_features(features: &[String], warnings: &mut Vec<String>) -> Result<(), UsageError> {
    for feature in features {
        match feature.as_str() {
            "agent" => {
                let why =
                    "there is no agent mode, and a server would store what an agent only forwards";
                return Err(refused("enable-feature", feature, why));
            }
            "expand-external-labels"
            | "native-histograms"
            | "remote-write-receiver"
            // Always on: exemplars and metadata are kept, histograms are stored, statistics told.
            | "exemplar-storage"
            | "metadata-wal-records"
            | "otlp-deltatocumulative"
            | "otlp-native-delta-ingestion"
            | "type-and-unit-labels"
            | "promql-duration-expr"
            | "promql-per-step-stats"
            | "promql-experimental-functions"
            | "promql-delayed-name-removal" => {}
            _ => warnings.push(format!("--enable-feature={feature} has no effect yet")),
        }
    }
    let both = ["otlp-deltatocumulative", "otlp-native-delta-ingestion"];
    if both.iter().all(|one| features.iter().any(|f| f == one)) {
        let why = "differences are either added up (otlp-deltatocumulative) or kept";
        return Err(refused("enable-feature", both[1], why));
    }
    Ok(())
}

/// The path of a URL, empty when there is none.
fn path_of(url: &str) -> &str {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.find('/').map_or("", |at| &rest[at..])
}

fn to_u32(number: u64) -> u32 {
    u32::try_from(number).expect("bounded before")
}

fn to_usize(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
