//! Timestamps of a run: milliseconds that strictly increase.

use model::Timestamp;

use super::ints;
use crate::fields::Malformed;

/// Appends `times`.
pub fn encode(times: &[i64], out: &mut Vec<u8>) {
    ints::encode(times, out);
}

/// Reads `count` instants; they strictly increase.
pub fn decode(bytes: &[u8], count: usize) -> Result<Vec<Timestamp>, Malformed> {
    let times = ints::decode(bytes, count)?;
    match times.windows(2).all(|pair| pair[0] < pair[1]) {
        true => Ok(times.into_iter().map(Timestamp).collect()),
        false => Err(Malformed("timestamps do not increase")),
    }
}
