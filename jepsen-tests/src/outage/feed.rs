//! What is written to one child: each round a sample of every series, and of one in ten a late one.
//!
//! A request is sent again, to another node, until it is acknowledged, so that in the end what was
//! sent is what the child has.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use hyper::Method;
use model::Value;
use tokio::time::Instant;

use super::{METRIC, SERIES};
use crate::client::wall_ms;
use crate::cluster::Target;
use crate::differ::data::{Point, Series};
use crate::differ::wire::{HEADERS, body};
use crate::http::{Connection, Reply};

const ROUND: Duration = Duration::from_millis(250);
const DEADLINE: Duration = Duration::from_secs(3);
/// How late a late sample is: inside the window of the children.
const LATE_MS: i64 = 20_000;

/// By series and instant, the value that was acknowledged.
pub type Acknowledged = BTreeMap<(usize, i64), f64>;

/// Writes until `end`, to whichever node of `targets` takes it.
pub async fn feed(
    targets: &[Target],
    until: &RefCell<Option<Instant>>,
    acked: &RefCell<Acknowledged>,
) -> anyhow::Result<()> {
    let mut connections: Vec<_> = targets.iter().map(|t| Connection::new(t.api)).collect();
    let mut node = 0;
    for round in 0u32.. {
        if until.borrow().is_some_and(|end| Instant::now() >= end) {
            break;
        }
        let now = wall_ms();
        let mut rows = Acknowledged::new();
        for series in 0..SERIES {
            rows.insert((series, now), f64::from(round));
            let late = (series, now - LATE_MS - series as i64);
            if (series + round as usize).is_multiple_of(10) && !acked.borrow().contains_key(&late) {
                rows.insert(late, f64::from(round) + 0.5);
            }
        }
        let request = body(&as_series(&rows))?;
        loop {
            let path = "/api/v1/write";
            let connection = &mut connections[node];
            let reply = connection
                .send(Method::POST, path, &HEADERS, request.clone(), DEADLINE)
                .await;
            match reply {
                Reply::Answer {
                    status: 200..300, ..
                } => break,
                Reply::Answer { status: 400, body } => {
                    anyhow::bail!("refused: {}", String::from_utf8_lossy(&body));
                }
                _ => node = (node + 1) % connections.len(),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        acked.borrow_mut().extend(rows);
        tokio::time::sleep(ROUND).await;
    }
    Ok(())
}

fn as_series(rows: &Acknowledged) -> Vec<Series> {
    let mut series: BTreeMap<usize, Vec<Point>> = BTreeMap::new();
    for (&(n, at_ms), &value) in rows {
        let value = Value::Float(value);
        series.entry(n).or_default().push(Point { at_ms, value });
    }
    let named = |(n, points): (usize, Vec<Point>)| Series {
        labels: vec![
            ("__name__".to_owned(), METRIC.to_owned()),
            ("series".to_owned(), n.to_string()),
        ],
        points,
    };
    series.into_iter().map(named).collect()
}
