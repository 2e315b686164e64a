//! The process: arguments, log, data directory, signals, exit code.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use cluster::catalogue::{Catalogue, Opening, Sled};
use futures::FutureExt;
use model::port::World;
use node::config::Machine;
use node::flags::{self, Command, Flags};
use node::logging;
use node::promtool::{self, Line};
use node::run::{End, Node, StartError};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{error, info, warn};

/// Queries take and give back more small pieces of memory than anything else here
/// (docs/adr/0038-an-allocator-of-our-own.md).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// The node's rebuildable view of the cluster, below the data directory.
const CATALOGUE_DIR: &str = "catalogue";
/// As Prometheus exits on a configuration it cannot load.
const BAD_CONFIG: u8 = 2;

fn main() -> ExitCode {
    let arguments = std::env::args_os().map(|a| a.to_string_lossy().into_owned());
    let words: Vec<String> = arguments.collect();
    if words.get(1).is_some_and(|word| word == "tsdb") && !words[0].ends_with("promtool") {
        return match node::blocks::run(&words[2..]) {
            Ok(text) => print(&[Line::Out(text)], 0),
            Err(error) => print(&[Line::Err(format!("{error:#}"))], 1),
        };
    }
    let arguments = words.into_iter();
    match flags::parse(arguments) {
        Ok(Command::Run(flags)) => run(&flags),
        Ok(Command::Print(text)) => print(&[Line::Out(text)], 0),
        Ok(Command::Promtool(arguments)) => {
            let report = promtool::run(&arguments, &Machine);
            print(&report.lines, report.exit_code)
        }
        Err(error) => print(&[Line::Err(error.to_string())], error.exit_code),
    }
}

/// Writes lines; a reader that is gone is no reason to panic.
fn print(lines: &[Line], exit_code: u8) -> ExitCode {
    for line in lines {
        let written = match line {
            Line::Out(text) => writeln!(std::io::stdout(), "{}", text.trim_end_matches('\n')),
            Line::Err(text) => writeln!(std::io::stderr(), "{}", text.trim_end_matches('\n')),
        };
        if written.is_err() {
            return ExitCode::FAILURE;
        }
    }
    ExitCode::from(exit_code)
}

fn run(flags: &Flags) -> ExitCode {
    let clock = Arc::new(host::SystemClock::new());
    if let Err(error) = logging::init(flags.log_level, flags.log_format, clock) {
        return print(&[Line::Err(error.to_string())], 1);
    }
    let (version, revision) = (env!("CARGO_PKG_VERSION"), flags::REVISION);
    info!(version, revision, program = ?flags.program, "starting");
    for warning in &flags.warnings {
        warn!("{warning}");
    }
    match live(flags) {
        Ok(End::Quit) => {
            info!("stopped");
            ExitCode::SUCCESS
        }
        Ok(End::Failed(reason)) => {
            error!(reason, "the node cannot go on");
            ExitCode::FAILURE
        }
        Err(failure) => match failure.downcast_ref::<StartError>() {
            Some(StartError::Config(error)) => {
                let file = flags.config_file.display();
                error!(%file, err = %error, "error loading config");
                ExitCode::from(BAD_CONFIG)
            }
            _ => {
                error!(err = format!("{failure:#}"), "not started");
                ExitCode::FAILURE
            }
        },
    }
}

/// From the first to the last breath.
fn live(flags: &Flags) -> anyhow::Result<End> {
    let path = &flags.storage.path;
    let _lock = host::lock(path).context("locking the data directory")?;
    if let Some(what) = foreign(path) {
        warn!(path = %path.display(), "{what}");
    }
    let world = host::world(path).context("opening the data directory")?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_stack_size(model::limits::TASK_STACK_BYTES)
        .build()
        .context("starting the runtime")?;
    let dir = path.join(CATALOGUE_DIR);
    let opening = runtime.spawn_blocking(move || Sled::open(&dir));
    let catalogue = async move {
        let catalogue: Arc<dyn Catalogue> = Arc::new(opening.await.map_err(io::Error::other)??);
        Ok(catalogue)
    };
    runtime.block_on(live_in(world, flags, catalogue.boxed()))
}

/// What stands in a data directory that is not a node's, and how to come by what it holds.
#[allow(
    clippy::disallowed_methods,
    reason = "the outermost loop looks once at what was there before it"
)]
fn foreign(path: &Path) -> Option<&'static str> {
    let entries = std::fs::read_dir(path).ok()?.flatten();
    let (mut of_prometheus, mut of_snapshot) = (false, false);
    for entry in entries {
        let holds = |name: &str| entry.path().join(name).exists();
        let name = entry.file_name();
        let is_shard = name.len() == 5 && name.as_encoded_bytes().iter().all(u8::is_ascii_digit);
        of_prometheus |= name == "wal" || name == "chunks_head" || holds("meta.json");
        of_snapshot |= is_shard && holds(tsdb::manifest::NAME);
    }
    match (of_prometheus, of_snapshot) {
        (true, _) => Some(
            "the directory holds data of a Prometheus, which are neither shown nor changed: take them in with \
             quorate tsdb import-blocks --from DIRECTORY",
        ),
        (_, true) => Some(
            "the directory is a snapshot, whose data are neither shown nor changed: write them as blocks with \
             quorate tsdb export-blocks, and take those in with quorate tsdb import-blocks",
        ),
        _ => None,
    }
}

async fn live_in(world: World, flags: &Flags, catalogue: Opening) -> anyhow::Result<End> {
    let mut signals = Signals::new().context("listening for signals")?;
    let starting = Node::start(world, flags, Arc::new(Machine), catalogue);
    let node = tokio::select! {
        started = starting => started?,
        () = signals.asked_to_end() => return Ok(End::Quit),
    };
    let end = loop {
        tokio::select! {
            end = node.ended() => break end,
            order = signals.next() => match order {
                Order::End => break End::Quit,
                Order::Reload => reload(&node).await,
            },
        }
    };
    if let End::Failed(_) = end {
        // Nothing of it can be trusted to stop in order.
        return Ok(end);
    }
    info!("stopping");
    tokio::select! {
        () = node.stop() => Ok(end),
        () = signals.asked_to_end() => anyhow::bail!("asked again while stopping"),
    }
}

async fn reload(node: &Node) {
    if let Err(failure) = node.reload().await {
        error!(err = %failure, "reload failed, the old configuration stays");
    }
}

/// What a signal asks for.
enum Order {
    End,
    Reload,
}

/// What the system may tell the process.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    reload: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            reload: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Order {
        let signal = tokio::select! {
            _ = self.terminate.recv() => "terminated",
            _ = self.interrupt.recv() => "interrupt",
            _ = self.reload.recv() => return Order::Reload,
        };
        warn!(signal, "received a signal to end");
        Order::End
    }

    /// While the node starts or stops there is nothing to load again.
    async fn asked_to_end(&mut self) {
        while let Order::Reload = self.next().await {}
    }
}
