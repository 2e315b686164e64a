//! One node, from checked flags to a running whole, and back to nothing.
//!
//! Order of starting: what can be refused first (configuration, ports), then the cluster, then the
//! listeners and the scrapes. Order of stopping: scrapes, registration, requests under way, and
//! the cluster last, since the others stand on it. Not here: the process (signals, exit codes) and
//! the real machine, so that a simulation can start the same node.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, RwLock};

use axum::Router;
use axum::middleware::from_fn_with_state;
use cluster::catalogue::Opening;
use cluster::consul::ConsulError;
use cluster::{Cluster, Options};
use ingest::metadata::told::Told;
use ingest::push::Names;
use ingest::remote::seen::Seen;
use model::Labels;
use model::limits::QUERIES_BYTES_MAX;
use model::matcher::{PatternError, compile_anchored};
use model::port::{Listener, Task, World};
use promql::{Engine, EngineOptions, ParseOptions};
use tokio::sync::{Semaphore, mpsc, watch};
use tracing::{info, warn};

use crate::access::guard::{guard, push_rules};
use crate::access::tls::Secured;
use crate::access::{Access, AccessError};
use crate::config::{Config, IN_ORDER_TIME_WINDOW, Surroundings};
use crate::configuration::{Configuration, LoadError};
use crate::discovery::{Discovery, Reachable};
use crate::flags::{Address, Flags, Program};
use crate::lines;
use crate::neighbours::Neighbour;
use crate::queries::Queries;
use crate::queries::active::ActiveQueries;
use crate::queries::log::QueryLog;
use crate::queries::memory::{BudgetedEvaluator, Memory};
use crate::scrape::{ExternalUrl, Features, Pools};
use crate::source::ClusterSource;
use crate::status::{NodeStatus, build};
use crate::telemetry::{Telemetry, computed};
use crate::tree::Tree;
use crate::web::body::Budget;
use crate::web::otlp::grpc_router;
use crate::web::state::Settings;
use crate::web::stream::Whole;
use crate::web::{ApiState, Bounds, Status, api_router, push_router, serve};

/// Listens for other nodes where none are wanted: on this machine only, on any free port.
const ALONE: &str = "127.0.0.1:0";

/// The feature without which exemplars are dropped.
const EXEMPLAR_STORAGE: &str = "exemplar-storage";

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Config(#[from] LoadError),
    #[error("--web.config.file")]
    Access(#[from] AccessError),
    #[error("--web.cors.origin")]
    CorsOrigin(#[from] PatternError),
    #[error("listening on {address}")]
    Listen {
        address: String,
        #[source]
        source: io::Error,
    },
    #[error("starting the cluster's part of this node")]
    Cluster(#[from] cluster::StartError),
    #[error("registering metrics")]
    Metrics(#[from] prometheus::Error),
    #[error(transparent)]
    Consul(#[from] ConsulError),
    #[error(transparent)]
    Lines(#[from] lines::LinesError),
}

/// Why a node is to end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// Somebody asked for it.
    Quit,
    /// It cannot go on; the text says why.
    Failed(String),
}

/// A running node.
pub struct Node {
    cluster: Arc<Cluster>,
    status: Arc<NodeStatus>,
    engine: Arc<Engine>,
    listening: Listening,
    discovery: Option<Discovery>,
    lines: lines::Receivers,
    pub web_addresses: Vec<SocketAddr>,
    pub push_addresses: Vec<SocketAddr>,
}

/// The HTTP listeners' tasks.
struct Listening {
    stop: watch::Sender<bool>,
    /// Closed once every listener has ended.
    ended: mpsc::Receiver<()>,
    _tasks: Vec<Task>,
}

/// Listeners that are bound and not served yet.
struct Bound {
    web: Vec<Box<dyn Listener>>,
    push: Vec<Box<dyn Listener>>,
    otlp: Vec<Box<dyn Listener>>,
    web_addresses: Vec<SocketAddr>,
    push_addresses: Vec<SocketAddr>,
    otlp_addresses: Vec<SocketAddr>,
}

impl Node {
    /// Returns as soon as the node listens; its cluster may still be forming.
    pub async fn start(
        world: World,
        flags: &Flags,
        surroundings: Arc<dyn Surroundings + Send + Sync>,
        catalogue: Opening,
    ) -> Result<Self, StartError> {
        let configuration = Configuration::new(
            flags.config_file.clone(),
            flags.config_file_given,
            Arc::clone(&surroundings),
            Arc::clone(&world.clock),
        )
        .with_features(job_features(flags));
        let loaded = configuration.load()?;
        let config = Arc::clone(&loaded.config);
        let settings = settings(flags)?;
        let access = access(&world, flags, &surroundings)?;
        let bound = Bound::bind(&world, flags).await?;
        let lines = lines::Bound::bind(&world, &flags.lines, surroundings.as_ref()).await?;
        let telemetry = Arc::new(Telemetry::new(&build())?);
        let cluster = Cluster::start(
            world.clone(),
            options(flags, &config),
            catalogue,
            telemetry.registry(),
        )
        .await?;
        let memory = Memory::new(QUERIES_BYTES_MAX);
        let fragments = promql::fragment::Fragments::new(Arc::clone(&world.clock));
        cluster.set_evaluator(Arc::new(BudgetedEvaluator {
            evaluator: Arc::new(fragments),
            memory: memory.clone(),
        }));
        let status = status(
            &world,
            flags,
            &bound,
            configuration,
            &cluster,
            surroundings,
            telemetry,
        )?;
        register_computed(&status)?;
        status.put_in_force(loaded);
        cluster.answer_with(Arc::new(Neighbour(Arc::clone(&status.pools))));
        let engine = Engine::new(engine_options(flags, &config), Arc::clone(&world.clock));
        let queries = Arc::new(queries(&world, flags, &status, engine, memory).await?);
        let engine = Arc::clone(&queries.engine);
        let http_metrics = crate::web::metrics::Metrics::default();
        http_metrics.register(status.telemetry.registry())?;
        let state = ApiState {
            source: Arc::clone(&status.source),
            sink: cluster.clone(),
            groups: cluster.clone(),
            admin: cluster.admin(),
            metadata: cluster.clone(),
            told: Arc::new(Told::new(world.dice.roll())),
            dice: Arc::clone(&world.dice),
            queries,
            clock: Arc::clone(&world.clock),
            status: status.clone(),
            upward: Arc::new(Whole {
                cluster: Arc::clone(&cluster),
                tree: Arc::clone(&status.tree),
            }),
            settings,
            external_labels: Arc::clone(&status.external_labels),
            otlp: Arc::clone(&status.otlp),
            seen: Arc::new(Seen::new(world.dice.roll())),
            body_budget: Budget::default().with_read_time(flags.web.read_timeout),
            http_metrics,
        };
        let discovery = discovery(&world, flags, &bound, &cluster, access.as_deref())?;
        let (web_addresses, push_addresses) =
            (bound.web_addresses.clone(), bound.push_addresses.clone());
        let registry = status.telemetry.registry();
        let lines = lines.start(&world, cluster.clone(), cluster.clone(), registry)?;
        let listening = listen(&world, flags, bound, state, access);
        Ok(Self {
            cluster,
            status,
            engine,
            listening,
            discovery,
            lines,
            web_addresses,
            push_addresses,
        })
    }

    /// Loads the configuration again; on an error the old one stays in force.
    pub async fn reload(&self) -> Result<(), LoadError> {
        self.status.load().await
    }

    /// Resolves when the node is to be stopped.
    pub async fn ended(&self) -> End {
        let mut quit = self.status.quit.subscribe();
        tokio::select! {
            _ = quit.wait_for(|quit| *quit) => End::Quit,
            why = self.cluster.failed() => End::Failed(why),
        }
    }

    /// Whether every shard held here has a leader; else what is missing.
    pub fn ready(&self) -> Result<(), String> {
        self.cluster.ready()
    }

    /// The node's part in the cluster.
    pub fn cluster(&self) -> &Arc<Cluster> {
        &self.cluster
    }

    /// Lets requests under way finish, hands leadership on and stops everything.
    pub async fn stop(mut self) {
        self.status.quit();
        self.status.pools.stop();
        self.status.tree.stop();
        if let Some(discovery) = self.discovery {
            discovery.stop().await;
        }
        self.lines.stop().await;
        self.engine.close();
        self.listening.stop.send_replace(true);
        while self.listening.ended.recv().await.is_some() {}
        self.cluster.stop().await;
    }
}

impl Bound {
    async fn bind(world: &World, flags: &Flags) -> Result<Self, StartError> {
        let (web, web_addresses) = bind(world, &flags.web_listen_addresses).await?;
        let (push, push_addresses) = bind(world, &flags.push_listen_addresses).await?;
        let (otlp, otlp_addresses) = bind(world, &flags.otlp_listen_addresses).await?;
        Ok(Self {
            web,
            push,
            otlp,
            web_addresses,
            push_addresses,
            otlp_addresses,
        })
    }
}

async fn bind(
    world: &World,
    addresses: &[Address],
) -> Result<(Vec<Box<dyn Listener>>, Vec<SocketAddr>), StartError> {
    let mut listeners = Vec::new();
    let mut bound = Vec::new();
    for address in addresses {
        let address = address.to_string();
        let failed = |source| StartError::Listen {
            address: address.clone(),
            source,
        };
        let listener = world.net.listen(&address).await.map_err(failed)?;
        bound.push(listener.local_addr().map_err(failed)?);
        listeners.push(listener);
    }
    Ok((listeners, bound))
}

fn options(flags: &Flags, config: &Config) -> Options {
    let cluster = &flags.cluster;
    let listen = cluster.listen_address.as_ref();
    let listen = listen.map_or_else(|| ALONE.to_owned(), Address::to_string);
    // A port that is chosen by the system is known once it is bound.
    let advertise = cluster.advertise_address.as_ref().filter(|a| a.port != 0);
    let window_ms = config.out_of_order_time_window().as_millis();
    let history = flags.push.history_interval;
    let retention = config.storage.retention.time;
    let size_bytes = config.storage.retention.size_bytes;
    Options {
        listen,
        advertise: advertise.map(Address::to_string).unwrap_or_default(),
        join: cluster.join.iter().map(Address::to_string).collect(),
        bootstrap_expect: cluster.bootstrap_expect as usize,
        shards: (cluster.shards > 0).then_some(cluster.shards),
        cores: std::thread::available_parallelism().map_or(1, |cores| cores.get() as u32),
        replication_factor: cluster.replication_factor as usize,
        zone: cluster.zone.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        series_max: cluster.series_max,
        exemplars_max: match flags.features.iter().any(|f| f == EXEMPLAR_STORAGE) {
            true => config.exemplars_max(),
            false => 0,
        },
        out_of_order_window_ms: i64::try_from(window_ms).unwrap_or(i64::MAX),
        in_order_window_ms: IN_ORDER_TIME_WINDOW.as_millis() as i64,
        history_interval: history.unwrap_or(config.global.scrape_interval),
        retention: retention.or(flags.storage.retention_time),
        retention_bytes: size_bytes.or(flags.storage.retention_size_bytes),
        ..Options::default()
    }
}

fn settings(flags: &Flags) -> Result<Settings, StartError> {
    let has_feature = |name: &str| flags.features.iter().any(|feature| feature == name);
    Ok(Settings {
        lookback: flags.query.lookback_delta,
        query_timeout: flags.query.timeout,
        remote_write_receiver: flags.web.enable_remote_write_receiver,
        remote_write_messages: flags.web.remote_write_messages.clone(),
        otlp_receiver: flags.web.enable_otlp_receiver,
        type_and_unit_labels: job_features(flags).type_and_unit_labels,
        otlp_deltas: has_feature("otlp-deltatocumulative"),
        otlp_native_deltas: has_feature("otlp-native-delta-ingestion"),
        lifecycle: flags.web.enable_lifecycle,
        admin: flags.web.enable_admin_api,
        per_step_stats: has_feature("promql-per-step-stats"),
        parse: parse_options(flags),
        push_names: match flags.push.enable_utf8_names {
            true => Names::Utf8,
            false => Names::Legacy,
        },
        push_unchecked: flags.push.disable_consistency_check,
        push_admin: flags.push.enable_admin_api,
        push_lifecycle: flags.push.enable_lifecycle,
        telemetry_path: flags.web.telemetry_path.clone(),
        route_prefix: flags.web.route_prefix.clone(),
        external_path: flags.web.external_path.clone(),
        cors_origin: compile_anchored(&flags.web.cors_origin)?,
    })
}

async fn queries(
    world: &World,
    flags: &Flags,
    status: &NodeStatus,
    engine: Engine,
    memory: Memory,
) -> Result<Queries, StartError> {
    let slots = flags.query.concurrency_max;
    let metrics = crate::queries::metrics::Metrics::new(slots);
    metrics.register(status.telemetry.registry())?;
    status.query_log.register(status.telemetry.registry())?;
    Ok(Queries {
        engine: Arc::new(engine),
        source: Arc::clone(&status.source),
        clock: Arc::clone(&world.clock),
        slots: Arc::new(Semaphore::new(slots)),
        memory,
        active: ActiveQueries::open(world, slots).await,
        log: Arc::clone(&status.query_log),
        metrics,
    })
}

fn job_features(flags: &Flags) -> Features {
    let has = |feature: &str| flags.features.iter().any(|f| f == feature);
    Features {
        native_histograms: has("native-histograms"),
        type_and_unit_labels: has("type-and-unit-labels"),
    }
}

fn parse_options(flags: &Flags) -> ParseOptions {
    let has = |feature: &str| flags.features.iter().any(|f| f == feature);
    ParseOptions {
        experimental_functions: has("promql-experimental-functions"),
        duration_expressions: has("promql-duration-expr"),
        fill_modifiers: has("promql-binop-fill-modifiers"),
        extended_ranges: has("promql-extended-range-selectors"),
    }
}

fn engine_options(flags: &Flags, config: &Config) -> EngineOptions {
    let has = |feature: &str| flags.features.iter().any(|f| f == feature);
    EngineOptions {
        lookback: flags.query.lookback_delta,
        timeout: flags.query.timeout,
        samples_max: flags.query.samples_max,
        subquery_step: config.global.evaluation_interval,
        experimental_functions: has("promql-experimental-functions"),
        duration_expressions: has("promql-duration-expr"),
        fill_modifiers: has("promql-binop-fill-modifiers"),
        extended_ranges: has("promql-extended-range-selectors"),
        delayed_name_removal: has("promql-delayed-name-removal"),
        type_and_unit_labels: has("type-and-unit-labels"),
        ..EngineOptions::default()
    }
}

fn status(
    world: &World,
    flags: &Flags,
    bound: &Bound,
    configuration: Configuration,
    cluster: &Arc<Cluster>,
    surroundings: Arc<dyn Surroundings + Send + Sync>,
    telemetry: Arc<Telemetry>,
) -> Result<Arc<NodeStatus>, StartError> {
    let metrics = ingest::metrics::Metrics::new();
    metrics.register(telemetry.registry())?;
    let (leases, ids) = (Arc::clone(cluster), Arc::clone(cluster));
    let pools = Pools::new(
        world.clone(),
        cluster.clone(),
        Arc::new(move |target| leases.scrape_fence(target)),
        Arc::new(move || ids.cluster_id()),
        Arc::clone(&surroundings),
        metrics,
    );
    let tree = Tree::new(
        world.clone(),
        Arc::clone(cluster),
        Arc::clone(&surroundings),
    );
    let query_log = QueryLog::new(Arc::clone(&world.spawn), surroundings);
    let source = ClusterSource {
        cluster: Arc::clone(cluster),
        shards: flags.cluster.shards,
    };
    Ok(Arc::new(NodeStatus {
        cluster: Arc::clone(cluster),
        source: Arc::new(source),
        clock: Arc::clone(&world.clock),
        configuration,
        pools: Arc::new(pools),
        tree: Arc::new(tree),
        telemetry,
        query_log: Arc::new(query_log),
        external_labels: Arc::new(RwLock::new(Labels::default())),
        otlp: Arc::default(),
        external_url: external_url(flags, bound),
        flags: flags.listing(),
        retention: retention(flags),
        lookback: flags.query.lookback_delta,
        exemplar_storage: flags.features.iter().any(|f| f == EXEMPLAR_STORAGE),
        started: world.clock.now(),
        quit: watch::Sender::new(false),
        loading: tokio::sync::Mutex::default(),
    }))
}

/// What is looked up when somebody asks for the figures.
fn register_computed(status: &Arc<NodeStatus>) -> Result<(), StartError> {
    for family in computed(status) {
        status.telemetry.registry().register(Box::new(family))?;
    }
    Ok(())
}

/// As Prometheus writes it: a time, a size, or both.
fn retention(flags: &Flags) -> String {
    use crate::config::size::format_size;
    use model::time::format_duration;
    let time = flags.storage.retention_time.map(format_duration);
    let size = flags.storage.retention_size_bytes.map(format_size);
    let parts: Vec<String> = time.into_iter().chain(size).collect();
    parts.join(" or ")
}

/// `--web.external-url`, else this machine's name and the port that is listened on.
fn external_url(flags: &Flags, bound: &Bound) -> ExternalUrl {
    let own_port = bound.web_addresses.first().map_or(0, SocketAddr::port);
    let given = flags.web.external_url.split_once("://");
    let (scheme, host) = match given {
        Some((scheme, rest)) => (scheme, rest.split('/').next().unwrap_or_default()),
        None => ("http", ""),
    };
    let (_, hostname) = crate::process::place();
    let host = match host {
        "" => format!("{hostname}:{own_port}"),
        host => host.to_owned(),
    };
    ExternalUrl {
        scheme: scheme.to_owned(),
        host,
        own_port,
    }
}

fn discovery(
    world: &World,
    flags: &Flags,
    bound: &Bound,
    cluster: &Arc<Cluster>,
    access: Option<&Access>,
) -> Result<Option<Discovery>, StartError> {
    let Some(consul) = &flags.cluster.consul_address else {
        return Ok(None);
    };
    let advertised = flags.cluster.advertise_address.as_ref();
    let host = |listen: &Address| match (listen.is_unspecified(), advertised) {
        (true, Some(advertised)) => advertised.host.clone(),
        (true, None) => "127.0.0.1".to_owned(),
        (false, _) => listen.host.clone(),
    };
    let reach = |listen: &[Address], bound: &[SocketAddr]| {
        let (listen, bound) = (listen.first()?, bound.first()?);
        Some(Address {
            host: host(listen),
            port: bound.port(),
        })
    };
    let web = reach(&flags.web_listen_addresses, &bound.web_addresses);
    let push = reach(&flags.push_listen_addresses, &bound.push_addresses);
    let Some(checked) = web.or_else(|| push.clone()) else {
        warn!("nothing listens for HTTP: not registered with consul");
        return Ok(None);
    };
    let prefix = &flags.web.route_prefix;
    let reachable = Reachable {
        ready_url: match access.is_some_and(Access::has_tls) {
            true => format!("https://{checked}{prefix}/-/ready"),
            false => format!("http://{checked}{prefix}/-/ready"),
        },
        ready_header: access.map(|access| {
            let (name, token) = access.check_header();
            (name.to_owned(), token.to_owned())
        }),
        host: checked.host,
        port: checked.port,
        push: push.map(|push| push.to_string()).unwrap_or_default(),
    };
    let (service, zone) = (&flags.cluster.consul_service, &flags.cluster.zone);
    let consul = consul.to_string();
    let started = Discovery::start(world, cluster, &consul, service, zone, reachable)?;
    Ok(Some(started))
}

/// The file of `--web.config.file`, if one was given.
fn access(
    world: &World,
    flags: &Flags,
    surroundings: &Arc<dyn Surroundings + Send + Sync>,
) -> Result<Option<Arc<Access>>, StartError> {
    let Some(file) = &flags.web.config_file else {
        return Ok(None);
    };
    let (surroundings, clock) = (Arc::clone(surroundings), Arc::clone(&world.clock));
    let access = Access::open(file, surroundings, clock)?;
    Ok(Some(Arc::new(access)))
}

fn listen(
    world: &World,
    flags: &Flags,
    bound: Bound,
    state: ApiState,
    access: Option<Arc<Access>>,
) -> Listening {
    let bounds = Bounds::new(flags.web.connections_max, flags.web.read_timeout);
    let api = api_router(state.clone());
    let grpc = grpc_router(state.clone());
    let push_prefix = match flags.program {
        Program::Pushgateway => flags.web.route_prefix.as_str(),
        _ => "",
    };
    let push = match push_prefix {
        "" => push_router(state),
        prefix => Router::new().nest(prefix, push_router(state)),
    };
    let (api, push, grpc) = match &access {
        None => (api, push, grpc),
        Some(access) => {
            let guard = || from_fn_with_state(Arc::clone(access), guard);
            let ruled = (Arc::clone(access), push_prefix.to_owned());
            let push = push.layer(from_fn_with_state(ruled, push_rules));
            (api.layer(guard()), push.layer(guard()), grpc.layer(guard()))
        }
    };
    let (stop, stopping) = watch::channel(false);
    let (running, ended) = mpsc::channel(1);
    let mut tasks = Vec::new();
    let web = bound.web.into_iter().zip(bound.web_addresses);
    let pushes = bound.push.into_iter().zip(bound.push_addresses);
    let web = web.map(|(listener, address)| (listener, address, "api", api.clone()));
    let pushes = pushes.map(|(listener, address)| (listener, address, "push", push.clone()));
    let otlp = bound.otlp.into_iter().zip(bound.otlp_addresses);
    let otlp = otlp.map(|(listener, address)| (listener, address, "otlp", grpc.clone()));
    for (listener, address, what, router) in web.chain(pushes).chain(otlp) {
        info!(%address, what, "listening");
        let listener: Box<dyn Listener> = match &access {
            Some(access) => Box::new(Secured {
                listener,
                access: Arc::clone(access),
            }),
            None => listener,
        };
        let spawn = Arc::clone(&world.spawn);
        let (bounds, stopping, running) = (bounds.clone(), stopping.clone(), running.clone());
        let served = async move {
            serve(listener, router, spawn, bounds, stopping).await;
            drop(running);
        };
        tasks.push(world.spawn.spawn("http listener", Box::pin(served)));
    }
    Listening {
        stop,
        ended,
        _tasks: tasks,
    }
}
