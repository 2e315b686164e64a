//! The HTTP surface of the line protocols, over a store in memory.

use std::io::Write;
use std::sync::atomic::Ordering;

use model::Timestamp;

use crate::web::state::Settings;
use crate::web::twin::{Answer, NOW, Twin};

async fn post(twin: &Twin, path: &str, body: impl Into<axum::body::Body>) -> Answer {
    twin.api_request("POST", path, &[], body).await
}

const V1: [&str; 3] = ["/write", "/influx/write", "/api/v1/push/influx/write"];
const V2: [&str; 2] = ["/api/v2/write", "/influx/api/v2/write"];

#[tokio::test]
async fn influx_lines_become_series() {
    for path in V1 {
        let twin = Twin::new();
        let body = format!("cpu,host=a value=1,idle=2i,s=\"x\" {}000000\n", NOW.0);
        let answer = post(&twin, &format!("{path}?db=telegraf&rp=autogen"), body).await;
        assert_eq!(answer.seen(), (204, ""), "{path}");
        assert_eq!(answer.header("x-influxdb-version"), "1.8.10");
        let labels = |name| [("__name__", name), ("db", "telegraf"), ("host", "a")];
        assert_eq!(twin.store.value(&labels("cpu"), NOW), Some(1.0));
        assert_eq!(twin.store.value(&labels("cpu_idle"), NOW), Some(2.0));
    }
    for path in V2 {
        let twin = Twin::new();
        let path = format!("{path}?org=o&bucket=b&precision=s");
        let answer = post(&twin, &path, "cpu value=1 1795233379").await;
        assert_eq!(answer.seen(), (204, ""), "{path}");
        let at = Timestamp(1_795_233_379_000);
        let labels = [("__name__", "cpu"), ("db", "b")];
        assert_eq!(twin.store.value(&labels, at), Some(1.0));
    }
}

#[tokio::test]
async fn influx_names_the_bad_lines_and_stores_the_good_ones() {
    let twin = Twin::new();
    let body = "good value=1\nbad\nlast value=3\n";
    let answer = post(&twin, "/write", body).await;
    assert_eq!(
        answer.seen(),
        (
            400,
            r#"{"error":"partial write: line 2: unable to parse 'bad': missing fields dropped=1"}"#
        )
    );
    assert_eq!(twin.store.value(&[("__name__", "last")], NOW), Some(3.0));
    let answer = post(&twin, "/api/v2/write", "good value=2\n").await;
    assert_eq!(
        answer.seen(),
        (
            400,
            r#"{"code":"invalid","line":1,"message":"partial write: line 1: duplicate sample for timestamp at 1795233379500: series {__name__=\"good\"}"}"#
        )
    );
    let answer = post(&twin, "/write?precision=d", "").await;
    assert_eq!(answer.code, 400);
}

#[tokio::test]
async fn bodies_may_be_packed_and_of_any_length() {
    let twin = Twin::new();
    let mut plain = String::new();
    for line in 0..200_000_i64 {
        plain += &format!("m,i={} value={line} {}\n", line % 100, 1_000_000 * line);
    }
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), Default::default());
    encoder.write_all(plain.as_bytes()).unwrap();
    let body = encoder.finish().unwrap();
    let packed = [("content-encoding", "gzip")];
    let answer = twin.api_request("POST", "/write", &packed, body).await;
    assert_eq!(answer.seen(), (204, ""));
    let last = [("__name__", "m"), ("i", "99")];
    let value = twin.store.value(&last, Timestamp(199_999));
    assert_eq!(value, Some(199_999.0));
    let answer = post(&twin, "/write", "x".repeat(2 << 20)).await;
    assert_eq!(answer.code, 400);
    assert!(answer.text().contains("longer than 1048576 bytes"));
}

#[tokio::test]
async fn influx_clients_find_what_they_look_for() {
    let twin = Twin::new();
    for path in ["/ping", "/influx/ping"] {
        let answer = twin.get(path).await;
        assert_eq!(answer.seen(), (204, ""));
        assert_eq!(answer.header("x-influxdb-version"), "1.8.10");
    }
    let verbose = twin.get("/ping?verbose=true").await;
    assert_eq!(verbose.seen(), (200, r#"{"version":"1.8.10"}"#));
    let health = twin.get("/health").await;
    assert!(health.text().contains(r#""status":"pass""#));
    twin.store.unready.store(true, Ordering::SeqCst);
    assert_eq!(twin.get("/health").await.code, 503);
    let created = post(&twin, "/influx/query?q=CREATE+DATABASE+x", "").await;
    assert_eq!(created.seen(), (200, r#"{"results":[{"statement_id":0}]}"#));
    assert_eq!(twin.get("/influx/query?q=SELECT+1").await.code, 400);
}

#[tokio::test]
async fn json_lines_go_in_and_out() {
    let twin = Twin::new();
    let at = NOW.0;
    let body = format!(
        "{{\"metric\":{{\"__name__\":\"a\",\"x\":\"1\"}},\"values\":[1,null,\"Infinity\"],\"timestamps\":[{},{},{}]}}\n\
         {{\"metric\":{{\"__name__\":\"b\"}},\"values\":[0.1],\"timestamps\":[{at}]}}\n",
        at - 2,
        at - 1,
        at,
    );
    assert_eq!(
        post(&twin, "/api/v1/import", body.clone()).await.seen(),
        (204, "")
    );
    let out = twin
        .get("/api/v1/export?match[]={__name__!=%22%22}&match[]=a")
        .await;
    assert_eq!(out.seen(), (200, &*body));
    assert_eq!(
        out.header("content-type"),
        "application/stream+json; charset=utf-8"
    );
    let span = format!(
        "/api/v1/export?match[]=a&start={}&end={}",
        (at - 1) as f64 / 1e3,
        (at - 1) as f64 / 1e3
    );
    let one = twin.get(&span).await;
    assert!(one.text().contains(r#""values":[null]"#), "{}", one.text());
    assert_eq!(twin.get("/api/v1/export").await.code, 400);
    assert_eq!(
        twin.get("/api/v1/export?match[]=nosuch").await.seen(),
        (200, "")
    );
    twin.store.broken.store(true, Ordering::SeqCst);
    assert_eq!(twin.get("/api/v1/export?match[]=a").await.code, 503);
}

#[tokio::test]
async fn what_an_import_cannot_store_is_told() {
    let twin = Twin::new();
    *twin.store.oldest.lock().unwrap() = Some(NOW);
    let at = NOW.0;
    let body = format!(
        "{{\"metric\":{{\"__name__\":\"a\"}},\"values\":[1,2],\"timestamps\":[5,{at}]}}\nnonsense\n"
    );
    let answer = post(&twin, "/api/v1/import?extra_label=x=y", body).await;
    assert_eq!(
        answer.seen(),
        (
            400,
            "line 1: too old sample at 5: series {__name__=\"a\", x=\"y\"}\n\
             line 2: unable to parse 'nonsense': expected an object at byte 1\n\
             2 not stored, all others are\n"
        )
    );
    assert_eq!(
        twin.store.value(&[("__name__", "a"), ("x", "y")], NOW),
        Some(2.0)
    );
    assert_eq!(
        post(&twin, "/api/v1/import?extra_label=x", "").await.code,
        400
    );
}

#[tokio::test]
async fn exposition_text_is_imported_with_its_times() {
    let twin = Twin::new();
    let path = "/api/v1/import/prometheus/metrics/job/x/instance/y?extra_label=a=b&timestamp=7";
    let answer = post(&twin, path, "foo{job=\"own\"} 3\nbar 4 1000\nbad{ 1\n").await;
    assert_eq!(answer.code, 400);
    assert!(
        answer
            .text()
            .starts_with("line 3: unable to parse 'bad{ 1': expected ")
    );
    let labels = |name| {
        [
            ("__name__", name),
            ("a", "b"),
            ("instance", "y"),
            ("job", "x"),
        ]
    };
    assert_eq!(twin.store.value(&labels("foo"), Timestamp(7)), Some(3.0));
    assert_eq!(twin.store.value(&labels("bar"), Timestamp(1000)), Some(4.0));
    let plain = post(&twin, "/api/v1/import/prometheus", "foo 3\n").await;
    assert_eq!(plain.seen(), (204, ""));
    let kind = [(
        "content-type",
        "application/openmetrics-text; version=1.0.0",
    )];
    let path = "/api/v1/import/prometheus";
    let answer = twin
        .api_request("POST", path, &kind, "om 3 1.5\n# EOF\n")
        .await;
    assert_eq!(answer.seen(), (204, ""));
    assert_eq!(
        twin.store.value(&[("__name__", "om")], Timestamp(1500)),
        Some(3.0)
    );
    let answer = twin.api_request("POST", path, &kind, "om 3 2.5\n").await;
    assert_eq!(answer.code, 400);
    assert_eq!(
        twin.store.value(&[("__name__", "om")], Timestamp(2500)),
        None
    );
}

#[tokio::test]
async fn receivers_can_be_switched_off() {
    let twin = Twin::with(Settings {
        remote_write_receiver: false,
        ..Settings::default()
    });
    for path in [
        "/write",
        "/api/v2/write",
        "/api/v1/import",
        "/api/v1/import/prometheus",
        "/api/v1/import/prometheus/metrics/job/j",
    ] {
        assert_eq!(post(&twin, path, "m 1\n").await.code, 404, "{path}");
    }
}
