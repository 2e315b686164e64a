//! Prometheus' XOR chunks of floats (its `tsdb/docs/format/chunks.md` and `chunkenc`).

use tsdb::bits::BitWriter;

/// Samples of a chunk, as Prometheus' head cuts them.
pub const SAMPLES_MAX: usize = 120;
/// What an index says of a chunk's coding.
pub const XOR: u8 = 1;

/// One run of `1 ..= SAMPLES_MAX` samples, by time.
pub fn encode(samples: &[(i64, f64)]) -> Vec<u8> {
    let mut out = BitWriter::default();
    out.push(samples.len() as u64, 16);
    let mut coder = Values {
        last: 0,
        window: None,
    };
    let (mut last_at, mut last_delta) = (0i64, 0i64);
    for (place, &(at, value)) in samples.iter().enumerate() {
        let delta = at.wrapping_sub(last_at);
        match place {
            0 => {
                put_varint(&mut out, ((at << 1) ^ (at >> 63)) as u64);
                out.push(value.to_bits(), 64);
                coder.last = value.to_bits();
            }
            1 => put_varint(&mut out, delta as u64),
            _ => put_change(&mut out, delta.wrapping_sub(last_delta)),
        }
        if place > 0 {
            coder.put(&mut out, value.to_bits());
        }
        (last_at, last_delta) = (at, delta);
    }
    out.into_bytes()
}

fn put_varint(out: &mut BitWriter, mut value: u64) {
    while value >= 0x80 {
        out.push(value & 0x7f | 0x80, 8);
        value >>= 7;
    }
    out.push(value, 8);
}

/// A change of the distance between two samples: a prefix says how many bits follow. A range lacks
/// its least number and has one more at its other end.
fn put_change(out: &mut BitWriter, change: i64) {
    let fits = |bits: u32| (-(1i64 << (bits - 1)) + 1..=1i64 << (bits - 1)).contains(&change);
    let (prefix, prefix_bits, bits) = match change {
        0 => return out.push(0, 1),
        _ if fits(14) => (0b10, 2, 14),
        _ if fits(17) => (0b110, 3, 17),
        _ if fits(20) => (0b1110, 4, 20),
        _ => (0b1111, 4, 64),
    };
    out.push(prefix, prefix_bits);
    out.push(change as u64, bits);
}

/// Values by what differs from the one before.
struct Values {
    last: u64,
    /// Leading and trailing zeros of the bits that were written last.
    window: Option<(u32, u32)>,
}

impl Values {
    fn put(&mut self, out: &mut BitWriter, bits: u64) {
        let differ = bits ^ self.last;
        self.last = bits;
        if differ == 0 {
            return out.push(0, 1);
        }
        out.push(1, 1);
        let leading = differ.leading_zeros().min(31);
        let trailing = differ.trailing_zeros();
        if let Some((first, last)) = self.window
            && leading >= first
            && trailing >= last
        {
            out.push(0, 1);
            return out.push(differ >> last, 64 - first - last);
        }
        self.window = Some((leading, trailing));
        let width = 64 - leading - trailing;
        out.push(1, 1);
        out.push(u64::from(leading), 5);
        // 64 does not fit and stands as 0.
        out.push(u64::from(width % 64), 6);
        out.push(differ >> trailing, width);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tsdb::bits::BitStream;

    use super::*;

    fn varint(bits: &mut BitStream<'_>) -> u64 {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = bits.read(8).unwrap();
            value |= (byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        value
    }

    /// As Prometheus' iterator reads it.
    fn decode(bytes: &[u8]) -> Vec<(i64, u64)> {
        let mut bits = BitStream::new(bytes);
        let count = bits.read(16).unwrap();
        let zigzag = varint(&mut bits);
        let mut at = (zigzag >> 1) as i64 ^ -((zigzag & 1) as i64);
        let mut value = bits.read(64).unwrap();
        let (mut delta, mut leading, mut trailing) = (0i64, 0, 0);
        let mut samples = vec![(at, value)];
        for place in 1..count {
            if place == 1 {
                delta = varint(&mut bits) as i64;
            } else {
                let ones = (0..4).take_while(|_| bits.read(1) == Some(1)).count();
                let width = [0, 14, 17, 20, 64][ones];
                let mut change = bits.read(width).unwrap() as i64;
                if width < 64 && width > 0 && change > 1 << (width - 1) {
                    change -= 1 << width;
                }
                delta = delta.wrapping_add(change);
            }
            at = at.wrapping_add(delta);
            if bits.read(1) == Some(1) {
                if bits.read(1) == Some(1) {
                    leading = bits.read(5).unwrap() as u32;
                    let width = bits.read(6).unwrap() as u32;
                    trailing = 64 - leading - if width == 0 { 64 } else { width };
                }
                let differ = bits.read(64 - leading - trailing).unwrap();
                value ^= differ << trailing;
            }
            samples.push((at, value));
        }
        samples
    }

    proptest! {
        #[test]
        fn samples_come_back(steps in prop::collection::vec((prop_oneof![1i64..20_000, Just(15_000i64), 1i64..1 << 40], prop_oneof![any::<u64>(), (0u32..9).prop_map(|v| f64::from(v).to_bits())]), 1..=SAMPLES_MAX), from in -1_000i64..1 << 41) {
            let samples: Vec<(i64, f64)> = steps.iter().scan(from, |at, (step, bits)| {
                *at += step;
                Some((*at, f64::from_bits(*bits)))
            }).collect();
            let bits: Vec<(i64, u64)> = samples.iter().map(|(at, v)| (*at, v.to_bits())).collect();
            prop_assert_eq!(decode(&encode(&samples)), bits);
        }
    }
}
