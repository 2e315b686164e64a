//! `/-/healthy`, `/-/ready`, `/-/reload`, `/-/quit`: what supervisors ask and order.

use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use tracing::{error, info};

use super::{Shared, text};

const STOPPING: HeaderName = HeaderName::from_static("x-prometheus-stopping");
/// Prometheus' body says only that it is unavailable; the reason goes into a header of its own.
const REASON: HeaderName = HeaderName::from_static("x-not-ready-reason");

/// The process answers: that is all.
pub async fn healthy() -> Response {
    text("Prometheus Server is Healthy.\n")
}

/// Every shard held here has a leader, and the node is not on its way out.
pub async fn ready(State(api): State<Shared>) -> Response {
    unready(&api).unwrap_or_else(|| text("Prometheus Server is Ready.\n"))
}

/// The answer of a node that is not ready; `None` when it is.
pub fn unready(api: &Shared) -> Option<Response> {
    let stopping = api.status.stopping();
    let reason = match api.status.ready() {
        Ok(()) if !stopping => return None,
        Ok(()) => "stopping".to_owned(),
        Err(reason) => reason,
    };
    let mut response = text("Service Unavailable");
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    let headers = response.headers_mut();
    let stopping = if stopping { "true" } else { "false" };
    headers.insert(STOPPING, HeaderValue::from_static(stopping));
    if let Ok(reason) = HeaderValue::from_str(&reason) {
        headers.insert(REASON, reason);
    }
    Some(response)
}

/// Loads the configuration again.
pub async fn reload(State(api): State<Shared>) -> Response {
    if !api.settings.lifecycle {
        return disabled();
    }
    match api.status.reload().await {
        Ok(()) => StatusCode::OK.into_response(),
        Err(reason) => {
            error!(reason, "reload failed, the old configuration stays");
            let message = format!("failed to reload config: {reason}");
            super::errors::TextError::new(StatusCode::INTERNAL_SERVER_ERROR, message)
                .into_response()
        }
    }
}

/// Begins to stop.
pub async fn quit(State(api): State<Shared>) -> Response {
    if !api.settings.lifecycle {
        return disabled();
    }
    info!("termination requested over HTTP");
    match api.status.quit() {
        true => text("Requesting termination... Goodbye!"),
        false => text("Termination already in progress."),
    }
}

/// To GET on an order.
pub fn wrong_method() -> Response {
    let kind = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
    let body = "Only POST or PUT requests allowed";
    (StatusCode::METHOD_NOT_ALLOWED, kind, body).into_response()
}

fn disabled() -> Response {
    let mut response = text("Lifecycle API is not enabled.");
    *response.status_mut() = StatusCode::FORBIDDEN;
    response
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::super::state::Settings;
    use super::super::twin::Twin;

    fn enabled() -> Twin {
        Twin::with(Settings {
            lifecycle: true,
            ..Settings::default()
        })
    }

    #[tokio::test]
    async fn healthy_and_ready_are_prometheus_texts() {
        let twin = Twin::new();
        let healthy = twin.get("/-/healthy").await;
        assert_eq!(healthy.seen(), (200, "Prometheus Server is Healthy.\n"));
        assert_eq!(healthy.header("content-type"), "text/plain; charset=utf-8");
        let ready = twin.get("/-/ready").await;
        assert_eq!(ready.seen(), (200, "Prometheus Server is Ready.\n"));
        let head = twin.api_request("HEAD", "/-/ready", &[], "").await;
        assert_eq!(head.seen(), (200, ""));
        let posted = twin.api_request("POST", "/-/healthy", &[], "").await;
        assert_eq!(posted.seen(), (405, "Method Not Allowed\n"));
        assert_eq!(posted.header("allow"), "GET, HEAD, OPTIONS");
    }

    #[tokio::test]
    async fn a_node_that_lacks_a_leader_is_not_ready() {
        let twin = Twin::new();
        twin.store.unready.store(true, Ordering::SeqCst);
        let ready = twin.get("/-/ready").await;
        assert_eq!(ready.seen(), (503, "Service Unavailable"));
        assert_eq!(ready.header("x-prometheus-stopping"), "false");
        assert_eq!(ready.header("x-not-ready-reason"), "shard s3 has no leader");
        let healthy = twin.get("/-/healthy").await;
        assert_eq!(healthy.code, 200);
        let push = twin.push_request("GET", "/-/ready", &[], "").await;
        assert_eq!(push.code, 503);
    }

    /// Prometheus 3.5.3 with and without `--web.enable-lifecycle`.
    #[tokio::test]
    async fn orders_are_taken_only_when_enabled() {
        for path in ["/-/reload", "/-/quit"] {
            let refused = Twin::new().api_request("POST", path, &[], "").await;
            assert_eq!(refused.seen(), (403, "Lifecycle API is not enabled."));
            let asked = enabled().get(path).await;
            assert_eq!(asked.seen(), (405, "Only POST or PUT requests allowed"));
            let deleted = enabled().api_request("DELETE", path, &[], "").await;
            assert_eq!(deleted.seen(), (405, "Method Not Allowed\n"));
            assert_eq!(deleted.header("allow"), "GET, OPTIONS, POST, PUT");
        }
    }

    #[tokio::test]
    async fn reload_answers_as_prometheus_does() {
        let twin = enabled();
        for method in ["POST", "PUT"] {
            let done = twin.api_request(method, "/-/reload", &[], "").await;
            assert_eq!(done.seen(), (200, ""));
        }
        twin.store.reload_fails.store(true, Ordering::SeqCst);
        let failed = twin.api_request("POST", "/-/reload", &[], "").await;
        let text = "failed to reload config: line 4: field targets not found\n";
        assert_eq!(failed.seen(), (500, text));
    }

    #[tokio::test]
    async fn quitting_is_begun_once() {
        let twin = enabled();
        let first = twin.api_request("POST", "/-/quit", &[], "").await;
        assert_eq!(first.seen(), (200, "Requesting termination... Goodbye!"));
        let second = twin.api_request("PUT", "/-/quit", &[], "").await;
        assert_eq!(second.seen(), (200, "Termination already in progress."));
        let ready = twin.get("/-/ready").await;
        assert_eq!(ready.header("x-prometheus-stopping"), "true");
    }
}
