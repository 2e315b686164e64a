//! Command lines that must be understood, and the exact words for those that are not.

use proptest::prelude::*;

use super::*;

fn run(line: &str) -> Result<Flags, UsageError> {
    match parse(line.split_whitespace().map(str::to_owned))? {
        Command::Run(flags) => Ok(*flags),
        other => panic!("{line}: {other:?}"),
    }
}

fn told(line: &str) -> (String, u8) {
    let error = run(line).expect_err(line);
    (error.message, error.exit_code)
}

#[test]
fn nothing_given_is_a_working_node() {
    let flags = run("./quorate").unwrap();
    assert_eq!(flags.program, Program::Quorate);
    assert_eq!(flags.config_file, PathBuf::from("prometheus.yml"));
    assert!(!flags.config_file_given);
    let texts =
        |addresses: &[Address]| addresses.iter().map(Address::to_string).collect::<Vec<_>>();
    assert_eq!(texts(&flags.web_listen_addresses), ["0.0.0.0:9090"]);
    assert_eq!(texts(&flags.push_listen_addresses), [":9091"]);
    assert_eq!(flags.storage.path, PathBuf::from("data/"));
    assert_eq!(
        flags.storage.retention_time,
        Some(Duration::from_secs(15 * 86_400))
    );
    assert!(flags.web.enable_remote_write_receiver);
    assert_eq!(
        (flags.cluster.shards, flags.cluster.replication_factor),
        (0, 3)
    );
    assert_eq!(flags.cluster.bootstrap_expect, 1);
    assert_eq!(
        flags.cluster.advertise_address.unwrap().to_string(),
        "127.0.0.1:9092"
    );
    assert_eq!(flags.warnings, Vec::<String>::new());
}

/// The command list of stefanprodan/dockprom, the unit of titan, the image of prom/prometheus.
#[test]
fn existing_units_start() {
    let dockprom = run(
        "/bin/prometheus --config.file=/etc/prometheus/prometheus.yml --storage.tsdb.path=/prometheus --web.console.libraries=/etc/prometheus/console_libraries --web.console.templates=/etc/prometheus/consoles --storage.tsdb.retention.time=200h --web.enable-lifecycle",
    )
    .unwrap();
    assert_eq!(dockprom.program, Program::Prometheus);
    assert!(dockprom.web.enable_lifecycle && dockprom.config_file_given);
    assert_eq!(
        dockprom.storage.retention_time,
        Some(Duration::from_secs(200 * 3600))
    );
    assert_eq!(
        dockprom.warnings,
        [
            "--web.console.templates has no effect yet: console pages are not served",
            "--web.console.libraries has no effect yet: console pages are not served",
        ]
    );
    assert!(dockprom.push_listen_addresses.is_empty());
    assert!(dockprom.cluster.listen_address.is_none());
    assert!(!dockprom.web.enable_remote_write_receiver);
    run("/prometheus/prometheus --config.file=/prometheus/prometheus.yml --web.enable-lifecycle")
        .unwrap();
    run("prometheus --config.file a.yml --storage.tsdb.path /x --no-web.enable-lifecycle").unwrap();
}

#[test]
fn a_pushgateway_opens_its_one_port() {
    let bare = run("/bin/pushgateway").unwrap();
    assert!(bare.web_listen_addresses.is_empty() && bare.cluster.listen_address.is_none());
    assert_eq!(bare.push_listen_addresses[0].to_string(), ":9091");
    let full = run("pushgateway --web.listen-address=:9191 --web.telemetry-path=m --persistence.file=/var/p --persistence.interval=1m --push.enable-utf8-names --push.disable-consistency-check").unwrap();
    assert_eq!(full.push_listen_addresses[0].port, 9191);
    assert_eq!(full.web.telemetry_path, "/m");
    assert_eq!(full.storage.path, PathBuf::from("/var/p.quorate"));
    assert!(full.push.enable_utf8_names && full.push.disable_consistency_check);
    assert!(full.warnings.is_empty() && !full.push.enable_admin_api);
    let orders = "--web.enable-admin-api --web.enable-lifecycle";
    let own = run(&format!("pushgateway {orders}")).unwrap().push;
    assert!(own.enable_admin_api && own.enable_lifecycle);
    // Beside Prometheus' API, the push listener takes orders only when asked itself.
    let beside = run(&format!("quorate {orders}")).unwrap().push;
    assert!(!beside.enable_admin_api && !beside.enable_lifecycle);
    let (message, _) = told("pushgateway --storage.tsdb.path=x");
    assert!(message.contains("unknown long flag"), "{message}");
}

#[test]
fn promtool_keeps_its_arguments() {
    let command = parse(["/usr/bin/promtool", "check", "config"].map(str::to_owned)).unwrap();
    let arguments = vec!["check".to_owned(), "config".to_owned()];
    assert_eq!(command, Command::Promtool(arguments));
}

#[test]
fn what_is_not_understood_is_told() {
    for (line, message, exit_code) in [
        (
            "quorate --config.fil=x",
            "unknown long flag '--config.fil'; did you mean --config.file?",
            1,
        ),
        (
            "quorate --web.listen-adress=:1",
            "unknown long flag '--web.listen-adress'; did you mean --web.listen-address?",
            1,
        ),
        (
            "quorate --frobnicate",
            "unknown long flag '--frobnicate'; --help lists all flags",
            1,
        ),
        (
            "quorate --no-config.file",
            "unknown long flag '--no-config.file'; did you mean --config.file?",
            1,
        ),
        (
            "quorate -config.file=x.yml",
            "unknown short flag '-c': -config.file is the Prometheus 1.x form; write --config.file=x.yml",
            1,
        ),
        (
            "quorate -storage.local.path /data",
            "unknown short flag '-s': -storage.local.path is the Prometheus 1.x form; write --storage.tsdb.path=…",
            1,
        ),
        (
            "quorate -alertmanager.url=http://a",
            "unknown short flag '-a': -alertmanager.url is the Prometheus 1.x form; name the Alertmanager under `alerting` in the configuration file",
            1,
        ),
        (
            "quorate -storage.local.memory-chunks=1",
            "unknown short flag '-s': -storage.local.memory-chunks is a Prometheus 1.x flag that is gone; remove it",
            1,
        ),
        (
            "quorate extra",
            "unexpected extra: only flags are understood",
            1,
        ),
        (
            "quorate --config.file",
            "expected argument for flag '--config.file'",
            1,
        ),
        (
            "quorate --web.enable-lifecycle=true",
            "unexpected true: --web.enable-lifecycle takes no value; write --web.enable-lifecycle or --no-web.enable-lifecycle",
            1,
        ),
        (
            "quorate --config.file=a --config.file=b",
            "flag 'config.file' cannot be repeated",
            2,
        ),
        (
            "quorate --query.timeout=abc",
            "--query.timeout=abc: not a valid duration string: \"abc\"; expected a duration such as 15s, 5m, 1h30m or 15d",
            2,
        ),
        (
            "quorate --storage.tsdb.retention.size=abc",
            "--storage.tsdb.retention.size=abc: units: invalid abc; expected a size with its unit such as 512MB or 20GB",
            2,
        ),
        (
            "quorate --query.max-samples=x",
            "--query.max-samples=x: expected a whole number, 0 or more",
            2,
        ),
        (
            "quorate --log.level=foo",
            "--log.level=foo: expected one of: debug, info, warn, error",
            2,
        ),
        (
            "quorate --web.listen-address=abc",
            "--web.listen-address=abc: missing port in address; expected host:port or :port",
            2,
        ),
        ("quorate --web.cors.origin=(", "--web.cors.origin=(: ", 2),
        (
            "quorate --query.lookback-delta=0s",
            "--query.lookback-delta=0s: expected more than 0s: with none, no query finds a sample",
            2,
        ),
        (
            "quorate --cluster.shards=4097",
            "--cluster.shards=4097: expected a number from 0 to 4096",
            2,
        ),
        (
            "quorate --cluster.replication-factor=2",
            "--cluster.replication-factor=2: expected 1, 3, 5 or 7: an even number of copies survives no more failures than one less",
            2,
        ),
        (
            "quorate --cluster.replication-factor=9",
            "--cluster.replication-factor=9: expected a number from 1 to 7",
            2,
        ),
        (
            "quorate --cluster.bootstrap-expect=3",
            "--cluster.bootstrap-expect=3: the other nodes cannot be found: give --cluster.join or --consul.address",
            2,
        ),
        (
            "quorate --cluster.join=a:1",
            "--cluster.advertise-address=: :9092 is every interface: give the address under which the other nodes reach this one",
            2,
        ),
        (
            "quorate --cluster.join=:1",
            "--cluster.join=:1: expected host:port: this names no host to connect to",
            2,
        ),
        (
            "quorate --cluster.join=a:1 --cluster.listen-address=",
            "--cluster.listen-address=: expected an address: without one the other nodes cannot reach this one",
            2,
        ),
        (
            "quorate --cluster.advertise-address=0.0.0.0:1",
            "--cluster.advertise-address=0.0.0.0:1: expected host:port: this names no host to connect to",
            2,
        ),
        (
            "quorate --agent",
            "--agent=true: there is no agent mode, and a server would store what an agent only forwards",
            2,
        ),
        (
            "pushgateway --web.systemd-socket",
            "--web.systemd-socket=true: socket activation is not built in, so nothing would listen",
            2,
        ),
    ] {
        let (text, code) = told(line);
        assert!(
            text.starts_with(message),
            "{line}\n got: {text}\nwant: {message}"
        );
        assert_eq!(code, exit_code, "{line}");
    }
}

#[test]
fn clusters_are_checked_as_a_whole() {
    let node = run("quorate --cluster.listen-address=127.0.0.1:9192 --cluster.join=127.0.0.1:9192,127.0.0.1:9292 --cluster.join=127.0.0.1:9392 --cluster.bootstrap-expect=3").unwrap();
    assert_eq!(node.cluster.join.len(), 3);
    assert_eq!(node.cluster.advertise_address, node.cluster.listen_address);
    let consul = run("prometheus --consul.address=127.0.0.1:8500 --cluster.bootstrap-expect=3 --cluster.advertise-address=n1:9092").unwrap();
    assert_eq!(consul.cluster.listen_address.unwrap().to_string(), ":9092");
    assert_eq!(consul.cluster.advertise_address.unwrap().host, "n1");
    assert_eq!(consul.cluster.consul_service, "quorate");
}

#[test]
fn a_size_takes_the_place_of_the_default_time() {
    let retention = |line: &str| {
        let storage = run(line).unwrap().storage;
        (
            storage.retention_time.map(|t| t.as_secs() / 3600),
            storage.retention_size_bytes,
        )
    };
    let gib = Some(1 << 30);
    assert_eq!(
        retention("quorate --storage.tsdb.retention.size=1GB"),
        (None, gib)
    );
    assert_eq!(
        retention("quorate --storage.tsdb.retention.size=1GB --storage.tsdb.retention.time=2h"),
        (Some(2), gib)
    );
    assert_eq!(
        retention("quorate --storage.tsdb.retention.time=0s"),
        (Some(360), None)
    );
}

#[test]
fn prefixes_come_from_the_external_url_unless_given() {
    for (line, prefix) in [
        ("quorate", ""),
        ("quorate --web.external-url=http://h:1/prom/", "/prom"),
        (
            "quorate --web.external-url=http://h:1/prom/ --web.route-prefix=/",
            "",
        ),
        ("quorate --web.route-prefix=a/b", "/a/b"),
        ("quorate --web.external-url=https://h?x=/y", ""),
    ] {
        assert_eq!(run(line).unwrap().web.route_prefix, prefix, "{line}");
    }
}

/// The names and values Prometheus 3.5.3 lists at /api/v1/status/flags for its defaults; the
/// paths are the package's own.
#[test]
fn the_listing_has_every_flag_of_prometheus() {
    let listing: BTreeMap<String, String> =
        run("prometheus").unwrap().listing().into_iter().collect();
    let theirs = include_str!("testdata/listing.txt");
    for line in theirs.lines() {
        let (name, value) = line.split_once(" = ").unwrap();
        let ours = listing
            .get(name)
            .unwrap_or_else(|| panic!("{name} is missing"));
        let own_default = name.ends_with("path")
            || name.starts_with("web.console")
            || matches!(
                name,
                "config.file" | "web.remote-write-receiver.accepted-protobuf-messages"
            );
        assert!(
            own_default || ours == value,
            "{name}: {ours:?}, theirs {value:?}"
        );
    }
    let given = run("prometheus --storage.tsdb.retention.time=48h --web.listen-address=:1 --web.listen-address=:2").unwrap();
    let listing: BTreeMap<String, String> = given.listing().into_iter().collect();
    assert_eq!(listing["storage.tsdb.retention.time"], "2d");
    assert_eq!(listing["web.listen-address"], ":1,:2");
}

#[test]
fn every_default_is_valid_and_every_flag_has_help() {
    for program in [Program::Quorate, Program::Prometheus, Program::Pushgateway] {
        let Ok(Command::Print(help)) = parse([name(program), "--help"].map(str::to_owned)) else {
            panic!("help is printed");
        };
        // A flag with its default stands in one line, however long.
        let mut words = help.lines().filter(|l| !l.trim_start().starts_with("--"));
        assert!(words.all(|line| line.chars().count() <= 96), "{help}");
        let mut seen = Vec::new();
        for flag in table::of(program) {
            assert!(!seen.contains(&flag.name), "{} is there twice", flag.name);
            seen.push(flag.name);
            let default = table::default_of(flag, program);
            if !default.is_empty() {
                value::check(flag, default).unwrap();
            }
            let shown = help.contains(flag.name);
            assert!(
                shown || matches!(flag.state, State::Hidden(_)),
                "{}",
                flag.name
            );
        }
    }
}

fn name(program: Program) -> &'static str {
    match program {
        Program::Quorate => "quorate",
        Program::Prometheus => "prometheus",
        Program::Pushgateway => "pushgateway",
    }
}

#[test]
fn the_version_begins_as_prometheus_does() {
    let Ok(Command::Print(version)) = parse(["prometheus", "--version"].map(str::to_owned)) else {
        panic!("the version is printed");
    };
    let start = format!(
        "prometheus, version {} (branch: ",
        env!("CARGO_PKG_VERSION")
    );
    assert!(version.starts_with(&start), "{version}");
}

proptest! {
    #[test]
    fn any_arguments_are_understood_or_refused(
        program in prop::sample::select(vec!["quorate", "prometheus", "pushgateway"]),
        arguments in prop::collection::vec("(--?)?(no-)?(web|storage\\.tsdb|cluster|query|log)?\\.?(path|listen-address|join|timeout|shards|level)?=?\\PC{0,8}", 0..5),
    ) {
        let all = std::iter::once(program.to_owned()).chain(arguments);
        parse(all).ok();
    }
}
