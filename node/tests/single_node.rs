//! One node as a user runs it: pushed to, written to, scraping, queried, killed, started again.

mod rig;

use rig::{Exporter, Home, Node, now_ms, request, wait_for, write_request};
use rustix::process::Signal;

fn push(node: &Node, path: &str, body: &str) -> u16 {
    request(node.push(), "PUT", path, &[], body.as_bytes()).code
}

fn remote_write(node: &Node, series: &[(&[(&str, &str)], f64)], at_ms: i64) -> u16 {
    let body = write_request(series, at_ms);
    let headers = [
        ("content-type", "application/x-protobuf"),
        ("content-encoding", "snappy"),
        ("x-prometheus-remote-write-version", "0.1.0"),
    ];
    request(node.api(), "POST", "/api/v1/write", &headers, &body).code
}

const WRITTEN: &[(&str, &str)] = &[("__name__", "written"), ("job", "remote")];

/// All that [`what_was_acknowledged_survives_kill_9`] put in.
fn has_everything(node: &Node, samples: usize) {
    assert_eq!(node.query("pushed{instance=\"b\"}"), ["3"]);
    assert_eq!(
        node.query("count_over_time(written[10m])"),
        [samples.to_string()]
    );
    let groups = request(node.push(), "GET", "/metrics", &[], b"").body;
    assert!(
        groups.contains("pushed{instance=\"b\",job=\"a\"} 3\n"),
        "{groups}"
    );
    let path = format!("/federate?match[]={}", rig::escape("{job=\"remote\"}"));
    let federated = node.get(&path).body;
    assert!(
        federated.starts_with("# TYPE written untyped\nwritten{job=\"remote\",instance=\"\"} "),
        "{federated}"
    );
    let names = node.get("/api/v1/label/__name__/values").body;
    for name in ["pushed", "written", "push_time_seconds"] {
        assert!(names.contains(&format!("\"{name}\"")), "{names}");
    }
}

#[test]
fn what_was_acknowledged_survives_kill_9() {
    let mut home = Home::new();
    let node = home.start_ready(&[]);
    let body = "# TYPE pushed gauge\npushed 3\n";
    assert_eq!(push(&node, "/metrics/job/a/instance/b", body), 200);
    let begin = now_ms() - 100_000;
    let mut samples = 0;
    for round in 0..50 {
        let at = begin + round * 1000;
        if remote_write(&node, &[(WRITTEN, round as f64)], at) == 204 {
            samples += 1;
        }
    }
    assert_eq!(samples, 50, "a healthy node acknowledges everything");
    has_everything(&node, samples);
    // The same again changes nothing.
    assert_eq!(remote_write(&node, &[(WRITTEN, 0.0)], begin), 204);
    node.kill();

    let node = home.start_ready(&[]);
    has_everything(&node, samples);
    assert_eq!(remote_write(&node, &[(WRITTEN, 50.0)], begin + 50_000), 204);
    node.kill();

    let mut node = home.start_ready(&[]);
    has_everything(&node, samples + 1);
    node.signal(Signal::TERM);
    assert_eq!(node.exit().code(), Some(0), "{}", node.log());
}

#[test]
fn a_deleted_group_stays_deleted() {
    let mut home = Home::new();
    let node = home.start_ready(&[]);
    assert_eq!(push(&node, "/metrics/job/gone", "x 1\n"), 200);
    assert_eq!(push(&node, "/metrics/job/kept", "x 2\n"), 200);
    let deleted = request(node.push(), "DELETE", "/metrics/job/gone", &[], b"");
    assert_eq!(deleted.code, 202);
    node.kill();
    let node = home.start_ready(&[]);
    let page = request(node.push(), "GET", "/metrics", &[], b"").body;
    assert!(page.contains("x{instance=\"\",job=\"kept\"} 2\n"), "{page}");
    assert!(!page.contains("job=\"gone\""), "{page}");
}

fn config(exporter: &Exporter, label: &str) -> String {
    format!(
        "global: {{scrape_interval: 200ms, external_labels: {{site: {label}}}}}\n\
         scrape_configs:\n\
         - job_name: app\n\
         \x20 static_configs: [{{targets: ['{}']}}]\n",
        exporter.address
    )
}

#[test]
fn targets_are_scraped_and_end_with_their_configuration() {
    let exporter = Exporter::start("# TYPE hits_total counter\nhits_total 1\nother 5\n");
    let mut home = Home::new();
    home.write("p.yml", &config(&exporter, "north"));
    let flags = ["--config.file=p.yml", "--web.enable-lifecycle"];
    let node = home.start_ready(&flags);
    wait_for("first scrape", || {
        (node.query("up{job=\"app\"}") == ["1"]).then_some(())
    });
    assert_eq!(node.query("hits_total"), ["1"]);
    // The samples are there a moment before the target's state tells of them.
    wait_for("state of the target", || {
        let targets = node.get("/api/v1/targets").body;
        targets.contains("\"health\":\"up\"").then_some(())
    });
    // External labels leave the cluster and are not stored.
    assert!(node.query("up{site=\"north\"}").is_empty());
    let federated = node.get("/federate?match[]=hits_total").body;
    assert!(federated.contains("site=\"north\""), "{federated}");

    // A series that is no longer exposed ends at the next scrape.
    exporter.show("hits_total 2\n");
    wait_for("end of a series", || {
        node.query("other").is_empty().then_some(())
    });

    // A bad file changes nothing.
    home.write("p.yml", "scrape_configs: [{job: typo}]\n");
    let failed = node.post("/-/reload");
    assert_eq!(failed.code, 500);
    assert!(failed.body.contains("field job not found"), "{failed:?}");
    let metrics = node.get("/metrics").body;
    assert!(metrics.contains("prometheus_config_last_reload_successful 0\n"));
    let before = node.query("count_over_time(up[5m])");
    wait_for("another scrape", || {
        (node.query("count_over_time(up[5m])") != before).then_some(())
    });

    // Nor do external labels change half.
    home.write("p.yml", &config(&exporter, "south"));
    node.signal(Signal::HUP);
    wait_for("new external label", || {
        let federated = node.get("/federate?match[]=hits_total").body;
        federated.contains("site=\"south\"").then_some(())
    });

    // A target that is gone ends with all its series.
    home.write("p.yml", "global: {scrape_interval: 200ms}\n");
    assert_eq!(node.post("/-/reload").code, 200);
    wait_for("staleness markers", || {
        node.query("{job=\"app\"}").is_empty().then_some(())
    });
    assert!(node.get("/metrics").body.contains("successful 1\n"));
}

/// A push listener's page is the cluster's history already: scraped as well, it would be there twice.
#[test]
fn our_own_push_listener_may_be_scraped() {
    let mut home = Home::new();
    home.write("p.yml", "");
    let node = home.start_ready(&["--web.enable-lifecycle", "--config.file=p.yml"]);
    assert_eq!(push(&node, "/metrics/job/a", "x 1\n"), 200);
    let address = node.push();
    home.write(
        "p.yml",
        &format!(
            "global: {{scrape_interval: 200ms}}\n\
             scrape_configs: [{{job_name: pushed, static_configs: [{{targets: ['{address}']}}]}}]\n"
        ),
    );
    assert_eq!(node.post("/-/reload").code, 200);
    wait_for("scrape", || {
        (node.query("up{job=\"pushed\"}") == ["1"]).then_some(())
    });
    assert_eq!(node.query("count(process_open_fds{job=\"pushed\"})"), ["1"]);
    assert_eq!(node.query("count({__name__=\"x\"})"), ["1"]);
}

#[test]
fn quitting_over_http_is_a_clean_end() {
    let mut home = Home::new();
    let mut node = home.start_ready(&["--web.enable-lifecycle"]);
    assert_eq!(node.post("/-/quit").code, 200);
    assert_eq!(node.exit().code(), Some(0), "{}", node.log());
}

/// The codes and streams Prometheus 3.5.3 ends with.
#[test]
fn what_is_wrong_at_the_start_ends_the_process() {
    let mut home = Home::new();
    home.write("bad.yml", "global:\n  scrape_intervall: 5s\n");
    for (flags, code, text) in [
        (&["--config.file=bad.yml"][..], 2, "scrape_intervall"),
        (&["--config.file=none.yml"], 2, "none.yml"),
        (&["--storage.tsdb.pth=x"], 1, "did you mean"),
        (&["--query.timeout=soon"], 2, "query.timeout"),
    ] {
        let mut node = home.start(flags);
        assert_eq!(node.exit().code(), Some(code), "{flags:?}: {}", node.log());
        assert!(node.log().contains(text), "{flags:?}: {}", node.log());
    }
    let _first = home.start_ready(&[]);
    let mut second = home.start(&[]);
    assert_eq!(second.exit().code(), Some(1));
    assert!(
        second.log().contains("is in use by process"),
        "{}",
        second.log()
    );
}
