//! What comes without HTTP: Graphite's lines and pickles, and StatsD's. Nobody answers.

use super::shot::{Port, Shot};
use super::words::{label_name, label_value, metric_name, mutate, number, pick};
use crate::splitmix::SplitMix64;

/// Bytes of a datagram over IPv4.
const DATAGRAM_BYTES_MAX: usize = 65_507;

pub fn datagram(dice: &mut SplitMix64, now_ms: i64) -> Shot {
    let port = *pick(dice, &[Port::Graphite, Port::Pickle, Port::StatsD]);
    let mut body = match port {
        Port::Pickle => pickles(dice, now_ms),
        Port::StatsD => statsd(dice),
        _ => graphite(dice, now_ms),
    };
    if dice.chance(20) {
        mutate(dice, &mut body);
    }
    if port == Port::StatsD {
        body.truncate(DATAGRAM_BYTES_MAX);
    }
    Shot {
        port,
        kind: "socket",
        head: Vec::new(),
        body,
        // Nothing that is waited for may come.
        cut: Some(usize::MAX),
    }
}

fn graphite(dice: &mut SplitMix64, now_ms: i64) -> Vec<u8> {
    let mut body = Vec::new();
    for _ in 0..dice.between(1, 6) {
        body.extend(format!("{}.p", metric_name(dice)).bytes());
        if dice.chance(30) {
            body.extend(format!(";{}=", label_name(dice)).bytes());
            body.extend(label_value(dice));
        }
        let at = match dice.chance(90) {
            true => (now_ms / 1000).to_string(),
            false => number(dice),
        };
        let end = *pick(dice, &["\n", "\n", "\n", "\r\n", ""]);
        body.extend(format!(" {} {at}{end}", number(dice)).bytes());
    }
    body
}

fn statsd(dice: &mut SplitMix64) -> Vec<u8> {
    const KINDS: [&str; 9] = ["c", "c", "g", "ms", "h", "s", "d", "", "xx"];
    let mut body = Vec::new();
    for _ in 0..dice.between(1, 8) {
        let sign = *pick(dice, &["", "", "", "+", "-"]);
        let rate = *pick(dice, &["", "", "", "|@0.1", "|@0", "|@x", "|@1e-300"]);
        let (name, value, kind) = (metric_name(dice), number(dice), *pick(dice, &KINDS));
        body.extend(format!("s_{name}:{sign}{value}|{kind}{rate}").bytes());
        if dice.chance(30) {
            body.extend(format!("|#{}:", label_name(dice)).bytes());
            body.extend(label_value(dice));
        }
        body.push(b'\n');
    }
    body
}

/// Behind a length that is nearly always right.
fn pickles(dice: &mut SplitMix64, now_ms: i64) -> Vec<u8> {
    let name = metric_name(dice);
    let value = number(dice);
    let at = now_ms / 1000;
    let mut pickle = match dice.chance(80) {
        true => format!("(lp0\n(S'{name}'\np1\n(I{at}\nF{value}\ntp2\ntp3\na.").into_bytes(),
        // Marks, and texts of lengths that nobody sent.
        false => match dice.between(0, 4) {
            0 => b"(".repeat(dice.between(1, 100_000) as usize),
            1 => b"\x80\x02X\xff\xff\xff\x7fabc.".to_vec(),
            2 => b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7f.".to_vec(),
            _ => b"cos\nsystem\n(S'true'\ntR.".to_vec(),
        },
    };
    if dice.chance(10) {
        mutate(dice, &mut pickle);
    }
    let length = match dice.chance(95) {
        true => pickle.len() as u32,
        false => *pick(dice, &[0, 1, u32::MAX, 1 << 30]),
    };
    [&length.to_be_bytes()[..], &pickle].concat()
}
