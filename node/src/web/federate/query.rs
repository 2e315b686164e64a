//! `query=`: what PromQL makes of the series at this moment, in an answer of `/federate`.
//!
//! `query=NAME=EXPRESSION` gives the results that name, as a recording rule does; no expression
//! begins with a name and a single `=`. Without a name the results keep their own. Promise: every
//! query is evaluated at the instant of the answer, and one that fails, that gives no numbers, a
//! result without a name, or a series twice is an error and no answer.

use axum::http::StatusCode;
use federation::escaping::is_plain;
use model::labels::METRIC_NAME;
use model::limits::FEDERATE_QUERIES_MAX;
use model::source::Consistency;
use model::{Labels, Newest, Timestamp, Value as Point};
use promql::{QueryParams, Value, VectorSample};

use super::super::Shared;
use super::super::errors::{ApiError, TextError};
use crate::queries::log::Origin;
use crate::queries::{Query, Span};

/// An expression, and the name its results get.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Named<'a> {
    name: Option<&'a str>,
    expression: &'a str,
}

impl<'a> Named<'a> {
    fn parse(text: &'a str) -> Self {
        let named = text.split_once('=').filter(|(name, rest)| {
            // `up == 1` and `up =~ …` are no names.
            is_plain(name.trim()) && !rest.starts_with(['=', '~'])
        });
        match named {
            Some((name, expression)) => Self {
                name: Some(name.trim()),
                expression,
            },
            None => Self {
                name: None,
                expression: text,
            },
        }
    }

    fn labels(&self, labels: Labels) -> Result<Labels, TextError> {
        let mut labels = labels.to_builder();
        if let Some(name) = self.name {
            labels.set(METRIC_NAME, name);
        }
        match labels.get(METRIC_NAME) {
            Some(_) => Ok(labels.build()),
            None => Err(TextError::bad_request(format!(
                "results of {:?} have no name: ask for query=NAME={}",
                self.expression, self.expression
            ))),
        }
    }
}

/// What is common to all queries of an answer.
pub struct Asked {
    pub at: Timestamp,
    pub consistency: Consistency,
    pub origin: Origin,
}

/// The results of all queries, in the order of an exposition.
pub async fn results(
    api: &Shared,
    queries: &[&str],
    asked: &Asked,
) -> Result<Vec<Newest>, TextError> {
    if queries.len() > FEDERATE_QUERIES_MAX {
        let text = format!("more than {FEDERATE_QUERIES_MAX} queries");
        return Err(TextError::bad_request(text));
    }
    let mut all = Vec::new();
    for text in queries {
        let named = Named::parse(text);
        for sample in evaluate(api, named.expression, asked).await? {
            let (value, histogram) = match sample.value {
                Point::Float(value) => (value, None),
                Point::Histogram(histogram) => (histogram.sum, Some(histogram)),
            };
            all.push(Newest {
                labels: named.labels(sample.labels)?,
                at: asked.at,
                value,
                histogram,
            });
        }
    }
    all.retain(Newest::is_shown);
    all.sort_by(|a, b| a.labels.cmp_by_name(&b.labels));
    match all.windows(2).find(|pair| pair[0].labels == pair[1].labels) {
        None => Ok(all),
        Some(twice) => {
            let text = format!("two results of the queries are {}", twice[0].labels);
            Err(TextError::new(StatusCode::UNPROCESSABLE_ENTITY, text))
        }
    }
}

async fn evaluate(
    api: &Shared,
    expression: &str,
    asked: &Asked,
) -> Result<Vec<VectorSample>, TextError> {
    let time_max = api.settings.query_timeout;
    let query = Query {
        text: expression,
        span: Span::Instant(asked.at),
        params: QueryParams {
            lookback: None,
            consistency: asked.consistency,
            timeout: Some(time_max),
        },
        time_max,
        origin: Some(asked.origin.clone()),
        trail: None,
    };
    let answer = api.queries.run(query).await;
    match answer
        .map_err(|failure| as_text(failure.into()))?
        .result
        .value
    {
        Value::Vector(samples) => Ok(samples),
        Value::Scalar(timestamp, value) => Ok(vec![VectorSample {
            labels: Labels::default(),
            timestamp,
            value: Point::Float(value),
        }]),
        Value::String(..) | Value::Matrix(_) => Err(TextError::bad_request(format!(
            "{expression:?} is no number at one instant"
        ))),
    }
}

fn as_text(error: ApiError) -> TextError {
    TextError::new(error.kind.status(), error.message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_what_stands_before_a_single_sign() {
        let named = |text| {
            let named = Named::parse(text);
            (named.name, named.expression)
        };
        assert_eq!(named("a:b=sum(up)"), (Some("a:b"), "sum(up)"));
        assert_eq!(named(" a = up == 1"), (Some("a"), " up == 1"));
        for own in [
            "up",
            "up == 1",
            "up==1",
            "up{a=\"b\"}",
            "{a=\"b\"}",
            "1 != 2",
            "a >= 2",
        ] {
            assert_eq!(named(own), (None, own));
        }
    }
}
