//! Queries while shards move: a node joins and takes replicas over, a leader is killed and others
//! lead, it comes back. Every answer is the whole one, or an error that names a shard.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "these tests look at real processes from outside"
)]

#[allow(dead_code, reason = "shared with tests that need all of it")]
mod rig;

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rig::{Home, Node, escape, now_ms, request, wait_longer, write_request};

/// As [`Home`] starts nodes.
const SHARDS: usize = 4;
const SERIES: usize = 120;
const SAMPLES: usize = 12;
/// Between two questions of a stream.
const PAUSE: Duration = Duration::from_millis(10);
/// Answers of three streams that each asked everything twice.
const ROUND: usize = 3 * 2 * 2 * QUERIES.len();

/// What is asked all the time: one number of all shards, many series, joins over shards.
const QUERIES: [&str; 5] = [
    "sum(m)",
    "count by (g) (m)",
    "m",
    "topk(5, sum by (n) (increase(m[2m])))",
    "m * on (n) group_left () sum by (n) (m)",
];

fn free_addresses(count: usize) -> Vec<String> {
    let bind = |_| TcpListener::bind("127.0.0.1:0").unwrap();
    let sockets: Vec<TcpListener> = (0..count).map(bind).collect();
    let address = |socket: &TcpListener| socket.local_addr().unwrap().to_string();
    sockets.iter().map(address).collect()
}

fn start(home: &mut Home, address: &str, join: &[String]) -> Node {
    let (listen, join) = (
        format!("--cluster.listen-address={address}"),
        format!("--cluster.join={}", join.join(",")),
    );
    home.start_at(&[&listen, &join, "--cluster.bootstrap-expect=3"])
}

fn write(node: &Node, end_ms: i64) {
    let labels: Vec<[(&str, String); 3]> = (0..SERIES)
        .map(|n| {
            [
                ("__name__", "m".to_owned()),
                ("g", (n % 7).to_string()),
                ("n", n.to_string()),
            ]
        })
        .collect();
    let labels: Vec<Vec<(&str, &str)>> = labels
        .iter()
        .map(|one| one.iter().map(|(n, v)| (*n, v.as_str())).collect())
        .collect();
    for sample in 0..SAMPLES {
        let value = |n: usize| (n * sample) as f64 * 0.1;
        let series: Vec<(&[(&str, &str)], f64)> = labels
            .iter()
            .enumerate()
            .map(|(n, labels)| (labels.as_slice(), value(n)))
            .collect();
        let at_ms = end_ms - 10_000 * (SAMPLES - 1 - sample) as i64;
        let headers = [
            ("content-type", "application/x-protobuf"),
            ("content-encoding", "snappy"),
            ("x-prometheus-remote-write-version", "0.1.0"),
        ];
        let body = write_request(&series, at_ms);
        let answer = request(node.api(), "POST", "/api/v1/write", &headers, &body);
        assert_eq!(answer.code, 204, "{answer:?}");
    }
}

/// Paths of all queries, for an instant and for a range.
fn paths(end_ms: i64) -> Vec<String> {
    let (end, start) = (end_ms / 1000, end_ms / 1000 - 60);
    let both = |query: &&str| {
        let query = escape(query);
        [
            format!("/api/v1/query?query={query}&time={end}"),
            format!("/api/v1/query_range?query={query}&start={start}&end={end}&step=15"),
        ]
    };
    QUERIES.iter().flat_map(both).collect()
}

/// What all streams of queries share.
#[derive(Default)]
struct Shared {
    over: AtomicBool,
    answers: AtomicUsize,
}

impl Shared {
    /// Waits until so many more answers have come.
    fn wait_for_more(&self, answers: usize) {
        let before = self.answers.load(Ordering::Relaxed);
        wait_longer(5, "answers", || {
            let now = self.answers.load(Ordering::Relaxed);
            (now >= before + answers).then_some(())
        });
    }
}

/// What one stream of queries has seen.
#[derive(Default)]
struct Seen {
    whole: usize,
    errors: Vec<String>,
    /// Neither the whole answer nor an error that names a shard.
    wrong: Vec<String>,
}

/// Asks one node everything over and over until it is told to stop.
fn ask_on(
    api: SocketAddr,
    expected: &Arc<Vec<(String, String)>>,
    shared: &Arc<Shared>,
) -> JoinHandle<Seen> {
    let (expected, shared) = (Arc::clone(expected), Arc::clone(shared));
    std::thread::spawn(move || {
        let mut seen = Seen::default();
        loop {
            for (path, whole) in expected.iter() {
                // The nodes under test share the machine with those who ask.
                std::thread::sleep(PAUSE);
                let answer = request(api, "GET", path, &[], b"");
                shared.answers.fetch_add(1, Ordering::Relaxed);
                match answer.code {
                    200 if answer.body == *whole => seen.whole += 1,
                    422 | 503 if answer.body.contains("no answer from shard") => {
                        seen.errors.push(answer.body);
                    }
                    _ => seen.wrong.push(format!("{path}: {answer:?}")),
                }
            }
            // Never without having asked everything once.
            if shared.over.load(Ordering::Relaxed) {
                return seen;
            }
        }
    })
}

fn stop(shared: &Shared, streams: Vec<JoinHandle<Seen>>, what: &str) {
    shared.over.store(true, Ordering::Relaxed);
    for stream in streams {
        let seen = stream.join().unwrap();
        let wrong = seen.wrong.first();
        assert_eq!(wrong, None, "{what}: {} wrong answers", seen.wrong.len());
        let errors = seen.errors.len();
        assert!(seen.whole > QUERIES.len(), "{what}: {errors} errors only");
        println!("{what}: {} whole answers, {errors} errors", seen.whole);
    }
}

/// The node's id, and of each shard its leader and replicas, as the node knows them.
fn placement(node: &Node) -> (String, Vec<(String, Vec<String>)>) {
    let answer = node.get("/api/v1/status/cluster");
    assert_eq!(answer.code, 200, "{answer:?}");
    let json: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let shards = json["data"]["shards"].as_array().unwrap().iter();
    let shards = shards.map(|shard| {
        let replicas = shard["replicas"].as_array().unwrap();
        (text(&shard["leader"]), replicas.iter().map(text).collect())
    });
    (text(&json["data"]["nodeId"]), shards.collect())
}

/// The shards that the node says it leads.
fn led_by(node: &Node) -> Vec<usize> {
    let (own, shards) = placement(node);
    let leaders = shards.iter().map(|(leader, _)| leader).enumerate();
    leaders
        .filter(|(_, leader)| **leader == own)
        .map(|(shard, _)| shard)
        .collect()
}

#[test]
fn queries_are_whole_while_shards_move_and_leaders_change() {
    let addresses = free_addresses(4);
    let join = &addresses[..3];
    let mut homes: Vec<Home> = (0..4).map(|_| Home::new()).collect();
    let mut nodes: Vec<Node> = Vec::new();
    for (home, address) in homes.iter_mut().zip(&addresses).take(3) {
        nodes.push(start(home, address, join));
    }
    nodes.iter_mut().for_each(Node::wait_ready);
    let end_ms = now_ms() / 1000 * 1000 - 1000;
    write(&nodes[0], end_ms);
    let whole = |path: String| {
        let answer = nodes[0].get(&path);
        assert_eq!(answer.code, 200, "{path}: {answer:?}");
        (path, answer.body)
    };
    let expected: Arc<Vec<_>> = Arc::new(paths(end_ms).into_iter().map(whole).collect());
    let series = expected
        .iter()
        .find(|(path, _)| path.contains("query=%6D&"));
    let series = series.map_or(0, |(_, body)| body.matches("\"n\":").count());
    assert_eq!(series, SERIES, "the answer everything is compared with");

    // A fourth node joins: replicas of shards move to it.
    let shared = Arc::new(Shared::default());
    let streams = |nodes: &[Node], shared: &Arc<Shared>| -> Vec<JoinHandle<Seen>> {
        let stream = |node: &Node| ask_on(node.api(), &expected, shared);
        nodes.iter().map(stream).collect()
    };
    let running = streams(&nodes, &shared);
    shared.wait_for_more(ROUND);
    let mut fourth = start(&mut homes[3], &addresses[3], join);
    fourth.wait_ready();
    let newcomer = ask_on(fourth.api(), &expected, &shared);
    wait_longer(5, "replicas that have moved to the fourth", || {
        let (own, shards) = placement(&fourth);
        let held = shards.iter().filter(|(_, all)| all.contains(&own)).count();
        (held >= 2).then_some(())
    });
    let all = running.into_iter().chain([newcomer]).collect();
    shared.wait_for_more(ROUND);
    stop(&shared, all, "while replicas moved");

    // One that leads shards is killed: others come to lead them; it comes back.
    nodes.push(fourth);
    let leads = |node: &Node| !led_by(node).is_empty();
    let victim = nodes.iter().position(leads).unwrap();
    let killed = nodes.remove(victim);
    let shared = Arc::new(Shared::default());
    let running = streams(&nodes, &shared);
    shared.wait_for_more(ROUND);
    killed.kill();
    shared.wait_for_more(ROUND);
    wait_longer(5, "other leaders of all shards", || {
        let led: BTreeSet<usize> = nodes.iter().flat_map(led_by).collect();
        (led.len() == SHARDS).then_some(())
    });
    let mut back = start(&mut homes[victim], &addresses[victim], join);
    back.wait_ready();
    let returned = ask_on(back.api(), &expected, &shared);
    wait_longer(5, "its answers", || {
        let path = &expected[0].0;
        (back.get(path).body == expected[0].1).then_some(())
    });
    let all = running.into_iter().chain([returned]).collect();
    shared.wait_for_more(ROUND);
    stop(&shared, all, "while a leader was killed and came back");
}
