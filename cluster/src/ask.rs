//! Questions between the programs that run on the nodes: pages show the whole cluster, and some of
//! it only one node knows (what a target answered last, what its metrics mean).
//!
//! Promise: a question reaches only nodes of the same cluster; question and answer are bounded by
//! [`ASK_BYTES_MAX`], the waiting by [`ASK_TIME_MAX`], and the questions being answered here by
//! [`ASKS_MAX`]. Who does not answer is named. Not here: what is asked, and what a missing answer
//! means to whoever asked. Nothing acknowledged ever depends on this.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::join_all;
use model::NodeId;
use model::limits::{ASK_BYTES_MAX, ASKS_MAX};
use proto::node as wire;
use proto::node::application_server::Application;
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};

use crate::convert;
use crate::peer::Peers;

/// How long somebody who looks at a page waits for the other nodes.
pub const ASK_TIME_MAX: Duration = Duration::from_secs(3);

/// Answers what other nodes ask.
#[async_trait]
pub trait Answers: Send + Sync {
    /// The answer to `payload`, in whatever form both sides agree on for `kind`; else why not.
    async fn answer(&self, kind: &str, payload: Bytes) -> Result<Bytes, String>;
}

/// Why a node gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    #[error("no answer in time")]
    TooSlow,
    #[error("not reached: {0}")]
    Unreachable(String),
    #[error("refused: {0}")]
    Refused(String),
}

/// One node's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    pub node: NodeId,
    pub address: String,
    pub answer: Result<Bytes, AskError>,
}

/// Puts one question to several nodes at once; answers in their order.
pub async fn ask_all(
    peers: &Peers,
    nodes: Vec<(NodeId, String)>,
    kind: &str,
    payload: Bytes,
) -> Vec<Asked> {
    let questions = nodes.into_iter().map(|(node, address)| {
        let payload = payload.clone();
        async move {
            let answer = ask(peers, &address, kind, payload).await;
            Asked {
                node,
                address,
                answer,
            }
        }
        .boxed()
    });
    join_all(questions).await
}

async fn ask(peers: &Peers, address: &str, kind: &str, payload: Bytes) -> Result<Bytes, AskError> {
    use wire::ask_reply::Result::{Answer, Refusal};
    let request = wire::AskRequest {
        cluster_id: convert::cluster_id_to_wire(peers.cluster()),
        kind: kind.to_owned(),
        payload,
    };
    let mut client = peers.at(address).application();
    let reply = tokio::time::timeout(ASK_TIME_MAX, client.ask(request)).await;
    let reply = reply.map_err(|_elapsed| AskError::TooSlow)?;
    let reply = reply.map_err(|status| AskError::Unreachable(status.message().to_owned()))?;
    match reply.into_inner().result {
        Some(Answer(bytes)) => Ok(bytes),
        Some(Refusal(why)) => Err(AskError::Refused(why)),
        None => Err(AskError::Refused("an empty answer".to_owned())),
    }
}

/// Who answers here, once the program above said so.
#[derive(Clone)]
pub struct Answering {
    answers: Arc<OnceLock<Arc<dyn Answers>>>,
    slots: Arc<Semaphore>,
}

impl Default for Answering {
    fn default() -> Self {
        Self {
            answers: Arc::default(),
            slots: Arc::new(Semaphore::new(ASKS_MAX)),
        }
    }
}

impl Answering {
    pub fn set(&self, answers: Arc<dyn Answers>) {
        self.answers.get_or_init(|| answers);
    }

    async fn answer(&self, request: wire::AskRequest) -> Result<Bytes, String> {
        let _slot = self
            .slots
            .try_acquire()
            .map_err(|_full| "too many questions are being answered".to_owned())?;
        let Some(answers) = self.answers.get() else {
            return Err("the node has just started".to_owned());
        };
        let answer = answers.answer(&request.kind, request.payload).await?;
        match answer.len() > ASK_BYTES_MAX / 2 {
            true => Err(format!("the answer has {} bytes: too many", answer.len())),
            false => Ok(answer),
        }
    }
}

/// The answering side on the wire.
pub struct Service {
    pub peers: Arc<Peers>,
    pub answering: Answering,
}

#[tonic::async_trait]
impl Application for Service {
    async fn ask(
        &self,
        request: Request<wire::AskRequest>,
    ) -> Result<Response<wire::AskReply>, Status> {
        use wire::ask_reply::Result::{Answer, Refusal};
        let request = request.into_inner();
        let own = self.peers.cluster();
        let result = match convert::cluster_id_from_wire(&request.cluster_id) == Some(own) {
            false => Err("this node belongs to another cluster".to_owned()),
            true => self.answering.answer(request).await,
        };
        Ok(Response::new(wire::AskReply {
            result: Some(match result {
                Ok(answer) => Answer(answer),
                Err(why) => Refusal(why),
            }),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Echo;

    #[async_trait]
    impl Answers for Echo {
        async fn answer(&self, kind: &str, payload: Bytes) -> Result<Bytes, String> {
            match kind {
                "echo" => Ok(payload),
                "long" => Ok(vec![0; ASK_BYTES_MAX].into()),
                other => Err(format!("unknown question {other}")),
            }
        }
    }

    fn asked(kind: &str) -> wire::AskRequest {
        wire::AskRequest {
            kind: kind.to_owned(),
            payload: Bytes::from_static(b"x"),
            ..wire::AskRequest::default()
        }
    }

    #[tokio::test]
    async fn questions_are_bounded_and_wait_for_a_program() {
        let answering = Answering::default();
        let early = answering.answer(asked("echo")).await;
        assert_eq!(early, Err("the node has just started".to_owned()));
        answering.set(Arc::new(Echo));
        assert_eq!(answering.answer(asked("echo")).await, Ok("x".into()));
        assert!(answering.answer(asked("long")).await.is_err());
        assert!(answering.answer(asked("other")).await.is_err());
        let all = Arc::clone(&answering.slots);
        let _held = all.acquire_many(ASKS_MAX as u32).await.unwrap();
        let full = answering.answer(asked("echo")).await;
        assert_eq!(
            full,
            Err("too many questions are being answered".to_owned())
        );
    }

    #[tokio::test]
    async fn a_stranger_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let world = host::world(root.path()).unwrap();
        let service = Service {
            peers: Arc::new(Peers::new(world)),
            answering: Answering::default(),
        };
        service.answering.set(Arc::new(Echo));
        let mut request = asked("echo");
        request.cluster_id = convert::cluster_id_to_wire(model::ClusterId(9));
        let reply = service.ask(Request::new(request)).await.unwrap();
        let refused =
            wire::ask_reply::Result::Refusal("this node belongs to another cluster".to_owned());
        assert_eq!(reply.into_inner().result, Some(refused));
    }
}
