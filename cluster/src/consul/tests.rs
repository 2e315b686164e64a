//! Requests and loop against an agent in memory, and answers no agent should give.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::StatusCode;
use model::limits::CONSUL_BODY_BYTES_MAX;
use model::{ClusterId, NodeId};
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::fake::{Fake, Mood};
use super::registration::{Described, SERVICE, TAGS};
use super::*;

fn registration(node: u64) -> Registration {
    Registration {
        service: SERVICE.to_owned(),
        node_id: NodeId(node),
        cluster_id: None,
        version: "0.1.0".to_owned(),
        zone: "a".to_owned(),
        address: "10.0.0.1".to_owned(),
        port: 9090,
        grpc_address: format!("10.0.0.{node}:9092"),
        push_address: "10.0.0.1:9091".to_owned(),
        tags: TAGS.map(str::to_owned).to_vec(),
        check_url: "http://10.0.0.1:9090/-/ready".to_owned(),
        check_header: Some(("x-quorate-check".to_owned(), "token".to_owned())),
    }
}

fn agent(fake: &Fake) -> Agent {
    Agent::new(Arc::new(fake.clone()), "10.0.0.1:8500").unwrap()
}

/// An answer of an agent (Consul 1.8.7, `GET /v1/health/service/quorate`), shortened.
fn real_answer() -> Value {
    json!([{
        "Node": { "ID": "c1edbf07", "Node": "vm", "Address": "127.0.0.1", "CreateIndex": 11 },
        "Service": {
            "ID": "quorate-n7", "Service": "quorate", "Tags": ["prometheus"],
            "Address": "127.0.0.1",
            "TaggedAddresses": { "lan_ipv4": { "Address": "127.0.0.1", "Port": 9090 } },
            "Meta": {
                "node_id": "n7", "grpc_address": "127.0.0.1:9092", "zone": "b",
                "cluster_id": "000000000000000000000000000000ff", "version": "0.1.0",
            },
            "Port": 9090, "Weights": { "Passing": 1, "Warning": 1 },
            "EnableTagOverride": false, "Proxy": { "MeshGateway": {}, "Expose": {} },
            "Connect": {}, "CreateIndex": 13, "ModifyIndex": 13,
        },
        "Checks": [
            { "Node": "vm", "CheckID": "serfHealth", "Status": "passing", "ServiceTags": [] },
            { "Node": "vm", "CheckID": "quorate-n7:ready", "Status": "passing", "Type": "http" },
        ],
    }])
}

fn found_in(answer: &Value) -> Vec<Found> {
    found::read(answer.to_string().as_bytes()).unwrap()
}

#[test]
fn addresses_of_agents() {
    let new = |address: &str| Agent::new(Arc::new(Fake::new(Mood::Well)), address);
    for (text, address) in [
        ("127.0.0.1:8500", "127.0.0.1:8500"),
        ("http://consul.local:8500/", "consul.local:8500"),
        ("[::1]:8500", "[::1]:8500"),
    ] {
        assert_eq!(new(text).unwrap().to_string(), address);
    }
    for text in [
        "",
        "8500",
        "localhost",
        ":8500",
        "a:0",
        "a:+80",
        "a:70000",
        "::1:8500",
        "https://a:8501",
        "http://a:8500/v1",
        "http://u@a:8500",
        "a b:1",
        "a\r\nb:1",
        "http://http://a:1",
    ] {
        let error = new(text).err().unwrap_or_else(|| panic!("{text:?} passed"));
        assert!(error.to_string().contains(&format!("{text:?}")), "{error}");
    }
}

#[test]
fn what_is_registered() {
    let mut node = registration(7);
    assert_eq!(
        node.to_json(),
        json!({
            "ID": "quorate-n7",
            "Name": "quorate",
            "Tags": ["prometheus", "pushgateway"],
            "Address": "10.0.0.1",
            "Port": 9090,
            "Meta": {
                "node_id": "n7",
                "version": "0.1.0",
                "zone": "a",
                "grpc_address": "10.0.0.7:9092",
                "push_address": "10.0.0.1:9091",
            },
            "EnableTagOverride": false,
            "Check": {
                "CheckID": "quorate-n7:ready",
                "Name": "ready",
                "Notes": "every shard this node holds has a leader",
                "HTTP": "http://10.0.0.1:9090/-/ready",
                "Header": {"x-quorate-check": ["token"]},
                "TLSSkipVerify": true,
                "Method": "GET",
                "Interval": "5s",
                "Timeout": "2s",
                "DeregisterCriticalServiceAfter": "72h",
            },
        })
    );
    node.cluster_id = Some(ClusterId(255));
    let cluster_id = &node.to_json()["Meta"]["cluster_id"];
    assert_eq!(cluster_id, "000000000000000000000000000000ff");
}

#[test]
fn what_is_found() {
    let answer = real_answer();
    let node = Found {
        id: "quorate-n7".to_owned(),
        node_id: NodeId(7),
        address: "127.0.0.1:9092".to_owned(),
        cluster_id: Some(ClusterId(255)),
        zone: "b".to_owned(),
        passing: true,
    };
    assert_eq!(found_in(&answer), std::slice::from_ref(&node));
    let mut critical = answer;
    critical[0]["Checks"][1]["Status"] = "critical".into();
    let passing = false;
    assert_eq!(found_in(&critical), [Found { passing, ..node }]);
}

#[test]
fn an_instance_that_is_no_node_hides_no_other() {
    let broken: [fn(&mut Value); 7] = [
        |entry| entry["Service"]["Meta"] = Value::Null,
        |entry| drop(entry["Service"].as_object_mut().unwrap().remove("Meta")),
        |entry| entry["Service"]["Meta"]["node_id"] = "7".into(),
        |entry| entry["Service"]["Meta"]["node_id"] = "n-7".into(),
        |entry| entry["Service"]["Meta"]["cluster_id"] = "?".into(),
        |entry| entry["Service"]["Meta"]["grpc_address"] = ":9092".into(),
        |entry| entry["Service"]["Meta"]["grpc_address"] = "".into(),
    ];
    for change in broken {
        let mut answer = real_answer();
        let mut entry = answer[0].clone();
        change(&mut entry);
        answer.as_array_mut().unwrap().insert(0, entry.clone());
        assert_eq!(found_in(&answer), found_in(&real_answer()), "{entry}");
    }
}

#[test]
fn nodes_of_another_cluster_and_this_one_are_no_peers() {
    let node = |id: u64, cluster_id: Option<u128>| Found {
        id: format!("quorate-n{id}"),
        node_id: NodeId(id),
        address: format!("10.0.0.{id}:9092"),
        cluster_id: cluster_id.map(ClusterId),
        zone: String::new(),
        passing: false,
    };
    let found = [
        node(9, None),
        node(1, Some(5)),
        node(2, Some(5)),
        node(3, Some(6)),
    ];
    let mut own = registration(1);
    let all_others = ["10.0.0.2:9092", "10.0.0.3:9092", "10.0.0.9:9092"];
    assert_eq!(found::addresses(&found, &own), all_others);
    own.cluster_id = Some(ClusterId(5));
    let ours = ["10.0.0.2:9092", "10.0.0.9:9092"];
    assert_eq!(found::addresses(&found, &own), ours);
}

/// A real answer with one value anywhere in it replaced.
fn mangled() -> impl Strategy<Value = Value> {
    let replacement = prop_oneof![
        Just(Value::Null),
        Just(json!([])),
        Just(json!({})),
        Just(json!([null])),
        any::<i64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    (any::<prop::sample::Index>(), replacement).prop_map(|(index, replacement)| {
        let mut answer = real_answer();
        let mut paths = Vec::new();
        pointers(&answer, String::new(), &mut paths);
        let path = index.get(&paths);
        *answer.pointer_mut(path).unwrap() = replacement;
        answer
    })
}

/// JSON pointers to every value inside `value`; no name in the real answer needs an escape.
fn pointers(value: &Value, at: String, all: &mut Vec<String>) {
    match value {
        Value::Object(map) => map
            .iter()
            .for_each(|(name, value)| pointers(value, format!("{at}/{name}"), all)),
        Value::Array(list) => list
            .iter()
            .enumerate()
            .for_each(|(i, value)| pointers(value, format!("{at}/{i}"), all)),
        _ => {}
    }
    all.push(at);
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes: Vec<u8>) {
        let _ = found::read(&bytes);
        let _ = serde_json::from_slice::<Described>(&bytes);
    }

    #[test]
    fn mangled_answers_are_errors_or_nodes_worth_dialing(answer in mangled()) {
        let text = answer.to_string();
        for node in found::read(text.as_bytes()).unwrap_or_default() {
            prop_assert!(split_address(&node.address).is_some());
        }
        let described = serde_json::from_value::<Described>(answer[0]["Service"].clone());
        if let Ok(described) = described {
            prop_assert!(!registration(1).is_described_by(&described));
        }
    }
}

#[test]
fn a_deep_answer_is_an_error() {
    assert!(found::read("[".repeat(1 << 20).as_bytes()).is_err());
}

#[tokio::test(start_paused = true)]
async fn errors_name_agent_request_and_status() {
    let fake = Fake::new(Mood::Down);
    let agent = agent(&fake);
    let words = |error: ConsulError| {
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        (error.to_string(), cause.unwrap_or_default())
    };

    let (text, cause) = words(agent.register(&registration(1)).await.unwrap_err());
    let request = "consul agent 10.0.0.1:8500: PUT /v1/agent/service/register";
    assert_eq!(text, format!("{request}: no answer"));
    assert_eq!(cause, "connection refused");

    fake.change(|s| s.mood = Mood::Silent);
    let (text, cause) = words(agent.deregister("a/b?c").await.unwrap_err());
    let request = "consul agent 10.0.0.1:8500: PUT /v1/agent/service/deregister/a%2Fb%3Fc";
    assert_eq!(text, format!("{request}: no answer"));
    assert_eq!(cause, "deadline has elapsed");

    let request = "consul agent 10.0.0.1:8500: GET /v1/health/service/quorate";
    let said = Bytes::from("Permission\x1b denied\n".to_owned() + &"x".repeat(10_000));
    fake.change(|s| s.mood = Mood::Says(StatusCode::FORBIDDEN, said));
    let (text, _) = words(agent.peers("quorate").await.unwrap_err());
    let start = format!("{request}: 403 Forbidden: Permission  denied xxx");
    assert!(text.starts_with(&start) && text.len() < 400, "{text}");

    fake.change(|s| s.mood = Mood::Says(StatusCode::OK, "<html>".into()));
    let (text, cause) = words(agent.peers("quorate").await.unwrap_err());
    assert_eq!(
        text,
        format!("{request}: 200 OK: the answer is not Consul's")
    );
    assert_eq!(cause, "expected value at line 1 column 1");

    let endless = Bytes::from(vec![b' '; CONSUL_BODY_BYTES_MAX + 1]);
    fake.change(|s| s.mood = Mood::Says(StatusCode::OK, endless));
    let (_, cause) = words(agent.peers("quorate").await.unwrap_err());
    assert_eq!(cause, "length limit exceeded");
}

/// The loop of node 1 and what the test holds of it.
struct Kept {
    registration: watch::Sender<Registration>,
    found: watch::Receiver<Vec<String>>,
    stop: watch::Sender<bool>,
    running: std::pin::Pin<Box<dyn Future<Output = ()>>>,
}

fn keep(fake: &Fake) -> Kept {
    let (registration, registered) = watch::channel(registration(1));
    let (published, found) = watch::channel(Vec::new());
    let (stop, stopped) = watch::channel(false);
    let running = keep_registered(agent(fake), registered, published, stopped);
    Kept {
        registration,
        found,
        stop,
        running: Box::pin(running),
    }
}

impl Kept {
    /// Runs the loop until `condition` holds of the agent.
    async fn until(&mut self, fake: &Fake, what: &str, condition: fn(&fake::State) -> bool) {
        tokio::select! {
            () = &mut self.running => panic!("ended before: {what}"),
            () = fake.until(what, condition) => {}
        }
    }

    async fn run_for(&mut self, duration: Duration) {
        let ended = tokio::time::timeout(duration, &mut self.running);
        assert!(ended.await.is_err(), "ended by itself");
    }

    /// Runs the loop until it has published `addresses`; an hour of virtual time is too long.
    async fn until_found(&mut self, addresses: &[&str]) {
        let seen = self.found.wait_for(|found| found == addresses);
        tokio::select! {
            () = &mut self.running => panic!("ended before {addresses:?} were found"),
            () = tokio::time::sleep(Duration::from_secs(3600)) => panic!("no {addresses:?}"),
            seen = seen => drop(seen.unwrap()),
        }
    }
}

const REGISTER: &str = "PUT agent/service/register";
const RECHECK: &str = "GET agent/service/quorate-n1";
const DEREGISTER: &str = "PUT agent/service/deregister/quorate-n1";

#[tokio::test(start_paused = true)]
async fn a_node_is_registered_once_and_deregistered_at_the_end() {
    let fake = Fake::new(Mood::Well);
    let mut kept = keep(&fake);
    kept.until(&fake, "rechecked", |s| s.asked.len() == 4).await;
    assert_eq!(fake.take_asked(), [REGISTER, RECHECK, RECHECK, RECHECK]);

    kept.registration
        .send_modify(|r| r.cluster_id = Some(ClusterId(7)));
    kept.until(&fake, "changed", |s| {
        s.services["quorate-n1"]["Meta"]["cluster_id"] == "00000000000000000000000000000007"
    })
    .await;
    assert_eq!(fake.take_asked(), [REGISTER]);

    kept.stop.send_replace(true);
    kept.running.await;
    assert_eq!(fake.take_asked(), [DEREGISTER]);
    assert!(fake.read(|s| s.services.is_empty()));
}

#[tokio::test(start_paused = true)]
async fn a_node_whose_owner_is_gone_deregisters() {
    let fake = Fake::new(Mood::Well);
    let mut kept = keep(&fake);
    kept.until(&fake, "registered", |s| !s.services.is_empty())
        .await;
    drop((kept.stop, kept.registration));
    kept.running.await;
    assert!(fake.read(|s| s.services.is_empty()));
}

#[tokio::test(start_paused = true)]
async fn a_forgotten_or_altered_entry_is_restored() {
    let fake = Fake::new(Mood::Well);
    let mut kept = keep(&fake);
    kept.until(&fake, "registered", |s| !s.services.is_empty())
        .await;
    fake.change(|s| s.services.clear());
    kept.until(&fake, "restored", |s| !s.services.is_empty())
        .await;
    fake.change(|s| s.services.get_mut("quorate-n1").unwrap()["Port"] = 1.into());
    kept.until(&fake, "put right", |s| {
        s.services["quorate-n1"]["Port"] == 9090
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn peers_are_published_as_they_come_and_kept_while_consul_is_silent() {
    let fake = Fake::new(Mood::Down);
    let mut kept = keep(&fake);
    let add = |node: u64| {
        let service = registration(node).to_json();
        fake.change(|s| drop(s.services.insert(format!("quorate-n{node}"), service)));
    };
    add(2);
    fake.change(|s| s.mood = Mood::Well);
    kept.until_found(&["10.0.0.2:9092"]).await;
    add(3);
    kept.until_found(&["10.0.0.2:9092", "10.0.0.3:9092"]).await;

    fake.change(|s| s.mood = Mood::Silent);
    fake.change(|s| drop(s.services.remove("quorate-n2")));
    kept.run_for(Duration::from_secs(300)).await;
    let before = ["10.0.0.2:9092", "10.0.0.3:9092"];
    assert_eq!(*kept.found.borrow(), before);

    fake.change(|s| s.mood = Mood::Well);
    kept.until_found(&["10.0.0.3:9092"]).await;
}

#[tokio::test(start_paused = true)]
async fn neither_a_quiet_agent_nor_a_broken_one_is_asked_in_haste() {
    let fake = Fake::new(Mood::Well);
    let mut kept = keep(&fake);
    let hour = Duration::from_secs(3600);
    kept.run_for(hour).await;
    // 240 rechecks, and a look waits half a minute for news and a second more: 116.
    let connects = fake.read(|s| s.connects);
    assert!((350..=360).contains(&connects), "{connects}");

    let says = Mood::Says(
        StatusCode::INTERNAL_SERVER_ERROR,
        "No cluster leader".into(),
    );
    fake.change(|s| s.mood = says);
    kept.run_for(hour).await;
    // Rechecks and looks, 240 each, and a few more while the pauses grow.
    let connects = fake.read(|s| s.connects) - connects;
    assert!((475..=490).contains(&connects), "{connects}");
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_is_gone_does_not_hold_up_the_end() {
    let fake = Fake::new(Mood::Silent);
    let kept = keep(&fake);
    kept.stop.send_replace(true);
    // One deadline for the registration under way, one for the deregistration.
    let ended = tokio::time::timeout(Duration::from_secs(11), kept.running);
    assert!(ended.await.is_ok());
}
