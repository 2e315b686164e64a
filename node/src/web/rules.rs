//! `/api/v1/rules`, `/api/v1/alerts`, `/api/v1/alertmanagers`.
//!
//! Nothing evaluates rules or notifies an Alertmanager yet, so there are no groups, no alerts and
//! nobody to notify: the lists are empty because that is the truth. Parameters are checked as
//! Prometheus 3.5 does, in its order and words.

use axum::http::Uri;
use axum::response::Response;

use super::errors::ApiError;
use super::json::{Json, success};
use super::params::{Form, parse_bool, parse_integer, quote};
use super::query::json_response;

/// Groups of rules.
pub async fn rules(uri: Uri, form: Form) -> Result<Response, ApiError> {
    form.strict().map_err(ApiError::bad_data)?;
    form.matchers().map_err(ApiError::bad_data)?;
    let url = Form::parse(uri.query().unwrap_or_default().as_bytes());
    let kind = url.first("type").to_lowercase();
    if !matches!(kind.as_str(), "" | "alert" | "record") {
        let error = format!("not supported value {}", quote(&kind));
        return Err(ApiError::bad_parameter("type", error));
    }
    let exclude = form.first("exclude_alerts");
    if !exclude.is_empty() {
        parse_bool(exclude).map_err(|e| {
            let error = format!("error converting exclude_alerts: {e}");
            ApiError::bad_parameter("exclude_alerts", error)
        })?;
    }
    check_page(&form)?;
    Ok(respond("{\"groups\":[]}"))
}

/// One page of the groups; a page that begins behind a group needs that group.
fn check_page(form: &Form) -> Result<(), ApiError> {
    let (limit, token) = (form.first("group_limit"), form.first("group_next_token"));
    let bad_token = |e: String| Err(ApiError::bad_parameter("group_next_token", e));
    if limit.is_empty() && !token.is_empty() {
        return bad_token(
            "group_limit needs to be present in order to paginate over the groups".to_owned(),
        );
    }
    if !limit.is_empty() {
        let bad_limit = |e: String| ApiError::bad_parameter("group_limit", e);
        let most = parse_integer(limit).map_err(|why| {
            let parsing = format!("strconv.ParseInt: parsing {}: {why}", quote(limit));
            bad_limit(format!("group_limit needs to be a valid number: {parsing}"))
        })?;
        if most <= 0 {
            return Err(bad_limit(
                "group_limit needs to be greater than 0".to_owned(),
            ));
        }
    }
    match token {
        "" => Ok(()),
        token => bad_token(format!(
            "invalid group_next_token '{token}'. were rule groups changed?"
        )),
    }
}

/// Alerts that are pending or firing.
pub async fn alerts() -> Response {
    respond("{\"alerts\":[]}")
}

/// Who is told of alerts.
pub async fn alertmanagers() -> Response {
    respond("{\"activeAlertmanagers\":[],\"droppedAlertmanagers\":[]}")
}

fn respond(data: &'static str) -> Response {
    let write = |json: &mut Json| {
        json.raw(data);
    };
    json_response(success(write, &[], &[]))
}

#[cfg(test)]
mod tests {
    use super::super::twin::Twin;

    #[tokio::test]
    async fn there_are_none_in_prometheus_shapes() {
        let twin = Twin::new();
        for (path, data) in [
            ("rules", r#"{"groups":[]}"#),
            (
                "rules?type=Alert&exclude_alerts=true&group_limit=3",
                r#"{"groups":[]}"#,
            ),
            (
                "rules?rule_name[]=a&rule_group[]=b&file[]=c&match[]={a=%22b%22}",
                r#"{"groups":[]}"#,
            ),
            ("alerts", r#"{"alerts":[]}"#),
            (
                "alertmanagers",
                r#"{"activeAlertmanagers":[],"droppedAlertmanagers":[]}"#,
            ),
        ] {
            let answer = twin.get(&format!("/api/v1/{path}")).await;
            let body = format!(r#"{{"status":"success","data":{data}}}"#);
            assert_eq!(answer.seen(), (200, body.as_str()), "{path}");
        }
    }

    /// Prometheus 3.5.3, each by `curl -G`.
    #[tokio::test]
    async fn what_is_wrong_is_said_in_prometheus_words() {
        for (path, error) in [
            (
                "type=x",
                r#"invalid parameter "type": not supported value "x""#,
            ),
            (
                "match[]={",
                "1:2: parse error: unexpected end of input inside braces",
            ),
            (
                "exclude_alerts=x",
                r#"invalid parameter "exclude_alerts": error converting exclude_alerts: strconv.ParseBool: parsing "x": invalid syntax"#,
            ),
            (
                "group_limit=x",
                r#"invalid parameter "group_limit": group_limit needs to be a valid number: strconv.ParseInt: parsing "x": invalid syntax"#,
            ),
            (
                "group_limit=0",
                r#"invalid parameter "group_limit": group_limit needs to be greater than 0"#,
            ),
            (
                "group_next_token=abc",
                r#"invalid parameter "group_next_token": group_limit needs to be present in order to paginate over the groups"#,
            ),
            (
                "group_limit=2&group_next_token=abc",
                r#"invalid parameter "group_next_token": invalid group_next_token 'abc'. were rule groups changed?"#,
            ),
        ] {
            let answer = Twin::new().get(&format!("/api/v1/rules?{path}")).await;
            let error = error.replace('"', "\\\"");
            let body = format!(r#"{{"status":"error","errorType":"bad_data","error":"{error}"}}"#);
            assert_eq!(answer.seen(), (400, body.as_str()), "{path}");
        }
    }
}
