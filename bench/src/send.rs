//! Senders as Prometheus' remote write has them: each owns its series and sends in order, one
//! request at a time, as fast as it is acknowledged; "later" and no answer are tried again, a
//! refusal ends the measurement.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use hyper::Method;
use jepsen_tests::cluster::Target;
use jepsen_tests::http::{Connection, Reply};

use crate::shape::{Part, Population, Shape};

const REQUEST_DEADLINE: Duration = Duration::from_secs(30);
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// What is to be sent.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    pub of: Population,
    pub series: u32,
    /// Samples of each series.
    pub rounds: u32,
    pub senders: u32,
    /// After so many rounds another series takes the place of one.
    pub life_rounds: Option<u32>,
    /// So many samples a second of all senders together, or as fast as they are acknowledged.
    pub rate: Option<u32>,
    /// After that no pass begins.
    pub send_max: Duration,
}

/// What was sent.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Sent {
    pub samples: u64,
    pub retries: u64,
    /// Of each request from when it was due to its acknowledgement, ascending.
    pub latencies_ms: Vec<f64>,
    pub elapsed_s: f64,
    /// Passes over all series that every sender finished.
    pub rounds: u32,
}

/// Sends everything, or what the time allows.
pub fn send(load: &Load, shape: Shape, targets: &[Target], base_ms: i64) -> anyhow::Result<Sent> {
    let senders = load.senders;
    let parts: Vec<Part> = (0..senders)
        .map(|sender| {
            let part = Part::new(load.of, load.series, sender, senders, base_ms);
            part.living(load.life_rounds)
        })
        .collect();
    // Made before the threads: one that could not begin would leave the others waiting for it.
    let runtimes = parts
        .iter()
        .map(|_| {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
        })
        .collect::<Result<Vec<_>, _>>()?;
    let pace = Pace {
        barrier: Barrier::new(senders as usize),
        over: AtomicBool::new(false),
        begin: Instant::now(),
    };
    let results: Vec<anyhow::Result<Sent>> = std::thread::scope(|scope| {
        let threads: Vec<_> = parts
            .iter()
            .zip(runtimes)
            .enumerate()
            .map(|(n, (part, runtime))| {
                let target = targets[n % targets.len()];
                let pace = &pace;
                scope.spawn(move || sender(load, shape, part, target, pace, &runtime))
            })
            .collect();
        let joined = threads.into_iter().map(|thread| thread.join());
        joined
            .map(|result| result.expect("a sender does not panic"))
            .collect()
    });
    let mut total = Sent::default();
    for sent in results {
        let sent = sent?;
        total.samples += sent.samples;
        total.retries += sent.retries;
        total.rounds = sent.rounds;
        total.latencies_ms.extend(sent.latencies_ms);
    }
    total.latencies_ms.sort_by(f64::total_cmp);
    total.elapsed_s = pace.begin.elapsed().as_secs_f64();
    Ok(total)
}

/// All senders begin a pass over their series together, so that no part of the data runs ahead
/// out of the window in which a store takes samples.
struct Pace {
    barrier: Barrier,
    over: AtomicBool,
    begin: Instant,
}

/// When the requests of a sender are due.
#[derive(Clone, Copy)]
struct Schedule {
    begin: Instant,
    /// Samples a second.
    rate: Option<f64>,
}

impl Schedule {
    /// Waits until the request behind so many samples is due, and returns when that was: a store that was
    /// slow before makes it late, which counts.
    async fn wait(self, samples: u64) -> Instant {
        let Some(rate) = self.rate else {
            return Instant::now();
        };
        let due = self.begin + Duration::from_secs_f64(samples as f64 / rate);
        tokio::time::sleep_until(due.into()).await;
        due
    }
}

fn sender(
    load: &Load,
    shape: Shape,
    part: &Part,
    target: Target,
    pace: &Pace,
    runtime: &tokio::runtime::Runtime,
) -> anyhow::Result<Sent> {
    let mut connection = Connection::new(target.api);
    let mut sent = Sent::default();
    let rate = load
        .rate
        .map(|rate| f64::from(rate) / f64::from(load.senders));
    let schedule = Schedule {
        begin: pace.begin,
        rate,
    };
    let mut result = Ok(());
    for first in (0..load.rounds).step_by(shape.samples_per_series() as usize) {
        if pace.begin.elapsed() > load.send_max {
            pace.over.store(true, Ordering::SeqCst);
        }
        // Twice: nobody may look at `over` before all had the chance to set it, nor set it
        // before all have looked.
        pace.barrier.wait();
        let over = pace.over.load(Ordering::SeqCst);
        pace.barrier.wait();
        if over {
            break;
        }
        let rounds = first..first + shape.samples_per_series();
        result = runtime.block_on(pass(
            part,
            shape,
            rounds,
            schedule,
            &mut connection,
            &mut sent,
        ));
        if result.is_err() {
            pace.over.store(true, Ordering::SeqCst);
        } else {
            sent.rounds = first + shape.samples_per_series();
        }
    }
    result.map(|()| sent)
}

async fn pass(
    part: &Part,
    shape: Shape,
    rounds: std::ops::Range<u32>,
    schedule: Schedule,
    connection: &mut Connection,
    sent: &mut Sent,
) -> anyhow::Result<()> {
    let mut encoder = snap::raw::Encoder::new();
    for (message, samples) in part.requests(shape, rounds) {
        let body = encoder.compress_vec(&message).context("compress")?;
        let due = schedule.wait(sent.samples).await;
        sent.retries += deliver(connection, body.into()).await?;
        sent.latencies_ms.push(due.elapsed().as_secs_f64() * 1e3);
        sent.samples += u64::from(samples);
    }
    Ok(())
}

/// Sends until it is acknowledged; returns how often it had to be sent again.
async fn deliver(connection: &mut Connection, body: bytes::Bytes) -> anyhow::Result<u64> {
    const HEADERS: [(&str, &str); 3] = [
        ("content-type", "application/x-protobuf"),
        ("content-encoding", "snappy"),
        ("x-prometheus-remote-write-version", "0.1.0"),
    ];
    let begin = Instant::now();
    for retries in 0.. {
        let reply = connection
            .send(
                Method::POST,
                "/api/v1/write",
                &HEADERS,
                body.clone(),
                REQUEST_DEADLINE,
            )
            .await;
        let why = match reply {
            Reply::Answer {
                status: 200..=299, ..
            } => return Ok(retries),
            Reply::Answer { status, body } if status != 429 && status < 500 => {
                bail!("refused with {status}: {}", String::from_utf8_lossy(&body));
            }
            Reply::Answer { status, body } => {
                format!("{status}: {}", String::from_utf8_lossy(&body))
            }
            Reply::NotSent(why) | Reply::Lost(why) => why,
        };
        if begin.elapsed() > REQUEST_DEADLINE * 2 {
            bail!("not acknowledged after {retries} retries: {why}");
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
    unreachable!("the loop above has no end")
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    /// Answers each request with the next of `statuses`, the last one for ever.
    fn server(statuses: &'static [u16]) -> Target {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let api = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                std::thread::spawn(move || answer(stream, statuses));
            }
        });
        Target { api, push: api }
    }

    fn answer(mut stream: TcpStream, statuses: &[u16]) -> Option<()> {
        let mut reader = BufReader::new(stream.try_clone().ok()?);
        for n in 0.. {
            let mut length = 0;
            loop {
                let mut line = String::new();
                if reader.read_line(&mut line).ok()? == 0 {
                    return None;
                }
                if let Some(value) = line.strip_prefix("content-length: ") {
                    length = value.trim().parse().ok()?;
                }
                if line == "\r\n" {
                    break;
                }
            }
            reader.read_exact(&mut vec![0; length]).ok()?;
            let status = statuses.get(n).or(statuses.last())?;
            let head = format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n");
            stream.write_all(head.as_bytes()).ok()?;
        }
        None
    }

    fn load() -> Load {
        Load {
            of: crate::shape::PLAIN,
            series: 3_000,
            rounds: 40,
            senders: 4,
            life_rounds: None,
            rate: None,
            send_max: Duration::from_secs(60),
        }
    }

    #[tokio::test]
    async fn requests_are_due_by_the_samples_before_them() {
        let begin = Instant::now();
        let schedule = Schedule {
            begin,
            rate: Some(1e6),
        };
        for samples in [0, 10, 5] {
            let due = schedule.wait(samples).await;
            assert_eq!(due - begin, Duration::from_micros(samples));
            assert!(Instant::now() >= due);
        }
    }

    #[test]
    fn everything_is_sent_and_later_means_again() {
        let target = server(&[503, 429, 204]);
        for shape in [Shape::Wide, Shape::Deep] {
            let sent = send(&load(), shape, &[target], 0).unwrap();
            assert_eq!((sent.samples, sent.rounds), (120_000, 40));
            assert_eq!(sent.retries, 8, "two for each of four senders");
            assert!(sent.latencies_ms.is_sorted());
            assert!(sent.latencies_ms[0] > 0.0);
        }
    }

    #[test]
    fn a_refusal_ends_it_for_all_senders() {
        let targets = [server(&[204]), server(&[204, 204, 400])];
        let error = send(&load(), Shape::Wide, &targets, 0).unwrap_err();
        assert!(error.to_string().contains("refused with 400"), "{error:#}");
    }

    #[test]
    fn the_time_allowed_cuts_it_after_a_whole_pass() {
        let mut load = load();
        load.send_max = Duration::ZERO;
        let sent = send(&load, Shape::Wide, &[server(&[204])], 0).unwrap();
        assert_eq!((sent.samples, sent.rounds), (0, 0));
    }
}
