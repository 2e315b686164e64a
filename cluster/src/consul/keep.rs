//! The loop that keeps a node registered and its peers in sight for as long as it runs. It never
//! gives up, since a node without Consul still serves; it does not know who uses what is found.

use std::convert::Infallible;
use std::error::Error;
use std::future::pending;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::sleep;
use tracing::{info, warn};

use super::agent::Listing;
use super::{Agent, ConsulError, Registration, found};

/// How often the agent is asked whether it still knows the node: one that was restarted may not.
const RECHECK_PAUSE: Duration = Duration::from_secs(15);
/// Between two looks at the catalogue, however often it changes.
const LOOK_PAUSE: Duration = Duration::from_secs(1);
/// After a failure; doubled with each one more, up to the last.
const RETRY_PAUSE_FIRST: Duration = Duration::from_secs(1);
const RETRY_PAUSE_LAST: Duration = RECHECK_PAUSE;

/// Registers the node and keeps it so, through changes of `registration` and restarts of the agent,
/// and publishes the addresses where its cluster may be found. What was last found stays while
/// Consul is silent. Ends when `stop` turns true (or its sender is gone), after deregistering.
pub async fn keep_registered(
    agent: Agent,
    registration: watch::Receiver<Registration>,
    found: watch::Sender<Vec<String>>,
    stop: watch::Receiver<bool>,
) {
    // Told by the one who looks at the catalogue to the one who is to be in it.
    let missed = Notify::new();
    tokio::select! {
        biased;
        () = hold(&agent, registration.clone(), &missed, stop) => {}
        never = look(&agent, registration, &found, &missed) => match never {},
    }
}

/// Keeps the agent's entry as it should be. A request under way is waited for also when the node
/// stops: a registration that the agent carried out after the deregistration would stay.
async fn hold(
    agent: &Agent,
    mut registration: watch::Receiver<Registration>,
    missed: &Notify,
    mut stop: watch::Receiver<bool>,
) {
    let mut retry = Retry::new();
    let mut registered = None;
    loop {
        let wanted = registration.borrow_and_update().clone();
        let pause = match ensure(agent, &wanted, registered.as_ref()).await {
            Ok(()) => {
                registered = Some(wanted);
                retry.forget();
                RECHECK_PAUSE
            }
            Err(error) => retry.pause_after(&error),
        };
        tokio::select! {
            biased;
            () = told_to_stop(&mut stop) => break,
            () = changed(&mut registration) => {}
            () = missed.notified() => {}
            () = sleep(pause) => {}
        }
    }
    let id = registration.borrow().id();
    match agent.deregister(&id).await {
        Ok(()) => info!(%agent, id, "deregistered from consul"),
        Err(error) => warn!(
            id,
            error = &error as &dyn Error,
            "not deregistered; consul will show this node as critical"
        ),
    }
}

/// Registers `wanted` unless it is what was registered last and the agent still knows it. The
/// agent does not describe the check, hence both.
async fn ensure(
    agent: &Agent,
    wanted: &Registration,
    registered: Option<&Registration>,
) -> Result<(), ConsulError> {
    let is_same = registered == Some(wanted);
    if is_same && agent.has(wanted).await? {
        return Ok(());
    }
    agent.register(wanted).await?;
    let id = wanted.id();
    if is_same {
        info!(%agent, id, "registered again: the agent had forgotten this node");
    } else {
        info!(%agent, id, service = wanted.service, "registered with consul");
    }
    Ok(())
}

/// Publishes what is found, as it changes.
async fn look(
    agent: &Agent,
    registration: watch::Receiver<Registration>,
    found: &watch::Sender<Vec<String>>,
    missed: &Notify,
) -> Infallible {
    let mut retry = Retry::new();
    let mut index = 0;
    loop {
        let service = registration.borrow().service.clone();
        let pause = match agent.peers_after(&service, index).await {
            Ok(listing) => {
                // An index that goes back is another catalogue's; 0 reads that one afresh.
                index = if listing.index < index {
                    0
                } else {
                    listing.index
                };
                publish(&listing, &registration.borrow(), found, missed);
                retry.forget();
                LOOK_PAUSE
            }
            Err(error) => {
                index = 0;
                retry.pause_after(&error)
            }
        };
        sleep(pause).await;
    }
}

fn publish(
    listing: &Listing,
    own: &Registration,
    found: &watch::Sender<Vec<String>>,
    missed: &Notify,
) {
    if listing.found.iter().all(|f| f.id != own.id()) {
        missed.notify_one();
    }
    let addresses = found::addresses(&listing.found, own);
    found.send_if_modified(|before| {
        let differs = *before != addresses;
        if differs {
            info!(?addresses, "nodes found through consul");
            *before = addresses;
        }
        differs
    });
}

/// Ever longer pauses, and one line of log for each new reason.
struct Retry {
    pause: Duration,
    told: Option<String>,
}

impl Retry {
    fn new() -> Self {
        Self {
            pause: RETRY_PAUSE_FIRST,
            told: None,
        }
    }

    fn pause_after(&mut self, error: &ConsulError) -> Duration {
        let text = error.to_string();
        if self.told.as_ref() != Some(&text) {
            warn!(error = error as &dyn Error, "no help from consul, retrying");
            self.told = Some(text);
        }
        let pause = self.pause;
        self.pause = (pause * 2).min(RETRY_PAUSE_LAST);
        pause
    }

    fn forget(&mut self) {
        if self.told.is_some() {
            info!("consul answers again");
        }
        *self = Self::new();
    }
}

async fn told_to_stop(stop: &mut watch::Receiver<bool>) {
    drop(stop.wait_for(|&stop| stop).await);
}

/// Pending for ever once nobody can change it any more.
async fn changed<T>(watched: &mut watch::Receiver<T>) {
    if watched.changed().await.is_err() {
        pending().await
    }
}
