//! Names, values and numbers: mostly of a small set, so that pushes meet each other and the store
//! stays small; now and then as odd or as long as can be.

use crate::splitmix::SplitMix64;

/// One of some.
pub fn pick<'a, T>(dice: &mut SplitMix64, items: &'a [T]) -> &'a T {
    &items[dice.between(0, items.len() as u64) as usize]
}

pub fn metric_name(dice: &mut SplitMix64) -> String {
    if dice.chance(97) {
        let suffix = match dice.chance(95) {
            true => "",
            false => *pick(dice, &["_total", "_count", "_sum", "_bucket"]),
        };
        return format!("m{}{suffix}", dice.between(0, 40));
    }
    odd_name(dice)
}

pub fn label_name(dice: &mut SplitMix64) -> String {
    const NAMES: [&str; 8] = ["a", "b", "c", "path", "job", "instance", "le", "quantile"];
    match dice.between(0, 1000) {
        0..985 => (*pick(dice, &NAMES)).to_owned(),
        985..990 => (*pick(dice, &["__name__", "__x"])).to_owned(),
        _ => odd_name(dice),
    }
}

fn odd_name(dice: &mut SplitMix64) -> String {
    const NAMES: [&str; 12] = [
        "",
        "1a",
        "a-b",
        "a.b",
        "\u{e9}",
        "a b",
        "{}",
        "push_time_seconds",
        "go_goroutines",
        "#",
        "\u{0}",
        "__",
    ];
    match dice.chance(3) {
        true => "n".repeat(dice.between(1, 70_000) as usize),
        false => (*pick(dice, &NAMES)).to_owned(),
    }
}

/// Bytes, not always UTF-8.
pub fn label_value(dice: &mut SplitMix64) -> Vec<u8> {
    match dice.between(0, 1000) {
        0..700 => format!("v{}", dice.between(0, 4)).into_bytes(),
        700..800 => Vec::new(),
        800..900 => pick(
            dice,
            &[
                "+Inf",
                "0.5",
                "NaN",
                "1e3",
                "-0",
                "x/y",
                "=",
                "%2F",
                "\u{1f4a5}",
                "\u{202e}",
            ],
        )
        .as_bytes()
        .to_vec(),
        900..915 => pick(
            dice,
            &[
                &b"\xff\xfe"[..],
                b"\xc3",
                b"\xed\xa0\x80",
                b"\x00",
                b"\xf4\x90\x80\x80",
            ],
        )
        .to_vec(),
        915..990 => "\\\"\n".repeat(dice.between(1, 40) as usize).into_bytes(),
        990..998 => vec![b'x'; dice.between(1, 4000) as usize],
        // At and around the bound of 64 KiB, and far beyond it.
        998 => vec![b'y'; dice.between(65_500, 65_600) as usize],
        _ => vec![b'z'; dice.between(1, 1_000_000) as usize],
    }
}

pub fn number(dice: &mut SplitMix64) -> String {
    const ODD: [&str; 16] = [
        "NaN",
        "+Inf",
        "-Inf",
        "Inf",
        "-0",
        "0x1p-2",
        "1_000",
        "1e400",
        "1e-400",
        "",
        "abc",
        "--1",
        "9223372036854775808",
        "0x",
        "infinity",
        "1e",
    ];
    match dice.chance(96) {
        true => format!("{}", dice.between(0, 1000)),
        false => (*pick(dice, &ODD)).to_owned(),
    }
}

/// Changes, drops or adds a few bytes, or breaks off.
pub fn mutate(dice: &mut SplitMix64, bytes: &mut Vec<u8>) {
    for _ in 0..dice.between(1, 6) {
        if bytes.is_empty() {
            return;
        }
        let at = dice.between(0, bytes.len() as u64) as usize;
        match dice.between(0, 5) {
            0 => bytes[at] ^= 1 << dice.between(0, 8),
            1 => bytes[at] = dice.word() as u8,
            2 => drop(bytes.remove(at)),
            3 => bytes.insert(at, *pick(dice, b"\n\"\\{},= #\x00\xff\x80")),
            _ if dice.chance(20) => bytes.truncate(at),
            _ => {
                let end = (at + dice.between(1, 40) as usize).min(bytes.len());
                let piece = bytes[at..end].to_vec();
                bytes.extend(piece);
            }
        }
    }
}
