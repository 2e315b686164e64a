//! `--cluster.max-series`, from outside: what is new is refused, what is known goes on, whichever
//! way it comes.

#[allow(dead_code, reason = "other tests need more of it")]
mod rig;

use rig::{Exporter, Home, Node, now_ms, request, wait_for, write_request};

/// Each of four shards takes ten.
const FLAGS: [&str; 2] = ["--cluster.max-series=40", "--config.file=p.yml"];

fn remote_write(node: &Node, names: &[&str], value: f64) -> (u16, String) {
    let labels: Vec<[(&str, &str); 1]> = names.iter().map(|name| [("__name__", *name)]).collect();
    let series: Vec<(&[(&str, &str)], f64)> = labels.iter().map(|l| (&l[..], value)).collect();
    let body = write_request(&series, now_ms());
    let headers = [
        ("content-type", "application/x-protobuf"),
        ("content-encoding", "snappy"),
        ("x-prometheus-remote-write-version", "0.1.0"),
    ];
    let answer = request(node.api(), "POST", "/api/v1/write", &headers, &body);
    (answer.code, answer.body)
}

fn push(node: &Node, body: &str) -> u16 {
    push_to(node, "p", body).0
}

fn push_to(node: &Node, path: &str, body: &str) -> (u16, String) {
    let path = format!("/metrics/job/{path}");
    let answer = request(node.push(), "POST", &path, &[], body.as_bytes());
    (answer.code, answer.body)
}

fn refused(node: &Node) -> f64 {
    let metrics = node.get("/metrics").body;
    let wanted = "quorate_tsdb_samples_rejected_total{";
    let lines = metrics
        .lines()
        .filter(|line| line.starts_with(wanted) && line.contains("reason=\"series_limit\""));
    let values = lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
    values.sum()
}

/// What the groups are, without the node's own telemetry.
fn pushed_lines(page: &str) -> Vec<&str> {
    let pushed = page.lines().filter(|line| line.contains("job=\""));
    pushed.collect()
}

/// New series until every shard refuses them: sixty in a row that all miss one of four shards are
/// one case in thirty million.
fn fill(node: &Node) {
    let mut refused = 0;
    for n in 0..1000 {
        let (code, why) = remote_write(node, &[&format!("fill_{n}")], 1.0);
        assert!(code == 204 || code == 429, "{code} {why}");
        refused = if code == 429 { refused + 1 } else { 0 };
        if refused == 60 {
            return;
        }
    }
    panic!("the limit is not reached");
}

#[test]
fn new_series_are_refused_and_known_ones_taken_whichever_way_they_come() {
    let exporter = Exporter::start("scraped 1\n");
    let mut home = Home::new();
    home.write(
        "p.yml",
        &format!(
            "global: {{scrape_interval: 200ms}}\n\
             scrape_configs: [{{job_name: s, static_configs: [{{targets: ['{}']}}]}}]\n",
            exporter.address
        ),
    );
    let node = home.start_ready(&FLAGS);
    // Each way in has one series before there are too many.
    assert_eq!(push(&node, "pushed 1\n"), 200);
    assert_eq!(remote_write(&node, &["written"], 1.0).0, 204);
    wait_for("a scrape", || {
        (node.query("scraped{job=\"s\"}") == ["1"]).then_some(())
    });
    fill(&node);
    assert_eq!(node.query("count({__name__=~\".+\"})"), ["40"]);

    // Remote write: the known row is stored, the answer names the new one.
    let before = refused(&node);
    let (code, why) = remote_write(&node, &["written", "new_written"], 2.0);
    assert_eq!(code, 429, "{why}");
    assert!(
        why.contains("--cluster.max-series") && why.contains("new_written"),
        "{why}"
    );
    assert_eq!(node.query("written"), ["2"]);
    assert!(node.query("new_written").is_empty());
    assert!(refused(&node) > before);

    // A push that brings a new series is refused whole, one of known series goes on.
    let groups = || request(node.push(), "GET", "/metrics", &[], b"").body;
    let before = groups();
    let (code, why) = push_to(&node, "p", "pushed 2\nnew_pushed 2\n");
    assert_eq!(code, 429, "{why}");
    assert!(
        why.contains("--cluster.max-series") && why.contains("new_pushed"),
        "{why}"
    );
    // A group is new series by itself, its time to live is one.
    for path in ["new_job", "p?ttl=5m"] {
        let (code, why) = push_to(&node, path, "");
        assert_eq!(code, 429, "{path}: {why}");
        assert!(why.contains("push_"), "{why}");
    }
    assert_eq!(pushed_lines(&groups()), pushed_lines(&before));
    assert_eq!(node.query("pushed"), ["1"]);
    assert!(node.query("new_pushed").is_empty());
    assert_eq!(push(&node, "pushed 2\n"), 200);
    assert_eq!(node.query("pushed"), ["2"]);
    let deleted = request(node.push(), "DELETE", "/metrics/job/not_there", &[], b"");
    assert_eq!(deleted.code, 202, "{}", deleted.body);

    // A scrape: known series go on, the target is up.
    exporter.show("scraped 2\nnew_scraped 2\n");
    wait_for("another scrape", || {
        (node.query("scraped{job=\"s\"}") == ["2"]).then_some(())
    });
    assert!(node.query("new_scraped").is_empty());
    assert_eq!(node.query("up{job=\"s\"}"), ["1"]);

    // The limit is one of what is stored: it holds behind a restart.
    node.kill();
    let node = home.start_ready(&FLAGS);
    assert_eq!(remote_write(&node, &["new_written"], 3.0).0, 429);
    assert_eq!(remote_write(&node, &["written"], 3.0).0, 204);
}
