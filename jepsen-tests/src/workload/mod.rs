//! What the operations are on the wire: from a [`Call`] to an HTTP request, from the reply to
//! what it proves. Both directions are pure; the lanes in [`crate::client`] do the sending.

pub mod register;
pub mod series;

use bytes::Bytes;
use hyper::Method;

use crate::history::{Call, Kind, Seen};
use crate::http::Reply;

/// Which of a node's two listeners takes the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listener {
    Api,
    Push,
}

/// One HTTP request.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    pub listener: Listener,
    pub method: Method,
    pub path: String,
    pub headers: &'static [(&'static str, &'static str)],
    pub body: Bytes,
}

/// What a reply proves about its operation.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    pub kind: Kind,
    pub val: Option<Seen>,
    pub status: Option<u16>,
    pub note: Option<String>,
}

/// The names a run gives to what it writes, so that runs do not meet in one store.
#[derive(Debug, Clone, PartialEq)]
pub struct Scope {
    /// Part of every job and series.
    pub run: String,
    pub seed: u64,
    pub registers: u32,
    pub series: u32,
    /// Wall clock of timestamp 0, in milliseconds since 1970.
    pub base_ms: i64,
    /// How far back scans look.
    pub range_s: u64,
}

impl Scope {
    /// The request of `call`; `now_ms` since 1970 is the time a scan asks for.
    pub fn request(&self, call: &Call, now_ms: i64) -> Request {
        match call {
            Call::Write { key, value } => register::write(self, *key, *value),
            Call::Read => register::read(),
            Call::Append { samples } => series::append(self, samples.iter().copied()),
            Call::Sweep { at } => series::append(self, (0..self.series).map(|s| (s, *at))),
            Call::Scan { first, count } => series::scan(self, *first, *count, now_ms),
        }
    }

    /// What `reply` proves.
    pub fn outcome(&self, call: &Call, reply: Reply) -> Outcome {
        let (status, body) = match reply {
            Reply::NotSent(note) => return unanswered(Kind::Fail, note),
            Reply::Lost(note) => return unanswered(Kind::Info, note),
            Reply::Answer { status, body } => (status, body),
        };
        let mut outcome = Outcome {
            kind: Kind::Info,
            val: None,
            status: Some(status),
            note: None,
        };
        match status {
            200..=299 => match self.seen(call, &body) {
                Ok(val) => {
                    outcome.kind = Kind::Ok;
                    outcome.val = val;
                }
                Err(error) => outcome.note = Some(format!("unreadable answer: {error:#}")),
            },
            // A refused push changes no gauge. A refused remote write may have stored its valid
            // samples before it answered, so it stays in doubt.
            400..=499 if matches!(call, Call::Write { .. }) => {
                outcome.kind = Kind::Fail;
                outcome.note = Some(excerpt(&body));
            }
            _ => outcome.note = Some(excerpt(&body)),
        }
        outcome
    }

    fn seen(&self, call: &Call, body: &[u8]) -> anyhow::Result<Option<Seen>> {
        match call {
            Call::Read => register::values(self, body).map(|v| Some(Seen::Registers(v))),
            Call::Scan { .. } => series::points(self, body).map(|s| Some(Seen::Series(s))),
            _ => Ok(None),
        }
    }
}

fn unanswered(kind: Kind, note: String) -> Outcome {
    Outcome {
        kind,
        val: None,
        status: None,
        note: Some(note),
    }
}

fn excerpt(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    text.trim().chars().take(300).collect()
}

#[cfg(test)]
pub(crate) fn scope_for_tests() -> Scope {
    Scope {
        run: "t1".into(),
        seed: 1,
        registers: 3,
        series: 60,
        base_ms: 1_700_000_000_000,
        range_s: 3_600,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(call: &Call, reply: Reply) -> Kind {
        scope_for_tests().outcome(call, reply).kind
    }

    fn answer(status: u16) -> Reply {
        Reply::Answer {
            status,
            body: Bytes::new(),
        }
    }

    #[test]
    fn only_what_provably_did_not_happen_is_fail() {
        let write = Call::Write { key: 0, value: 1 };
        let append = Call::Append {
            samples: vec![(0, 0)],
        };
        for call in [&write, &append] {
            assert_eq!(kind(call, Reply::NotSent("refused".into())), Kind::Fail);
            assert_eq!(kind(call, Reply::Lost("reset".into())), Kind::Info);
            assert_eq!(kind(call, answer(204)), Kind::Ok);
            assert_eq!(kind(call, answer(503)), Kind::Info);
            assert_eq!(kind(call, answer(307)), Kind::Info);
        }
        assert_eq!(kind(&write, answer(400)), Kind::Fail);
        assert_eq!(kind(&append, answer(400)), Kind::Info);
        let scan = Call::Scan { first: 0, count: 1 };
        assert_eq!(
            kind(&scan, answer(200)),
            Kind::Info,
            "an empty body is no matrix"
        );
    }
}
