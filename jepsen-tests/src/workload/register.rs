//! Registers: one gauge in one push group each. A write is a PUT of a unique integer, a read is
//! the exposition of any node, which shows all registers at once.

use anyhow::Context;
use hyper::Method;

use super::{Listener, Request, Scope};
use crate::history::{INITIAL, TORN, TWICE};

const GAUGE: &str = "jepsen_register";

pub fn write(scope: &Scope, key: u32, value: i64) -> Request {
    Request {
        listener: Listener::Push,
        method: Method::PUT,
        path: format!("/metrics/job/{}", job(scope, key)),
        headers: &[("content-type", "text/plain; version=0.0.4; charset=utf-8")],
        body: format!("# TYPE {GAUGE} gauge\n{GAUGE} {value}\n").into(),
    }
}

pub fn read() -> Request {
    Request {
        listener: Listener::Push,
        method: Method::GET,
        path: "/metrics".to_owned(),
        headers: &[],
        body: bytes::Bytes::new(),
    }
}

/// The value of each register in an exposition.
pub fn values(scope: &Scope, body: &[u8]) -> anyhow::Result<Vec<i64>> {
    let text = std::str::from_utf8(body).context("exposition is not UTF-8")?;
    let keys: Vec<String> = (0..scope.registers)
        .map(|key| format!("job=\"{}\"", job(scope, key)))
        .collect();
    let mut values = vec![None; keys.len()];
    let mut pushed = vec![false; keys.len()];
    for line in text.lines() {
        let Some((name, rest)) = line.split_once('{') else {
            continue;
        };
        if name != GAUGE && name != "push_time_seconds" {
            continue;
        }
        let (labels, value) = rest.rsplit_once("} ").context("a series without a value")?;
        let Some(key) = keys.iter().position(|k| labels.split(',').any(|l| l == k)) else {
            continue;
        };
        if name == GAUGE {
            let value: f64 = value.parse().with_context(|| format!("value {value:?}"))?;
            values[key] = Some(match values[key] {
                None => value as i64,
                Some(_) => TWICE,
            });
        } else {
            pushed[key] = true;
        }
    }
    Ok(values
        .into_iter()
        .zip(pushed)
        .map(|(value, pushed)| value.unwrap_or(if pushed { TORN } else { INITIAL }))
        .collect())
}

fn job(scope: &Scope, key: u32) -> String {
    format!("jepsen-{}-g{key}", scope.run)
}

#[cfg(test)]
mod tests {
    use super::super::scope_for_tests;
    use super::*;

    fn values_of(text: &str) -> Vec<i64> {
        values(&scope_for_tests(), text.as_bytes()).unwrap()
    }

    #[test]
    fn an_exposition_gives_every_register() {
        let text = "# TYPE jepsen_register gauge\n\
            jepsen_register{instance=\"\",job=\"jepsen-t1-g0\"} 17\n\
            jepsen_register{instance=\"\",job=\"jepsen-t1-g2\"} 1.5e+03\n\
            jepsen_register{instance=\"\",job=\"jepsen-other-g1\"} 9\n\
            push_time_seconds{instance=\"\",job=\"jepsen-t1-g0\"} 1.7e+09\n";
        assert_eq!(values_of(text), [17, INITIAL, 1500]);
    }

    #[test]
    fn half_a_push_and_a_double_series_are_seen() {
        let gauge = "jepsen_register{instance=\"\",job=\"jepsen-t1-g1\"} 4\n";
        let time = "push_time_seconds{instance=\"\",job=\"jepsen-t1-g0\"} 1.7e+09\n";
        assert_eq!(
            values_of(&[gauge, time, gauge].concat()),
            [TORN, TWICE, INITIAL]
        );
    }

    #[test]
    fn a_write_names_its_group() {
        let request = write(&scope_for_tests(), 2, 5);
        assert_eq!(request.path, "/metrics/job/jepsen-t1-g2");
        assert!(request.body.ends_with(b"jepsen_register 5\n"));
    }
}
