//! Where a child's nodes are: as written down, or as Consul tells. Any of them will do.

use std::time::Duration;

use ingest::scrape::{Fetch, ScrapeRequest};
use serde::Deserialize;

use super::child::{Child, Consul};

const TIMEOUT: Duration = Duration::from_secs(5);
const BODY_BYTES_MAX: usize = 4 << 20;

/// `host:port` of its nodes, those written down first.
pub async fn places(child: &Child, consul: &dyn Fetch) -> Result<Vec<String>, String> {
    let mut places = child.targets.clone();
    if let Some(asked) = &child.consul {
        match ask(asked, consul).await {
            Ok(found) => places.extend(found),
            Err(error) if places.is_empty() => return Err(error),
            Err(error) => tracing::warn!(child = child.name, error, "consul was not asked"),
        }
    }
    match places.is_empty() {
        true => Err("no node of it is known".to_owned()),
        false => Ok(places),
    }
}

/// Passing instances (developer.hashicorp.com/consul/api-docs/health).
async fn ask(consul: &Consul, fetch: &dyn Fetch) -> Result<Vec<String>, String> {
    let Consul { server, service } = consul;
    let request = ScrapeRequest {
        url: format!("http://{server}/v1/health/service/{service}?passing=true"),
        headers: Vec::new(),
        timeout: TIMEOUT,
        body_bytes_max: BODY_BYTES_MAX,
    };
    let fetched = fetch.fetch(request).await.map_err(|e| e.to_string())?;
    read(&fetched.body).map_err(|e| format!("consul at {server}: {e}"))
}

fn read(json: &[u8]) -> Result<Vec<String>, serde_json::Error> {
    let entries: Vec<Entry> = serde_json::from_slice(json)?;
    let place = |entry: Entry| {
        let own = entry.service.address;
        let host = if own.is_empty() {
            entry.node.address
        } else {
            own
        };
        let host = if host.contains(':') {
            format!("[{host}]")
        } else {
            host
        };
        format!("{host}:{}", entry.service.port)
    };
    Ok(entries.into_iter().map(place).collect())
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    node: Node,
    service: Service,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Node {
    address: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Service {
    #[serde(default)]
    address: String,
    port: u16,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_without_an_address_is_at_its_machine() {
        let json = br#"[
            {"Node": {"Address": "10.0.0.1"}, "Service": {"Address": "", "Port": 9090, "ID": "a"}},
            {"Node": {"Address": "10.0.0.2"}, "Service": {"Address": "fe80::1", "Port": 9091}}
        ]"#;
        assert_eq!(read(json).unwrap(), ["10.0.0.1:9090", "[fe80::1]:9091"]);
        assert!(read(b"{}").is_err());
    }
}
