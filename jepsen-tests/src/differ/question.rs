//! A query and when it is asked, with how it is sent and how it can be made smaller.

use bytes::Bytes;
use serde_json::json;

use super::expr::Expr;

/// The times a query is evaluated at, in milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    Instant(i64),
    Range {
        start_ms: i64,
        end_ms: i64,
        step_ms: i64,
    },
}

#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    pub expr: Expr,
    pub at: At,
}

impl Question {
    pub fn asked(&self) -> Asked {
        Asked {
            query: self.expr.to_string(),
            at: self.at,
            ordered: self.expr.is_ordered() && matches!(self.at, At::Instant(_)),
        }
    }

    pub fn line(&self) -> String {
        self.asked().line()
    }
}

/// What is sent, once the tree is text.
#[derive(Debug, Clone, PartialEq)]
pub struct Asked {
    pub query: String,
    pub at: At,
    /// The order of the answer's series means something.
    pub ordered: bool,
}

impl Asked {
    /// Path and form of the request.
    pub fn request(&self) -> (&'static str, Bytes) {
        let query = escaped(&self.query);
        match self.at {
            At::Instant(at_ms) => {
                let form = format!("query={query}&time={}", seconds(at_ms));
                ("/api/v1/query", form.into())
            }
            At::Range {
                start_ms,
                end_ms,
                step_ms,
            } => {
                let (start, end, step) = (seconds(start_ms), seconds(end_ms), seconds(step_ms));
                let form = format!("query={query}&start={start}&end={end}&step={step}");
                ("/api/v1/query_range", form.into())
            }
        }
    }

    pub fn line(&self) -> String {
        match self.at {
            At::Instant(at_ms) => format!("{} @ {}", self.query, seconds(at_ms)),
            At::Range {
                start_ms,
                end_ms,
                step_ms,
            } => format!(
                "{} from {} to {} step {}",
                self.query,
                seconds(start_ms),
                seconds(end_ms),
                seconds(step_ms)
            ),
        }
    }

    pub fn json(&self) -> serde_json::Value {
        let at = match self.at {
            At::Instant(at_ms) => json!([at_ms]),
            At::Range {
                start_ms,
                end_ms,
                step_ms,
            } => json!([start_ms, end_ms, step_ms]),
        };
        json!({"query": self.query, "at_ms": at, "ordered": self.ordered})
    }

    /// Reads [`Asked::json`].
    pub fn read(value: &serde_json::Value) -> Option<Self> {
        let times: Option<Vec<i64>> = value["at_ms"]
            .as_array()?
            .iter()
            .map(|t| t.as_i64())
            .collect();
        let at = match times?[..] {
            [at_ms] => At::Instant(at_ms),
            [start_ms, end_ms, step_ms] => At::Range {
                start_ms,
                end_ms,
                step_ms,
            },
            _ => return None,
        };
        Some(Self {
            query: value["query"].as_str()?.to_owned(),
            at,
            ordered: value["ordered"].as_bool()?,
        })
    }
}

impl At {
    /// Fewer steps, or one instant instead of many.
    pub fn smaller(self) -> Vec<Self> {
        let Self::Range {
            start_ms,
            end_ms,
            step_ms,
        } = self
        else {
            return Vec::new();
        };
        let steps = (end_ms - start_ms) / step_ms;
        if steps == 0 {
            return vec![Self::Instant(start_ms)];
        }
        let middle = start_ms + steps / 2 * step_ms;
        let range = |start_ms, end_ms| Self::Range {
            start_ms,
            end_ms,
            step_ms,
        };
        let (next, last) = (start_ms + step_ms, end_ms - step_ms);
        let mut smaller = vec![Self::Instant(start_ms), Self::Instant(end_ms)];
        if steps > 1 {
            smaller.extend([range(start_ms, middle), range(middle, end_ms)]);
        }
        smaller.extend([range(next, end_ms), range(start_ms, last)]);
        smaller
    }
}

fn seconds(ms: i64) -> String {
    let sign = if ms < 0 { "-" } else { "" };
    let ms = ms.unsigned_abs();
    format!("{sign}{}.{:03}", ms / 1000, ms % 1000)
}

/// A value of a form or a query string.
pub fn escaped(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_survives_a_case_file() {
        for at in [
            At::Instant(-5),
            At::Range {
                start_ms: 1,
                end_ms: 9,
                step_ms: 2,
            },
        ] {
            let asked = Asked {
                query: "a{b=\"é\"}".to_owned(),
                at,
                ordered: true,
            };
            assert_eq!(Asked::read(&asked.json()), Some(asked));
        }
    }

    #[test]
    fn smaller_times_end_at_an_instant() {
        let mut at = At::Range {
            start_ms: 0,
            end_ms: 300,
            step_ms: 10,
        };
        for _ in 0..100 {
            match at.smaller().pop() {
                Some(next) => at = next,
                None => return assert_eq!(at, At::Instant(0)),
            }
        }
        panic!("it does not end");
    }
}
