//! `/api/v1/format_query` and `/api/v1/parse_query`: an expression laid out, and as a tree.

use axum::extract::State;
use axum::response::Response;
use promql::ParseError;

use super::Shared;
use super::errors::ApiError;
use super::json::{Json, success};
use super::params::Form;
use super::query::json_response;

/// On as many lines as it needs.
pub async fn format(State(api): State<Shared>, form: Form) -> Result<Response, ApiError> {
    let text = promql::format_query(form.first("query"), api.settings.parse).map_err(bad)?;
    let write = |json: &mut Json| {
        json.text(&text);
    };
    Ok(json_response(success(write, &[], &[])))
}

/// Node by node.
pub async fn parse(State(api): State<Shared>, form: Form) -> Result<Response, ApiError> {
    let tree = promql::parse_tree_json(form.first("query"), api.settings.parse).map_err(bad)?;
    let write = |json: &mut Json| {
        json.raw(&tree);
    };
    Ok(json_response(success(write, &[], &[])))
}

fn bad(error: ParseError) -> ApiError {
    ApiError::bad_parameter("query", error)
}

#[cfg(test)]
mod tests {
    use super::super::twin::Twin;

    /// Prometheus 3.5.3.
    #[tokio::test]
    async fn expressions_are_laid_out_and_taken_apart() {
        let twin = Twin::new();
        for (path, data) in [
            ("format_query?query=a%2Bb", r#""a + b""#),
            ("format_query?query=a%3E1", r#""a \u003e 1""#),
            (
                "parse_query?query=1",
                r#"{"type":"numberLiteral","val":"1"}"#,
            ),
        ] {
            let body = format!(r#"{{"status":"success","data":{data}}}"#);
            for method in ["GET", "POST"] {
                let path = format!("/api/v1/{path}");
                let answer = twin.api_request(method, &path, &[], "").await;
                assert_eq!(answer.seen(), (200, body.as_str()), "{path}");
            }
        }
        for path in ["format_query", "parse_query"] {
            let answer = twin.get(&format!("/api/v1/{path}?query=sum(")).await;
            let error =
                r#"invalid parameter \"query\": 1:5: parse error: unclosed left parenthesis"#;
            let body = format!(r#"{{"status":"error","errorType":"bad_data","error":"{error}"}}"#);
            assert_eq!(answer.seen(), (400, body.as_str()));
        }
    }
}
