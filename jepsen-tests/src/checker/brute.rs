//! The slow, obvious twin of [`super::zones`]: tries every order of a small history.

use std::collections::HashSet;

use super::zones::RegisterOp;
use crate::history::INITIAL;

/// Whether some order of `ops` explains every read and keeps real time: an operation that
/// finished before another began comes first. Operations that never finish may be left out.
pub fn linearizable(ops: &[RegisterOp]) -> bool {
    assert!(ops.len() <= 16, "exponential");
    search(ops, 0, INITIAL, &mut HashSet::new())
}

fn search(ops: &[RegisterOp], done: u32, value: i64, tried: &mut HashSet<(u32, i64)>) -> bool {
    let open = |n: &usize| done & (1 << n) == 0;
    if (0..ops.len())
        .filter(open)
        .all(|n| ops[n].finish == i64::MAX)
    {
        return true;
    }
    if !tried.insert((done, value)) {
        return false;
    }
    (0..ops.len()).filter(open).any(|n| {
        let op = &ops[n];
        let free = (0..ops.len())
            .filter(open)
            .all(|m| m == n || ops[m].finish >= op.start);
        let next = if op.write { op.value } else { value };
        free && next == op.value && search(ops, done | 1 << n, next, tried)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_read_has_no_order() {
        let op = |write, value, start, finish| RegisterOp {
            i: 0,
            start,
            finish,
            write,
            value,
        };
        let writes = [op(true, 1, 0, 1), op(true, 2, 2, 3)];
        let with = |read| linearizable(&[writes[0].clone(), writes[1].clone(), read]);
        assert!(with(op(false, 2, 4, 5)));
        assert!(!with(op(false, 1, 4, 5)));
        assert!(with(op(false, 1, 2, 5)));
    }
}
