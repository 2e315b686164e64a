//! Lines over TCP and UDP: Graphite's and StatsD's receivers.
//!
//! These protocols acknowledge nothing, so what becomes of a line shows only in the counters
//! `quorate_graphite_lines_total` and `quorate_statsd_lines_total`. Promise: what waits is bounded.
//! Where the store is slower than the senders, TCP connections are not read until there is room,
//! and datagrams that find none are dropped and counted. A write that is not acknowledged is
//! repeated for a while; then its lines are counted as lost.
//!
//! - [`intake`]: bytes from the network into a bounded queue
//! - [`graphite`]: from there to samples; [`statsd`]: to sums of an interval
//! - [`mapping`]: the file of mapping rules; [`metrics`]: what is counted

pub mod graphite;
pub mod intake;
pub mod mapping;
pub mod metrics;
pub mod statsd;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use model::port::{Datagrams, Listener, Task, World};
use model::sink::{Groups, Sink};
use prometheus::Registry;
use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

use crate::config::Surroundings;
use crate::flags::{Address, Lines};
use intake::{Framing, Intake};
use mapping::MappingFile;

/// How long lines that wait may still take when the node stops.
const STOP_MAX: Duration = Duration::from_secs(5);

/// Why the receivers cannot start.
#[derive(Debug, thiserror::Error)]
pub enum LinesError {
    #[error("--{flag}={path}")]
    Mapping {
        flag: &'static str,
        path: String,
        #[source]
        source: mapping::FileError,
    },
    #[error("listening on {address}")]
    Listen {
        address: String,
        #[source]
        source: io::Error,
    },
    #[error("registering metrics")]
    Metrics(#[from] prometheus::Error),
}

/// Ports that are bound and not read yet, and the rules for what comes in.
pub struct Bound {
    graphite: Vec<Port>,
    graphite_rules: MappingFile,
    graphite_strict: bool,
    statsd: Vec<Port>,
    statsd_rules: MappingFile,
    statsd_interval: Duration,
}

/// One bound port.
enum Port {
    Stream(Box<dyn Listener>, Framing),
    Datagram(Box<dyn Datagrams>),
}

/// Receivers that run.
pub struct Receivers {
    stop: watch::Sender<bool>,
    /// Closed once everything that was taken in is stored or given up.
    ended: mpsc::Receiver<()>,
    _tasks: Vec<Task>,
}

impl Bound {
    /// Reads the mapping files and binds the ports: all that can be refused.
    pub async fn bind(
        world: &World,
        flags: &Lines,
        surroundings: &dyn Surroundings,
    ) -> Result<Self, LinesError> {
        let rules = |flag, path: &Option<PathBuf>| match path {
            None => Ok(MappingFile::default()),
            Some(path) => mapping::load(path, surroundings).map_err(|source| LinesError::Mapping {
                flag,
                path: path.display().to_string(),
                source,
            }),
        };
        let graphite_rules = rules("graphite.mapping-config", &flags.graphite_mapping)?;
        let mut graphite = Vec::new();
        if let Some(address) = &flags.graphite_address {
            graphite.extend(both(world, address, "graphite").await?);
        }
        if let Some(address) = &flags.graphite_pickle_address {
            graphite.push(
                stream(world, address, Framing::Pickle, "graphite-pickle")
                    .await?
                    .0,
            );
        }
        let statsd_rules = rules("statsd.mapping-config", &flags.statsd_mapping)?;
        let mut statsd = Vec::new();
        if let Some(address) = &flags.statsd_address {
            statsd.extend(both(world, address, "statsd").await?);
        }
        Ok(Self {
            graphite,
            graphite_rules,
            graphite_strict: flags.graphite_strict,
            statsd,
            statsd_rules,
            statsd_interval: flags.statsd_interval,
        })
    }

    /// Begins to read.
    pub fn start(
        self,
        world: &World,
        sink: Arc<dyn Sink>,
        groups: Arc<dyn Groups>,
        registry: &Registry,
    ) -> Result<Receivers, LinesError> {
        let (stop, stopping) = watch::channel(false);
        let (running, ended) = mpsc::channel(1);
        let mut tasks = Vec::new();
        if !self.graphite.is_empty() {
            let metrics = metrics::Lines::new("graphite");
            metrics.register(registry)?;
            let (intake, pieces) = Intake::new(metrics.clone());
            let writer = graphite::Writer {
                sink,
                clock: Arc::clone(&world.clock),
                rules: self.graphite_rules.rules,
                strict: self.graphite_strict,
                metrics,
            };
            read_all(world, self.graphite, intake, &stopping, &mut tasks);
            let running = running.clone();
            let written = async move {
                writer.run(pieces).await;
                drop(running);
            };
            tasks.push(world.spawn.spawn("graphite writer", Box::pin(written)));
        }
        if !self.statsd.is_empty() {
            let metrics = metrics::Lines::new("statsd");
            metrics.register(registry)?;
            let (intake, pieces) = Intake::new(metrics.clone());
            let folder = statsd::Folder::new(
                groups,
                &*world.dice,
                self.statsd_rules,
                self.statsd_interval,
                metrics,
            );
            read_all(world, self.statsd, intake, &stopping, &mut tasks);
            let folded = async move {
                folder.run(pieces).await;
                drop(running);
            };
            tasks.push(world.spawn.spawn("statsd folder", Box::pin(folded)));
        }
        Ok(Receivers {
            stop,
            ended,
            _tasks: tasks,
        })
    }
}

impl Receivers {
    /// Reads nothing more and stores what was read.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        let ended = async { while self.ended.recv().await.is_some() {} };
        if tokio::time::timeout(STOP_MAX, ended).await.is_err() {
            warn!("lines that waited were lost while the node stopped");
        }
    }
}

fn read_all(
    world: &World,
    ports: Vec<Port>,
    intake: Intake,
    stopping: &watch::Receiver<bool>,
    tasks: &mut Vec<Task>,
) {
    for port in ports {
        let (intake, stop) = (intake.clone(), stopping.clone());
        let reading: futures::future::BoxFuture<'static, ()> = match port {
            Port::Stream(listener, framing) => {
                Box::pin(intake::accept(listener, framing, intake, stop))
            }
            Port::Datagram(datagrams) => Box::pin(intake::receive(datagrams, intake, stop)),
        };
        tasks.push(world.spawn.spawn("line receiver", reading));
    }
}

/// Lines by TCP and by UDP on one port.
async fn both(
    world: &World,
    address: &Address,
    what: &'static str,
) -> Result<[Port; 2], LinesError> {
    let (stream, bound) = stream(world, address, Framing::Lines, what).await?;
    // A port that the system chose for one is taken for the other.
    let address = Address {
        host: address.host.clone(),
        port: bound.port(),
    };
    let datagrams = world.net.receive(&address.to_string()).await;
    let datagrams = datagrams.map_err(|source| LinesError::Listen {
        address: format!("{address} (UDP)"),
        source,
    })?;
    Ok([stream, Port::Datagram(datagrams)])
}

async fn stream(
    world: &World,
    address: &Address,
    framing: Framing,
    what: &'static str,
) -> Result<(Port, SocketAddr), LinesError> {
    let address = address.to_string();
    let failed = |source| LinesError::Listen {
        address: address.clone(),
        source,
    };
    let listener = world.net.listen(&address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    info!(address = %bound, what, "listening");
    Ok((Port::Stream(listener, framing), bound))
}
