//! Whole configurations: those that must load, and the exact words for those that must not.

use std::io;
use std::path::Path;

use proptest::prelude::*;

use super::*;

fn load_text(text: &str) -> Result<Config, ConfigError> {
    let read = |_: &Path| Ok::<_, io::Error>(text.to_owned());
    load(Path::new("prometheus.yml"), &read)
}

fn message(text: &str) -> String {
    let error = load_text(text).expect_err(text).to_string();
    let rest = error.strip_prefix("parsing YAML file prometheus.yml: ");
    rest.unwrap_or(&error).to_owned()
}

/// As `promtool check config` of Prometheus 3.5.3 words them.
#[test]
fn refusals_are_worded_as_prometheus_words_them() {
    let job = "scrape_configs:\n- job_name: a\n";
    let shape = |lines: &str| format!("yaml: unmarshal errors:\n{lines}");
    let table: Vec<(String, String)> = vec![
        ("global: {scrape_interval: 5}\n".into(), "not a valid duration string: \"5\"".into()),
        ("global: {scrape_interval: 5x}\n".into(), "unknown unit \"x\" in duration \"5x\"".into()),
        ("global: {scrape_interval: 5s, scrape_timeout: 10s}\n".into(), "global scrape timeout greater than scrape interval".into()),
        (format!("{job}- job_name: a\n"), "found multiple scrape configs with job name \"a\"".into()),
        ("scrape_configs:\n- static_configs: []\n".into(), "job_name is empty".into()),
        ("scrape_configs:\n-\n".into(), "empty or null scrape config section".into()),
        ("foo: 1\nglobal:\n  bar: 2\n  scrape_interval: [1]\nscrape_configs: {a: b}\n".into(),
         shape("  line 1: field foo not found in type config.plain\n  line 3: field bar not found in type config.plain\n  line 4: cannot unmarshal !!seq into string\n  line 5: cannot unmarshal !!map into []*config.ScrapeConfig")),
        (format!("{job}  honor_labels: maybe\n  sample_limit: -4\n  static_configs:\n  - targets: localhost:9090\n    labels: [a]\n"),
         shape("  line 3: cannot unmarshal !!str `maybe` into bool\n  line 4: cannot unmarshal !!int `-4` into uint\n  line 6: cannot unmarshal !!str `localho...` into []string\n  line 7: cannot unmarshal !!seq into model.LabelSet")),
        (format!("{job}  static_configs:\n  - targets: ['http://a:1/x']\n"), "\"http://a:1/x\" is not a valid hostname".into()),
        (format!("{job}  basic_auth: {{username: a, password: b, password_file: c}}\n"), "at most one of basic_auth password, password_file & password_ref must be configured".into()),
        (format!("{job}  basic_auth: {{username: a}}\n  bearer_token: x\n"), "at most one of basic_auth, oauth2, bearer_token & bearer_token_file must be configured".into()),
        (format!("{job}  bearer_token: x\n  bearer_token_file: y\n"), "at most one of bearer_token & bearer_token_file must be configured".into()),
        (format!("{job}  relabel_configs:\n  - action: foo\n"), "unknown relabel action \"foo\"".into()),
        (format!("{job}  relabel_configs:\n  - action: replace\n"), "relabel configuration for replace action requires 'target_label' value".into()),
        (format!("{job}  relabel_configs:\n  - {{action: hashmod, target_label: a}}\n"), "relabel configuration for hashmod requires non-zero modulus".into()),
        (format!("{job}  relabel_configs:\n  - {{action: labeldrop, target_label: a}}\n"), "labeldrop action requires only 'regex', and no other fields".into()),
        (format!("{job}  relabel_configs:\n  - {{action: keepequal, target_label: a, regex: b}}\n"), "keepequal action requires only 'source_labels' and `target_label`, and no other fields".into()),
        (format!("{job}  relabel_configs:\n  - null\n"), "empty or null target relabeling rule in scrape config".into()),
        (format!("{job}  relabel_configs:\n  - source_labels: a\n"), shape("  line 4: cannot unmarshal !!str `a` into model.LabelNames")),
        (format!("{job}  body_size_limit: 10XB\n"), "units: unknown unit XB in 10XB".into()),
        (format!("{job}  scrape_interval: 5s\n  scrape_timeout: 6s\n"), "scrape timeout greater than scrape interval for scrape config with job name \"a\"".into()),
        (format!("{job}  job_name: b\n"), shape("  line 3: field job_name already set in type config.ScrapeConfig")),
        ("- a\n".into(), shape("  line 1: cannot unmarshal !!seq into config.plain")),
        ("hello\n".into(), shape("  line 1: cannot unmarshal !!str `hello` into config.plain")),
        (format!("{job}  tls_config: {{min_version: TLS9}}\n"), "unknown TLS version: TLS9".into()),
        (format!("{job}  tls_config: {{cert_file: a}}\n"), "exactly one of key or key_file must be configured when a client certificate is configured".into()),
        (format!("{job}  scrape_protocols: []\n"), "scrape_protocols cannot be empty for scrape config with job name \"a\"".into()),
        (format!("{job}  scrape_protocols: [foo]\n"), "scrape_protocols: unknown scrape protocol foo, supported: [OpenMetricsText0.0.1 OpenMetricsText1.0.0 PrometheusProto PrometheusText0.0.4 PrometheusText1.0.0] for scrape config with job name \"a\"".into()),
        (format!("{job}  scrape_protocols: [PrometheusText1.0.0, PrometheusText1.0.0]\n"), "duplicated protocol in scrape_protocols, got [PrometheusText1.0.0 PrometheusText1.0.0] for scrape config with job name \"a\"".into()),
        (format!("{job}  foo_sd_configs: []\n"), shape("  line 3: field foo_sd_configs not found in type config.ScrapeConfig")),
        (format!("{job}  authorization: {{type: basic}}\n"), "authorization type cannot be set to \"basic\", use \"basic_auth\" instead".into()),
        (format!("{job}  params: {{a: b}}\n"), shape("  line 3: cannot unmarshal !!str `b` into []string")),
        (format!("{job}  http_headers: {{Authorization: {{values: [a]}}}}\n"), "setting header \"Authorization\" is not allowed".into()),
        (format!("{job}  static_configs: [null]\n"), "empty or null section in static_configs".into()),
        (format!("{job}  static_configs:\n  - label: 1\n"), shape("  line 4: field label not found in type struct { Targets []string \"yaml:\\\"targets\\\"\"; Labels model.LabelSet \"yaml:\\\"labels\\\"\" }")),
        (format!("{job}  no_proxy: a\n"), "if no_proxy is configured, proxy_url must also be configured".into()),
        (format!("{job}  proxy_url: '::'\n"), "parse \"::\": missing protocol scheme".into()),
        (format!("{job}  metric_name_validation_scheme: foo\n"), "unknown scrape config name validation method specified, must be either 'legacy' or 'utf8', got foo".into()),
        (
            format!("{job}  metric_name_validation_scheme: legacy\n"),
            "utf8 metric names requested but validation scheme is not set to UTF8".into(),
        ),
        (
            format!(
                "{job}  relabel_configs:\n  - {{action: lowercase, target_label: a, replacement: b}}\n"
            ),
            "'replacement' can not be set for lowercase action".into(),
        ),
        ("remote_write: [{}]\n".into(), "url for remote_write is empty".into()),
        ("remote_write: [null]\n".into(), "empty or null remote write config section".into()),
        ("remote_write: [{url: 'http://a', x: 1}]\n".into(), shape("  line 1: field x not found in type config.plain")),
        ("tracing: {}\n".into(), "tracing endpoint must be set".into()),
        ("storage: {x: 1}\n".into(), shape("  line 1: field x not found in type config.StorageConfig")),
        ("global: {external_labels: {'': a}}\n".into(), "\"\" is not a valid label name".into()),
        ("scrape_config_files: abc\nrule_files: {a: b}\n".into(), shape("  line 1: cannot unmarshal !!str `abc` into []string\n  line 2: cannot unmarshal !!map into []string")),
        ("5: 1\n? [a]\n: 1\n".into(), shape("  line 1: field 5 not found in type config.plain\n  line 2: cannot unmarshal !!seq into string")),
    ];
    for (text, expected) in table {
        assert_eq!(message(&text), expected, "{text}");
    }
}

#[test]
fn what_prometheus_accepts_loads() {
    let job = "scrape_configs:\n- job_name: a\n";
    for text in [
        "".to_owned(),
        "# only a comment\n".to_owned(),
        "global: null\nscrape_configs: null\n".to_owned(),
        "global: {external_labels: {a: ~, b: 3, c: yes}}\n".to_owned(),
        "global: {sample_limit: 1e3, body_size_limit: 5MB}\n".to_owned(),
        format!("{job}  honor_labels: yes\n"),
        format!("{job}  scrape_interval: 0s\n"),
        format!("{job}  scheme:\n"),
        format!("{job}  relabel_configs:\n  - {{action: Lowercase, target_label: 'a$'}}\n"),
        "scrape_config_files: [nope.yml]\n".replace("[nope.yml]", "['x/*.yml']"),
        "global: {scrape_interval: 5s}\n---\nb: 1\n".to_owned(),
        "scrape_configs:\n- &x\n  job_name: a\n- <<: *x\n  job_name: b\n".to_owned(),
    ] {
        load_text(&text).unwrap_or_else(|error| panic!("{text}\n{error}"));
    }
}

const HEATPEEK: &str = "\
global:
  scrape_interval:     5s
  external_labels:
      monitor: 'codelab-monitor'
scrape_configs:
  - job_name: 'prometheus'
    static_configs:
      - targets: ['localhost:9090']
  - job_name: 'push-gateway'
    honor_labels: true
    static_configs:
      - targets: ['192.168.2.10:9091']
";

#[test]
fn heatpeek_loads() {
    let config = load_text(HEATPEEK).unwrap();
    assert_eq!(config.global.scrape_interval, Duration::from_secs(5));
    let label = ("monitor".to_owned(), "codelab-monitor".to_owned());
    assert_eq!(config.global.external_labels, [label]);
    let [own, gateway] = &config.scrape_configs[..] else {
        panic!("{config:?}");
    };
    assert!(!own.honor_labels && gateway.honor_labels);
    assert_eq!(gateway.static_configs[0].targets, ["192.168.2.10:9091"]);
    assert_eq!(gateway.scrape_timeout, Duration::from_secs(5));
    assert_eq!(config.warnings(), Vec::<String>::new());
}

const TITAN: &str = "\
scrape_configs:
  - job_name: 'my-application'
    metrics_path: 'myapp/metrics'
    targets: ['shiny-server.com']
    basic_auth:
      username: 'titan'
      password: 'secret2020!'

  - job_name: 'my-other-application'
    metrics_path: 'myapp/metrics'
    targets: ['shiny-server.com']
";

#[test]
fn titan_is_refused_with_both_lines_and_a_way_out() {
    let error = load_text(TITAN).unwrap_err();
    assert_eq!(
        error.to_string(),
        "parsing YAML file prometheus.yml: yaml: unmarshal errors:\n  line 4: field targets not found in type config.ScrapeConfig\n  line 11: field targets not found in type config.ScrapeConfig"
    );
    assert_eq!(
        error.explanation(),
        "\
prometheus.yml:4: job \"my-application\": `targets` belongs under `static_configs`
    4 |     targets: ['shiny-server.com']
  write instead:
      static_configs:
        - targets: ['shiny-server.com']
  same mistake at line 11 (job \"my-other-application\")"
    );
}

#[test]
fn titan_mended_loads_with_its_quirks() {
    let mended = TITAN.replace(
        "    targets: ['shiny-server.com']",
        "    static_configs:\n      - targets: ['shiny-server.com']",
    );
    let config = load_text(&mended).unwrap();
    let job = &config.scrape_configs[0];
    assert_eq!(job.metrics_path, "myapp/metrics");
    assert_eq!(job.static_configs[0].targets, ["shiny-server.com"]);
    let Auth::Basic {
        username,
        password: SecretSource::Inline(password),
        ..
    } = &job.http.auth
    else {
        panic!("{:?}", job.http.auth);
    };
    assert_eq!(
        (username.as_str(), password.expose()),
        ("titan", "secret2020!")
    );
    assert!(!config.redacted_yaml().contains("secret2020!"));
    assert!(!format!("{config:?}").contains("secret2020!"));
}

/// The shape of yosefrow/prometheus-docker-demo's configuration.
#[test]
fn docker_demo_loads() {
    let text = "\
global:
  scrape_interval:     15s
  evaluation_interval: 15s
  external_labels:
    monitor: 'docker-demo'
rule_files:
  # - \"first.rules\"
scrape_configs:
  - job_name: 'prometheus'
    scrape_interval: 5s
    static_configs:
      - targets: ['localhost:9090']
  - job_name: 'prometheus-exporter-py'
    scrape_interval: 5s
    static_configs:
      - targets: ['exposer:8000']
        labels:
          group: 'py_test'
";
    let config = load_text(text).unwrap();
    let exporter = &config.scrape_configs[1].static_configs[0];
    assert_eq!(
        exporter.labels,
        [("group".to_owned(), "py_test".to_owned())]
    );
}

/// The shape of stefanprodan/dockprom's configuration: rules and an Alertmanager.
#[test]
fn dockprom_loads_and_says_what_is_not_served() {
    let text = "\
global:
  scrape_interval:     15s
  evaluation_interval: 15s
  external_labels:
      monitor: 'docker-host-alpha'
rule_files:
  - \"alert.rules\"
scrape_configs:
  - job_name: 'nodeexporter'
    scrape_interval: 5s
    static_configs:
      - targets: ['nodeexporter:9100']
  - job_name: 'pushgateway'
    scrape_interval: 10s
    honor_labels: true
    static_configs:
      - targets: ['pushgateway:9091']
alerting:
  alertmanagers:
  - scheme: http
    static_configs:
    - targets:
      - 'alertmanager:9093'
";
    let config = load_text(text).unwrap();
    assert_eq!(config.rule_files(), ["alert.rules"]);
    let warnings = config.warnings();
    assert_eq!(
        warnings,
        [
            "alerting is accepted but not served yet",
            "rule_files is accepted but not served yet"
        ]
    );
}

/// What the notes name: both old bearer forms, TLS, a proxy, discovery, the blackbox rules.
#[test]
fn the_notes_load() {
    let text = "\
scrape_configs:
  - job_name: old-token
    bearer_token: abc
    static_configs: [{targets: ['a:1']}]
  - job_name: old-token-file
    bearer_token_file: /run/token
    tls_config: {ca_file: ca.pem, insecure_skip_verify: true}
    proxy_url: http://proxy:3128
    consul_sd_configs: [{server: 'localhost:8500', token: hunter2}]
    file_sd_configs: [{files: ['x/*.json']}]
  - job_name: blackbox
    metrics_path: /probe
    params: {module: [http_2xx]}
    static_configs: [{targets: ['http-target.example.org']}]
    relabel_configs:
    - source_labels: [__address__]
      target_label: __param_target
    - source_labels: [__param_target]
      target_label: instance
    - target_label: __address__
      replacement: 127.0.0.1:9115
";
    let config = load_text(text).unwrap();
    let blackbox = &config.scrape_configs[2];
    assert_eq!(blackbox.params["module"], ["http_2xx"]);
    assert_eq!(blackbox.relabel_configs.len(), 3);
    assert_eq!(
        config.warnings(),
        [
            "job \"old-token-file\": not built in yet: consul_sd",
            "job \"old-token-file\": not built in yet: file_sd",
            "job \"old-token-file\": not built in yet: proxy_url",
        ]
    );
    assert!(!config.redacted_yaml().contains("hunter2"));
    assert!(!format!("{config:?}").contains("hunter2"));
    load_text(&config.redacted_yaml()).unwrap();
}

/// A key without a value is Go's zero value, not the default: an empty replacement removes a label.
#[test]
fn a_key_without_a_value_is_empty() {
    let text = "scrape_configs:\n- job_name: a\n  honor_timestamps:\n  scheme:\n  relabel_configs:\n  - target_label: b\n    replacement:\n    separator:\n";
    let config = load_text(text).unwrap();
    let job = &config.scrape_configs[0];
    let rule = &job.relabel_configs[0];
    assert_eq!(
        (rule.replacement.as_str(), rule.separator.as_str()),
        ("", "")
    );
    assert!(!job.honor_timestamps && job.scheme == "http");
}

#[test]
fn explanations_name_the_key_that_was_meant() {
    let job = "scrape_configs:\n- job_name: a\n";
    for (text, told) in [
        (
            format!("{job}  metric_path: /x\n"),
            "did you mean `metrics_path`?",
        ),
        (
            "scrape_interval: 5s\n".to_owned(),
            "`scrape_interval` belongs under `global`",
        ),
        (
            format!("{job}  username: x\n"),
            "`username` belongs under `basic_auth`",
        ),
        (format!("{job}  params: {{a: b}}\n"), "params: {a: [b]}"),
        ("a: [\n".to_owned(), "prometheus.yml:"),
    ] {
        let explanation = load_text(&text).unwrap_err().explanation();
        assert!(explanation.contains(told), "{explanation}");
    }
}

#[test]
fn an_error_shows_no_secret() {
    for text in [
        "scrape_configs:\n- job_name: a\n  basic_auth: {usernme: a, password: hunter2}\n",
        "scrape_configs:\n- job_name: a\n  authorization: hunter2\n",
        "scrape_configs:\n- job_name: a\n  basic_auth: hunter2\n",
        "scrape_configs:\n- job_name: a\n  bearer_token: [hunter2]\n",
        "remote_write: [{url: 'http://u:hunter2@h/', x: 1}]\n",
    ] {
        let error = load_text(text).unwrap_err();
        let all = format!("{error} {error:?} {}", error.explanation());
        assert!(!all.contains("hunter2"), "{all}");
    }
}

#[test]
fn a_missing_file_is_told_as_prometheus_tells_it() {
    let read = |_: &Path| Err::<String, _>(io::Error::from(io::ErrorKind::NotFound));
    let error = load(Path::new("/nope.yml"), &read).unwrap_err();
    assert_eq!(
        error.to_string(),
        "open /nope.yml: no such file or directory"
    );
}

#[test]
fn a_missing_default_is_no_error_nor_is_a_missing_part() {
    let nothing = |_: &Path| Err::<String, _>(io::Error::from(io::ErrorKind::NotFound));
    assert_eq!(load_default(Path::new("p.yml"), &nothing), Ok(None));
    let part = |file: &Path| match file.to_str() {
        Some("p.yml") => Ok("scrape_config_files: [gone.yml]\n".to_owned()),
        _ => nothing(file),
    };
    let config = load_default(Path::new("p.yml"), &part).unwrap().unwrap();
    assert_eq!(
        config.warnings(),
        ["gone.yml, named in scrape_config_files, is not there"]
    );
}

/// Files of `scrape_config_files` beside the configuration, and a variable.
struct Beside;

impl Surroundings for Beside {
    fn read(&self, file: &Path) -> io::Result<String> {
        match file.to_str() {
            Some("etc/p.yml") => Ok("global: {scrape_interval: 7s, external_labels: {zone: '${ZONE}'}}\nscrape_config_files: ['jobs/*.yml']\nscrape_configs: [{job_name: own}]\n".to_owned()),
            Some("etc/jobs/a.yml") => Ok("scrape_configs:\n- job_name: a\n  basic_auth: {password_file: pw}\n".to_owned()),
            Some("etc/jobs/b.yml") => Ok("scrape_configs:\n- job_name: own\n".to_owned()),
            _ => Err(io::Error::from(io::ErrorKind::NotFound)),
        }
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<std::path::PathBuf>> {
        Ok(vec![directory.join("a.yml"), directory.join("x.json")])
    }

    fn variable(&self, name: &str) -> Option<String> {
        (name == "ZONE").then(|| "eu".to_owned())
    }
}

#[test]
fn jobs_of_other_files_inherit_and_paths_start_at_their_file() {
    let config = load(Path::new("etc/p.yml"), &Beside).unwrap();
    let job = &config.scrape_configs[1];
    assert_eq!(job.scrape_interval, Duration::from_secs(7));
    let Auth::Basic { password, .. } = &job.http.auth else {
        panic!("{job:?}");
    };
    assert_eq!(*password, SecretSource::File("etc/jobs/pw".into()));
    assert_eq!(config.global.external_labels[0].1, "eu");
    assert!(!config.redacted_yaml().contains("job_name: a\n"));
}

#[test]
fn a_job_of_another_file_may_not_take_a_name() {
    let read = |file: &Path| match file.to_str() {
        Some("p.yml") => {
            Ok("scrape_config_files: [b.yml]\nscrape_configs: [{job_name: own}]\n".to_owned())
        }
        _ => Beside.read(&Path::new("etc/jobs").join(file)),
    };
    let error = load(Path::new("p.yml"), &read).unwrap_err();
    assert_eq!(error.file(), Path::new("b.yml"));
    let text = error.to_string();
    assert!(
        text.ends_with("found multiple scrape configs with job name \"own\""),
        "{text}"
    );
}

/// What Prometheus 3.5.3 shows at /api/v1/status/config for the same file, but for Go's `gogc`
/// and the section of OTLP, which is not served.
#[test]
fn the_printed_configuration_is_prometheus_own() {
    let text = include_str!("testdata/full.yml");
    let printed = load_text(text).unwrap().redacted_yaml();
    assert_eq!(printed, include_str!("testdata/full.printed.yml"));
    let again = load_text(&printed.replace("a$b", "a$$b")).unwrap();
    assert_eq!(again.redacted_yaml(), printed);
}

proptest! {
    #[test]
    fn any_text_is_loaded_or_refused(text in "[\\PC\\n ]{0,200}") {
        load_text(&text).ok();
    }

    /// Lines of real keys, with values of every type, in any indentation.
    #[test]
    fn any_keys_and_values_are_loaded_or_refused(lines in prop::collection::vec((0usize..4, 0usize..20, 0usize..14), 0..20)) {
        const KEYS: [&str; 20] = ["global:", "scrape_configs:", "- job_name:", "static_configs:", "- targets:", "labels:", "relabel_configs:", "- source_labels:", "regex:", "basic_auth:", "password:", "tls_config:", "scrape_interval:", "scrape_protocols:", "params:", "http_headers:", "storage:", "tsdb:", "alerting:", "remote_write:"];
        const VALUES: [&str; 14] = ["", " a", " [a, b]", " {a: b}", " 5s", " 1", " null", " '('", " [[]]", " {a: [b]}", " true", " {values: [1]}", " -1", " *x"];
        let mut text = String::new();
        for (indent, key, value) in lines {
            text.push_str(&format!("{}{}{}\n", "  ".repeat(indent), KEYS[key], VALUES[value]));
        }
        if let Err(error) = load_text(&text) {
            error.explanation();
        }
    }
}
