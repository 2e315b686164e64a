//! Targets as `/api/v1/targets` shows them.

use std::collections::BTreeMap;
use std::time::Duration;

use ingest::scrape::Health;
use model::time::format_duration;
use model::{Labels, Timestamp};

use super::pools::{Pools, Running};
use crate::web::state::{DroppedTarget, Target, Targets};

/// What the cluster's data tells of a target that another node scrapes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Seen {
    pub up: bool,
    pub at: Timestamp,
    pub duration: Duration,
}

/// What the node that scrapes a target tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// Empty when the last scrape succeeded.
    pub last_error: String,
    /// `None` before the first scrape.
    pub last_scrape: Option<Timestamp>,
    pub duration: Duration,
    /// `None` before the first scrape.
    pub healthy: Option<bool>,
}

/// What is known of targets that other nodes scrape.
#[derive(Debug, Default)]
pub struct Elsewhere {
    /// By identity, from the nodes that scrape them.
    pub told: BTreeMap<u64, Told>,
    /// By labels, from the data: for targets whose node did not answer.
    pub seen: BTreeMap<Labels, Seen>,
}

/// The address under which this node is reached from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExternalUrl {
    pub scheme: String,
    /// With its port, if it has one.
    pub host: String,
    /// The port of our own API listener.
    pub own_port: u16,
}

impl Pools {
    /// Whether there are targets of which another node holds the lease and `told` has nothing.
    pub fn untold(&self, told: &BTreeMap<u64, Told>) -> bool {
        let mut untold = false;
        self.each(|_, pool| {
            untold |= pool.running.iter().any(|(identity, running)| {
                !told.contains_key(identity) && !self.holds_lease(&running.target)
            });
        });
        untold
    }

    /// How the last scrapes went of the targets scraped here, by identity.
    pub fn told(&self) -> BTreeMap<u64, Told> {
        let mut told = BTreeMap::new();
        self.each(|_, pool| {
            let here = pool.running.iter();
            let here = here.filter(|(_, running)| self.holds_lease(&running.target));
            told.extend(here.map(|(&identity, running)| (identity, told_here(running))));
        });
        told
    }

    /// Targets that are scraped here, by job.
    pub fn counts(&self) -> Vec<(String, f64)> {
        let mut counts = Vec::new();
        self.each(|job, pool| {
            let running = pool.running.values();
            let here = running.filter(|running| self.holds_lease(&running.target));
            counts.push((job.to_owned(), here.count() as f64));
        });
        counts
    }

    /// Names of the jobs.
    pub fn names(&self) -> Vec<String> {
        let mut names = Vec::new();
        self.each(|job, _| names.push(job.to_owned()));
        names
    }

    /// All targets.
    pub fn targets(&self, external: &ExternalUrl, elsewhere: &Elsewhere) -> Targets {
        let mut targets = Targets::default();
        self.each(|job, pool| {
            let active = pool.running.iter().map(|(identity, running)| {
                let target = plain(job, running, external);
                match self.holds_lease(&running.target) {
                    true => with_told(target, told_here(running)),
                    false => match elsewhere.told.get(identity) {
                        Some(told) => with_told(target, told.clone()),
                        None => with_seen(target, elsewhere.seen.get(&running.target.labels)),
                    },
                }
            });
            targets.active.extend(active);
            let dropped = pool.dropped.iter().map(|labels| DroppedTarget {
                discovered_labels: labels.clone(),
                scrape_pool: job.to_owned(),
            });
            targets.dropped.extend(dropped);
            let count = pool.dropped_count;
            targets.dropped_counts.insert(job.to_owned(), count);
        });
        targets
    }
}

fn told_here(running: &Running) -> Told {
    let status = running.status.get();
    Told {
        last_error: status.last_error.unwrap_or_default(),
        last_scrape: status.last_scrape,
        duration: status.last_duration,
        healthy: match status.health {
            Health::Unknown => None,
            Health::Up => Some(true),
            Health::Down => Some(false),
        },
    }
}

fn with_told(target: Target, told: Told) -> Target {
    Target {
        last_error: told.last_error,
        last_scrape: told.last_scrape,
        last_scrape_duration: told.duration,
        healthy: told.healthy,
        ..target
    }
}

fn with_seen(mut target: Target, seen: Option<&Seen>) -> Target {
    if let Some(seen) = seen {
        target.healthy = Some(seen.up);
        target.last_scrape = Some(seen.at);
        target.last_scrape_duration = seen.duration;
        if !seen.up {
            "the node that scrapes this target knows why".clone_into(&mut target.last_error);
        }
    }
    target
}

fn plain(job: &str, running: &Running, external: &ExternalUrl) -> Target {
    let target = &running.target;
    Target {
        discovered_labels: running.discovered.clone(),
        labels: target.labels.clone(),
        scrape_pool: job.to_owned(),
        scrape_url: target.url.clone(),
        global_url: external.reach(&target.url),
        last_error: String::new(),
        last_scrape: None,
        last_scrape_duration: Duration::ZERO,
        healthy: None,
        scrape_interval: format_duration(target.interval),
        scrape_timeout: format_duration(target.timeout),
    }
}

impl ExternalUrl {
    /// `url` as somebody elsewhere would write it: a name of this machine for itself is replaced,
    /// and our own port as well.
    fn reach(&self, url: &str) -> String {
        let Some((scheme, rest)) = url.split_once("://") else {
            return url.to_owned();
        };
        let host_len = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, tail) = rest.split_at(host_len);
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, port),
            _ => return url.to_owned(),
        };
        if !matches!(host, "localhost" | "127.0.0.1" | "[::1]") {
            return url.to_owned();
        }
        if port.parse() == Ok(self.own_port) {
            return format!("{}://{}{tail}", self.scheme, self.host);
        }
        let outside = match self.host.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => host,
            _ => &self.host,
        };
        format!("{scheme}://{outside}:{port}{tail}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_this_machine_are_replaced() {
        let external = ExternalUrl {
            scheme: "https".to_owned(),
            host: "prom.example:8443".to_owned(),
            own_port: 9090,
        };
        for (url, reached) in [
            (
                "http://localhost:9090/metrics",
                "https://prom.example:8443/metrics",
            ),
            (
                "http://127.0.0.1:9100/metrics?a=b",
                "http://prom.example:9100/metrics?a=b",
            ),
            ("http://[::1]:9100/m", "http://prom.example:9100/m"),
            ("http://host:9090/metrics", "http://host:9090/metrics"),
            ("http://localhost/metrics", "http://localhost/metrics"),
        ] {
            assert_eq!(external.reach(url), reached);
        }
    }
}
