//! A guarded router, asked with and without what lets people in.

use std::path::Path;

use axum::Router;
use axum::body::Body;
use axum::middleware::from_fn_with_state;
use axum::routing::any;
use host::SystemClock;
use tower::ServiceExt as _;

use super::*;

fn guarded(file: String) -> (Arc<Access>, Router) {
    let surroundings = move |_: &Path| Ok(file.clone());
    let clock = Arc::new(SystemClock::new());
    let access = Access::open(Path::new("web.yml"), Arc::new(surroundings), clock);
    let access = Arc::new(access.unwrap());
    let ruled = (Arc::clone(&access), "/gw".to_owned());
    let router = Router::new()
        .fallback(any(|| async { "in" }))
        .layer(from_fn_with_state(ruled, push_rules))
        .layer(from_fn_with_state(Arc::clone(&access), guard));
    (access, router)
}

async fn ask(router: &Router, method: &str, path: &str, headers: &[(&str, &str)]) -> Response {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Body::empty()).unwrap();
    router.clone().oneshot(request).await.unwrap()
}

fn basic_of(user: &str) -> String {
    format!("Basic {}", STANDARD.encode(user))
}

/// Prometheus 3.5.3 with the same file.
#[tokio::test]
async fn who_has_no_password_stays_outside() {
    let hash = bcrypt::hash("secret", 4).unwrap();
    let (access, router) = guarded(format!(
        "{{basic_auth_users: {{alice: {hash:?}}}, http_server_config: {{headers: {{X-Frame-Options: deny}}}}}}"
    ));
    let wrong = [
        basic_of("alice:Secret"),
        basic_of("alice"),
        basic_of("bob:secret"),
        "Basic !!".to_owned(),
        "Bearer secret".to_owned(),
    ];
    for given in &wrong {
        let answer = ask(&router, "GET", "/-/ready", &[("authorization", given)]).await;
        assert_eq!(answer.status(), 401, "{given}");
        assert_eq!(answer.headers()["www-authenticate"], "Basic");
        assert_eq!(answer.headers()["x-frame-options"], "deny");
    }
    let alice = basic_of("alice:secret");
    let answer = ask(&router, "GET", "/any", &[("authorization", &alice)]).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["x-frame-options"], "deny");
    let check = [access.check_header()];
    assert_eq!(ask(&router, "GET", "/-/ready", &check).await.status(), 200);
    assert_eq!(ask(&router, "GET", "/metrics", &check).await.status(), 401);
    let guess = [(CHECK_HEADER, "0")];
    assert_eq!(ask(&router, "GET", "/-/ready", &guess).await.status(), 401);
}

#[tokio::test]
async fn pushes_keep_to_the_rules() {
    let hash = bcrypt::hash("s", 4).unwrap();
    let (_, router) = guarded(format!(
        "{{basic_auth_users: {{ci: {hash:?}, ops: {hash:?}}}, push_rules: [\
         {{jobs: [ci-], users: [ci]}}, {{jobs: [slow], pushes_per_second: 0.01}}]}}"
    ));
    let (ci, ops) = (basic_of("ci:s"), basic_of("ops:s"));
    for (user, method, path, status) in [
        (&ci, "PUT", "/gw/metrics/job/ci-1", 200),
        (&ci, "PUT", "/gw/metrics/job/other", 403),
        (&ci, "GET", "/gw/metrics/job/other", 200),
        (&ops, "DELETE", "/gw/metrics/job/ci-1", 403),
        (&ops, "DELETE", "/gw/metrics/job@base64/Y2ktMQ", 403),
        (&ops, "POST", "/gw/metrics/job/other/a/b", 200),
        (&ops, "POST", "/gw/metrics/job/slow", 200),
        (&ops, "POST", "/gw/metrics/job/slow", 429),
        (&ops, "POST", "/gw/metrics/job/slower", 200),
    ] {
        let answer = ask(&router, method, path, &[("authorization", user)]).await;
        assert_eq!(answer.status(), status, "{method} {path}");
        if status == 429 {
            assert_eq!(answer.headers()["retry-after"], "100");
        }
    }
}
