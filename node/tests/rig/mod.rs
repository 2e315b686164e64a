//! The binary as a process of its own, and the little HTTP a test needs to talk with it.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "these tests look at a real process from outside"
)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Far beyond what anything here takes on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(20);

/// Looks until there is something, or fails with what was waited for.
pub fn wait_for<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    wait_longer(1, what, look)
}

/// The same for what may take so many times as long.
pub fn wait_longer<T>(times: u32, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(
            begin.elapsed() < times * DEADLINE,
            "no {what} within {times} minutes"
        );
        std::thread::sleep(PAUSE);
    }
}

/// A node's directory, which outlives its processes.
pub struct Home {
    directory: tempfile::TempDir,
    starts: u32,
}

impl Home {
    pub fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            starts: 0,
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Starts a node on ports the system chooses.
    pub fn start(&mut self, flags: &[&str]) -> Node {
        let alone = ["--cluster.listen-address=127.0.0.1:0"];
        self.start_at(&[&alone, flags].concat())
    }

    /// The same, but the flags say where it listens for its peers.
    pub fn start_at(&mut self, flags: &[&str]) -> Node {
        self.starts += 1;
        let log = self.path(&format!("log-{}", self.starts));
        let child = Command::new(env!("CARGO_BIN_EXE_quorate"))
            .current_dir(self.directory.path())
            .args([
                "--storage.tsdb.path=data",
                "--web.listen-address=127.0.0.1:0",
                "--push.listen-address=127.0.0.1:0",
                "--cluster.shards=4",
            ])
            .args(flags)
            .stdin(Stdio::null())
            .stderr(std::fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        Node {
            child,
            log,
            api: None,
            push: None,
        }
    }

    /// Starts one and waits until it can do its part.
    pub fn start_ready(&mut self, flags: &[&str]) -> Node {
        let mut node = self.start(flags);
        node.wait_ready();
        node
    }
}

/// A process; killed when dropped.
pub struct Node {
    child: Child,
    log: PathBuf,
    api: Option<SocketAddr>,
    push: Option<SocketAddr>,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub code: u16,
    pub body: String,
}

impl Node {
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// Until it listens and can do its part.
    pub fn wait_ready(&mut self) {
        let log = self.log.clone();
        let address = |what: &str| {
            let text = std::fs::read_to_string(&log).ok()?;
            let end = format!(" what={what}");
            let line = text.lines().find_map(|line| line.strip_suffix(&end))?;
            let (_, address) = line.rsplit_once("address=")?;
            address.parse().ok()
        };
        self.api = Some(wait_for("API listener", || address("api")));
        self.push = Some(wait_for("push listener", || address("push")));
        wait_for("ready node", || {
            (self.get("/-/ready").code == 200).then_some(())
        });
    }

    pub fn api(&self) -> SocketAddr {
        self.api.expect("the node was waited for")
    }

    pub fn push(&self) -> SocketAddr {
        self.push.expect("the node was waited for")
    }

    pub fn get(&self, path: &str) -> Answer {
        request(self.api(), "GET", path, &[], b"")
    }

    pub fn post(&self, path: &str) -> Answer {
        request(self.api(), "POST", path, &[], b"")
    }

    /// The values of an instant query's result, in its order.
    pub fn query(&self, query: &str) -> Vec<String> {
        let answer = self.get(&format!("/api/v1/query?query={}", escape(query)));
        assert_eq!(answer.code, 200, "{answer:?}");
        let json: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
        let results = json["data"]["result"].as_array().unwrap();
        let values = results.iter().map(|r| r["value"][1].as_str().unwrap());
        values.map(str::to_owned).collect()
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).unwrap();
    }

    /// Waits until the process has ended by itself.
    pub fn exit(&mut self) -> ExitStatus {
        wait_for("exit", || self.child.try_wait().unwrap())
    }

    /// As a power cut without the loss of what the system has cached: SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may have ended before.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

pub fn escape(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

/// One request on a connection of its own.
pub fn request(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Answer {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let code = head.split(' ').nth(1).unwrap().parse().unwrap();
    let chunked = head.to_lowercase().contains("transfer-encoding: chunked");
    let body = match chunked {
        true => unchunk(body),
        false => body.to_owned(),
    };
    Answer { code, body }
}

/// RFC 9112, section 7.1, without extensions and trailers.
fn unchunk(mut rest: &str) -> String {
    let mut body = String::new();
    while let Some((length, tail)) = rest.split_once("\r\n") {
        let length = usize::from_str_radix(length, 16).unwrap();
        let (chunk, tail) = tail.split_at(length);
        body.push_str(chunk);
        rest = tail.strip_prefix("\r\n").unwrap();
    }
    body
}

/// A remote write 1.0 body: series with one sample each, as protobuf in snappy.
pub fn write_request(series: &[(&[(&str, &str)], f64)], at_ms: i64) -> Vec<u8> {
    let field = |tag: u8, bytes: &[u8]| [&[tag], &*varint(bytes.len() as u64), bytes].concat();
    let mut message = Vec::new();
    for (labels, value) in series {
        let mut one = Vec::new();
        for (name, value) in *labels {
            let label = [field(0x0a, name.as_bytes()), field(0x12, value.as_bytes())];
            one.extend(field(0x0a, &label.concat()));
        }
        let at = varint(at_ms as u64);
        let sample = [&[0x09][..], &value.to_le_bytes(), &[0x10], &at].concat();
        one.extend(field(0x12, &sample));
        message.extend(field(0x0a, &one));
    }
    snap::raw::Encoder::new().compress_vec(&message).unwrap()
}

fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

/// Milliseconds since 1970.
pub fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    i64::try_from(since.unwrap().as_millis()).unwrap()
}

/// An exporter in this process: answers every GET with the newest text it was given.
pub struct Exporter {
    pub address: SocketAddr,
    text: std::sync::Arc<std::sync::Mutex<String>>,
}

impl Exporter {
    pub fn start(text: &str) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let text = std::sync::Arc::new(std::sync::Mutex::new(text.to_owned()));
        let shown = text.clone();
        // Ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                answer_one(stream.unwrap(), &shown.lock().unwrap());
            }
        });
        Self { address, text }
    }

    pub fn show(&self, text: &str) {
        text.clone_into(&mut self.text.lock().unwrap());
    }
}

fn answer_one(mut stream: TcpStream, text: &str) {
    let mut head = Vec::new();
    let mut piece = [0; 1024];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut piece) {
            Ok(length) if length > 0 => head.extend_from_slice(&piece[..length]),
            _ => return,
        }
    }
    let length = text.len();
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/plain; version=0.0.4\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{text}"
    );
    // A node that was killed meanwhile does not read it.
    stream.write_all(answer.as_bytes()).ok();
}
