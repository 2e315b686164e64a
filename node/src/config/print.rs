//! The configuration as `/api/v1/status/config` shows it: Prometheus' keys in Prometheus' order,
//! defaults filled in, variables put in, secrets hidden.

use std::path::Path;

use ingest::relabel::RelabelConfig;
use model::time::format_duration;

use super::emit::{Map, Out, redacted};
use super::global::{Global, Limits, ScrapeProtocol};
use super::http_client::{Auth, HttpClient, SecretSource};
use super::scrape::{ScrapeConfig, StaticConfig};
use super::secret::{REDACTED, redacted_url};
use super::size::format_size;
use super::{Config, Storage};

pub fn print(config: &Config) -> String {
    let mut map = Map::default();
    map.map_if("global", global(&config.global));
    if let Some(gogc) = config.gogc {
        let mut runtime = Map::default();
        runtime.bare("gogc", gogc);
        map.map_if("runtime", runtime);
    }
    section(config, "alerting", &mut map);
    section(config, "rule_files", &mut map);
    map.texts_if("scrape_config_files", config.scrape_config_files.clone());
    let own = config.scrape_configs.iter().take(config.own_jobs);
    map.list_if(
        "scrape_configs",
        own.map(|job| Out::Map(scrape(job))).collect(),
    );
    map.map_if("storage", storage(&config.storage));
    section(config, "tracing", &mut map);
    section(config, "remote_write", &mut map);
    section(config, "remote_read", &mut map);
    section(config, "otlp", &mut map);
    section(config, "federation", &mut map);
    map.document()
}

fn section(config: &Config, name: &str, map: &mut Map) {
    let section = config.sections.iter().find(|section| section.name == name);
    if let Some(section) = section {
        map.put(name, redacted(&section.kept.0));
    }
}

fn global(global: &Global) -> Map {
    let mut map = Map::default();
    map.text("scrape_interval", format_duration(global.scrape_interval));
    map.text("scrape_timeout", format_duration(global.scrape_timeout));
    map.texts_if("scrape_protocols", protocols(&global.scrape_protocols));
    let evaluation = format_duration(global.evaluation_interval);
    map.text("evaluation_interval", evaluation);
    if !global.rule_query_offset.is_zero() {
        map.text(
            "rule_query_offset",
            format_duration(global.rule_query_offset),
        );
    }
    path_if(&mut map, "query_log_file", global.query_log_file.as_deref());
    let failures = global.scrape_failure_log_file.as_deref();
    path_if(&mut map, "scrape_failure_log_file", failures);
    map.map_if("external_labels", labels(&global.external_labels));
    limits(&mut map, &global.limits);
    map.number_if("keep_dropped_targets", global.limits.keep_dropped_targets);
    let validation = global.naming.validation_scheme.clone();
    map.text_if("metric_name_validation_scheme", validation);
    let escaping = global.naming.escaping_scheme.clone();
    map.text_if("metric_name_escaping_scheme", escaping);
    for (key, value) in [
        ("scrape_native_histograms", global.histograms.scrape_native),
        (
            "convert_classic_histograms_to_nhcb",
            global.histograms.convert_classic_to_nhcb,
        ),
        (
            "always_scrape_classic_histograms",
            global.histograms.always_scrape_classic,
        ),
    ] {
        if let Some(value) = value {
            map.bare(key, value);
        }
    }
    map
}

fn protocols(protocols: &[ScrapeProtocol]) -> impl Iterator<Item = &'static str> {
    protocols.iter().map(|protocol| protocol.as_str())
}

fn path_if(map: &mut Map, key: &str, path: Option<&Path>) {
    if let Some(path) = path {
        map.text(key, path.to_string_lossy());
    }
}

fn labels(labels: &[(String, String)]) -> Map {
    let mut map = Map::default();
    for (name, value) in labels {
        map.text(name, value);
    }
    map
}

fn limits(map: &mut Map, limits: &Limits) {
    if limits.body_size_bytes > 0 {
        map.text("body_size_limit", format_size(limits.body_size_bytes));
    }
    map.number_if("sample_limit", limits.samples);
    map.number_if("target_limit", limits.targets);
    map.number_if("label_limit", limits.labels);
    map.number_if("label_name_length_limit", limits.label_name_bytes);
    map.number_if("label_value_length_limit", limits.label_value_bytes);
}

fn scrape(job: &ScrapeConfig) -> Map {
    let mut map = Map::default();
    map.text("job_name", &job.job_name);
    if job.honor_labels {
        map.bare("honor_labels", true);
    }
    map.bare("honor_timestamps", job.honor_timestamps);
    map.bare("track_timestamps_staleness", job.track_timestamps_staleness);
    let mut params = Map::default();
    for (name, values) in &job.params {
        let values = values.iter().cloned().map(Out::Text).collect();
        params.put(name, Out::List(values));
    }
    map.map_if("params", params);
    map.text("scrape_interval", format_duration(job.scrape_interval));
    map.text("scrape_timeout", format_duration(job.scrape_timeout));
    map.texts_if("scrape_protocols", protocols(&job.scrape_protocols));
    if let Some(fallback) = job.fallback_scrape_protocol {
        map.text("fallback_scrape_protocol", fallback.as_str());
    }
    histograms(&mut map, job);
    let failures = job.scrape_failure_log_file.as_deref();
    path_if(&mut map, "scrape_failure_log_file", failures);
    map.text("metrics_path", &job.metrics_path);
    map.text("scheme", &job.scheme);
    map.bare("enable_compression", job.enable_compression);
    limits(&mut map, &job.limits);
    map.number_if(
        "native_histogram_bucket_limit",
        job.native_histogram_bucket_limit,
    );
    if job.native_histogram_min_bucket_factor != 0.0 {
        let factor = job.native_histogram_min_bucket_factor;
        map.bare("native_histogram_min_bucket_factor", factor);
    }
    map.number_if("keep_dropped_targets", job.limits.keep_dropped_targets);
    map.text("metric_name_validation_scheme", job.naming.validation());
    map.text("metric_name_escaping_scheme", job.naming.escaping());
    http_client(&mut map, &job.http);
    let rules =
        |rules: &[RelabelConfig]| rules.iter().map(|rule| Out::Map(relabel(rule))).collect();
    map.list_if("relabel_configs", rules(&job.relabel_configs));
    map.list_if("metric_relabel_configs", rules(&job.metric_relabel_configs));
    for (name, kept) in &job.discovery {
        map.put(name, redacted(&kept.0));
    }
    let groups = job.static_configs.iter().map(|g| Out::Map(group(g)));
    map.list_if("static_configs", groups.collect());
    map
}

fn histograms(map: &mut Map, job: &ScrapeConfig) {
    if let Some(native) = job.histograms.scrape_native {
        map.bare("scrape_native_histograms", native);
    }
    let always = job.histograms.always_scrape_classic.unwrap_or(false);
    map.bare("always_scrape_classic_histograms", always);
    let convert = job.histograms.convert_classic_to_nhcb.unwrap_or(false);
    map.bare("convert_classic_histograms_to_nhcb", convert);
}

fn group(group: &StaticConfig) -> Map {
    let mut map = Map::default();
    let targets = group.targets.iter().cloned().map(Out::Text).collect();
    map.put("targets", Out::List(targets));
    map.map_if("labels", labels(&group.labels));
    map
}

fn http_client(map: &mut Map, http: &HttpClient) {
    auth(map, &http.auth);
    map.map_if("tls_config", tls(http));
    map.bare("follow_redirects", http.follow_redirects);
    map.bare("enable_http2", http.enable_http2);
    if let Some(url) = &http.proxy.url {
        map.text("proxy_url", redacted_url(url));
    }
    map.text_if("no_proxy", &http.proxy.no_proxy);
    if http.proxy.from_environment {
        map.bare("proxy_from_environment", true);
    }
    let hidden = |count| vec![Out::Text(REDACTED.to_owned()); count];
    let mut connect = Map::default();
    for (name, values) in &http.proxy.connect_headers {
        connect.put(name, Out::List(hidden(values.len())));
    }
    map.map_if("proxy_connect_header", connect);
    let mut headers = Map::default();
    for (name, header) in &http.headers {
        let mut one = Map::default();
        one.texts_if("values", header.values.clone());
        one.list_if("secrets", hidden(header.secrets.len()));
        one.texts_if("files", header.files.iter().map(|f| f.to_string_lossy()));
        headers.put(name, Out::Map(one));
    }
    map.map_if("http_headers", headers);
}

fn auth(map: &mut Map, auth: &Auth) {
    let mut inner = Map::default();
    match auth {
        Auth::None => {}
        Auth::Basic {
            username,
            username_file,
            password,
        } => {
            inner.text_if("username", username);
            path_if(&mut inner, "username_file", username_file.as_deref());
            secret(&mut inner, "password", "password_file", password);
            map.put("basic_auth", Out::Map(inner));
        }
        Auth::Authorization {
            scheme,
            credentials,
        } => {
            inner.text("type", scheme);
            secret(&mut inner, "credentials", "credentials_file", credentials);
            map.put("authorization", Out::Map(inner));
        }
        Auth::OAuth2(kept) => map.put("oauth2", redacted(&kept.0)),
    }
}

fn secret(map: &mut Map, key: &str, file_key: &str, source: &SecretSource) {
    match source {
        SecretSource::None => {}
        SecretSource::Inline(_) => map.text(key, REDACTED),
        SecretSource::File(file) => map.text(file_key, file.to_string_lossy()),
    }
}

fn tls(http: &HttpClient) -> Map {
    let tls = &http.tls;
    let mut map = Map::default();
    if *tls == super::Tls::default() {
        return map;
    }
    map.text_if("ca", tls.ca.clone().unwrap_or_default());
    map.text_if("cert", tls.cert.clone().unwrap_or_default());
    if tls.key.is_some() {
        map.text("key", REDACTED);
    }
    path_if(&mut map, "ca_file", tls.ca_file.as_deref());
    path_if(&mut map, "cert_file", tls.cert_file.as_deref());
    path_if(&mut map, "key_file", tls.key_file.as_deref());
    map.text_if("server_name", &tls.server_name);
    map.bare("insecure_skip_verify", tls.insecure_skip_verify);
    map.text_if("min_version", tls.min_version.clone().unwrap_or_default());
    map.text_if("max_version", tls.max_version.clone().unwrap_or_default());
    map
}

fn relabel(rule: &RelabelConfig) -> Map {
    let mut map = Map::default();
    if !rule.source_labels.is_empty() {
        map.put("source_labels", Out::Flow(rule.source_labels.clone()));
    }
    let default = RelabelConfig::default();
    // Prometheus leaves out an empty separator or replacement, which then reads back as the
    // default; here what is not the default is always written.
    map.text("separator", &rule.separator);
    if rule.regex != default.regex {
        map.text("regex", &rule.regex);
    }
    map.number_if("modulus", rule.modulus);
    map.text_if("target_label", &rule.target_label);
    map.text("replacement", &rule.replacement);
    map.text("action", rule.action.as_str());
    map
}

fn storage(storage: &Storage) -> Map {
    let mut tsdb = Map::default();
    if let Some(window) = storage.out_of_order_time_window {
        tsdb.text("out_of_order_time_window", format_duration(window));
    }
    let mut retention = Map::default();
    if let Some(time) = storage.retention.time {
        retention.text("time", format_duration(time));
    }
    if let Some(size_bytes) = storage.retention.size_bytes {
        retention.text("size", format_size(size_bytes));
    }
    tsdb.map_if("retention", retention);
    let mut map = Map::default();
    map.map_if("tsdb", tsdb);
    if let Some(max) = storage.exemplars_max {
        let mut exemplars = Map::default();
        exemplars.bare("max_exemplars", max);
        map.map_if("exemplars", exemplars);
    }
    map
}
