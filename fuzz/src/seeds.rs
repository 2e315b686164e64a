//! Places to begin, for targets that would hardly find one by themselves: what our own encoders write, and texts as
//! they are written by hand.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use federation::read::Chunks;
use model::histogram::{Histogram, Span};
use model::port::read_all;
use model::{Labels, Samples, SeriesId, Timestamp};
use tsdb::Position;
use tsdb::block::{Writer, decompress};
use tsdb::chunk::Point;
use tsdb::manifest::{self, Manifest};
use tsdb::part::Column;

use crate::files::Files;
use crate::in_turn;

const CONFIGURATION: &str = r#"
global: {scrape_interval: 15s, external_labels: {zone: a}}
scrape_configs:
  - job_name: node
    scheme: https
    basic_auth: {username: u, password: p}
    static_configs: [{targets: ["a:9100"], labels: {env: x}}]
    relabel_configs: [{source_labels: [__address__], regex: "(.*):.*", target_label: host, replacement: $1}]
remote_read: [{url: "http://a/read", headers: {X: y}}]
rule_files: ["*.rules"]
storage: {tsdb: {out_of_order_time_window: 10m}}
"#;
const ACCESS: &str = r#"
tls_server_config: {cert_file: c.pem, key_file: k.pem, client_auth_type: RequireAndVerifyClientCert, client_ca_file: a.pem, min_version: TLS12}
http_server_config: {http2: false, headers: {X-Frame-Options: deny}}
basic_auth_users: {u: "$2y$10$QOauhQNbBCuQDKes6eFzPeMqBSjb7Mr5DUmpZ/VcEd00UAV/LDeSi"}
push_rules: [{jobs: [a], users: [u], pushes_per_second: 2, burst: 3}]
"#;
const MAPPING: &str = r#"
defaults: {observer_type: histogram, buckets: [.1, 1], glob_disable_ordering: true}
mappings:
  - {match: "a.*.c", name: "a_$1", labels: {x: "$1"}}
  - {match: "b\\.(\\w+)", match_type: regex, name: "b", match_metric_type: counter, scale: 2, help: h}
  - {match: "*.d", name: d, action: drop}
---
a.b.c"#;
const MEMBERS: &str = r#"{"configs":[[1,2],[1,3]],"nodes":[[1,"a:1"],[2,"b:1"],[3,"c:1"]]}"#;
const IDENTITY: &str =
    r#"{"node_id":7,"cluster_id":"0a","promise":{"cluster_id":"0a","members":{"7":"a:1"}}"#;
const META: &str = r#"{"index":9,"mark":"m","state":{"cluster_id":"0a","replication_factor":3,"hash_seed":5,"members":{"1":{"address":"a:1","zone":"z","version":"1","alive":true}},"table":[{"replicas":[1],"founders":[],"settled":true}],"lease_epoch":2,"history":[{"index":3,"shard":0,"from":[1],"to":[2]}],"cursors":{"c":{"position":"p","origins":["0b"]}}}}"#;
const VIEW: &str = r#"meta/header {"cluster_id":"0a","replication_factor":3,"hash_seed":5,"lease_epoch":2,"shards":1}
meta/member/00000000000000000001 {"address":"a:1","zone":"z","version":"1","alive":true}
meta/shard/000000 {"replicas":[1],"founders":[],"settled":true}
meta/history/00000000000000000003 {"index":3,"shard":0,"from":[1],"to":[2]}
meta/cursor/c {"position":"p","origins":["0b"]}"#;
const COMMANDS: [&str; 3] = [
    r#"{"Join":{"node":4,"member":{"address":"d:1","zone":"z","version":"1","alive":true}}}"#,
    r#"{"Place":{"shard":0,"replicas":[1,2]}}"#,
    r#"{"Advance":{"child":"c","from":"p","to":{"position":"q","origins":[]}}}"#,
];
const ACTIVE: &str = "{\"begin\":7,\"query\":\"up\",\"timestamp_sec\":1795233379}\n{\"begin\":8,\"query\":\"x\",\"timestamp_sec\":1}\n{\"end\":7}\n";
const BLOCK_META: &str = r#"{"ulid":"01ARYZ6S410000000000000000","minTime":1,"maxTime":7200000,"stats":{"numSamples":2},"compaction":{"level":1,"sources":["01ARYZ6S410000000000000000"],"hints":["from-out-of-order"]},"version":1}"#;
/// `{a="b"}` with two chunks, `{a="cc"}` with one.
const SYMBOLS: &[u8] = b"\0\0\0\x03\x01a\x01b\x02cc";
const SERIES: [&[u8]; 2] = [&[1, 0, 1, 2, 20, 5, 8, 3, 4, 6], &[1, 0, 2, 1, 1, 0, 30]];

/// Those of a target; none where it finds its way.
pub fn of(target: &str) -> Vec<Vec<u8>> {
    let text = |text: &str| text.as_bytes().to_vec();
    match target {
        "manifest" => vec![manifest()],
        "block" => vec![block()],
        "summary" => vec![vec![0; 16], summary()],
        "recovery" => vec![batches()],
        "identity" => vec![text(&format!("{IDENTITY}}}")), identity()],
        "mark" => vec![text(&format!(
            r#"{{"log_id":[4,1,9],"members_at":[1,1,1],"members":{MEMBERS}}}"#
        ))],
        "payload" => vec![[b"\xff", MEMBERS.as_bytes()].concat()],
        "meta" => [&[META][..], &COMMANDS]
            .concat()
            .into_iter()
            .map(text)
            .collect(),
        "view" => vec![text(VIEW)],
        "left" => vec![text("4 3 90"), text("5 1 -")],
        "active" => vec![text(ACTIVE)],
        "configuration" => vec![text(CONFIGURATION)],
        "access" => vec![text(ACCESS)],
        "mapping" => vec![text(MAPPING)],
        "import-meta" => vec![text(BLOCK_META)],
        "import-index" => vec![parts(&[&[SYMBOLS][..], &SERIES].concat())],
        "import-chunk" => chunks(),
        "import-block" => vec![import_block()],
        "import-head" => chunks().iter().map(|chunk| head(chunk)).collect(),
        "import-log" => vec![parts(&[
            &[&[1], &record()[..]].concat(),
            b"\x02a",
            b"\x04b",
        ])],
        "import-record" => vec![record(), vec![3, 0, 0, 0, 0, 0, 0, 0, 7, 2, 8]],
        _ => Vec::new(),
    }
}

/// Two bytes of length in front of each.
fn parts(parts: &[&[u8]]) -> Vec<u8> {
    let one = |part: &&[u8]| [&(part.len() as u16).to_le_bytes()[..], part].concat();
    parts.iter().flat_map(one).collect()
}

/// With the sum of what stands before it, as docs/format/identity.md has it.
fn identity() -> Vec<u8> {
    let sum = crc32c::crc32c(IDENTITY.as_bytes());
    format!("{IDENTITY},\n  \"crc32c\": \"{sum:08x}\"\n}}").into_bytes()
}

/// Without magic and checksum.
fn manifest() -> Vec<u8> {
    let manifest = Manifest {
        position: Some(Position {
            index: 7,
            opaque: Bytes::from_static(b"mark"),
        }),
        files: vec![tsdb::FileEntry::of_block(4, 12, 0xab)],
    };
    let disk = Files::default();
    let file = in_turn(async {
        manifest.write(&disk, Path::new("")).await?;
        read_all(&disk, Path::new(manifest::NAME)).await
    });
    let file = file.expect("a disk that works");
    file[8..file.len() - 4].to_vec()
}

/// A file that our own writer made, without its ends and with its root in front.
fn block() -> Vec<u8> {
    let disk = Files::default();
    let file = in_turn(async {
        let mut writer = Writer::create(&disk, Path::new(""), 7).await?;
        for id in 0..3 {
            let labels = Labels::from_pairs([("__name__", "up"), ("n", &id.to_string())]);
            let points = (0..40).map(|n| Point {
                at: Timestamp(n * 15_000),
                bits: (n as f64 * 0.5).to_bits(),
            });
            let column = Column {
                floats: points.collect(),
                histograms: Vec::new(),
            };
            writer.add(SeriesId(id), labels, &column).await?;
        }
        let (entry, ..) = writer.finish().await?;
        read_all(&disk, Path::new(&entry.name)).await
    });
    let file = file.expect("a disk that works");
    let footer = &file[file.len() - 88..];
    let word = |place: usize| {
        let bytes = footer[8 * place..8 * place + 8].try_into();
        u64::from_le_bytes(bytes.expect("eight bytes")) as usize
    };
    let (at, len, raw_len) = (word(0), word(1), word(2));
    let root = decompress(&file[at..at + len], raw_len as u64).expect("its own root");
    let front = [&[file[6] - 1][..], &(root.len() as u16).to_le_bytes()].concat();
    [&front, &root[..], &file[8..at]].concat()
}

/// One group that has voted and holds an entry: state and stretch.
fn summary() -> Vec<u8> {
    let mut out = vec![0; 8];
    let word = |out: &mut Vec<u8>, word: u32| out.extend(word.to_le_bytes());
    let long = |out: &mut Vec<u8>, word: u64| out.extend(word.to_le_bytes());
    [1, 0, 3, 0b11111]
        .into_iter()
        .for_each(|w| word(&mut out, w));
    [1, 2, 1, 5, 2, 1, 4, 1, 1, 5, 2, 1]
        .into_iter()
        .for_each(|w| long(&mut out, w));
    [1].into_iter().for_each(|w| word(&mut out, w));
    long(&mut out, 5);
    [1, 3, 1].into_iter().for_each(|w| word(&mut out, w));
    [5, 2, 1].into_iter().for_each(|w| long(&mut out, w));
    [200, 10, 1].into_iter().for_each(|w| word(&mut out, w));
    out
}

/// Two batches of one entry each, a footer of nothing, and another segment with a head of nothing.
fn batches() -> Vec<u8> {
    let record = |index: u64| {
        let mut out = vec![1, 1, 0, 0, 3, 0, 0, 0];
        [index, 1, 1]
            .iter()
            .for_each(|word| out.extend(word.to_le_bytes()));
        [8u32, 0]
            .iter()
            .for_each(|word| out.extend(word.to_le_bytes()));
        out
    };
    let batch = |kind: u8, fate: u8, index: &[u8]| {
        [
            &[kind, fate][..],
            &(index.len() as u16).to_le_bytes(),
            index,
        ]
        .concat()
    };
    [
        batch(0, 0, &record(0)),
        batch(0, 2, &record(1)),
        batch(2, 0, &[0; 16]),
        batch(1, 1, &[0; 16]),
        batch(0, 0, &record(2)),
    ]
    .concat()
}

/// Chunks of Prometheus: of each its encoding, its data.
fn chunks() -> Vec<Vec<u8>> {
    let mut samples = Samples::default();
    for n in 0..20 {
        samples.push(Timestamp(n * 15_000), (n * n) as f64 / 10.0);
    }
    for (schema, custom_values) in [(2, vec![]), (-53, vec![0.5, 1.0, 2.5])] {
        for (n, is_integer) in [(1, true), (2, true), (3, false), (4, false)] {
            let at = Timestamp(samples.timestamps.last().map_or(0, |at| at.0) + 15_000);
            let histogram = Histogram {
                is_integer,
                schema,
                count: 4.0 * f64::from(n),
                sum: 1.5,
                positive_spans: vec![
                    Span {
                        offset: 0,
                        length: 2,
                    },
                    Span {
                        offset: 1,
                        length: 1,
                    },
                ],
                positive_buckets: vec![f64::from(n), 2.0 * f64::from(n), f64::from(n)],
                custom_values: custom_values.clone(),
                ..Histogram::default()
            };
            samples.push_histogram(at, Arc::new(histogram));
        }
    }
    let chunk = |chunk: proto::remote::Chunk| [&[chunk.r#type as u8][..], &chunk.data].concat();
    Chunks::new(&samples).map(chunk).collect()
}

/// A chunk as the head has it: series, first and last instant, encoding, length, data.
fn head(chunk: &[u8]) -> Vec<u8> {
    let mut out = vec![0; 24];
    out[7] = 1;
    out.push(chunk[0]);
    let len = chunk.len() - 1;
    out.extend([len as u8 | 0x80, (len >> 7) as u8]);
    out.extend(&chunk[1..]);
    parts(&[&out])
}

/// `{a="b"}` with all chunks, of which the second instant is deleted.
fn import_block() -> Vec<u8> {
    let chunks = chunks();
    let mut series = vec![1, 0, 1, chunks.len() as u8];
    for (n, chunk) in chunks.iter().enumerate() {
        // From, length and place; then gap, length and how much further.
        series.extend([0, 0]);
        let behind = (chunk.len() + 5).max(1) as u8;
        series.push(if n == 0 { 8 } else { behind });
    }
    let chunks: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
    parts(&[SYMBOLS, &[2, 0, 60], &parts(&chunks), &series])
}

/// Two samples of one series.
fn record() -> Vec<u8> {
    let mut out = vec![2];
    [7u64, 1000]
        .iter()
        .for_each(|word| out.extend(word.to_be_bytes()));
    for (reference, at) in [(0, 0), (4, 1)] {
        out.extend([reference, at]);
        out.extend(1.5f64.to_be_bytes());
    }
    out
}
