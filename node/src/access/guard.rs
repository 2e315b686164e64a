//! In front of the routers: headers on every answer, passwords before every question, and rules
//! before every push.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http_body_util::BodyExt as _;

use super::pushes::{Denied, may_push};
use super::{Access, Settings};

/// Consul's check shows the node's token in it.
pub const CHECK_HEADER: &str = "x-quorate-check";
const CHECKED_PATH: &str = "/-/ready";
/// As much as Go's server takes in.
const DRAINED_BYTES_MAX: usize = 256 << 10;

/// Who sent a request: put there by [`guard`].
#[derive(Debug, Clone)]
struct User(String);

/// What somebody shows at the door.
enum Shown {
    Token,
    Password(Option<(String, String)>),
}

/// Lets through who may come in.
pub async fn guard(
    State(access): State<Arc<Access>>,
    mut request: Request,
    next: Next,
) -> Response {
    let settings = access.in_force();
    let shown = match is_check(&access, &request) {
        true => Shown::Token,
        false => Shown::Password(request.headers().get(header::AUTHORIZATION).and_then(basic)),
    };
    let mut answer = match identify(&access, &settings, shown).await {
        Ok(user) => {
            if let Some(user) = user {
                request.extensions_mut().insert(user);
            }
            next.run(request).await
        }
        Err(answer) => {
            drain(request).await;
            answer
        }
    };
    for (name, value) in &settings.web.headers {
        answer.headers_mut().insert(name, value.clone());
    }
    answer
}

/// The user, if users are asked for.
async fn identify(
    access: &Access,
    settings: &Settings,
    shown: Shown,
) -> Result<Option<User>, Response> {
    let users = &settings.web.users;
    if users.is_empty() {
        return Ok(None);
    }
    match shown {
        Shown::Token => return Ok(None),
        Shown::Password(Some((name, password)))
            if access.passwords.fit(users, &name, &password).await =>
        {
            return Ok(Some(User(name)));
        }
        Shown::Password(_) => {}
    }
    let headers = [
        (header::WWW_AUTHENTICATE, "Basic"),
        (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    Err((StatusCode::UNAUTHORIZED, headers, "Unauthorized\n").into_response())
}

fn is_check(access: &Access, request: &Request) -> bool {
    let token = request.headers().get(CHECK_HEADER);
    let shown = token.is_some_and(|token| {
        let (token, own) = (token.as_bytes(), access.check_token.as_bytes());
        // Looks at every byte, so that the time taken tells nothing.
        token.len() == own.len() && token.iter().zip(own).fold(0, |all, (a, b)| all | (a ^ b)) == 0
    });
    shown && request.uri().path().ends_with(CHECKED_PATH)
}

/// Name and password of RFC 7617.
fn basic(value: &HeaderValue) -> Option<(String, String)> {
    let value = value.to_str().ok()?;
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = STANDARD.decode(encoded.trim()).ok()?;
    let text = String::from_utf8(decoded).ok()?;
    let (name, password) = text.split_once(':')?;
    Some((name.to_owned(), password.to_owned()))
}

/// Keeps pushes to the rules; inside [`guard`]. What is no push passes.
pub async fn push_rules(
    State((access, prefix)): State<(Arc<Access>, String)>,
    request: Request,
    next: Next,
) -> Response {
    let settings = access.in_force();
    let rules = &settings.web.push_rules;
    let method = request.method();
    let changes = !(method.is_safe());
    if rules.is_empty() || !changes {
        return next.run(request).await;
    }
    let path = request.uri().path();
    let path = path.strip_prefix(prefix.as_str()).unwrap_or(path);
    // A path that names no group is refused by who knows paths.
    let Ok(key) = ingest::push::path::parse(path, ingest::push::Names::Utf8) else {
        return next.run(request).await;
    };
    let pairs: Vec<_> = key.iter().collect();
    let job = pairs.iter().find(|(name, _)| *name == "job");
    let job = job.map_or("", |(_, value)| value);
    let user = request.extensions().get::<User>();
    let user = user.map(|User(name)| name.as_str());
    let taken = match may_push(rules, user, job) {
        true => access.rates.take(rules, job, access.clock.monotonic()),
        false => Err(Denied::User),
    };
    match taken {
        Ok(()) => next.run(request).await,
        Err(why) => {
            let answer = denied(why, user, job);
            drain(request).await;
            answer
        }
    }
}

/// Takes in the rest of a request that is turned away, up to a bound: over HTTP/2 a stream that
/// ends before its body came looks broken to some clients, and they do not see the answer.
async fn drain(request: Request) {
    let mut body = request.into_body();
    let mut left = DRAINED_BYTES_MAX;
    while let Some(Ok(frame)) = body.frame().await {
        let bytes = frame.data_ref().map_or(0, bytes::Bytes::len);
        match left.checked_sub(bytes) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}

fn denied(why: Denied, user: Option<&str>, job: &str) -> Response {
    match why {
        Denied::User => {
            let user = user.unwrap_or_default();
            let text = format!("user {user:?} may not push to job {job:?}\n");
            (StatusCode::FORBIDDEN, text).into_response()
        }
        Denied::Rate(wait) => {
            let seconds = wait.as_secs_f64().ceil().max(1.0);
            let after = [(header::RETRY_AFTER, format!("{seconds}"))];
            let text = format!("more pushes to job {job:?} than its rule allows\n");
            (StatusCode::TOO_MANY_REQUESTS, after, text).into_response()
        }
    }
}

#[cfg(test)]
mod tests;
