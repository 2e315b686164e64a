//! One Consul agent and the few requests a node makes of it (Consul HTTP API v1, agent 1.3 and
//! later). It remembers nothing between two requests.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::{Method, StatusCode};
use model::port::Net;

use super::http::{Answer, Asked, Cause, ask, segment};
use super::registration::Described;
use super::{ConsulError, Found, Registration, found, split_address};

/// An agent answers from its memory or by one hop to a Consul server.
const DEADLINE: Duration = Duration::from_secs(5);
/// How long an agent may hold a request that waits for news.
const NEWS_WAIT: Duration = Duration::from_secs(30);
/// Consul adds up to a sixteenth to such a wait, so that not all return at once.
const NEWS_DEADLINE: Duration = Duration::from_secs(30 + 2 + 5);
/// What of a refusal is repeated in an error.
const REFUSAL_CHARS_MAX: usize = 200;

/// A Consul agent, usually the one on this machine.
#[derive(Clone)]
pub struct Agent {
    net: Arc<dyn Net>,
    address: String,
}

/// The nodes of a service, and the state of the catalogue that was read.
pub(super) struct Listing {
    pub found: Vec<Found>,
    pub index: u64,
}

impl Agent {
    /// `address` is `host:port` or `http://host:port`.
    pub fn new(net: Arc<dyn Net>, address: &str) -> Result<Self, ConsulError> {
        let wrong = |expected| ConsulError::Address {
            address: address.to_owned(),
            expected,
        };
        if address.starts_with("https://") {
            return Err(wrong("TLS to the agent is not built in; use its HTTP port"));
        }
        let bare = address.strip_prefix("http://").unwrap_or(address);
        let bare = bare.strip_suffix('/').unwrap_or(bare);
        split_address(bare).ok_or_else(|| wrong("expected host:port or http://host:port"))?;
        Ok(Self {
            net,
            address: bare.to_owned(),
        })
    }

    /// Registers the node, or replaces what is registered under its id.
    pub async fn register(&self, registration: &Registration) -> Result<(), ConsulError> {
        // Without it a check that was once registered under another name would stay for ever.
        let target = "/v1/agent/service/register?replace-existing-checks=true";
        let body = registration.to_json().to_string();
        let asked = put(target.to_owned(), body.into());
        let answer = self.ask(&asked).await?;
        self.accepted(&asked, answer).map(drop)
    }

    /// Removes the instance of this id; fine if there is none.
    pub async fn deregister(&self, id: &str) -> Result<(), ConsulError> {
        let target = format!("/v1/agent/service/deregister/{}", segment(id));
        let asked = put(target, Bytes::new());
        let answer = self.ask(&asked).await?;
        if answer.status == StatusCode::NOT_FOUND {
            return Ok(());
        }
        self.accepted(&asked, answer).map(drop)
    }

    /// The nodes registered as `service` with any agent, healthy or not, by id.
    pub async fn peers(&self, service: &str) -> Result<Vec<Found>, ConsulError> {
        let asked = get(format!("/v1/health/service/{}", segment(service)), DEADLINE);
        Ok(self.list(&asked).await?.found)
    }

    /// As [`Self::peers`], once the catalogue differs from that of `index` or half a minute has
    /// passed; at once for index 0.
    pub(super) async fn peers_after(
        &self,
        service: &str,
        index: u64,
    ) -> Result<Listing, ConsulError> {
        let service = segment(service);
        let wait_s = NEWS_WAIT.as_secs();
        let target = format!("/v1/health/service/{service}?index={index}&wait={wait_s}s");
        self.list(&get(target, NEWS_DEADLINE)).await
    }

    /// Whether the agent has the node registered, and as this says but for the check, which it does
    /// not describe.
    pub async fn has(&self, registration: &Registration) -> Result<bool, ConsulError> {
        let target = format!("/v1/agent/service/{}", segment(&registration.id()));
        let asked = get(target, DEADLINE);
        let answer = self.ask(&asked).await?;
        if answer.status == StatusCode::NOT_FOUND {
            return Ok(false);
        }
        let answer = self.accepted(&asked, answer)?;
        let described: Described = serde_json::from_slice(&answer.body)
            .map_err(|e| self.malformed(&asked, answer.status, e))?;
        Ok(registration.is_described_by(&described))
    }

    async fn list(&self, asked: &Asked) -> Result<Listing, ConsulError> {
        let answer = self.ask(asked).await?;
        let answer = self.accepted(asked, answer)?;
        let found =
            found::read(&answer.body).map_err(|e| self.malformed(asked, answer.status, e))?;
        let index = answer.headers.get("x-consul-index");
        let index = index.and_then(|value| value.to_str().ok()?.parse().ok());
        Ok(Listing {
            found,
            // Without one the next request is answered at once, which is right if not thrifty.
            index: index.unwrap_or(0),
        })
    }

    async fn ask(&self, asked: &Asked) -> Result<Answer, ConsulError> {
        let answer = ask(&*self.net, &self.address, asked).await;
        answer.map_err(|source: Cause| ConsulError::Unanswered {
            agent: self.address.clone(),
            request: asked.name(),
            source,
        })
    }

    fn accepted(&self, asked: &Asked, answer: Answer) -> Result<Answer, ConsulError> {
        if answer.status == StatusCode::OK {
            return Ok(answer);
        }
        Err(ConsulError::Refused {
            agent: self.address.clone(),
            request: asked.name(),
            status: answer.status,
            answer: beginning(&answer.body),
        })
    }

    fn malformed(
        &self,
        asked: &Asked,
        status: StatusCode,
        source: serde_json::Error,
    ) -> ConsulError {
        ConsulError::Malformed {
            agent: self.address.clone(),
            request: asked.name(),
            status,
            source,
        }
    }
}

impl fmt::Display for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

fn get(target: String, deadline: Duration) -> Asked {
    Asked {
        method: Method::GET,
        target,
        body: Bytes::new(),
        deadline,
    }
}

fn put(target: String, body: Bytes) -> Asked {
    Asked {
        method: Method::PUT,
        target,
        body,
        deadline: DEADLINE,
    }
}

/// The first of a text, on one line and without characters that would move a terminal.
fn beginning(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let chars = text.trim().chars().take(REFUSAL_CHARS_MAX);
    let printable = chars.map(|c| if c.is_control() { ' ' } else { c });
    printable.collect()
}
