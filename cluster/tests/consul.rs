//! A node's registration against a real Consul agent, the binary that `QUORATE_CONSUL` names.
//! Without it nothing is tested and each test says so aloud.

use std::io::Write;
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::Duration;

use cluster::consul::registration::{SERVICE, TAGS};
use cluster::consul::{Agent, ConsulError, Registration, keep_registered};
use futures::FutureExt;
use host::{HostNet, TokioSpawn};
use model::port::{Net, Spawn, Task};
use model::{ClusterId, NodeId};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;

/// Far above what any step takes on a slow machine; only a failing test waits so long.
const PATIENCE: Duration = Duration::from_secs(90);

fn consul_binary() -> Option<String> {
    let binary = std::env::var("QUORATE_CONSUL")
        .ok()
        .filter(|b| !b.is_empty());
    if binary.is_none() {
        // Past the capture of the test harness, which swallows what a passing test prints.
        let said = b"SKIP: QUORATE_CONSUL names no consul binary\n";
        std::io::stderr().write_all(said).unwrap();
    }
    binary
}

/// A `consul agent -dev` of our own, which forgets everything when it ends.
struct Consul {
    binary: String,
    /// HTTP, RPC and gossip.
    ports: [u16; 3],
    child: Child,
}

impl Consul {
    async fn start(binary: String) -> Self {
        let ports = free_ports().await;
        let child = spawn(&binary, ports);
        let consul = Self {
            binary,
            ports,
            child,
        };
        consul.ready().await;
        consul
    }

    /// Ends the agent without a farewell and starts it anew on the same ports.
    async fn restart(&mut self) {
        self.kill();
        self.child = spawn(&self.binary, self.ports);
        self.ready().await;
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    async fn ready(&self) {
        eventually("a consul leader", async || {
            let leader = self.get("/v1/status/leader").await?;
            leader.as_str().is_some_and(|l| !l.is_empty()).then_some(())
        })
        .await;
        // A leader has itself in the catalogue a little later; until then it takes no service.
        eventually("the agent's own entry", async || {
            let nodes = self.get("/v1/catalog/nodes").await?;
            nodes
                .as_array()
                .is_some_and(|n| !n.is_empty())
                .then_some(())
        })
        .await;
    }

    fn address(&self) -> String {
        format!("127.0.0.1:{}", self.ports[0])
    }

    fn agent(&self) -> Agent {
        Agent::new(Arc::new(HostNet), &self.address()).unwrap()
    }

    /// JSON of a path, read by other means than those tested; `None` while the agent has none.
    async fn get(&self, path: &str) -> Option<Value> {
        let mut connection = HostNet.connect(&self.address()).await.ok()?;
        let request = format!("GET {path} HTTP/1.0\r\nHost: {}\r\n\r\n", self.address());
        connection.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        head.split_once(' ')?.1.starts_with("200").then_some(())?;
        serde_json::from_str(body).ok()
    }

    /// The instance of this id as the catalogue has it.
    async fn in_catalog(&self, id: &str) -> Option<Value> {
        let instances = self.get("/v1/catalog/service/quorate").await?;
        let mut instances = instances.as_array()?.iter();
        instances.find(|i| i["ServiceID"] == id).cloned()
    }

    /// The check of the instance of this id.
    async fn check(&self, id: &str) -> Option<Value> {
        let checks = self.get("/v1/health/checks/quorate").await?;
        let mut checks = checks.as_array()?.iter();
        checks.find(|c| c["ServiceID"] == id).cloned()
    }
}

impl Drop for Consul {
    fn drop(&mut self) {
        self.kill();
    }
}

fn spawn(binary: &str, [http, server, gossip]: [u16; 3]) -> Child {
    let mut command = Command::new(binary);
    command.args(["agent", "-dev", "-log-level=err"]);
    command.args(["-bind=127.0.0.1", "-client=127.0.0.1"]);
    command.args(["-dns-port=-1", "-grpc-port=-1", "-serf-wan-port=-1"]);
    for (name, port) in [("http", http), ("server", server), ("serf-lan", gossip)] {
        command.arg(format!("-{name}-port={port}"));
    }
    let started = command.spawn();
    started.unwrap_or_else(|e| panic!("QUORATE_CONSUL={binary}: {e}"))
}

/// Held at once, so that no two are the same.
async fn free_ports() -> [u16; 3] {
    let mut listeners = Vec::new();
    for _ in 0..3 {
        listeners.push(HostNet.listen("127.0.0.1:0").await.unwrap());
    }
    [0, 1, 2].map(|i: usize| listeners[i].local_addr().unwrap().port())
}

/// Asks until there is an answer.
async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let asked = async {
        loop {
            match ask().await {
                Some(answer) => return answer,
                None => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    };
    let answer = tokio::time::timeout(PATIENCE, asked).await;
    answer.unwrap_or_else(|_| panic!("never: {what}"))
}

/// Answers every request as a ready node's `/-/ready` does, until dropped.
async fn ready_node() -> (u16, Task) {
    let mut listener = HostNet.listen("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let serve = async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            let mut request = [0; 4096];
            let read = connection.read(&mut request).await;
            let asked = &request[..read.unwrap_or(0)];
            let status = match asked.starts_with(b"GET /-/ready ") {
                true => "200 OK",
                false => "404 Not Found",
            };
            let answer =
                format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            drop(connection.write_all(answer.as_bytes()).await);
        }
    };
    (port, TokioSpawn.spawn("ready node", serve.boxed()))
}

fn registration(node: u64, port: u16) -> Registration {
    Registration {
        service: SERVICE.to_owned(),
        node_id: NodeId(node),
        cluster_id: None,
        version: "0.1.0".to_owned(),
        zone: "a".to_owned(),
        address: "127.0.0.1".to_owned(),
        port,
        grpc_address: format!("127.0.0.1:{}", 9092 + node),
        push_address: "127.0.0.1:9091".to_owned(),
        tags: TAGS.map(str::to_owned).to_vec(),
        check_url: format!("http://127.0.0.1:{port}/-/ready"),
        check_header: None,
    }
}

#[tokio::test]
async fn a_node_is_registered_checked_and_deregistered() {
    let Some(binary) = consul_binary() else {
        return;
    };
    let consul = Consul::start(binary).await;
    let agent = consul.agent();
    let (port, _serving) = ready_node().await;
    let mut node = registration(1, port);
    assert!(!agent.has(&node).await.unwrap());
    agent.register(&node).await.unwrap();
    assert!(agent.has(&node).await.unwrap());

    let instance = eventually("registered", async || consul.in_catalog("quorate-n1").await).await;
    assert_eq!(instance["ServiceName"], "quorate");
    assert_eq!(instance["ServiceAddress"], "127.0.0.1");
    assert_eq!(instance["ServicePort"], port);
    assert_eq!(
        instance["ServiceTags"],
        json!(["prometheus", "pushgateway"])
    );
    let meta = json!({
        "node_id": "n1", "version": "0.1.0", "zone": "a",
        "grpc_address": "127.0.0.1:9093", "push_address": "127.0.0.1:9091",
    });
    assert_eq!(instance["ServiceMeta"], meta);

    let check = eventually("passing", async || {
        let check = consul.check("quorate-n1").await?;
        (check["Status"] == "passing").then_some(check)
    })
    .await;
    assert_eq!(check["CheckID"], "quorate-n1:ready");
    let output = check["Output"].as_str().unwrap();
    assert!(output.contains(&format!("http://127.0.0.1:{port}/-/ready: 200 OK")));

    // What is not ready is found as well, or no cluster could form.
    let mut broken = registration(2, port);
    broken.check_url = format!("http://127.0.0.1:{port}/-/broken");
    agent.register(&broken).await.unwrap();
    let found = eventually("both found", async || {
        let found = agent.peers(SERVICE).await.unwrap();
        (found.len() == 2).then_some(found)
    })
    .await;
    assert_eq!(found[0].node_id, NodeId(1));
    assert_eq!(found[0].address, "127.0.0.1:9093");
    assert_eq!((found[0].cluster_id, found[0].zone.as_str()), (None, "a"));
    assert_eq!((found[0].passing, found[1].passing), (true, false));
    assert_eq!(agent.peers("another service").await.unwrap(), []);

    // The cluster is formed: the entry says so and its check is not interrupted.
    node.cluster_id = Some(ClusterId(7));
    assert!(!agent.has(&node).await.unwrap());
    agent.register(&node).await.unwrap();
    let found = eventually("cluster id known", async || {
        let found = agent.peers(SERVICE).await.unwrap();
        found.into_iter().find(|f| f.cluster_id.is_some())
    })
    .await;
    assert_eq!(found.cluster_id, Some(ClusterId(7)));
    assert!(found.passing);

    agent.deregister(&node.id()).await.unwrap();
    eventually("deregistered", async || {
        consul
            .in_catalog("quorate-n1")
            .await
            .is_none()
            .then_some(())
    })
    .await;
    assert_eq!(consul.check("quorate-n1").await, None);
    assert!(consul.in_catalog("quorate-n2").await.is_some());
    agent.deregister(&node.id()).await.unwrap();
}

#[tokio::test]
async fn a_refusal_says_why() {
    let Some(binary) = consul_binary() else {
        return;
    };
    let consul = Consul::start(binary).await;
    let mut node = registration(1, 9090);
    node.zone = "z".repeat(600);
    let error = consul.agent().register(&node).await.unwrap_err();
    assert!(matches!(error, ConsulError::Refused { .. }), "{error}");
    let text = error.to_string();
    let start = format!(
        "consul agent {}: PUT /v1/agent/service/register: 400 Bad Request: Invalid Service Meta",
        consul.address()
    );
    assert!(text.starts_with(&start), "{text}");
}

#[tokio::test]
async fn a_node_stays_registered_through_a_restart_of_the_agent() {
    let Some(binary) = consul_binary() else {
        return;
    };
    let mut consul = Consul::start(binary).await;
    let (port, _serving) = ready_node().await;
    let (registration_sender, registered) = watch::channel(registration(1, port));
    let (published, mut found) = watch::channel(Vec::new());
    let (stop, stopped) = watch::channel(false);
    let (ended, end) = tokio::sync::oneshot::channel();
    let agent = consul.agent();
    let kept = async move {
        keep_registered(agent, registered, published, stopped).await;
        ended.send(()).unwrap();
    };
    let _kept = TokioSpawn.spawn("kept", kept.boxed());
    eventually("registered", async || consul.in_catalog("quorate-n1").await).await;

    let other = registration(2, port);
    consul.agent().register(&other).await.unwrap();
    let is_found = found.wait_for(|f| *f == ["127.0.0.1:9094"]);
    let is_found = tokio::time::timeout(PATIENCE, is_found).await;
    drop(is_found.expect("the other was never found").unwrap());

    consul.restart().await;
    eventually("registered again", async || {
        consul.in_catalog("quorate-n1").await
    })
    .await;
    let is_lost = tokio::time::timeout(PATIENCE, found.wait_for(Vec::is_empty)).await;
    drop(
        is_lost
            .expect("the catalogue was never read again")
            .unwrap(),
    );

    registration_sender.send_modify(|r| r.cluster_id = Some(ClusterId(7)));
    eventually("cluster id registered", async || {
        let instance = consul.in_catalog("quorate-n1").await?;
        let cluster_id = ClusterId(7).to_string();
        (instance["ServiceMeta"]["cluster_id"] == cluster_id).then_some(())
    })
    .await;

    stop.send_replace(true);
    let end = tokio::time::timeout(PATIENCE, end).await;
    end.expect("the loop never ended").unwrap();
    eventually("deregistered", async || {
        let instances = consul.get("/v1/catalog/service/quorate").await?;
        (instances == json!([])).then_some(())
    })
    .await;
}
