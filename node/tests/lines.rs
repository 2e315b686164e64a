//! Lines by plain sockets to a running node, and what queries find of them.
#![allow(
    clippy::disallowed_types,
    reason = "a test is a client outside of the program"
)]

#[allow(dead_code, reason = "other tests need more of it")]
mod rig;

use std::io::Write;
use std::net::{SocketAddr, TcpStream, UdpSocket};

use rig::{Home, Node, now_ms, request, wait_for};

/// Where a receiver listens, from the log.
fn address(node: &Node, what: &str) -> SocketAddr {
    let end = format!(" what={what}");
    wait_for("line receiver", || {
        let log = node.log();
        let line = log.lines().find_map(|line| line.strip_suffix(&end))?;
        line.rsplit_once("address=")?.1.parse().ok()
    })
}

fn send(address: SocketAddr, bytes: &[u8]) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(bytes).unwrap();
}

fn counter(node: &Node, line: &str) -> Option<u64> {
    let metrics = node.get("/metrics").body;
    let found = metrics.lines().find_map(|l| l.strip_prefix(line))?;
    found.trim().parse().ok()
}

#[test]
fn graphite_by_tcp_udp_and_pickle() {
    let mut home = Home::new();
    let rules = "mappings:\n- {match: 'servers.*.load', name: load, labels: {host: $1}}\n\
                 - {match: 'secret.*', name: x, action: drop}\n";
    let rules = home.write("graphite.yml", rules);
    let node = home.start_ready(&[
        "--graphite.listen-address=127.0.0.1:0",
        "--graphite.pickle-listen-address=127.0.0.1:0",
        &format!("--graphite.mapping-config={}", rules.display()),
    ]);
    let plain = address(&node, "graphite");
    let now = now_ms() / 1000;
    let lines = format!("servers.a.load 1.5 {now}\nsecret.b 1 {now}\nbad\nx.y;t=1 2 {now}\n");
    send(plain, lines.as_bytes());
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket
        .send_to(format!("udp.line 3 {now}").as_bytes(), plain)
        .unwrap();
    let message = format!("(lp0\n(S'pickled.line'\n(I{now}\nI4\nttp1\na.");
    let mut framed = (message.len() as u32).to_be_bytes().to_vec();
    framed.extend(message.as_bytes());
    send(address(&node, "graphite-pickle"), &framed);
    for (query, value) in [
        ("load{host=\"a\"}", "1.5"),
        ("x_y{t=\"1\"}", "2"),
        ("udp_line", "3"),
        ("pickled_line", "4"),
    ] {
        let found = wait_for(query, || Some(node.query(query)).filter(|v| !v.is_empty()));
        assert_eq!(found, [value], "{query}");
    }
    for (result, count) in [("stored", 4), ("malformed", 1), ("dropped", 1), ("lost", 0)] {
        let line = format!("quorate_graphite_lines_total{{result=\"{result}\"}}");
        wait_for(&line, || counter(&node, &line).filter(|n| *n == count));
    }
}

#[test]
fn influx_and_json_over_http_survive_a_kill() {
    let mut home = Home::new();
    let node = home.start_ready(&[]);
    let now = now_ms();
    let line = format!("cpu,host=a usage=0.5,value=7i {now}\n");
    let path = "/api/v2/write?org=o&bucket=b&precision=ms";
    let answer = request(node.api(), "POST", path, &[], line.as_bytes());
    assert_eq!(answer.code, 204, "{answer:?}");
    let json = format!(
        "{{\"metric\":{{\"__name__\":\"j\",\"a\":\"b\"}},\"values\":[1,2.5],\"timestamps\":[{},{now}]}}\n",
        now - 1000
    );
    let answer = request(node.api(), "POST", "/api/v1/import", &[], json.as_bytes());
    assert_eq!(answer.code, 204, "{answer:?}");
    let early = format!("m value=1 {}\n", now + 3_600_000);
    let path = "/write?precision=ms";
    let answer = request(node.api(), "POST", path, &[], early.as_bytes());
    assert_eq!(answer.code, 400, "{answer:?}");
    assert!(answer.body.contains("line 1: out of bounds"), "{answer:?}");
    node.kill();
    let node = home.start_ready(&[]);
    assert_eq!(node.query("cpu_usage{host=\"a\",db=\"b\"}"), ["0.5"]);
    assert_eq!(node.query("cpu{host=\"a\"}"), ["7"]);
    let exported = node.get("/api/v1/export?match[]=j").body;
    assert_eq!(exported, json);
}

#[test]
fn a_mapping_that_is_wrong_is_told_at_the_start() {
    let mut home = Home::new();
    let rules = home.write("graphite.yml", "mappings: [{match: a.b, nam: x}]\n");
    let mut node = home.start(&[
        "--graphite.listen-address=127.0.0.1:0",
        &format!("--graphite.mapping-config={}", rules.display()),
    ]);
    assert!(!node.exit().success());
    let log = node.log();
    assert!(log.contains("graphite.mapping-config"), "{log}");
    assert!(log.contains("unknown field `nam`"), "{log}");
}

#[test]
fn statsd_is_added_up() {
    let mut home = Home::new();
    let node = home.start_ready(&[
        "--statsd.listen-address=127.0.0.1:0",
        "--statsd.flush-interval=200ms",
        "--push.history-interval=1s",
    ]);
    let to = address(&node, "statsd");
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    for _ in 0..10 {
        socket
            .send_to(b"hits:2|c|#path:/a\nlatency:30|ms", to)
            .unwrap();
    }
    send(to, b"hits:5|c|#path:/a\nload:3|g\nload:+1|g\nset:1|s\n");
    for (query, value) in [
        ("hits{path=\"/a\",job=\"statsd\"}", "25"),
        ("load", "4"),
        ("latency_count", "10"),
        ("latency_bucket{le=\"0.05\"}", "10"),
        ("latency_bucket{le=\"0.025\"}", "0"),
    ] {
        wait_for(query, || Some(node.query(query)).filter(|v| v == &[value]));
    }
    let groups = request(node.push(), "GET", "/metrics", &[], b"").body;
    assert!(groups.contains("# TYPE hits counter\n"), "{groups}");
    let line = "quorate_statsd_lines_total{result=\"malformed\"}";
    wait_for(line, || counter(&node, line).filter(|n| *n == 1));
}
