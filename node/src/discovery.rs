//! The node in Consul: registered while it runs, and the peers found there told to the cluster.

use std::sync::Arc;
use std::time::Duration;

use cluster::Cluster;
use cluster::consul::registration::TAGS;
use cluster::consul::{Agent, ConsulError, Registration, keep_registered};
use model::port::{Task, World};
use tokio::sync::watch;

/// Between two looks at whether the cluster has its id.
const ID_PAUSE: Duration = Duration::from_secs(1);

/// Where a node's listeners are reached from outside, each `host:port`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reachable {
    /// The API's, or that of pushes where there is no other.
    pub host: String,
    pub port: u16,
    /// Empty for none.
    pub push: String,
    /// The whole URL of `/-/ready`.
    pub ready_url: String,
    /// A header to be let in with, and its value.
    pub ready_header: Option<(String, String)>,
}

/// Keeps the node registered until told to stop.
pub struct Discovery {
    stop: watch::Sender<bool>,
    /// Closed once the node is deregistered.
    ended: watch::Receiver<()>,
    _tasks: Vec<Task>,
}

impl Discovery {
    pub fn start(
        world: &World,
        cluster: &Arc<Cluster>,
        address: &str,
        service: &str,
        zone: &str,
        reachable: Reachable,
    ) -> Result<Self, ConsulError> {
        let agent = Agent::new(Arc::clone(&world.net), address)?;
        let registration = Registration {
            service: service.to_owned(),
            node_id: cluster.node_id(),
            cluster_id: cluster.cluster_id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            zone: zone.to_owned(),
            address: reachable.host,
            port: reachable.port,
            grpc_address: cluster.address(),
            push_address: reachable.push,
            tags: TAGS.map(str::to_owned).to_vec(),
            check_url: reachable.ready_url,
            check_header: reachable.ready_header,
        };
        let (registration, registered) = watch::channel(registration);
        let (found, addresses) = watch::channel(Vec::new());
        let (stop, stopping) = watch::channel(false);
        let (running, ended) = watch::channel(());
        let keep = async move {
            keep_registered(agent, registered, found, stopping).await;
            drop(running);
        };
        let spawn = &world.spawn;
        let tasks = vec![
            spawn.spawn("consul", Box::pin(keep)),
            spawn.spawn(
                "consul peers",
                Box::pin(tell_peers(Arc::clone(cluster), addresses)),
            ),
            spawn.spawn(
                "consul cluster id",
                Box::pin(tell_id(Arc::clone(cluster), registration)),
            ),
        ];
        Ok(Self {
            stop,
            ended,
            _tasks: tasks,
        })
    }

    /// Returns once the node is deregistered, or could not be.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        while self.ended.changed().await.is_ok() {}
    }
}

async fn tell_peers(cluster: Arc<Cluster>, mut addresses: watch::Receiver<Vec<String>>) {
    while addresses.changed().await.is_ok() {
        let found = addresses.borrow_and_update().clone();
        cluster.add_join_addresses(found);
    }
}

/// The id is unknown until the cluster is formed, and never changes after.
async fn tell_id(cluster: Arc<Cluster>, registration: watch::Sender<Registration>) {
    loop {
        if let Some(id) = cluster.cluster_id() {
            registration
                .send_if_modified(|registration| registration.cluster_id.replace(id) != Some(id));
            // The sender stays: without it nobody could tell a change any more.
            registration.closed().await;
            return;
        }
        tokio::time::sleep(ID_PAUSE).await;
    }
}
