//! One request: where it goes, what it says, and whether it breaks off.

use std::fmt::Write;

use super::words::{label_name, label_value, number, pick};
use super::{packed, protobuf, sockets, text, wire};
use crate::splitmix::SplitMix64;

/// Which listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Port {
    Push,
    Api,
    /// Lines by TCP.
    Graphite,
    /// Pickles by TCP.
    Pickle,
    /// Datagrams.
    StatsD,
}

/// A request as it is written to a socket.
#[derive(Debug, Clone)]
pub struct Shot {
    pub port: Port,
    /// What it tries, for messages.
    pub kind: &'static str,
    pub head: Vec<u8>,
    pub body: Vec<u8>,
    /// Bytes of head and body that are sent before the connection is closed.
    pub cut: Option<usize>,
}

const DELIMITED: &str = "application/vnd.google.protobuf; \
                         proto=io.prometheus.client.MetricFamily; encoding=delimited";

/// The next request of a sender.
pub fn shot(dice: &mut SplitMix64, now_ms: i64) -> Shot {
    let mut shot = match dice.between(0, 1000) {
        0..450 => push(dice, "text", "text/plain", text::body),
        450..620 => push(dice, "protobuf", DELIMITED, protobuf::exposition),
        620..680 => packed_push(dice),
        680..700 => wire::odd(dice),
        700..702 => bombed(dice),
        702..703 => bombed_write(dice),
        703..740 => deletion(dice),
        740..800 => remote_write(dice, now_ms),
        800..840 => remote_write_2(dice, now_ms),
        840..880 => otlp(dice, now_ms),
        880..930 => lines(dice),
        // A page of everything takes as long as a hundred pushes.
        930..934 => read(dice),
        934..960 => push(dice, "protobuf", DELIMITED, protobuf::exposition),
        960..980 => sockets::datagram(dice, now_ms),
        _ => garbage(dice),
    };
    if dice.chance(3) {
        let whole = (shot.head.len() + shot.body.len()) as u64;
        shot.cut = Some(dice.between(0, whole) as usize);
    }
    shot
}

fn push(
    dice: &mut SplitMix64,
    kind: &'static str,
    content_type: &str,
    body: fn(&mut SplitMix64) -> Vec<u8>,
) -> Shot {
    let body = body(dice);
    let path = group_path(dice);
    let method = method(dice);
    request(
        dice,
        kind,
        Port::Push,
        (method, &path),
        &[("content-type", content_type)],
        body,
    )
}

fn packed_push(dice: &mut SplitMix64) -> Shot {
    let (content_type, body) = match dice.chance(50) {
        true => ("text/plain", text::body(dice)),
        false => (DELIMITED, protobuf::exposition(dice)),
    };
    let (encoding, body) = packed::pack(dice, &body);
    let headers = [
        ("content-type", content_type),
        ("content-encoding", encoding),
    ];
    let path = group_path(dice);
    let method = method(dice);
    request(dice, "packed", Port::Push, (method, &path), &headers, body)
}

fn bombed(dice: &mut SplitMix64) -> Shot {
    let path = group_path(dice);
    let content_type = if dice.chance(20) {
        DELIMITED
    } else {
        "text/plain"
    };
    let (encoding, body, content_type) = match dice.between(0, 4) {
        0 => ("snappy", packed::lying_snappy(dice), content_type),
        1 => (
            "gzip",
            packed::gzip(&protobuf::bucket_bomb(dice)),
            DELIMITED,
        ),
        _ => {
            let (encoding, body) = packed::bomb(dice);
            (encoding, body, content_type)
        }
    };
    let headers = [
        ("content-type", content_type),
        ("content-encoding", encoding),
    ];
    request(dice, "bomb", Port::Push, ("PUT", &path), &headers, body)
}

/// Small, and of very many parts once it is unpacked.
fn bombed_write(dice: &mut SplitMix64) -> Shot {
    const V2: &str = "application/x-protobuf;proto=io.prometheus.write.v2.Request";
    const PROTOBUF: &str = "application/x-protobuf";
    // Fields without anything in them: series of 1.0, symbols and series of 2.0, resources.
    let (path, kind, field) = *pick(
        dice,
        &[
            ("/api/v1/write", PROTOBUF, &b"\x0a\x00"[..]),
            ("/api/v1/write", PROTOBUF, b"\x1a\x00"),
            ("/api/v1/write", V2, b"\x22\x00"),
            ("/api/v1/write", V2, b"\x2a\x00"),
            ("/api/v1/import/write", PROTOBUF, b"\x0a\x02\x0a\x00"),
            ("/api/v1/otlp/v1/metrics", PROTOBUF, b"\x0a\x02\x12\x00"),
            ("/api/v1/otlp/v1/metrics", "application/json", b"[{"),
            ("/write", "", b"m v=1\n"),
            ("/api/v1/import", "", b"{\"metric\":{},"),
            ("/api/v1/import/prometheus", "", b"a{b=\"c\"} 1\n"),
            (
                "/api/v1/import/prometheus",
                "application/openmetrics-text",
                b"# TYPE a gauge\n",
            ),
        ],
    );
    // The bound is 32 MiB, which keeps a debug build busy for a minute.
    let most = if dice.chance(10) { 40 } else { 4 };
    let bytes = dice.between(1, most) as usize * (1 << 20);
    let plain = field.repeat(bytes / field.len());
    let (encoding, body) = match path.ends_with("write") && path.starts_with("/api") {
        true => ("snappy", packed::snappy(&plain)),
        false => ("gzip", packed::gzip(&plain)),
    };
    let headers = [("content-type", kind), ("content-encoding", encoding)];
    request(dice, "bomb", Port::Api, ("POST", path), &headers, body)
}

fn deletion(dice: &mut SplitMix64) -> Shot {
    let path = group_path(dice);
    request(
        dice,
        "delete",
        Port::Push,
        ("DELETE", &path),
        &[],
        Vec::new(),
    )
}

fn remote_write(dice: &mut SplitMix64, now_ms: i64) -> Shot {
    let body = protobuf::remote_write(dice, now_ms);
    let body = written(dice, &body);
    let kind = "application/x-protobuf";
    let encoding = match dice.chance(97) {
        true => "snappy",
        false => *pick(dice, &["zstd", "gzip", "SNAPPY", "snappy, snappy", "x"]),
    };
    let headers = [("content-type", kind), ("content-encoding", encoding)];
    let path = match dice.chance(85) {
        true => "/api/v1/write",
        false => "/api/v1/import/write",
    };
    request(
        dice,
        "remote write",
        Port::Api,
        ("POST", path),
        &headers,
        body,
    )
}

fn remote_write_2(dice: &mut SplitMix64, now_ms: i64) -> Shot {
    let body = protobuf::remote_write_2(dice, now_ms);
    let body = written(dice, &body);
    let kind = "application/x-protobuf;proto=io.prometheus.write.v2.Request";
    let headers = [("content-type", kind), ("content-encoding", "snappy")];
    request(
        dice,
        "remote write 2",
        Port::Api,
        ("POST", "/api/v1/write"),
        &headers,
        body,
    )
}

/// By snappy, nearly always.
fn written(dice: &mut SplitMix64, body: &[u8]) -> Vec<u8> {
    match dice.between(0, 100) {
        0 => packed::lying_snappy(dice),
        1 => body.to_vec(),
        _ => packed::snappy(body),
    }
}

fn otlp(dice: &mut SplitMix64, now_ms: i64) -> Shot {
    let path = "/api/v1/otlp/v1/metrics";
    let (kind, body) = match dice.chance(80) {
        true => ("application/x-protobuf", protobuf::otlp(dice, now_ms)),
        false => ("application/json", json(dice)),
    };
    request(
        dice,
        "otlp",
        Port::Api,
        ("POST", path),
        &[("content-type", kind)],
        body,
    )
}

/// Deep, or nearly a request.
fn json(dice: &mut SplitMix64) -> Vec<u8> {
    let depth = match dice.chance(10) {
        true => dice.between(1, 100_000),
        false => dice.between(0, 4),
    } as usize;
    let mut text = String::from("{\"resourceMetrics\":");
    text.push_str(&"[".repeat(depth));
    write!(text, "{{\"scopeMetrics\":[{{\"metrics\":[{{\"name\":\"m{}\",\"gauge\":{{\"dataPoints\":[{{\"asDouble\":{}}}]}}}}]}}]}}", dice.between(0, 9), number(dice)).expect("a String takes all");
    text.push_str(&"]".repeat(depth));
    text.push('}');
    text.into_bytes()
}

/// Line protocols.
fn lines(dice: &mut SplitMix64) -> Shot {
    let path = *pick(
        dice,
        &[
            "/write?db=x",
            "/api/v2/write?bucket=x&precision=ms",
            "/api/v1/import/prometheus",
            "/api/v1/import",
            "/write?precision=zz",
            "/api/v1/import/prometheus/metrics/job@base64/__4/a/b",
            "/api/v1/import?extra_label=a=b&extra_label==",
        ],
    );
    let mut body = Vec::new();
    for _ in 0..dice.between(0, 6) {
        match dice.between(0, 3) {
            0 => body.extend(text::body(dice)),
            1 => {
                body.extend(format!("m{},{}=", dice.between(0, 20), label_name(dice)).bytes());
                body.extend(label_value(dice));
                body.extend(format!(" value={} \n", number(dice)).bytes());
            }
            _ => {
                let (name, value) = (dice.between(0, 20), number(dice));
                let line = format!(
                    "{{\"metric\":{{\"__name__\":\"m{name}\"}},\"values\":[{value}],\"timestamps\":[{value}]}}\n"
                );
                body.extend(line.bytes());
            }
        }
    }
    let packed = dice.chance(20);
    let body = if packed { packed::gzip(&body) } else { body };
    let kind = match dice.chance(10) {
        true => "application/openmetrics-text",
        false => "",
    };
    let encoding = if packed { "gzip" } else { "" };
    let headers = [("content-type", kind), ("content-encoding", encoding)];
    request(dice, "lines", Port::Api, ("POST", path), &headers, body)
}

/// Questions that readers ask meanwhile.
fn read(dice: &mut SplitMix64) -> Shot {
    let (port, path) = match dice.between(0, 6) {
        0 => (Port::Push, "/api/v1/metrics".to_owned()),
        1 => (Port::Push, "/".to_owned()),
        2 => (Port::Push, "/metrics".to_owned()),
        3 => (
            Port::Api,
            "/federate?match[]={__name__=~%22m.*%22}".to_owned(),
        ),
        4 => (
            Port::Api,
            format!("/api/v1/query?query={}", percent(&label_value(dice))),
        ),
        _ => {
            let name = percent(label_name(dice).as_bytes());
            (Port::Api, format!("/api/v1/label/{name}/values?limit=5"))
        }
    };
    let accept = *pick(
        dice,
        &[
            "",
            "*/*",
            DELIMITED,
            "text/plain;escaping=allow-utf-8",
            ";;q=,",
        ],
    );
    request(
        dice,
        "read",
        port,
        ("GET", &path),
        &[("accept", accept)],
        Vec::new(),
    )
}

/// No request, or one with an odd head.
fn garbage(dice: &mut SplitMix64) -> Shot {
    let port = if dice.chance(70) {
        Port::Push
    } else {
        Port::Api
    };
    let mut head = match dice.between(0, 9) {
        0 => (0..dice.between(1, 400)).map(|_| dice.word() as u8).collect(),
        1 => format!("PUT {} HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 7\r\n\r\n", group_path(dice)).into_bytes(),
        2 => format!("PUT {} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffff\r\nabc", group_path(dice)).into_bytes(),
        3 => format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "a".repeat(dice.between(0, 100_000) as usize)).into_bytes(),
        4..8 => wire::contradicting(dice),
        _ => {
            let headers = "x-a: b\r\n".repeat(dice.between(0, 5000) as usize);
            format!("PUT /metrics/job/g HTTP/1.1\r\nhost: x\r\n{headers}\r\n").into_bytes()
        }
    };
    if dice.chance(30) {
        super::words::mutate(dice, &mut head);
    }
    Shot {
        port,
        kind: "garbage",
        head,
        body: Vec::new(),
        // Nothing that is waited for may come.
        cut: Some(usize::MAX),
    }
}

fn method(dice: &mut SplitMix64) -> &'static str {
    match dice.chance(97) {
        true => pick::<&str>(dice, &["PUT", "POST"]),
        false => pick::<&str>(dice, &["GET", "PATCH", "HEAD", "OPTIONS", "TRACE", "put"]),
    }
}

/// Mostly of a few hundred groups; the rest is in no order.
pub fn group_path(dice: &mut SplitMix64) -> String {
    let mut path = match dice.between(0, 100) {
        0..80 => format!("/metrics/job/j{}", dice.between(0, 40)),
        80..90 => format!("/metrics/job@base64/{}", base64(dice)),
        90..95 => format!("/metrics/job/{}", percent(&label_value(dice))),
        _ => (*pick(
            dice,
            &[
                "/metrics/job",
                "/metrics/job/",
                "/metrics",
                "/metrics/jobx/y",
                "/metrics/job//a",
                "/metrics/job/%",
                "/metrics/job/%zz",
            ],
        ))
        .to_owned(),
    };
    for _ in 0..dice.between(0, 3) {
        let name = match dice.chance(60) {
            true => "instance".to_owned(),
            false => percent(label_name(dice).as_bytes()),
        };
        match dice.chance(85) {
            true => path.push_str(&format!("/{name}/i{}", dice.between(0, 4))),
            false => path.push_str(&format!("/{name}@base64/{}", base64(dice))),
        }
    }
    if dice.chance(3) {
        path.push_str(pick::<&str>(
            dice,
            &[
                "?ttl=1s",
                "?ttl=x",
                "?mode=sum&id=a",
                "?mode=sum",
                "?mode=x",
                "/odd",
                "?ttl=99999999999999h",
            ],
        ));
    }
    path
}

fn base64(dice: &mut SplitMix64) -> String {
    const TEXTS: [&str; 9] = ["=", "YQ", "YQ==", "YS9i", "__4", "Y", "!!", "w6k", "AAAA"];
    match dice.chance(98) {
        true => (*pick(dice, &TEXTS)).to_owned(),
        false => "YWFh".repeat(dice.between(1, 7000) as usize),
    }
}

/// Every byte that could be taken for something else, by its number.
pub fn percent(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for &byte in bytes {
        match byte.is_ascii_alphanumeric() || b"_.-@".contains(&byte) {
            true => out.push(char::from(byte)),
            false => write!(out, "%{byte:02X}").expect("a String takes all"),
        }
    }
    out
}

fn request(
    dice: &mut SplitMix64,
    kind: &'static str,
    port: Port,
    (method, path): (&str, &str),
    headers: &[(&str, &str)],
    body: Vec<u8>,
) -> Shot {
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\n").into_bytes();
    for (name, value) in headers.iter().filter(|(_, value)| !value.is_empty()) {
        head.extend(format!("{name}: {value}\r\n").bytes());
    }
    let chunked = dice.chance(3);
    match chunked {
        true => head.extend(b"transfer-encoding: chunked\r\n\r\n"),
        false => head.extend(format!("content-length: {}\r\n\r\n", body.len()).bytes()),
    }
    let body = match chunked {
        true => [
            format!("{:x}\r\n", body.len()).as_bytes(),
            &body,
            b"\r\n0\r\n\r\n",
        ]
        .concat(),
        false => body,
    };
    Shot {
        port,
        kind,
        head,
        body,
        cut: None,
    }
}
