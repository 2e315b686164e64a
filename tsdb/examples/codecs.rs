//! What a sample takes in a block, by shape of the values: bytes, and nanoseconds to write and to
//! read. `cargo run --release -p tsdb --example codecs [-- SERIES]`; a table in Markdown.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "an outermost tool: it measures by the real clock"
)]

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use model::port::Disk;
use model::{Labels, Samples, SeriesId, Timestamp};
use sim_world::{SimClock, SimDisk};
use tsdb::block::{Reader, Walk, Writer};
use tsdb::chunk::{self, Point};
use tsdb::part::Column;

const STEP_MS: i64 = 15_000;
const BEGIN_MS: i64 = 1_700_000_000_000;

/// splitmix64 (Steele, Lea, Flood 2014).
struct Dice(u64);

impl Dice {
    fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    fn below(&mut self, most: u64) -> u64 {
        self.word() % most
    }

    /// From 0 to 1.
    fn share(&mut self) -> f64 {
        self.word() as f64 / u64::MAX as f64
    }
}

type Values = fn(u32, usize) -> Vec<f64>;

const SHAPES: [(&str, Values); 10] = [
    ("counters", |series, count| counter(series, count, 1.0)),
    ("counters of seconds", |series, count| {
        counter(series, count, 1_000.0)
    }),
    ("random walk, 2 decimals", |series, count| {
        let mut dice = Dice(series.into());
        let mut at = dice.below(100_000) as i64;
        (0..count)
            .map(|_| {
                at += dice.below(41) as i64 - 20;
                at as f64 / 100.0
            })
            .collect()
    }),
    ("integers that seldom change", |series, count| {
        let mut dice = Dice(series.into());
        let mut at = dice.below(50);
        (0..count)
            .map(|_| {
                if dice.below(20) == 0 {
                    at = dice.below(50);
                }
                at as f64
            })
            .collect()
    }),
    ("integers, noise", |series, count| {
        let mut dice = Dice(series.into());
        (0..count).map(|_| dice.below(1000) as f64).collect()
    }),
    ("bytes in pages of 4096", |series, count| {
        let mut dice = Dice(series.into());
        let mut at = 100_000i64;
        (0..count)
            .map(|_| {
                at += dice.below(201) as i64 - 100;
                (at * 4096) as f64
            })
            .collect()
    }),
    ("constants", |series, count| vec![f64::from(series); count]),
    ("noise as float32", |series, count| {
        let mut dice = Dice(series.into());
        (0..count)
            .map(|_| f64::from((20.0 + dice.share()) as f32))
            .collect()
    }),
    ("noise as float64", |series, count| {
        let mut dice = Dice(series.into());
        (0..count).map(|_| dice.share()).collect()
    }),
    ("histogram buckets", |series, count| {
        // Twelve of one histogram, each holding those below.
        let mut dice = Dice((series / 12).into());
        let mut at = 0u64;
        let bucket = series % 12;
        (0..count)
            .map(|_| {
                for le in 0..12 {
                    let more = dice.below(1 + (60 >> le));
                    at += if le <= bucket { more } else { 0 };
                }
                at as f64
            })
            .collect()
    }),
];

fn counter(series: u32, count: usize, per: f64) -> Vec<f64> {
    let mut dice = Dice(series.into());
    let rate = 10 + dice.below(5_000);
    let mut at = dice.below(1_000_000);
    (0..count)
        .map(|_| {
            at += rate / 2 + dice.below(rate);
            at as f64 / per
        })
        .collect()
}

fn labels(series: u32) -> Labels {
    Labels::from_pairs([
        ("__name__", "codecs_measured_total".to_owned()),
        (
            "instance",
            format!("10.0.{}.{}:9100", series / 250, series % 250),
        ),
        ("job", "codecs".to_owned()),
        ("pod", format!("app-{}-{series:x}", series % 7)),
        ("zone", format!("z{}", series % 3)),
    ])
}

struct Figures {
    bytes: f64,
    gorilla: f64,
    write_ns: f64,
    read_ns: f64,
}

async fn measure(values: Values, series: u32, count: usize, jitter_ms: u64) -> Figures {
    let world = sim_world::world(0, &SimClock::new(), &SimDisk::new(1));
    let disk: Arc<dyn Disk> = world.disk.clone();
    let dir = Path::new("codecs");
    disk.create_dir_all(dir).await.expect("a directory");
    let mut dice = Dice(7);
    let times: Vec<Timestamp> = (0..count as i64)
        .map(|n| Timestamp(BEGIN_MS + n * STEP_MS + dice.below(jitter_ms + 1) as i64))
        .collect();
    let columns: Vec<Column> = (0..series)
        .map(|n| Column {
            floats: times
                .iter()
                .zip(values(n, count))
                .map(|(&at, v)| Point::new(at, v))
                .collect(),
            ..Column::default()
        })
        .collect();
    let samples = f64::from(series) * count as f64;
    let gorilla: usize = columns
        .iter()
        .flat_map(|column| chunk::encode(&column.floats, 120))
        .map(|chunk| chunk.data.len())
        .sum();
    let began = Instant::now();
    let mut writer = Writer::create(&*disk, dir, 1).await.expect("a file");
    for (n, column) in (0..).zip(&columns) {
        writer
            .add(SeriesId(n), labels(n as u32), column)
            .await
            .expect("added");
    }
    let (file, ..) = writer.finish().await.expect("finished");
    let write_ns = began.elapsed().as_nanos() as f64;
    let bytes = file.len as f64;
    let reader = Reader::open(disk, dir, file, &Arc::default()).await;
    let reader = reader.expect("opens");
    let began = Instant::now();
    let mut read = 0;
    let mut walk = Walk::new(&reader);
    for id in reader.ids().iter() {
        let [chunk] = walk.chunks(id).await.expect("a table") else {
            panic!("of so few samples one chunk");
        };
        let page = reader.page(chunk).await.expect("a page");
        let mut samples = Samples::default();
        let range = (Timestamp::MIN, Timestamp::MAX);
        let slot = chunk.slot.expect("a column in a page");
        let values = page.values(slot).expect("values");
        reader
            .read_slot(chunk, (&page, &values), range, &mut samples)
            .expect("a column");
        read += samples.len();
    }
    let read_ns = began.elapsed().as_nanos() as f64;
    assert_eq!(read as f64, samples);
    Figures {
        bytes: bytes / samples,
        gorilla: gorilla as f64 / samples,
        write_ns: write_ns / samples,
        read_ns: read_ns / samples,
    }
}

fn main() {
    let series = std::env::args()
        .nth(1)
        .and_then(|n| n.parse().ok())
        .unwrap_or(300);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    println!(
        "| values | samples a series | bytes a sample | XOR chunks of 120 | ns to write | ns to read |"
    );
    println!("|---|--:|--:|--:|--:|--:|");
    for (name, values) in SHAPES {
        for (count, jitter_ms) in [(480, 0), (2_880, 0), (2_880, 6)] {
            let figures = runtime.block_on(measure(values, series, count, jitter_ms));
            let Figures {
                bytes,
                gorilla,
                write_ns,
                read_ns,
            } = figures;
            let jitter = if jitter_ms > 0 { ", uneven times" } else { "" };
            println!(
                "| {name}{jitter} | {count} | {bytes:.3} | {gorilla:.3} | {write_ns:.0} | {read_ns:.1} |"
            );
        }
    }
}
