//! Exemplars on their way in.
//!
//! Rules: OpenMetrics 1.0 (at most 128 characters of labels), and Prometheus, which drops one that
//! breaks them without a word: an exemplar is never a reason to refuse its sample.

use model::{Exemplar, Labels, limits};

/// The label set of an exemplar, if it may be one's.
pub fn labels(pairs: &mut Vec<(&str, &str)>) -> Option<Labels> {
    pairs.sort_unstable();
    let unique = pairs.windows(2).all(|two| two[0].0 != two[1].0);
    let chars = |text: &str| text.chars().count();
    let length: usize = pairs.iter().map(|(n, v)| chars(n) + chars(v)).sum();
    let named = pairs.iter().all(|(name, _)| !name.is_empty());
    (unique && named && length <= limits::EXEMPLAR_CHARS_MAX)
        .then(|| Labels::from_sorted(pairs.iter().copied()))
}

/// What it holds in memory, in bytes, about.
pub fn size(exemplar: &Exemplar) -> usize {
    let labels = exemplar.labels.iter();
    size_of::<Exemplar>() + labels.map(|(n, v)| n.len() + v.len() + 8).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_beyond_the_bound_are_none() {
        let long = "é".repeat(120);
        let mut long_by_one = vec![("trace_id", long.as_str()), ("a", "")];
        assert!(labels(&mut long_by_one).is_none(), "129 characters");
        let mut fits = vec![("trace_id", long.as_str())];
        assert_eq!(labels(&mut fits).unwrap().get("trace_id"), Some(&*long));
        assert!(labels(&mut vec![("a", "1"), ("a", "2")]).is_none());
        assert!(labels(&mut vec![("", "1")]).is_none());
        assert!(labels(&mut Vec::new()).unwrap().is_empty());
    }
}
