//! Which known word was probably meant by an unknown one: for flags and configuration keys.

/// The known word closest to `word`, when it is close enough to be worth proposing.
pub fn nearest<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let word = cut(word);
    let (distance, best) = known
        .into_iter()
        .map(|candidate| (distance(&word, &cut(candidate)), candidate))
        .min_by_key(|(distance, _)| *distance)?;
    (distance <= tolerance(word.len())).then_some(best)
}

/// Words longer than any flag are not compared to their end: the cost grows with the square.
const COMPARED_MAX: usize = 64;

fn cut(word: &str) -> Vec<char> {
    word.chars()
        .take(COMPARED_MAX)
        .flat_map(char::to_lowercase)
        .collect()
}

fn tolerance(len: usize) -> usize {
    match len {
        0..=3 => 1,
        4..=8 => 2,
        _ => len / 4 + 1,
    }
}

/// Insertions, deletions, substitutions and swaps of neighbours between two words (optimal
/// string alignment).
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let mut best = (last[j] + usize::from(x != y))
                .min(last[j + 1] + 1)
                .min(row[j] + 1);
            if i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y {
                best = best.min(before[j - 1] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_of_the_hand_find_their_word() {
        let known = [
            "config.file",
            "web.listen-address",
            "metrics_path",
            "ca",
            "cert",
        ];
        for (word, meant) in [
            ("config.fil", Some("config.file")),
            ("web.listen-adress", Some("web.listen-address")),
            ("metric_path", Some("metrics_path")),
            ("Metrics_Path", Some("metrics_path")),
            ("c", Some("ca")),
            ("frobnicate", None),
            ("zzzz", None),
        ] {
            assert_eq!(nearest(word, known), meant, "{word}");
        }
    }

    #[test]
    fn a_swap_is_one_step() {
        let letters = |word: &str| word.chars().collect::<Vec<_>>();
        assert_eq!(distance(&letters("taregts"), &letters("targets")), 1);
        assert_eq!(distance(&letters(""), &letters("abc")), 3);
        assert_eq!(distance(&letters("kitten"), &letters("sitting")), 3);
    }
}
