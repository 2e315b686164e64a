//! A Consul agent in memory, behind a network that leads nowhere else: enough of one for what a
//! node asks. How a real one answers is tested in `tests/consul.rs`.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use model::port::{Connection, Listener, Net};
use serde_json::{Value, json};
use tokio::sync::watch;

/// How the agent behaves.
#[derive(Debug, Clone, PartialEq)]
pub enum Mood {
    Well,
    /// Nobody listens.
    Down,
    /// Takes connections and says nothing.
    Silent,
    /// Answers everything with this.
    Says(StatusCode, Bytes),
}

pub struct State {
    pub mood: Mood,
    /// Bodies of registrations, by id.
    pub services: BTreeMap<String, Value>,
    /// Method and path of what was asked, in order; looks at the catalogue left out.
    pub asked: Vec<String>,
    /// How many connections were tried.
    pub connects: u64,
    /// Of the catalogue; any change of what the agent is or has moves it on.
    index: u64,
}

/// Shared by the test and the [`Net`] that leads to the agent.
#[derive(Clone)]
pub struct Fake(Arc<watch::Sender<State>>);

impl Fake {
    pub fn new(mood: Mood) -> Self {
        let state = State {
            mood,
            services: BTreeMap::new(),
            asked: Vec::new(),
            connects: 0,
            index: 1,
        };
        Self(Arc::new(watch::Sender::new(state)))
    }

    pub fn change(&self, change: impl FnOnce(&mut State)) {
        self.0.send_modify(|state| {
            change(state);
            state.index += 1;
        });
    }

    /// What was asked since this was last called.
    pub fn take_asked(&self) -> Vec<String> {
        let mut asked = Vec::new();
        self.0.send_modify(|s| asked.append(&mut s.asked));
        asked
    }

    pub fn read<T>(&self, read: impl FnOnce(&State) -> T) -> T {
        read(&self.0.borrow())
    }

    /// Waits until `condition` holds; time is virtual, so an hour is soon over.
    pub async fn until(&self, what: &str, condition: impl FnMut(&State) -> bool) {
        let mut watched = self.0.subscribe();
        let held = tokio::time::timeout(Duration::from_secs(3600), watched.wait_for(condition));
        assert!(held.await.is_ok(), "never happened: {what}");
    }

    async fn answer(self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        let (method, uri) = (request.method().clone(), request.uri().clone());
        let query = uri.query().unwrap_or_default().to_owned();
        let body = request.into_body().collect().await.unwrap().to_bytes();
        if let Mood::Says(status, text) = self.read(|s| s.mood.clone()) {
            return Ok(response(status, text, 0));
        }
        let path = uri.path().strip_prefix("/v1/").unwrap();
        let id = path.rsplit('/').next().unwrap();
        if path.starts_with("health/service/") {
            self.wait_for_news(&query).await;
            let (list, index) = self.read(|s| (health(s), s.index));
            return Ok(response(StatusCode::OK, list.to_string().into(), index));
        }
        self.0
            .send_modify(|s| s.asked.push(format!("{method} {path}")));
        let found = if path == "agent/service/register" {
            let service: Value = serde_json::from_slice(&body).unwrap();
            let id = service["ID"].as_str().unwrap().to_owned();
            self.change(|s| drop(s.services.insert(id, service)));
            Some(Value::Null)
        } else if path.starts_with("agent/service/deregister/") {
            self.change(|s| drop(s.services.remove(id)));
            Some(Value::Null)
        } else {
            self.read(|s| s.services.get(id).map(described))
        };
        Ok(match found {
            Some(body) => response(StatusCode::OK, body.to_string().into(), 0),
            None => response(StatusCode::NOT_FOUND, "unknown service ID".into(), 0),
        })
    }

    /// A blocking query: until the catalogue has changed, or its time is over.
    async fn wait_for_news(&self, query: &str) {
        let parameter = |name: &str| query.split('&').find_map(|p| p.strip_prefix(name));
        let Some(known) = parameter("index=").map(|text| text.parse::<u64>().unwrap()) else {
            return;
        };
        let wait_s = parameter("wait=").unwrap().strip_suffix('s').unwrap();
        let wait = Duration::from_secs(wait_s.parse().unwrap());
        let mut watched = self.0.subscribe();
        let changed = watched.wait_for(|s| known == 0 || s.index != known);
        drop(tokio::time::timeout(wait, changed).await);
    }
}

#[async_trait]
impl Net for Fake {
    async fn connect(&self, _address: &str) -> io::Result<Box<dyn Connection>> {
        self.0.send_modify(|s| s.connects += 1);
        let mood = self.read(|s| s.mood.clone());
        if mood == Mood::Down {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let agent = self.clone();
        let serve = async move {
            if mood == Mood::Silent {
                let _held_open = theirs;
                return std::future::pending().await;
            }
            let service = service_fn(move |request| agent.clone().answer(request));
            let http = hyper::server::conn::http1::Builder::new();
            // Fails when the client gives up, which some tests make it do.
            drop(http.serve_connection(TokioIo::new(theirs), service).await);
        };
        #[allow(
            clippy::disallowed_methods,
            reason = "the other end, not the code tested"
        )]
        drop(tokio::spawn(serve));
        Ok(Box::new(ours))
    }

    async fn listen(&self, _address: &str) -> io::Result<Box<dyn Listener>> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

fn response(status: StatusCode, body: Bytes, index: u64) -> Response<Full<Bytes>> {
    let response = Response::builder()
        .status(status)
        .header("X-Consul-Index", index);
    response.body(Full::new(body)).unwrap()
}

fn described(service: &Value) -> Value {
    json!({
        "ID": service["ID"],
        "Service": service["Name"],
        "Tags": service["Tags"],
        "Address": service["Address"],
        "Port": service["Port"],
        "Meta": service["Meta"],
        "ContentHash": "d7b7b1b2a1a1e2c4",
    })
}

fn health(state: &State) -> Value {
    let entry = |service| {
        json!({
            "Node": { "Node": "machine" },
            "Service": described(service),
            "Checks": [{ "CheckID": "serfHealth", "Status": "passing" }],
        })
    };
    state.services.values().map(entry).collect()
}
