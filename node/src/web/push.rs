//! Pushgateway's listener: groups in, groups out.
//!
//! Promise: 200 (202 for a deletion, and for a push that is not checked) only when the cluster's log has the push; a push that is
//! refused changes nothing but the group's `push_failure_time_seconds`. Not here: what a path or a
//! body means, and what else happens with a push.

use std::borrow::Cow;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use federation::{Encoding, Format};
use ingest::push::{PushError, Rules, path};
use model::group::{Family, Group, GroupingKey, PushId, PushOp, PushOptions};
use model::limits::{EXPOSITION_BYTES_MAX, PUSH_ID_BYTES_MAX, PUSH_TTL_MS_MAX};
use model::sink::WriteError;
use tracing::warn;

use crate::scrape::CLUSTER_HEADER;

use super::body::BodyError;
use super::errors::{TextError, method_not_allowed, not_found};
use super::params::Form;
use super::{Shared, body, lifecycle, text};

/// In place of `?ttl=` and `?id=`.
const TTL_HEADER: &str = "x-quorate-ttl";
const PUSH_ID_HEADER: &str = "x-quorate-push-id";
const ALLOW: &str = "DELETE, OPTIONS, POST, PUT";

/// `/-/healthy`.
pub async fn ok() -> Response {
    text("OK")
}

/// `/-/ready`.
pub async fn ready(State(api): State<Shared>) -> Response {
    lifecycle::unready(&api).unwrap_or_else(|| text("OK"))
}

/// Every group of the cluster, then the node's own telemetry. A node of this cluster that scrapes
/// gets the telemetry alone: the groups are in the cluster's history, and would be stored twice.
/// Groups that nobody checked may contradict each other, which is an error for as long as they do.
pub async fn metrics(State(api): State<Shared>, headers: HeaderMap) -> Result<Response, TextError> {
    let groups = match is_our_own(&api, &headers) {
        true => Vec::new(),
        false => api.groups.groups().await?,
    };
    if api.settings.push_unchecked
        && let Some(problems) = ingest::push::contradictions(&groups)
    {
        return Err(TextError::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("An error has occurred while serving metrics:\n\n{problems}"),
        ));
    }
    let accept = headers.get(header::ACCEPT);
    let accept = accept.and_then(|a| a.to_str().ok()).unwrap_or_default();
    let format = Format::negotiate(accept);
    let own = api.status.push_metrics_text();
    let kind = [(header::CONTENT_TYPE, format.content_type())];
    let page = match format.encoding {
        Encoding::Text => {
            let mut page = ingest::push::render(&groups, &|name| format.escaping.escape(name));
            append_own(&mut page, &groups, &own);
            page.into_bytes()
        }
        _ => protobuf(&groups, &own, format),
    };
    Ok((kind, page).into_response())
}

/// The same page in one of protobuf's encodings.
fn protobuf(groups: &[Group], own: &str, format: Format) -> Vec<u8> {
    let mut families = ingest::push::families(groups);
    let pushed: Vec<_> = families.iter().map(|f| f.name.clone()).collect();
    let own = ingest::push::of_text(own);
    families.extend(own.into_iter().filter(|f| !pushed.contains(&f.name)));
    let escape = |name: &mut Option<String>| {
        *name = name.take().map(|n| format.escaping.escape(&n).into_owned());
    };
    let mut page = Vec::new();
    for mut family in families {
        escape(&mut family.name);
        let labels = family.metric.iter_mut().flat_map(|m| &mut m.label);
        labels.for_each(|label| escape(&mut label.name));
        federation::families::encode(&family, format.encoding, &mut page);
    }
    page
}

fn is_our_own(api: &Shared, headers: &HeaderMap) -> bool {
    let (Some(asker), Some(own)) = (headers.get(CLUSTER_HEADER), api.status.cluster_id()) else {
        return false;
    };
    asker.as_bytes() == own.to_string().as_bytes()
}

/// `/metrics/job/…`; every other path is not found.
pub async fn group(State(api): State<Shared>, request: Request) -> Response {
    let (parts, incoming) = request.into_parts();
    let path = parts.uri.path();
    let query = parts.uri.query().unwrap_or_default();
    if let Some(cleaner) = redirect(path) {
        return cleaner;
    }
    if !is_group(path) {
        return not_found().await.into_response();
    }
    let outcome = match parts.method {
        Method::PUT => push(&api, path, query, &parts.headers, incoming, PushOp::Put).await,
        Method::POST => push(&api, path, query, &parts.headers, incoming, PushOp::Post).await,
        Method::DELETE => delete(&api, path).await,
        Method::OPTIONS => return [(header::ALLOW, ALLOW)].into_response(),
        _ => return method_not_allowed(ALLOW),
    };
    outcome.into_response()
}

/// Whether a raw path is a group's.
fn is_group(path: &str) -> bool {
    let heads = ["/metrics/job/", "/metrics/job@base64/"];
    let labels = heads.iter().find_map(|head| path.strip_prefix(head));
    labels.is_some_and(|labels| !labels.is_empty())
}

/// Where Pushgateway sends a path with an empty component (its multiplexer cleans paths), or with
/// nothing behind the job: that is so of the path without escapes. An empty value is written in
/// base64, as is one that holds a slash.
fn redirect(path: &str) -> Option<Response> {
    if !path.starts_with("/metrics/") {
        return None;
    }
    if path == "/metrics/job/" {
        let to = [(header::LOCATION, "/metrics/job")];
        return Some((StatusCode::TEMPORARY_REDIRECT, to).into_response());
    }
    let path = path.replace("%2F", "/").replace("%2f", "/");
    if !path.contains("//") || !path.is_ascii() {
        return None;
    }
    let mut clean = String::with_capacity(path.len());
    for c in path.chars() {
        if c != '/' || !clean.ends_with('/') {
            clean.push(c);
        }
    }
    let to = [(header::LOCATION, clean)];
    Some((StatusCode::MOVED_PERMANENTLY, to).into_response())
}

async fn push(
    api: &Shared,
    raw_path: &str,
    query: &str,
    headers: &HeaderMap,
    incoming: Body,
    op: fn(Vec<Family>) -> PushOp,
) -> Result<StatusCode, TextError> {
    let names = api.settings.push_names;
    let key = path::parse(raw_path, names)?;
    let wishes = Wishes::read(query, headers)?;
    let options = PushOptions {
        ttl_ms: wishes.ttl_ms,
        unchecked: api.settings.push_unchecked,
        brief: true,
        partial: false,
    };
    let bytes = body::read(incoming, EXPOSITION_BYTES_MAX, &api.body_budget).await?;
    let rules = Rules {
        names,
        unchecked: options.unchecked,
    };
    let parsing = || {
        let plain = decompress(headers, &bytes)?;
        Ok::<_, BodyError>(match is_delimited(headers) {
            true => ingest::push::parse_delimited(&plain, &key, rules),
            false => ingest::push::parse(&plain, &key, rules),
        })
    };
    let is_packed = headers.contains_key(header::CONTENT_ENCODING);
    let weight = body::weight(&bytes, is_packed);
    let families = match api.body_budget.apart(weight, parsing).await? {
        Ok(families) => families,
        Err(error) => {
            // A body that is no exposition is not a push that failed: Pushgateway tells nobody.
            if matches!(error, PushError::Inconsistent(_) | PushError::Timestamps) {
                note_rejection(api, key).await;
            }
            // The original has answered before it looks.
            return match error {
                PushError::Timestamps if options.unchecked => Ok(StatusCode::ACCEPTED),
                error => Err(error.into()),
            };
        }
    };
    let op = match wishes.id {
        Some(id) => PushOp::Add { families, id },
        None => op(families),
    };
    match api.groups.push(key.clone(), op, options).await {
        // As the original does, which without a check answers before it is done.
        Ok(_) if options.unchecked => Ok(StatusCode::ACCEPTED),
        Ok(_) => Ok(StatusCode::OK),
        Err(WriteError::Inconsistent(conflict)) => {
            note_rejection(api, key).await;
            Err(PushError::Inconsistent(conflict).into())
        }
        Err(error) => Err(error.into()),
    }
}

/// What a push asks for beyond what Pushgateway knows.
struct Wishes {
    ttl_ms: Option<u64>,
    /// Given when the push is to be added to what is there.
    id: Option<PushId>,
}

impl Wishes {
    /// From `?ttl=`, `?mode=sum` and `?id=`, or the headers in their place.
    fn read(query: &str, headers: &HeaderMap) -> Result<Self, TextError> {
        let form = Form::parse(query.as_bytes());
        let wish = |name: &str, header: &str| -> Option<Vec<u8>> {
            let given = Some(form.first(name)).filter(|text| !text.is_empty());
            let given = given.map(|text| text.as_bytes().to_vec());
            given.or_else(|| headers.get(header).map(|value| value.as_bytes().to_vec()))
        };
        let ttl_ms = wish("ttl", TTL_HEADER).map(|text| ttl(&text)).transpose()?;
        let id = wish("id", PUSH_ID_HEADER);
        let id = match form.first("mode") {
            "sum" => {
                let id = id.and_then(|id| PushId::new(&id)).ok_or_else(|| {
                    TextError::bad_request(format!(
                        "mode=sum needs an id of 1 to {PUSH_ID_BYTES_MAX} bytes, by ?id= or {PUSH_ID_HEADER}, that is new for each push"
                    ))
                })?;
                Some(id)
            }
            "" => None,
            other => {
                let why = format!("unknown mode {other:?}, expected sum");
                return Err(TextError::bad_request(why));
            }
        };
        Ok(Self { ttl_ms, id })
    }
}

/// A duration as Prometheus writes one: `5m`, `1h30m`.
fn ttl(text: &[u8]) -> Result<u64, TextError> {
    let text = String::from_utf8_lossy(text);
    let refused = |why: String| TextError::bad_request(format!("bad ttl {text:?}: {why}"));
    let parsed = model::time::parse_duration(&text).map_err(|e| refused(e.to_string()))?;
    let ttl_ms = u64::try_from(parsed.as_millis()).unwrap_or(u64::MAX);
    match (1..=PUSH_TTL_MS_MAX).contains(&ttl_ms) {
        true => Ok(ttl_ms),
        false => Err(refused("expected 1ms to ten years".to_owned())),
    }
}

async fn delete(api: &Shared, raw_path: &str) -> Result<StatusCode, TextError> {
    let key = path::parse(raw_path, api.settings.push_names)?;
    api.groups
        .push(key, PushOp::Delete, PushOptions::default())
        .await?;
    Ok(StatusCode::ACCEPTED)
}

/// The group remembers when a push was refused. If even that cannot be stored, the client is
/// better served by the reason of the refusal.
async fn note_rejection(api: &Shared, key: GroupingKey) {
    let options = PushOptions {
        unchecked: true,
        brief: true,
        partial: true,
        ..PushOptions::default()
    };
    if let Err(error) = api.groups.push(key, PushOp::Reject, options).await {
        warn!(%error, "a refused push was not recorded");
    }
}

/// Whether the body is protobuf, each message behind its length.
fn is_delimited(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE);
    let kind = kind.and_then(|k| k.to_str().ok()).unwrap_or_default();
    let mut parts = kind.split(';').map(|part| part.trim().to_ascii_lowercase());
    let is_protobuf = parts
        .next()
        .is_some_and(|kind| kind == "application/vnd.google.protobuf");
    let parts: Vec<String> = parts.collect();
    let has = |wanted: &str| parts.iter().any(|part| part == wanted);
    is_protobuf && has("encoding=delimited") && has("proto=io.prometheus.client.metricfamily")
}

fn decompress<'a>(headers: &HeaderMap, bytes: &'a [u8]) -> Result<Cow<'a, [u8]>, BodyError> {
    let encoding = headers.get(header::CONTENT_ENCODING);
    let encoding = encoding.map(|e| e.as_bytes().to_ascii_lowercase());
    match encoding.as_deref() {
        Some(b"gzip") => body::gunzip(bytes, EXPOSITION_BYTES_MAX).map(Cow::Owned),
        Some(b"snappy") => body::unsnap(bytes, EXPOSITION_BYTES_MAX).map(Cow::Owned),
        // Whatever else is said, Pushgateway reads the body as it is.
        _ => Ok(Cow::Borrowed(bytes)),
    }
}

/// Adds the node's telemetry, without the families that somebody pushed under the same name: a
/// name must not stand twice in one exposition.
fn append_own(exposition: &mut String, groups: &[Group], own: &str) {
    let pushed = |name: &str| {
        let mut families = groups.iter().flat_map(|g| &g.families);
        families.any(|f| f.name == name)
    };
    let mut skipping = false;
    for line in own.lines() {
        let comment = line
            .strip_prefix("# HELP ")
            .or(line.strip_prefix("# TYPE "));
        if let Some(name) = comment.and_then(|c| c.split(' ').next()) {
            skipping = pushed(name);
        }
        if !skipping {
            exposition.push_str(line);
            exposition.push('\n');
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::atomic::Ordering;

    use super::super::state::Settings;
    use super::super::twin::{Answer, Twin};

    async fn send(twin: &Twin, method: &str, path: &str, body: &str) -> Answer {
        twin.push_request(method, path, &[], body.to_owned()).await
    }

    /// The exposition without the node's own telemetry.
    async fn page(twin: &Twin) -> String {
        let answer = send(twin, "GET", "/metrics", "").await;
        assert_eq!(answer.code, 200);
        assert_eq!(
            answer.header("content-type"),
            "text/plain; version=0.0.4; charset=utf-8; escaping=underscores"
        );
        let text = answer.text();
        let own = text.find("# HELP own ").expect("our own telemetry");
        text[..own].to_owned()
    }

    /// Pushgateway 1.11.2: the same push, then `curl :9091/metrics` (push times by our clock).
    #[tokio::test]
    async fn a_push_is_shown_as_pushgateway_shows_it() {
        let twin = Twin::new();
        let body = "un 5\n# TYPE s summary\ns{quantile=\"0.5\"} 1\ns_sum 1\ns_count 2\n";
        let answer = send(&twin, "POST", "/metrics/job/j", body).await;
        assert_eq!(answer.seen(), (200, ""));
        assert_eq!(
            page(&twin).await,
            r#"# HELP push_failure_time_seconds Last Unix time when changing this group in the Pushgateway failed.
# TYPE push_failure_time_seconds gauge
push_failure_time_seconds{instance="",job="j"} 0
# HELP push_time_seconds Last Unix time when changing this group in the Pushgateway succeeded.
# TYPE push_time_seconds gauge
push_time_seconds{instance="",job="j"} 1.7952333795e+09
# TYPE s summary
s{instance="",job="j",quantile="0.5"} 1
s_sum{instance="",job="j"} 1
s_count{instance="",job="j"} 2
# TYPE un untyped
un{instance="",job="j"} 5
"#
        );
    }

    #[tokio::test]
    async fn put_replaces_all_post_what_it_names_delete_everything() {
        let twin = Twin::new();
        let path = "/metrics/job/j/instance/i";
        send(&twin, "PUT", path, "a 1\nb 1\n").await;
        send(&twin, "POST", path, "b 2\n").await;
        assert!(
            page(&twin)
                .await
                .contains("\na{instance=\"i\",job=\"j\"} 1\n")
        );
        send(&twin, "PUT", path, "b 3\n").await;
        let shown = page(&twin).await;
        assert!(!shown.contains("\na{") && shown.contains("\nb{instance=\"i\",job=\"j\"} 3\n"));
        let deleted = send(&twin, "DELETE", path, "").await;
        assert_eq!(deleted.seen(), (202, ""));
        assert_eq!(page(&twin).await, "");
        assert_eq!(send(&twin, "DELETE", path, "").await.code, 202);
    }

    /// Pushgateway 1.11.2, each by `curl -X POST --data-binary`.
    #[tokio::test]
    async fn what_is_wrong_is_said_in_pushgateways_words() {
        let twin = Twin::new();
        for (path, body, code, text) in [
            (
                "/metrics/job/x/instance",
                "a 1\n",
                400,
                "odd number of components in label string \"/instance\"\n",
            ),
            (
                "/metrics/job/x/a-b/i",
                "a 1\n",
                400,
                "improper label name \"a-b\"\n",
            ),
            (
                "/metrics/job@base64/=",
                "a 1\n",
                400,
                "job name is required\n",
            ),
            (
                "/metrics/job/x",
                "a 1",
                400,
                "text format parsing error in line 1: unexpected end of input stream\n",
            ),
            (
                "/metrics/job/x",
                "a{ 1\n",
                400,
                "text format parsing error in line 1: invalid label name for metric \"a\"\n",
            ),
            ("/metrics/jobx/x", "a 1\n", 404, "404 page not found\n"),
            ("/metrics/job/", "a 1\n", 307, ""),
            ("/metrics/job/x//y", "a 1\n", 301, ""),
            ("/metrics/job", "a 1\n", 404, "404 page not found\n"),
            ("/nope", "", 404, "404 page not found\n"),
        ] {
            let answer = send(&twin, "POST", path, body).await;
            assert_eq!(answer.seen(), (code, text), "{path}");
            match code {
                301 => assert_eq!(answer.header("location"), "/metrics/job/x/y"),
                307 => assert_eq!(answer.header("location"), "/metrics/job"),
                _ => assert_eq!(answer.header("x-content-type-options"), "nosniff"),
            }
        }
        assert_eq!(page(&twin).await, "");
        let read = send(&twin, "GET", "/metrics/job/x", "").await;
        assert_eq!(read.seen(), (405, "Method Not Allowed\n"));
        assert_eq!(read.header("allow"), "DELETE, OPTIONS, POST, PUT");
    }

    /// Pushgateway 1.11.2 creates the group with the time of the failure.
    #[tokio::test]
    async fn a_group_remembers_a_refused_push() {
        let twin = Twin::new();
        let answer = send(&twin, "PUT", "/metrics/job/ts", "a 1 5\n").await;
        assert_eq!(
            answer.seen(),
            (
                400,
                "pushed metrics are invalid or inconsistent with existing metrics: \
                 pushed metrics must not have timestamps\n"
            )
        );
        let shown = page(&twin).await;
        assert!(
            shown.contains(
                "\npush_failure_time_seconds{instance=\"\",job=\"ts\"} 1.7952333795e+09\n"
            )
        );
        assert!(shown.contains("\npush_time_seconds{instance=\"\",job=\"ts\"} 0\n"));
    }

    /// Pushgateway 1.11.2 with `--push.disable-consistency-check`, the same requests.
    #[tokio::test]
    async fn unchecked_groups_that_contradict_are_an_error_until_they_do_not() {
        let twin = Twin::with(Settings {
            push_unchecked: true,
            ..Settings::default()
        });
        let counter = send(&twin, "PUT", "/metrics/job/a", "# TYPE m counter\nm 1\n");
        assert_eq!(counter.await.seen(), (202, ""));
        let gauge = send(&twin, "PUT", "/metrics/job/b", "# TYPE m gauge\nm 2\n");
        assert_eq!(gauge.await.seen(), (202, ""));
        let answer = send(&twin, "GET", "/metrics", "").await;
        assert_eq!(
            answer.seen(),
            (
                500,
                "An error has occurred while serving metrics:\n\n\
                 collected metric \"m\" { label:{name:\"instance\"  value:\"\"}  \
                 label:{name:\"job\"  value:\"b\"}  gauge:{value:2}} is not a COUNTER\n"
            )
        );
        let headers = [("accept-encoding", "gzip")];
        let packed = twin.push_request("GET", "/metrics", &headers, "").await;
        assert_eq!((packed.code, packed.text()), (500, answer.text()));
        send(&twin, "PUT", "/metrics/job/b", "k 1\nk 2\n").await;
        let groups = send(&twin, "GET", "/api/v1/metrics", "").await;
        let both = r#"[{"labels":{"instance":"","job":"b"},"value":"1"},{"labels":{"instance":"","job":"b"},"value":"2"}]"#;
        assert!(groups.text().contains(both), "{}", groups.text());
        assert_eq!(send(&twin, "GET", "/metrics", "").await.code, 500);
        send(&twin, "DELETE", "/metrics/job/b", "").await;
        assert!(page(&twin).await.contains("# TYPE m counter\n"));
    }

    #[tokio::test]
    async fn an_unchecked_push_with_timestamps_is_dropped() {
        let twin = Twin::with(Settings {
            push_unchecked: true,
            ..Settings::default()
        });
        let answer = send(&twin, "PUT", "/metrics/job/ts", "a 1 5\n").await;
        assert_eq!(answer.seen(), (202, ""));
        let shown = page(&twin).await;
        assert!(!shown.contains("\na{"));
        assert!(shown.contains("\npush_failure_time_seconds{instance=\"\",job=\"ts\"} 1.7"));
    }

    #[tokio::test]
    async fn compressed_pushes_are_taken() {
        let twin = Twin::new();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), Default::default());
        gzip.write_all(b"a 1\n").unwrap();
        let gzip = gzip.finish().unwrap();
        let headers = [("content-encoding", "GZip")];
        let path = "/metrics/job/z";
        let answer = twin.push_request("PUT", path, &headers, gzip).await;
        assert_eq!(answer.seen(), (200, ""));
        assert!(
            page(&twin)
                .await
                .contains("\na{instance=\"\",job=\"z\"} 1\n")
        );
        let broken = twin.push_request("PUT", path, &headers, "zz\n").await;
        assert_eq!(broken.seen(), (400, "unexpected EOF\n"));
    }

    #[tokio::test]
    async fn protobuf_is_taken_when_delimited() {
        let twin = Twin::new();
        let kind = "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited";
        let headers = [("content-type", kind)];
        let path = "/metrics/job/p";
        let gauge = b"\x12\x0a\x01g\x18\x01\x22\x0b\x12\x09\x09\0\0\0\0\0\0\xf0\x3f";
        let answer = twin
            .push_request("PUT", path, &headers, gauge.to_vec())
            .await;
        assert_eq!(answer.seen(), (200, ""));
        assert!(
            page(&twin)
                .await
                .contains("\ng{instance=\"\",job=\"p\"} 1\n")
        );
        let cut = twin.push_request("PUT", path, &headers, "\u{5}abc").await;
        assert_eq!(cut.seen(), (400, "unexpected EOF\n"));
    }

    #[tokio::test]
    async fn pushes_add_up_and_groups_expire_on_request() {
        let twin = Twin::new();
        let body = "# TYPE c counter\nc 2\n";
        send(&twin, "POST", "/metrics/job/s?mode=sum&id=1", body).await;
        let headers = [("x-quorate-push-id", "2"), ("x-quorate-ttl", "5m")];
        let second = twin.push_request("POST", "/metrics/job/s?mode=sum", &headers, body);
        assert_eq!(second.await.code, 200);
        let shown = page(&twin).await;
        assert!(shown.contains("\nc{instance=\"\",job=\"s\"} 4\n"));
        assert!(shown.contains("\npush_expires_seconds{instance=\"\",job=\"s\"} "));
        for wrong in [
            "mode=sum",
            "mode=avg&id=1",
            "ttl=soon",
            "ttl=0s",
            "ttl=100y",
        ] {
            let path = format!("/metrics/job/s?{wrong}");
            assert_eq!(send(&twin, "POST", &path, body).await.code, 400, "{wrong}");
        }
    }

    #[tokio::test]
    async fn an_undecided_push_may_be_sent_again() {
        let twin = Twin::new();
        twin.store.broken.store(true, Ordering::SeqCst);
        for (method, path) in [
            ("PUT", "/metrics/job/x"),
            ("DELETE", "/metrics/job/x"),
            ("GET", "/metrics"),
        ] {
            let answer = send(&twin, method, path, "").await;
            assert_eq!((answer.code, answer.header("retry-after")), (503, "1"));
        }
    }

    #[tokio::test]
    async fn a_pushed_name_hides_our_own() {
        let twin = Twin::new();
        send(&twin, "PUT", "/metrics/job/x", "own 7\n").await;
        let answer = send(&twin, "GET", "/metrics", "").await;
        assert_eq!(answer.text().matches("# TYPE own ").count(), 1);
        assert!(answer.text().contains("own{instance=\"\",job=\"x\"} 7\n"));
        assert!(answer.text().ends_with("# TYPE theirs gauge\ntheirs 2\n"));
    }

    /// Pushed series are repeated into the history as they are; a scrape would add them again.
    #[tokio::test]
    async fn our_own_scraper_gets_no_groups() {
        let twin = Twin::new();
        send(&twin, "PUT", "/metrics/job/x", "a 1\n").await;
        for (id, shown) in [
            ("000000000000000000000000000000ab", false),
            ("000000000000000000000000000000ac", true),
        ] {
            let headers = [("x-quorate-cluster", id)];
            let answer = twin.push_request("GET", "/metrics", &headers, "").await;
            assert_eq!(answer.text().contains("job=\"x\""), shown, "{id}");
            assert!(answer.text().ends_with("theirs 2\n"), "{id}");
        }
    }

    #[tokio::test]
    async fn telemetry_is_where_it_was_put() {
        let twin = Twin::with(Settings {
            telemetry_path: "/own".to_owned(),
            ..Settings::default()
        });
        assert_eq!(send(&twin, "GET", "/own", "").await.code, 200);
        assert_eq!(send(&twin, "GET", "/metrics", "").await.code, 404);
    }

    #[tokio::test]
    async fn supervisors_hear_ok() {
        let twin = Twin::new();
        for path in ["/-/healthy", "/-/ready"] {
            assert_eq!(send(&twin, "GET", path, "").await.seen(), (200, "OK"));
            let head = send(&twin, "HEAD", path, "").await;
            assert_eq!((head.code, head.header("allow")), (405, "GET, OPTIONS"));
        }
    }
}
