//! The nodes that Consul knows of. It does not know which of them live: Consul's check is a hint,
//! and a node is not ready before its cluster is formed, so those that are not passing count too.

use std::collections::{BTreeMap, BTreeSet};

use model::{ClusterId, NodeId};
use serde::Deserialize;
use tracing::debug;

use super::{Registration, split_address};

/// One registered node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The instance's id in Consul.
    pub id: String,
    pub node_id: NodeId,
    /// `host:port` that other nodes dial.
    pub address: String,
    /// `None` when the node has formed or joined no cluster yet.
    pub cluster_id: Option<ClusterId>,
    /// `""` for none.
    pub zone: String,
    /// Every check of the instance and of its machine passes.
    pub passing: bool,
}

/// The nodes among the instances of a service, by id; others are left out.
pub(super) fn read(json: &[u8]) -> Result<Vec<Found>, serde_json::Error> {
    let entries: Vec<Entry> = serde_json::from_slice(json)?;
    let mut found: Vec<_> = entries.into_iter().filter_map(Entry::into_found).collect();
    found.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(found)
}

/// Addresses where `own` may find its cluster: of every other node that belongs to no other
/// cluster; sorted, each once.
pub(super) fn addresses(found: &[Found], own: &Registration) -> Vec<String> {
    let is_of_another = |found: &Found| match (found.cluster_id, own.cluster_id) {
        (Some(theirs), Some(ours)) => theirs != ours,
        _ => false,
    };
    let own_id = own.id();
    let others = found.iter().filter(|f| f.id != own_id && !is_of_another(f));
    let addresses: BTreeSet<_> = others.map(|f| f.address.clone()).collect();
    addresses.into_iter().collect()
}

/// One element of the answer of `GET /v1/health/service/:name`. Empty lists are `null`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    service: Instance,
    checks: Option<Vec<Check>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Instance {
    #[serde(rename = "ID")]
    id: String,
    meta: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Check {
    status: String,
}

impl Entry {
    fn into_found(self) -> Option<Found> {
        let checks = self.checks.unwrap_or_default();
        let passing = checks.iter().all(|check| check.status == "passing");
        let found = self.service.to_found(passing);
        if found.is_none() {
            debug!(id = self.service.id, "instance in consul is not a node");
        }
        found
    }
}

impl Instance {
    /// `None` unless the metadata are those a node registers.
    fn to_found(&self, passing: bool) -> Option<Found> {
        let meta = |name: &str| self.meta.as_ref()?.get(name);
        let node_id = meta("node_id")?.strip_prefix('n')?.parse().ok()?;
        let address = meta("grpc_address")?.clone();
        split_address(&address)?;
        let cluster_id = match meta("cluster_id").map(String::as_str) {
            None | Some("") => None,
            Some(text) => Some(text.parse().ok()?),
        };
        Some(Found {
            id: self.id.clone(),
            node_id: NodeId(node_id),
            address,
            cluster_id,
            zone: meta("zone").cloned().unwrap_or_default(),
            passing,
        })
    }
}
