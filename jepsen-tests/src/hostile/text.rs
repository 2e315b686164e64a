//! Bodies in the text format, right or nearly so.

use super::words::{label_name, label_value, metric_name, mutate, number, pick};
use crate::splitmix::SplitMix64;

pub fn body(dice: &mut SplitMix64) -> Vec<u8> {
    let mut body = Vec::new();
    for _ in 0..dice.between(1, 7) {
        match dice.between(0, 100) {
            0..6 => heading(dice, &mut body),
            6..20 => histogram(dice, &mut body),
            20..23 => repeated(dice, &mut body),
            _ => sample(dice, &mut body),
        }
    }
    match dice.between(0, 100) {
        0..15 => mutate(dice, &mut body),
        // Lines of another system, and one that does not end.
        15..18 => {
            body = String::from_utf8_lossy(&body)
                .replace('\n', "\r\n")
                .into_bytes()
        }
        18..22 => drop(body.pop()),
        _ => {}
    }
    body
}

fn heading(dice: &mut SplitMix64, body: &mut Vec<u8>) {
    let name = metric_name(dice);
    const KINDS: [&str; 6] = ["counter", "gauge", "histogram", "summary", "info", ""];
    // Groups that differ in a type refuse each other's pushes: mostly it is one.
    let kind = match dice.chance(80) {
        true => "untyped",
        false => *pick(dice, &KINDS),
    };
    match dice.chance(60) {
        true => body.extend(format!("# TYPE {name} {kind}\n").bytes()),
        false => {
            body.extend(format!("# HELP {name} ").bytes());
            body.extend(label_value(dice));
            body.push(b'\n');
        }
    }
}

fn sample(dice: &mut SplitMix64, body: &mut Vec<u8>) {
    let name = metric_name(dice);
    sample_of(dice, &name, body);
}

fn sample_of(dice: &mut SplitMix64, name: &str, body: &mut Vec<u8>) {
    let quoted = dice.chance(1);
    if !quoted {
        body.extend(name.bytes());
    }
    let labels = match dice.between(0, 500) {
        0 => 300,
        1..150 => 0,
        _ => dice.between(0, 4),
    };
    if labels > 0 || quoted {
        body.push(b'{');
        if quoted {
            body.extend(format!("\"{name}\",").bytes());
        }
        let mut last = String::new();
        for _ in 0..labels {
            let mut name = label_name(dice);
            // Nearly always none comes twice.
            for _ in 0..4 {
                if name <= last {
                    name = label_name(dice);
                }
            }
            body.extend(format!("{name}=\"").bytes());
            last = name;
            let value = label_value(dice);
            match dice.chance(98) {
                true => body.extend(escaped(&value)),
                false => body.extend(value),
            }
            body.extend(b"\",");
        }
        body.push(b'}');
    }
    body.push(b' ');
    body.extend(number(dice).bytes());
    if dice.chance(1) {
        body.extend(b" 1700000000000");
    }
    body.push(b'\n');
}

pub fn escaped(value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len());
    for byte in value {
        match byte {
            b'\\' => out.extend(b"\\\\"),
            b'"' => out.extend(b"\\\""),
            b'\n' => out.extend(b"\\n"),
            byte => out.push(*byte),
        }
    }
    out
}

fn histogram(dice: &mut SplitMix64, body: &mut Vec<u8>) {
    let name = format!("h{}", dice.between(0, 8));
    body.extend(format!("# TYPE {name} histogram\n").bytes());
    for _ in 0..dice.between(0, 5) {
        let bound = match dice.chance(90) {
            true => *pick(dice, &["0.1", "1", "5", "10", "+Inf"]),
            false => *pick(dice, &["NaN", "", "-1", "1.0", "x"]),
        };
        let count = number(dice);
        body.extend(format!("{name}_bucket{{le=\"{bound}\"}} {count}\n").bytes());
    }
    for suffix in ["_sum", "_count"] {
        if dice.chance(80) {
            body.extend(format!("{name}{suffix} {}\n", number(dice)).bytes());
        }
    }
}

/// One series or one name many times.
fn repeated(dice: &mut SplitMix64, body: &mut Vec<u8>) {
    let name = metric_name(dice);
    let mut line = Vec::new();
    sample_of(dice, &name, &mut line);
    if line.len() < 200 {
        let most = if dice.chance(5) { 5000 } else { 4 };
        let times = dice.between(1, most);
        (0..times).for_each(|_| body.extend(&line));
    }
}
