//! Throws the bombs and judges what happens meanwhile.

use std::ffi::OsString;
use std::fmt::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use hyper::Method;
use jepsen_tests::client::wall_ms;
use jepsen_tests::http::{Connection, Reply};
use lexopt::ValueExt;
use serde::Serialize;

use super::table::{Bomb, bombs};
use crate::queries::{KUBERNETES, instance};
use crate::round::Work;
use crate::send::{Load, send};
use crate::shape::{INTERVAL_MS, Shape};
use crate::system::{Kind, Programs, System};
use crate::table::Report;

const USAGE: &str = "\
bench bombs --quorate PATH [--prometheus PATH] [--series 20000] [--timeout-s 2] [--seconds 5]
            [--lanes 1] [--budget-mib 1024] [--only TEXT] [--dir DIRECTORY]

--seconds: how long each bomb is thrown; --lanes: by how many at once; --budget-mib: memory above
what is resident at rest. A Prometheus gets the same, for comparison: only quorate can fail.";

/// Clients of light queries always have at least so many answers in their p99.
const LIGHT_MIN: usize = 50;
/// Between two bombs of one client: what is refused at once must not become a flood.
const PAUSE: Duration = Duration::from_millis(20);
/// Below this a doubled p99 says nothing: a few scheduling slices.
const P99_FLOOR_MS: f64 = 5.0;
const SAMPLES: u32 = 240;

struct Options {
    programs: Programs,
    series: u32,
    timeout_s: u64,
    time: Duration,
    lanes: usize,
    budget_bytes: u64,
    only: Option<String>,
    directory: PathBuf,
}

/// What happened while a bomb was thrown.
#[derive(Debug, Serialize)]
struct Outcome {
    name: String,
    thrown: usize,
    /// Of the last one.
    answer: String,
    longest_s: f64,
    memory_bytes: u64,
    light_p99_ms: f64,
    /// What must not have happened.
    wrong: Vec<String>,
}

/// Carries out `bench bombs`; what did harm makes the report a failure.
pub fn measure(arguments: impl IntoIterator<Item = OsString>) -> anyhow::Result<Report> {
    let options = parse(arguments)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    std::fs::create_dir_all(&options.directory)?;
    let began_s = wall_ms() / 1000;
    let own = Kind::Quorate { nodes: 1 };
    let (rest_ms, outcomes) = runtime.block_on(throw_all(&options, own))?;
    let mut text = markdown(&options, own, rest_ms, &outcomes);
    if options.programs.prometheus.is_some() {
        let kind = Kind::Prometheus;
        let (rest_ms, outcomes) = runtime.block_on(throw_all(&options, kind))?;
        text += &markdown(&options, kind, rest_ms, &outcomes);
    }
    let figures = serde_json::to_value(&outcomes)?;
    let place = (&*options.directory, began_s, "bombs");
    let mut report = Report::new(place, text, figures);
    let wrong = outcomes.iter().filter(|o| !o.wrong.is_empty()).count();
    if wrong > 0 {
        report.failure = Some(format!("{wrong} of {} bombs did harm", outcomes.len()));
    }
    Ok(report)
}

async fn throw_all(options: &Options, kind: Kind) -> anyhow::Result<(f64, Vec<Outcome>)> {
    let work = Work::create(&options.directory)?;
    let mut system = System::start(&options.programs, kind, &work.0).await?;
    let end_s = wall_ms() / 60_000 * 60;
    let load = Load {
        of: KUBERNETES,
        series: options.series,
        rounds: SAMPLES,
        senders: 2,
        life_rounds: None,
        rate: None,
        send_max: Duration::from_secs(600),
    };
    let base_ms = end_s * 1000 - i64::from(SAMPLES - 1) * INTERVAL_MS;
    send(&load, Shape::Deep, system.targets(), base_ms)?;
    let address = system.targets().first().context("one node")?.api;
    let quiet = light(address, end_s, Instant::now() + options.time).await?;
    let rest_ms = p99(quiet).max(P99_FLOOR_MS);
    eprintln!("light queries at rest: p99 {rest_ms:.1} ms");
    let mut outcomes = Vec::new();
    for bomb in bombs() {
        if options
            .only
            .as_ref()
            .is_some_and(|only| !bomb.name.contains(only.as_str()))
        {
            continue;
        }
        let outcome = throw(options, &mut system, &bomb, end_s, rest_ms).await;
        let outcome = outcome.with_context(|| bomb.name)?;
        eprintln!("  {outcome:?}");
        outcomes.push(outcome);
    }
    system.stop().await?;
    Ok((rest_ms, outcomes))
}

async fn throw(
    options: &Options,
    system: &mut System,
    bomb: &Bomb,
    end_s: i64,
    rest_ms: f64,
) -> anyhow::Result<Outcome> {
    let address = system.targets().first().context("one node")?.api;
    system.forget_peak_memory()?;
    let resting = system.peak_memory_bytes()?;
    let until = Instant::now() + options.time;
    let lanes = (0..options.lanes).map(|_| lane(options, address, bomb, end_s, until));
    let (thrown, light) = futures::future::join(
        futures::future::join_all(lanes),
        light(address, end_s, until),
    )
    .await;
    let replies: Vec<(Duration, String)> = thrown.into_iter().flatten().collect();
    let longest = replies.iter().map(|r| r.0).max().unwrap_or_default();
    // Fails when the process is gone, which is the worst of all outcomes.
    let memory_bytes = system.peak_memory_bytes()?.saturating_sub(resting);
    let light_p99_ms = p99(light?);
    let mut wrong = Vec::new();
    if longest > Duration::from_secs(2 * options.timeout_s) {
        wrong.push("later than twice its timeout".to_owned());
    }
    if memory_bytes > options.budget_bytes {
        wrong.push("memory".to_owned());
    }
    if light_p99_ms > 2.0 * rest_ms {
        wrong.push("others' p99".to_owned());
    }
    Ok(Outcome {
        name: bomb.name.to_owned(),
        thrown: replies.len(),
        answer: replies.last().map(|r| r.1.clone()).unwrap_or_default(),
        longest_s: longest.as_secs_f64(),
        memory_bytes,
        light_p99_ms,
        wrong,
    })
}

/// Throws one bomb after the other; how long each took and what came back.
async fn lane(
    options: &Options,
    address: SocketAddr,
    bomb: &Bomb,
    end_s: i64,
    until: Instant,
) -> Vec<(Duration, String)> {
    let posted = bomb.post(end_s, options.timeout_s);
    let headers = [("content-type", posted.content_type)];
    let mut connection = Connection::new(address);
    let mut replies = Vec::new();
    while replies.is_empty() || Instant::now() < until {
        let began = Instant::now();
        let deadline = Duration::from_secs(4 * options.timeout_s + 2);
        let sent = connection.send(
            Method::POST,
            posted.path,
            &headers,
            posted.body.clone(),
            deadline,
        );
        let text = match sent.await {
            Reply::Answer { status: 200, body } => format!("200, {} bytes", body.len()),
            Reply::Answer { status, body } => format!("{status} {}", error_of(&body)),
            Reply::NotSent(why) | Reply::Lost(why) => format!("no answer: {why}"),
        };
        replies.push((began.elapsed(), text));
        tokio::time::sleep(PAUSE).await;
    }
    replies
}

fn error_of(body: &[u8]) -> String {
    let value: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let text = value["error"].as_str().unwrap_or("no error text");
    text.chars().take(80).collect()
}

/// Milliseconds of light queries until then, and at least of some.
async fn light(address: SocketAddr, end_s: i64, until: Instant) -> anyhow::Result<Vec<f64>> {
    let one = instance(7);
    let queries = [
        format!("node_load1{{instance=\"{one}\"}}"),
        format!("rate(http_requests_total{{instance=\"{one}\"}}[5m])"),
        "count(up{job=\"job-1\"})".to_owned(),
    ];
    let paths = queries.map(|query| {
        let query = jepsen_tests::differ::question::escaped(&query);
        format!("/api/v1/query?query={query}&time={end_s}")
    });
    let mut connection = Connection::new(address);
    let mut times = Vec::new();
    for path in paths.iter().cycle() {
        if times.len() >= LIGHT_MIN && Instant::now() >= until {
            break;
        }
        let began = Instant::now();
        match connection.get(path, Duration::from_secs(30)).await {
            Reply::Answer { status: 200, .. } => times.push(began.elapsed().as_secs_f64() * 1e3),
            Reply::Answer { status, body } => {
                bail!(
                    "a light query got {status}: {}",
                    String::from_utf8_lossy(&body)
                )
            }
            Reply::NotSent(why) | Reply::Lost(why) => bail!("a light query got no answer: {why}"),
        }
        // As a dashboard asks, not as a second bomb.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(times)
}

fn p99(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    let at = times.len() * 99 / 100;
    times
        .get(at.min(times.len().saturating_sub(1)))
        .copied()
        .unwrap_or(f64::NAN)
}

fn markdown(options: &Options, kind: Kind, rest_ms: f64, outcomes: &[Outcome]) -> String {
    let mut text = format!(
        "\n{}: {} series of {SAMPLES} samples, {} clients throw each bomb for {:?} with a \
         timeout of {} s; light queries at rest: p99 {rest_ms:.1} ms.\n\n\
         | bomb | thrown | answer | longest, s | memory, MiB | others' p99, ms | wrong |\n\
         |---|---:|---|---:|---:|---:|---|\n",
        kind.name(),
        options.series,
        options.lanes,
        options.time,
        options.timeout_s
    );
    for outcome in outcomes {
        let row = format_args!(
            "| {} | {} | {} | {:.2} | {} | {:.1} | {} |\n",
            outcome.name,
            outcome.thrown,
            outcome.answer.replace(['|', '\n'], " "),
            outcome.longest_s,
            outcome.memory_bytes >> 20,
            outcome.light_p99_ms,
            outcome.wrong.join(", ")
        )
        .to_string();
        text.write_str(&row).expect("a String grows");
    }
    text
}

fn parse(arguments: impl IntoIterator<Item = OsString>) -> anyhow::Result<Options> {
    let mut options = Options {
        programs: Programs::default(),
        series: 20_000,
        timeout_s: 2,
        time: Duration::from_secs(5),
        lanes: 1,
        budget_bytes: 1_024 << 20,
        only: None,
        directory: PathBuf::from("bench/results"),
    };
    let mut parser = lexopt::Parser::from_args(arguments);
    while let Some(argument) = parser.next()? {
        let lexopt::Arg::Long(name) = argument else {
            bail!("{}\n{USAGE}", argument.unexpected());
        };
        match name {
            "quorate" => options.programs.quorate = Some(parser.value()?.into()),
            "series" => options.series = parser.value()?.parse()?,
            "prometheus" => options.programs.prometheus = Some(parser.value()?.into()),
            "timeout-s" => options.timeout_s = parser.value()?.parse()?,
            "seconds" => {
                options.time = Duration::from_secs(parser.value()?.parse()?);
            }
            "lanes" => options.lanes = parser.value()?.parse()?,
            "budget-mib" => {
                options.budget_bytes = parser.value()?.parse::<u64>()? << 20;
            }
            "only" => options.only = Some(parser.value()?.string()?),
            "dir" => options.directory = parser.value()?.into(),
            _ => bail!("no option --{name}\n{USAGE}"),
        }
    }
    if options.programs.quorate.is_none() || options.lanes == 0 {
        bail!("nothing to test\n{USAGE}");
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p99_is_of_the_slowest_hundredth() {
        assert_eq!(p99((1..=1_000).map(f64::from).collect()), 991.0);
        assert_eq!(p99(vec![7.0]), 7.0);
        assert!(p99(Vec::new()).is_nan());
    }
}
