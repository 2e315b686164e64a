//! `/federate`: the newest samples of the whole cluster, streamed.
//!
//! Beyond Prometheus: results of queries ([`query`]), only what changed ([`since`]), and real types
//! and helps ([`types`]).

mod query;
mod since;
mod types;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use federation::grouped::FamilyWriter;
use federation::{Encoding, Exposition, Families, Format, Grouped, Types, Writer, federate};
use futures::{FutureExt, StreamExt, TryStreamExt};
use model::newest::Pages;
use model::source::SourceError;
use model::{Matcher, Newest, NewestSelection};

use super::Shared;
use super::errors::TextError;
use super::params::{Asker, Form};

/// The union of all `match[]`, complete or an error. None chooses nothing, and so does `{}`.
pub async fn newest(
    State(api): State<Shared>,
    uri: Uri,
    headers: HeaderMap,
    Asker(origin): Asker,
) -> Result<Response, TextError> {
    let form = Form::parse(uri.query().unwrap_or_default().as_bytes());
    form.strict().map_err(TextError::bad_request)?;
    let any_of: Result<Vec<Vec<Matcher>>, _> =
        form.all("match[]").map(promql::parse_matchers).collect();
    let mut any_of = any_of.map_err(|e| TextError::bad_request(e.to_string()))?;
    any_of.retain(|matchers| !matchers.is_empty());
    let lookback_ms = i64::try_from(api.settings.lookback.as_millis()).unwrap_or(i64::MAX);
    let now = api.clock.now();
    let selection = NewestSelection {
        any_of,
        start: now.plus_ms(-lookback_ms),
        end: now,
        consistency: form.consistency(&headers).map_err(TextError::bad_request)?,
    };
    // Every shard has settled and read its first page when these return.
    let (mut pages, mut told) = match form.all("since").next() {
        None => (api.source.newest(&selection).await?, HeaderMap::new()),
        Some(cursor) => since::newest(&api.upward, &selection, cursor).await?,
    };
    let queries: Vec<&str> = form.all("query").collect();
    if !queries.is_empty() {
        let asked = query::Asked {
            at: now,
            consistency: selection.consistency,
            origin,
        };
        pages = with(pages, query::results(&api, &queries, &asked).await?).await?;
    }
    let accept = headers.get(header::ACCEPT);
    let accept = accept.and_then(|a| a.to_str().ok()).unwrap_or_default();
    let format = Format::negotiate(accept);
    let external = api.external_labels();
    let types = match types::are_asked(&form) {
        true => Some(types::known(&api, &mut told).await),
        false => None,
    };
    let body = match format.encoding {
        Encoding::Text => {
            let writer = Exposition::new(&external, format.escaping);
            with_types(pages, writer, types)
        }
        _ => with_types(pages, Families::new(&external, format), types),
    };
    let kind = [(header::CONTENT_TYPE, format.content_type())];
    Ok((StatusCode::OK, kind, told, body).into_response())
}

/// With some that are there already, in their places.
async fn with(pages: Pages, results: Vec<Newest>) -> Result<Pages, SourceError> {
    let results = (!results.is_empty()).then_some(Ok(results));
    let results = futures::stream::iter(results).boxed();
    let both = [pages, results].map(|pages| std::future::ready(Ok(pages)).boxed());
    federation::newest::merged(both.into()).await
}

/// With the types that are known, if they are asked for.
fn with_types(pages: Pages, writer: impl FamilyWriter, types: Option<Types>) -> Body {
    match types {
        None => streamed(pages, writer),
        Some(types) => streamed(pages, Grouped::new(types, writer)),
    }
}

/// An error breaks the body off in the middle of its chunks, so that nobody takes it for whole.
fn streamed(pages: Pages, writer: impl Writer) -> Body {
    Body::from_stream(federate::pieces(pages, writer).inspect_err(|error| {
        tracing::warn!(%error, "an answer of /federate was broken off");
    }))
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::sync::atomic::Ordering;

    use model::sample::STALE_NAN;
    use model::{FamilyMetadata, MetadataStore, MetricKind};

    use super::super::twin::{NOW, Twin};

    fn twin() -> Twin {
        let twin = Twin::new();
        let named = |name| [("__name__", name), ("job", "exp")];
        twin.store.add(&named("t_int"), NOW.plus_ms(-2000), 1e5);
        twin.store.add(&named("t_int"), NOW.plus_ms(-1000), 1e6);
        twin.store.add(&named("t.utf8"), NOW.plus_ms(-1000), 3.0);
        twin.store
            .add(&named("gone"), NOW.plus_ms(-1000), STALE_NAN);
        twin.store.add(&named("old"), NOW.plus_ms(-300_001), 1.0);
        twin
    }

    const T_INT: &str = "# TYPE t_int untyped\nt_int{job=\"exp\",instance=\"\",region=\"eu\"} 1e+06 1795233378500\n";

    #[tokio::test]
    async fn newest_samples_with_external_labels() {
        let answer = twin()
            .get("/federate?match[]={job=%22exp%22}&match[]=t_int")
            .await;
        assert_eq!(
            answer.seen(),
            (
                200,
                &*format!(
                    "# TYPE t_utf8 untyped\nt_utf8{{job=\"exp\",instance=\"\",region=\"eu\"}} 3 1795233378500\n{T_INT}"
                )
            )
        );
        assert_eq!(
            answer.header("content-type"),
            "text/plain; version=0.0.4; charset=utf-8; escaping=underscores"
        );
    }

    /// What targets of any node say counts for their metrics, and what senders said for all others.
    #[tokio::test]
    async fn types_and_helps_are_told_on_request() {
        let twin = Twin::new();
        let at = NOW.plus_ms(-1000);
        let one = |name, value| {
            twin.store
                .add(&[("__name__", name), ("job", "exp")], at, value)
        };
        one("up", 1.0);
        one("total", 2.0);
        one("lat_count", 3.0);
        one("lat_sum", 4.0);
        one("none", 5.0);
        let le = ("le", "+Inf");
        twin.store
            .add(&[("__name__", "lat_bucket"), ("job", "exp"), le], at, 3.0);
        let word = |name: &str, kind, help: &str| FamilyMetadata {
            name: name.to_owned(),
            kind,
            help: help.to_owned(),
            unit: String::new(),
        };
        let told = vec![
            word("lat", MetricKind::Histogram, "Latency."),
            word("total", MetricKind::Summary, "Not so."),
        ];
        twin.store.describe(told).await.unwrap();
        let answer = twin.get("/federate?types=1&match[]={job=%22exp%22}").await;
        let end = r#"instance="",region="eu"}"#;
        let expected = format!(
            r#"# HELP lat Latency.
# TYPE lat histogram
lat_bucket{{job="exp",le="+Inf",{end} 3 1795233378500
lat_count{{job="exp",{end} 3 1795233378500
lat_sum{{job="exp",{end} 4 1795233378500
# TYPE none untyped
none{{job="exp",{end} 5 1795233378500
# TYPE total counter
total{{job="exp",{end} 2 1795233378500
# HELP up A < B.
# TYPE up gauge
up{{job="exp",{end} 1 1795233378500
"#
        );
        assert_eq!(answer.seen(), (200, &*expected));
        assert_eq!(answer.header("x-quorate-federate-types"), "full");
        let untyped = twin.get("/federate?types=0&match[]=up").await;
        assert!(untyped.text().starts_with("# TYPE up untyped\n"));
        assert_eq!(untyped.header("x-quorate-federate-types"), "");
    }

    /// Prometheus 3.5.3; the same sample as in the text above.
    #[tokio::test]
    async fn protobuf_is_given_to_those_who_ask_for_it() {
        let accept = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;\
                      encoding=delimited;q=0.6,text/plain;version=0.0.4;q=0.3";
        let path = "/federate?match[]=t_int";
        let answer = twin()
            .api_request("GET", path, &[("accept", accept)], "")
            .await;
        assert_eq!(
            answer.header("content-type"),
            "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; \
             encoding=delimited; escaping=underscores"
        );
        let expected: &[u8] = b"\x45\x0a\x05t_int\x18\x03\"\x3a\x0a\x0a\x0a\x03job\x12\x03exp\
            \x0a\x0c\x0a\x08instance\x12\x00\x0a\x0c\x0a\x06region\x12\x02eu\
            *\x09\x09\x00\x00\x00\x00\x80\x84.A0\xc4\xe1\xfd\xe1\x9f\x34";
        assert_eq!(answer.body, expected);
    }

    #[tokio::test]
    async fn nothing_asked_is_nothing() {
        for path in ["/federate", "/federate?match[]={}"] {
            assert_eq!(twin().get(path).await.seen(), (200, ""), "{path}");
        }
    }

    /// Other endpoints refuse a selector that matches the empty label set; this one does not.
    #[tokio::test]
    async fn a_label_that_is_missing_may_be_asked_for() {
        let twin = twin();
        twin.store.add(&[("__name__", "bare")], NOW, 1.0);
        let answer = twin.get("/federate?match[]={job=%22%22}").await;
        assert_eq!(answer.code, 200);
        assert!(answer.text().contains("bare{"), "{}", answer.text());
        assert!(!answer.text().contains("t_int"), "{}", answer.text());
    }

    #[tokio::test]
    async fn a_stream_is_compressed_as_asked() {
        let asked = [("accept-encoding", "gzip")];
        let answer = twin()
            .api_request("GET", "/federate?match[]=t_int", &asked, "")
            .await;
        assert_eq!(answer.header("content-encoding"), "gzip");
        let mut plain = String::new();
        let mut decoder = flate2::read::GzDecoder::new(&answer.body[..]);
        decoder.read_to_string(&mut plain).unwrap();
        assert_eq!(plain, T_INT);
    }

    /// Prometheus 3.5.3, each by `curl -G :9090/federate`.
    #[tokio::test]
    async fn what_is_wrong_is_said_in_prometheus_words() {
        let twin = twin();
        for (path, text) in [
            ("match[]=-1", "1:1: parse error: unexpected <op:->\n"),
            (
                "match[]=a+b",
                "1:3: parse error: unexpected identifier \"b\"\n",
            ),
            (
                "x=%zz&match[]=t_int",
                "error parsing form values: invalid URL escape \"%zz\"\n",
            ),
        ] {
            let answer = twin.get(&format!("/federate?{path}")).await;
            assert_eq!(answer.seen(), (400, text));
            assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");
            assert_eq!(answer.header("x-content-type-options"), "nosniff");
        }
        let posted = twin.api_request("POST", "/federate", &[], "").await;
        assert_eq!(posted.seen(), (405, "Method Not Allowed\n"));
        assert_eq!(posted.header("allow"), "GET, OPTIONS");
    }

    #[tokio::test]
    async fn results_of_queries_stand_in_their_places() {
        let twin = twin();
        let path = "/federate?match[]=t_int&query=job:t:sum=sum+by+(job)+(t_int)&query=z=2*3\
                    &query=t.utf8{}";
        let refused = twin.get(path).await;
        assert_eq!(refused.code, 400, "{}", refused.text());
        let path = "/federate?match[]=t_int&query=z=2*3&query=job:t:sum=sum+by+(job)+(t_int)";
        let at = NOW.0;
        let labels = "instance=\"\",region=\"eu\"";
        let expected = format!(
            "# TYPE job:t:sum untyped\njob:t:sum{{job=\"exp\",{labels}}} 1e+06 {at}\n{T_INT}\
             # TYPE z untyped\nz{{{labels}}} 6 {at}\n"
        );
        assert_eq!(twin.get(path).await.seen(), (200, &*expected));
        let own = twin.get("/federate?query=t_int").await;
        assert!(own.text().starts_with("# TYPE t_int untyped\nt_int{"));
        for (query, code, text) in [
            ("2", 400, "have no name"),
            ("a=t_int[5m]", 400, "is no number"),
            ("a=", 400, "no expression found"),
            ("a=1&query=a=2", 422, "two results"),
        ] {
            let answer = twin.get(&format!("/federate?query={query}")).await;
            assert_eq!(answer.code, code, "{query}");
            assert!(answer.text().contains(text), "{}", answer.text());
        }
        let many = "query=1&".repeat(65);
        assert_eq!(twin.get(&format!("/federate?{many}")).await.code, 400);
        twin.store.broken.store(true, Ordering::SeqCst);
        assert_eq!(twin.get("/federate?query=a=t_int").await.code, 503);
    }

    #[tokio::test]
    async fn only_what_changed_since_a_cursor() {
        let twin = twin();
        let get = async |cursor: &str| {
            let path = format!("/federate?match[]={{job=%22exp%22}}&since={cursor}");
            let answer = twin.get(&path).await;
            assert_eq!(answer.code, 200);
            let told = |name| answer.header(name).to_owned();
            let names: Vec<String> = answer
                .text()
                .lines()
                .filter_map(|line| {
                    Some(line.strip_prefix("# TYPE ")?.split_once(' ')?.0.to_owned())
                })
                .collect();
            let answered = told("x-quorate-federate-answer");
            (names.join(" "), answered, told("x-quorate-federate-cursor"))
        };
        let (names, answer, first) = get("").await;
        assert_eq!((&*names, &*answer), ("t_utf8 t_int", "full"));
        let (names, answer, again) = get(&first).await;
        assert_eq!((&*names, &*answer, &again), ("", "changes", &first));
        let new = [("__name__", "new"), ("job", "exp")];
        twin.store.add(&new, NOW, 1.0);
        let (names, answer, second) = get(&first).await;
        assert_eq!((&*names, &*answer), ("new", "changes"));
        assert_ne!(second, first);
        let strange = ["nonsense", "q1.99.5", &second.replace('.', "-")];
        for strange in strange {
            let (names, answer, cursor) = get(strange).await;
            assert_eq!((&*names, &*answer), ("new t_utf8 t_int", "full"));
            assert_eq!(cursor, second);
        }
        twin.store.broken.store(true, Ordering::SeqCst);
        assert_eq!(twin.get("/federate?match[]=a&since=").await.code, 503);
    }

    #[tokio::test]
    async fn a_missing_shard_is_an_error() {
        let twin = twin();
        twin.store.broken.store(true, Ordering::SeqCst);
        let answer = twin.get("/federate?match[]=t_int").await;
        assert_eq!(answer.code, 503);
        assert_eq!(answer.header("retry-after"), "1");
    }
}
