//! Whose samples pass through a cluster: its own and those of all clusters below it.
//!
//! A child tells its origins with each stream; a parent that finds itself among them would get its
//! own samples back, and refuses. What the children told is kept with their cursors, so that any
//! node of this cluster can tell its parent.

use std::collections::{BTreeMap, BTreeSet};

use cluster::Cursor;
use model::ClusterId;

/// The header that carries them, with commas.
pub const HEADER: &str = "x-quorate-origins";

/// Its own id, and what the children told, which `keys` name.
pub fn of(own: ClusterId, keys: &[String], cursors: &BTreeMap<String, Cursor>) -> BTreeSet<String> {
    let below = keys.iter().filter_map(|key| cursors.get(key));
    let below = below.flat_map(|cursor| cursor.origins.iter().cloned());
    below.chain([own.to_string()]).collect()
}

/// What a child told.
pub fn read(header: &str) -> Vec<String> {
    let ids = header.split(',').map(str::trim);
    ids.filter(|id| !id.is_empty()).map(str::to_owned).collect()
}

/// An error when what a child sends holds this cluster's own samples.
pub fn check(own: ClusterId, origins: &[String]) -> Result<(), String> {
    match origins.contains(&own.to_string()) {
        true => Err(format!(
            "a loop: what it sends comes from this cluster, {own}, too (its origins: {})",
            origins.join(", ")
        )),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_is_seen_through_any_number_of_clusters() {
        let id = ClusterId;
        let told = |origins: &[u128]| Cursor {
            position: "p".to_owned(),
            origins: origins.iter().map(|n| id(*n).to_string()).collect(),
        };
        let cursors = BTreeMap::from([
            ("b/1".to_owned(), told(&[2, 3])),
            ("gone/1".to_owned(), told(&[9])),
        ]);
        let origins = of(id(1), &["b/1".to_owned(), "new/1".to_owned()], &cursors);
        let header = Vec::from_iter(origins).join(",");
        let read = read(&header);
        for own in 1..=3 {
            assert!(check(id(own), &read).is_err());
        }
        assert_eq!(check(id(9), &read), Ok(()));
    }
}
