//! Waits until a store has come to rest: by what its nodes say of themselves, never for a time.

use std::time::Duration;

use anyhow::{Context, bail};
use tokio::time::Instant;

use super::peers::{Client, Quorate};
use super::stages::sealed_before;

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
    /// How many blocks there are, if that matters.
    pub blocks: Option<usize>,
    /// And how many that were made of several have got a file.
    pub merged: usize,
}

/// What a node says.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Said {
    series: f64,
    head_from_s: f64,
    blocks: f64,
    merged: f64,
}

impl Settled {
    /// All is sealed that is once the newest sample is at `newest_ms`.
    pub fn sealed(newest_ms: i64) -> Self {
        Self {
            series: None,
            head_from_ms: sealed_before(newest_ms),
            blocks: None,
            merged: 0,
        }
    }

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
            && self
                .blocks
                .is_none_or(|blocks| said.blocks == blocks as f64)
            && said.merged >= self.merged as f64
    }
}

/// Prometheus has no count of blocks made one.
async fn said(client: &mut Client) -> anyhow::Result<Said> {
    let merged = client.metric("quorate_tsdb_blocks_merged_total").await;
    Ok(Said {
        series: client.metric("prometheus_tsdb_head_series").await?,
        head_from_s: client
            .metric("prometheus_tsdb_head_min_time_seconds")
            .await?,
        blocks: client.metric("prometheus_tsdb_blocks_loaded").await?,
        merged: merged.unwrap_or(0.0),
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
            blocks: Some(3),
            merged: 1,
        };
        let said = Said {
            series: 7.0,
            head_from_s: 2.0,
            blocks: 3.0,
            merged: 1.0,
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
        assert!(!settled.is(Said {
            blocks: 2.0,
            ..said
        }));
        assert!(!settled.is(Said {
            merged: 0.0,
            ..said
        }));
    }
}
