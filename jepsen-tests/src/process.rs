//! One process under test: started, signalled, stopped, and never left behind.
//!
//! It is started through a launcher ([`become_node`]) that asks the kernel to kill it when the
//! harness dies, whatever the harness dies of. A signal goes to the recorded child only, and
//! dropping a [`Process`] kills it.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};
use tokio::time::Instant;

/// The command of the launcher's program that calls [`become_node`].
pub const BECOME_NODE: &str = "become-node";

const STOP_DEADLINE: Duration = Duration::from_secs(15);

/// What to run.
#[derive(Debug, Clone)]
pub struct Program {
    /// The harness' own program.
    pub launcher: PathBuf,
    pub binary: PathBuf,
    pub arguments: Vec<String>,
    /// Set for this process only.
    pub environment: Vec<(String, String)>,
    /// Takes both outputs; appended to.
    pub log: PathBuf,
}

/// A program that runs, or does not run now.
pub struct Process {
    program: Program,
    child: Option<Child>,
    paused: bool,
}

impl Process {
    /// Starts nothing yet.
    pub fn new(program: Program) -> Self {
        Self {
            program,
            child: None,
            paused: false,
        }
    }

    pub fn program(&self) -> &Program {
        &self.program
    }

    /// `None` when it does not run.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Starts it unless it runs.
    pub fn start(&mut self) -> anyhow::Result<()> {
        if self.child.is_some() {
            return Ok(());
        }
        let program = &self.program;
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&program.log)
            .with_context(|| format!("open {}", program.log.display()))?;
        let child = Command::new(&program.launcher)
            .arg(BECOME_NODE)
            .arg(&program.binary)
            .args(&program.arguments)
            .envs(program.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("start {}", program.launcher.display()))?;
        self.child = Some(child);
        self.paused = false;
        Ok(())
    }

    /// Sends SIGKILL and does not wait, so that several can be struck at once.
    pub fn strike(&mut self) -> anyhow::Result<()> {
        Ok(self.child.as_mut().map_or(Ok(()), Child::kill)?)
    }

    /// SIGKILL, and waits until the process is gone.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.strike()?;
        if let Some(mut child) = self.child.take() {
            child.wait()?;
        }
        self.paused = false;
        Ok(())
    }

    /// SIGTERM, then waits; one that does not end is killed, and that is an error.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::TERM)?;
        let deadline = Instant::now() + STOP_DEADLINE;
        while let Some(child) = &mut self.child {
            if child.try_wait()?.is_some() {
                self.child = None;
            } else if Instant::now() > deadline {
                self.kill()?;
                bail!("it did not stop within {STOP_DEADLINE:?} of SIGTERM");
            } else {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        Ok(())
    }

    pub fn pause(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::STOP)?;
        self.paused = true;
        Ok(())
    }

    pub fn resume(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::CONT)?;
        self.paused = false;
        Ok(())
    }

    /// It runs and is not paused.
    pub fn heal(&mut self) -> anyhow::Result<()> {
        if self.paused {
            self.resume()?;
        }
        self.start()
    }

    /// How it ended, if it did without being asked; it counts as stopped from now on.
    pub fn reap(&mut self) -> anyhow::Result<Option<String>> {
        let Some(child) = &mut self.child else {
            return Ok(None);
        };
        let status = child.try_wait()?;
        if status.is_some() {
            self.child = None;
        }
        Ok(status.map(|status| status.to_string()))
    }

    /// The end of its log.
    pub fn last_words(&self) -> String {
        let log = std::fs::read(&self.program.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(10)..].join("\n  ")
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        match &self.child {
            Some(child) => Ok(kill_process(Pid::from_child(child), signal)?),
            None => bail!("it does not run"),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Already gone is as good; there is nobody to tell in a drop.
            child.kill().ok();
            child.wait().ok();
        }
    }
}

/// Turns this process into `command`, to be killed by the kernel when its parent dies.
/// Returns only if that failed.
pub fn become_node(command: &[OsString]) -> anyhow::Error {
    let Some((binary, arguments)) = command.split_first() else {
        return anyhow::anyhow!("{BECOME_NODE} needs a program");
    };
    if let Err(error) = set_parent_process_death_signal(Some(Signal::KILL)) {
        return anyhow::anyhow!("tie the node's life to the harness: {error}");
    }
    let error = Command::new(binary).args(arguments).exec();
    anyhow::anyhow!("run {}: {error}", binary.display())
}
