//! Why Consul was of no help. It does not know what was hoped for: each text names the agent and
//! the request, and the caller adds the rest.

use hyper::StatusCode;

/// What a request to an agent came to, other than what was asked for.
#[derive(Debug, thiserror::Error)]
pub enum ConsulError {
    /// The configured text is not an agent's address; no retry helps.
    #[error("consul agent address {address:?}: {expected}")]
    Address {
        address: String,
        expected: &'static str,
    },
    /// No whole answer in time. The agent may have carried the request out.
    #[error("consul agent {agent}: {request}: no answer")]
    Unanswered {
        agent: String,
        request: String,
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The agent said no.
    #[error("consul agent {agent}: {request}: {status}: {answer}")]
    Refused {
        agent: String,
        request: String,
        status: StatusCode,
        /// The beginning of what the agent said, on one line.
        answer: String,
    },
    /// The answer is not of the API's form: whoever listens there is no Consul agent.
    #[error("consul agent {agent}: {request}: {status}: the answer is not Consul's")]
    Malformed {
        agent: String,
        request: String,
        status: StatusCode,
        source: serde_json::Error,
    },
}
