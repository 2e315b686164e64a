//! What a node says of itself in Consul, and how the agent's description of it is compared with
//! that. It does not know when it is registered.

use std::collections::BTreeMap;

use model::{ClusterId, NodeId};
use serde::Deserialize;
use serde_json::{Value, json};

/// The service's name unless another was configured.
pub const SERVICE: &str = "quorate";
/// What the service can be found by: whose protocols it speaks.
pub const TAGS: [&str; 2] = ["prometheus", "pushgateway"];

const CHECK_INTERVAL: &str = "5s";
const CHECK_TIMEOUT: &str = "2s";
/// How long Consul goes on showing a node that is down. The entry is the alarm, and a node that
/// fails on Friday night must still be seen on Monday, so it is days and not minutes. It is not for
/// ever either, since a node whose disk was wiped comes back under another id. A node that was away
/// longer loses nothing: it registers itself again as it starts.
const DEREGISTER_AFTER: &str = "72h";

/// One node as one instance of a service. While it is kept registered only what describes the node
/// changes (the cluster's id becomes known when the cluster is formed); `service` and `node_id`
/// stay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// [`SERVICE`] by default.
    pub service: String,
    pub node_id: NodeId,
    /// `None` until the node has formed or joined a cluster.
    pub cluster_id: Option<ClusterId>,
    pub version: String,
    /// `""` for none.
    pub zone: String,
    /// Where others reach the HTTP API: a host name or IP address without brackets, and a port.
    pub address: String,
    pub port: u16,
    /// `host:port` that other nodes dial.
    pub grpc_address: String,
    /// `host:port` of the Pushgateway API; `""` for none.
    pub push_address: String,
    /// [`TAGS`] by default.
    pub tags: Vec<String>,
    /// The whole URL of `/-/ready`, as the agent reaches it.
    pub check_url: String,
    /// Sent with the check, where the URL asks who comes. What it opens is the check's answer alone:
    /// whoever may read the agent's checks may read it.
    pub check_header: Option<(String, String)>,
}

impl Registration {
    /// The instance's id: one birth of one data directory, so a restart replaces its entry.
    pub fn id(&self) -> String {
        format!("quorate-{}", self.node_id)
    }

    /// What cannot be said yet is left out.
    fn meta(&self) -> BTreeMap<String, String> {
        let cluster_id = self.cluster_id.map(|id| id.to_string());
        let pairs = [
            ("node_id", self.node_id.to_string()),
            ("cluster_id", cluster_id.unwrap_or_default()),
            ("version", self.version.clone()),
            ("zone", self.zone.clone()),
            ("grpc_address", self.grpc_address.clone()),
            ("push_address", self.push_address.clone()),
        ];
        let said = pairs.into_iter().filter(|(_, value)| !value.is_empty());
        said.map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// The body of `PUT /v1/agent/service/register`.
    pub(super) fn to_json(&self) -> Value {
        let header = self.check_header.iter();
        let header: BTreeMap<_, _> = header.map(|(name, value)| (name, [value])).collect();
        json!({
            "ID": self.id(),
            "Name": self.service,
            "Tags": self.tags,
            "Address": self.address,
            "Port": self.port,
            "Meta": self.meta(),
            "EnableTagOverride": false,
            "Check": {
                "CheckID": format!("{}:ready", self.id()),
                "Name": "ready",
                "Notes": "every shard this node holds has a leader",
                "HTTP": self.check_url,
                "Header": header,
                // The agent asks this machine by address, and certificates are for names.
                "TLSSkipVerify": true,
                "Method": "GET",
                "Interval": CHECK_INTERVAL,
                "Timeout": CHECK_TIMEOUT,
                "DeregisterCriticalServiceAfter": DEREGISTER_AFTER,
            },
        })
    }

    /// Whether the agent's description says what this says.
    pub(super) fn is_described_by(&self, described: &Described) -> bool {
        described.id == self.id()
            && described.service == self.service
            && described.address == self.address
            && described.port == i64::from(self.port)
            && described.tags.as_deref().unwrap_or_default() == self.tags
            && described.meta.clone().unwrap_or_default() == self.meta()
    }
}

/// The answer of `GET /v1/agent/service/:id`, as far as it is ours to say. Empty lists are `null`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Described {
    #[serde(rename = "ID")]
    id: String,
    service: String,
    address: String,
    port: i64,
    tags: Option<Vec<String>>,
    meta: Option<BTreeMap<String, String>>,
}
