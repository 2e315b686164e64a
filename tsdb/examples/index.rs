//! What the index of a block takes: bytes, and time to write it and to ask it.
//! `cargo run --release -p tsdb --example index [-- SERIES [SAMPLES [shuffled]]]`; prints lines of name and figure.
//! Shuffled, no two neighbours are of one pod, as if senders with a few series each had come one after the other.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "an outermost tool: it measures by the real clock"
)]

mod pods;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use model::hash::split_mix;
use model::matcher::MatchOp;
use model::port::Disk;
use model::{Labels, Matcher, SeriesId, Timestamp};
use pods::{SERIES_OF_POD, labels, shuffled};
use sim_world::{SimClock, SimDisk};
use tsdb::Tables;
use tsdb::block::{IndexCheck, Reader, Writer};
use tsdb::chunk::Point;
use tsdb::part::Column;

const STEP_MS: i64 = 15_000;
const BEGIN_MS: i64 = 1_700_000_000_000;

/// Half counters, a quarter gauges of two decimals, a quarter constant.
fn column(n: u64, samples: u64) -> Column {
    let mut sum = 0.0;
    let value = |at: u64, sum: &mut f64| match n % 4 {
        0 | 1 => {
            *sum += (split_mix(n << 20 | at) % 50) as f64;
            *sum
        }
        2 => (split_mix(n << 20 | at) % 10_000) as f64 / 100.0,
        _ => 1.0,
    };
    let shift = (n / SERIES_OF_POD % 15) as i64 * 1_000;
    let floats = (0..samples).map(|at| {
        let value = value(at, &mut sum);
        Point::new(Timestamp(BEGIN_MS + at as i64 * STEP_MS + shift), value)
    });
    Column {
        floats: floats.collect(),
        ..Column::default()
    }
}

async fn open(disk: &Arc<dyn Disk>, file: &tsdb::FileEntry, tables: &Arc<Tables>) -> Reader {
    let reader = Reader::open(disk.clone(), Path::new("index"), file.clone(), tables).await;
    reader.expect("opens")
}

fn told(what: &str, began: Instant, times: u32) {
    println!(
        "{what}: {:.2} us",
        began.elapsed().as_secs_f64() * 1e6 / f64::from(times)
    );
}

async fn measure(series: u64, samples: u64, order: &[u64]) {
    let labels = |n: u64| labels(order[n as usize]);
    let world = sim_world::world(0, &SimClock::new(), &SimDisk::new(1));
    let disk: Arc<dyn Disk> = world.disk.clone();
    let dir = Path::new("index");
    disk.create_dir_all(dir).await.expect("a directory");
    let mut writer = Writer::create(&*disk, dir, 1).await.expect("a file");
    let mut write = std::time::Duration::ZERO;
    for n in 0..series {
        let (labels, column) = (labels(n), column(n, samples));
        let began = Instant::now();
        let added = writer.add(SeriesId(n), labels, &column).await;
        added.expect("added");
        write += began.elapsed();
    }
    let began = Instant::now();
    let (file, _, root) = writer.finish().await.expect("finished");
    write += began.elapsed();
    println!("write: {:.3} s", write.as_secs_f64());
    let index = root.index.expect("it has one");
    let pages = || index.segments.iter().flat_map(|segment| &segment.pages);
    let bytes: u64 = pages().map(|page| u64::from(page.packed.section.len)).sum();
    let raw: u64 = pages().map(|page| page.packed.raw_len).sum();
    let labels_bytes = root
        .stretches
        .iter()
        .map(|s| u64::from(s.labels.section.len));
    let labels_bytes: u64 = labels_bytes.sum();
    let each = |bytes: u64| bytes as f64 / series as f64;
    println!("file: {} bytes, {:.2} a series", file.len, each(file.len));
    println!("labels: {:.2} bytes a series", each(labels_bytes));
    println!(
        "pages of the index: {}, {:.2} bytes a series, {:.2} before compression",
        pages().count(),
        each(bytes),
        each(raw)
    );
    println!(
        "share of the index: {:.2} % with a filter of 1.25 bytes",
        (each(bytes) + 1.25) * 100.0 / each(file.len)
    );

    let tables: Arc<Tables> = Arc::default();
    let reader = open(&disk, &file, &tables).await;
    let all: Vec<Labels> = (0..series).map(labels).collect();
    let began = Instant::now();
    let mut check = IndexCheck::new(&reader);
    for some in all.chunks(1024) {
        check.add(some).await.expect("as it was written");
    }
    told("building it again and comparing", began, 1);

    let absent: Vec<Labels> = all
        .iter()
        .map(|labels| labels.to_builder().set("uid", "x").build())
        .collect();
    let began = Instant::now();
    let mistaken = absent
        .iter()
        .filter(|labels| reader.may_have(labels))
        .count();
    told(
        "may_have of one that is not there",
        began,
        absent.len() as u32,
    );
    println!(
        "mistaken: {:.2} %",
        mistaken as f64 * 100.0 / absent.len() as f64
    );
    let began = Instant::now();
    for labels in absent.iter().take(10_000) {
        assert_eq!(reader.find(labels).await.expect("an answer"), None);
    }
    told("find of one that is not there", began, 10_000);
    let began = Instant::now();
    for (n, labels) in (0..).zip(&all) {
        let found = reader.find(labels).await.expect("an answer");
        assert_eq!(found, Some(SeriesId(n)));
    }
    told("find of each that is there, by id", began, all.len() as u32);
    let began = Instant::now();
    for at in 0..2_000u64 {
        let n = split_mix(at) % series;
        let found = reader.find(&all[n as usize]).await.expect("an answer");
        assert_eq!(found, Some(SeriesId(n)));
    }
    told("find of one that is there, anywhere", began, 2_000);

    for (op, name, value) in [
        (
            MatchOp::Equal,
            "__name__",
            "app1_subsystem_17_seconds_total",
        ),
        (
            MatchOp::Equal,
            "pod",
            all[series as usize / 2].get("pod").expect("a pod"),
        ),
        (MatchOp::Equal, "cluster", "production-eu-1"),
        (MatchOp::Regex, "__name__", "app1_.*"),
        (MatchOp::Regex, "pod", ".*7.*f"),
        (MatchOp::NotEqual, "namespace", "team-3"),
    ] {
        let any_of = [vec![Matcher::new(op, name, value).expect("a pattern")]];
        let fresh = open(&disk, &file, &Arc::default()).await;
        let began = Instant::now();
        let found = fresh.select_any(&any_of).await.expect("an answer").len();
        told(
            &format!("{} chooses {found}, the first time", any_of[0][0]),
            began,
            1,
        );
        let began = Instant::now();
        for _ in 0..20 {
            fresh.select_any(&any_of).await.expect("an answer");
        }
        told("  and again", began, 20);
    }
    let fresh = open(&disk, &file, &Arc::default()).await;
    let of_a_name = [vec![
        Matcher::new(MatchOp::Regex, "__name__", "app1_.*").expect("a pattern"),
    ]];
    for (whose, any_of) in [("all series", &[][..]), ("app1", &of_a_name)] {
        for what in ["the first time", "and again"] {
            let (began, mut values) = (Instant::now(), BTreeSet::new());
            let among = fresh.among(any_of, std::iter::empty()).await;
            let among = among.expect("an answer");
            let added = fresh.add_values("pod", &among, &mut values).await;
            added.expect("an answer");
            let found = values.len();
            told(&format!("{found} pods of {whose}, {what}"), began, 1);
            let (began, mut names) = (Instant::now(), BTreeSet::new());
            let added = fresh.add_names(&among, &mut names).await;
            added.expect("an answer");
            told(&format!("  and {} names", names.len()), began, 1);
        }
    }
    let began = Instant::now();
    let ids: Vec<SeriesId> = fresh.ids().iter().collect();
    let found = fresh.labels_of(&ids).await.expect("an answer");
    told("labels of a series, of all", began, found.len() as u32);
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, default: u64| match arguments.get(at) {
        Some(text) => text.parse().expect("a number"),
        None => default,
    };
    let (series, samples) = (number(0, 100_000), number(1, 480));
    let order = match arguments.get(2).map(String::as_str) {
        None => (0..series).collect(),
        Some("shuffled") => shuffled(series),
        Some(other) => panic!("{other} is no order"),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime
        .expect("a runtime")
        .block_on(measure(series, samples, &order));
}
