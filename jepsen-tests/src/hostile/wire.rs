//! What is wrong on the way: chunks, lengths, and headers that come twice or end in odd ways.

use super::shot::{Port, Shot, group_path};
use super::text;
use super::words::{mutate, pick};
use crate::splitmix::SplitMix64;

const DELIMITED: &str = "application/vnd.google.protobuf; \
                         proto=io.prometheus.client.MetricFamily; encoding=delimited";

/// A whole push that a server answers somehow, in a form that few clients choose.
pub fn odd(dice: &mut SplitMix64) -> Shot {
    let path = group_path(dice);
    let body = text::body(dice);
    let length = format!("content-length: {}\r\n", body.len());
    let headers = match dice.between(0, 6) {
        0 => format!("{length}content-type: text/plain\r\ncontent-type: {DELIMITED}\r\n"),
        1 => format!("{length}content-encoding: gzip\r\ncontent-encoding: snappy\r\n"),
        2 => format!("{length}{length}"),
        3 => format!("{length}X-Quorate-TTL: 1h\r\nx-quorate-ttl: 2h\r\n"),
        _ => "transfer-encoding: chunked\r\n".to_owned(),
    };
    let body = match headers.starts_with("transfer") {
        true => chunks(dice, &body),
        false => body,
    };
    let host = *pick(dice, &["x", "localhost", "[::1]:9091", "a.b.c:1"]);
    let head = format!("PUT {path} HTTP/1.1\r\nhost: {host}\r\n{headers}\r\n").into_bytes();
    Shot {
        port: Port::Push,
        kind: "odd wire",
        head,
        body,
        cut: None,
    }
}

/// Of any size, with extensions and trailers.
fn chunks(dice: &mut SplitMix64, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = body;
    while !rest.is_empty() {
        let most = if dice.chance(50) { 8 } else { 4096 };
        let (chunk, behind) = rest.split_at((dice.between(1, most) as usize).min(rest.len()));
        let zeros = *pick(dice, &["", "", "000"]);
        let extension = *pick(dice, &["", "", "", ";a=b", ";x"]);
        out.extend(format!("{zeros}{:X}{extension}\r\n", chunk.len()).bytes());
        out.extend(chunk);
        out.extend(b"\r\n");
        rest = behind;
    }
    out.extend(match dice.chance(10) {
        true => &b"0\r\nx-trailer: 1\r\n\r\n"[..],
        false => b"0\r\n\r\n",
    });
    out
}

/// A request whose parts contradict each other; nothing need come back.
pub fn contradicting(dice: &mut SplitMix64) -> Vec<u8> {
    let path = group_path(dice);
    let body = "a 1\n".repeat(dice.between(1, 50) as usize);
    let (length, less) = (body.len(), body.len() / 2);
    let more = length as u64 + dice.between(1, 1 << 40);
    let head = |headers: &str| format!("PUT {path} HTTP/1.1\r\nhost: x\r\n{headers}\r\n\r\n");
    let whole = match dice.between(0, 12) {
        0 => head(&format!("content-length: {less}")) + &body,
        1 => head(&format!("content-length: {more}")) + &body,
        2 => head(&format!("content-length: -{length}")) + &body,
        3 => head(&format!("content-length: +{length}")) + &body,
        4 => {
            head(&format!(
                "content-length: {length}\r\ntransfer-encoding: chunked"
            )) + &body
        }
        5 => head("transfer-encoding: chunked, gzip") + &body,
        6 => head("transfer-encoding: chunked") + &format!("{length:x}\n{body}\n0\n\n"),
        7 => head("transfer-encoding: chunked") + &format!("-1\r\n{body}\r\n0\r\n\r\n"),
        // Line feeds alone, and a header that goes on in the next line.
        8 => format!("PUT {path} HTTP/1.1\nhost: x\ncontent-length: {length}\n\n{body}"),
        9 => head(&format!("x: a\r\n b\r\ncontent-length: {length}")) + &body,
        10 => head(&format!("expect: 100-continue\r\ncontent-length: {length}")) + &body,
        _ => format!("PUT {path} HTTP/1.0\r\ncontent-length: {length}\r\n\r\n{body}"),
    };
    let mut whole = whole.into_bytes();
    if dice.chance(10) {
        mutate(dice, &mut whole);
    }
    whole
}
