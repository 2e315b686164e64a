//! Waits until a store has come to rest: by what its nodes say of themselves, never for a time.

use std::time::Duration;

use anyhow::{Context, bail};
use tokio::time::Instant;

use super::peers::{Client, Quorate};

/// A round of upkeep takes two seconds, and a shard's series rest some rounds after it has sealed.
const SETTLED_DEADLINE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(250);

/// What every node must come to say, of all its shards.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settled {
    /// Series registered, if that matters.
    pub series: Option<usize>,
    /// The oldest sample of the head is not older.
    pub head_from_ms: i64,
}

/// What a node says.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Said {
    series: f64,
    head_from_s: f64,
}

impl Settled {
    /// Waits for it on every node.
    pub async fn wait(&self, quorate: &mut Quorate) -> anyhow::Result<()> {
        for (n, address) in quorate.addresses().into_iter().enumerate() {
            let waited = self.wait_for(&mut Client::new(address)).await;
            waited.with_context(|| format!("node {n}:\n{}", quorate.cluster.last_words()))?;
        }
        Ok(())
    }

    /// Waits for it on one server.
    pub async fn wait_for(&self, client: &mut Client) -> anyhow::Result<()> {
        let end = Instant::now() + SETTLED_DEADLINE;
        loop {
            let said = said(client).await?;
            if self.is(said) {
                return Ok(());
            }
            if Instant::now() > end {
                bail!("not settled in {SETTLED_DEADLINE:?}: {said:?}, not {self:?}");
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn is(&self, said: Said) -> bool {
        self.series
            .is_none_or(|series| said.series == series as f64)
            && said.head_from_s >= self.head_from_ms as f64 / 1000.0
    }
}

async fn said(client: &mut Client) -> anyhow::Result<Said> {
    Ok(Said {
        series: client.metric("prometheus_tsdb_head_series").await?,
        head_from_s: client
            .metric("prometheus_tsdb_head_min_time_seconds")
            .await?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_of_it_must_be_so() {
        let settled = Settled {
            series: Some(7),
            head_from_ms: 2_000,
        };
        let said = Said {
            series: 7.0,
            head_from_s: 2.0,
        };
        assert!(settled.is(said));
        assert!(settled.is(Said {
            head_from_s: 9.0,
            ..said
        }));
        assert!(!settled.is(Said {
            head_from_s: 1.9,
            ..said
        }));
        assert!(!settled.is(Said {
            series: 8.0,
            ..said
        }));
    }
}
