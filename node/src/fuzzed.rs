//! What fuzzers may reach, built for them only.

use crate::queries::active::unfinished;

/// `queries.active`: what is told of a file is no more than stands there, and reads as itself.
pub fn active(bytes: &[u8]) {
    let told = unfinished(bytes);
    assert!(told.len() <= bytes.iter().filter(|byte| **byte == b'\n').count() + 1);
    let mut again = Vec::new();
    for line in &told {
        again.extend(serde_json::to_vec(line).expect("plain data is JSON"));
        again.push(b'\n');
    }
    assert_eq!(unfinished(&again), told);
}
