//! Patterns beside what Prometheus answers, and random ones beside nothing: no panic.

use proptest::prelude::*;

use super::*;

/// The tables have one case a line.
fn plain(text: &str) -> String {
    text.replace('␤', "\n").replace('␉', "\t")
}

fn lines(table: &'static str) -> impl Iterator<Item = &'static str> {
    table.lines().filter(|line| !line.starts_with("# "))
}

#[test]
fn refusals_are_those_of_prometheus() {
    let mut count = 0;
    for line in lines(include_str!("refused.txt")) {
        let (pattern, message) = line.split_once('\t').expect("pattern TAB message");
        let refused = Test::new(&plain(pattern)).err().map(|e| e.to_string());
        assert_eq!(refused, Some(plain(message)), "{pattern}");
        count += 1;
    }
    assert!(count > 100, "only {count} patterns");
}

#[test]
fn matches_and_groups_are_those_of_prometheus() {
    let table = include_str!("matches.txt");
    let texts = table
        .lines()
        .find_map(|line| line.strip_prefix("# texts\t"));
    let texts: Vec<String> = texts
        .expect("a list of texts")
        .split('\t')
        .map(plain)
        .collect();
    let mut count = 0;
    for line in lines(table) {
        let (pattern, expected) = line.split_once('\t').unwrap_or((line, ""));
        let pattern = plain(pattern);
        let regex = Regex::anchored(&pattern).expect(&pattern);
        let found = texts.iter().filter_map(|text| {
            let mut expanded = format!("{text}=");
            regex
                .captures(text)?
                .expand("<$0|$1|$2|$3|${n}>", &mut expanded);
            Some(expanded)
        });
        let expected: Vec<String> = expected
            .split('\t')
            .filter(|e| !e.is_empty())
            .map(plain)
            .collect();
        assert_eq!(found.collect::<Vec<_>>(), expected, "{pattern}");
        agrees(&pattern, &texts);
        count += 1;
    }
    assert!(count > 200, "only {count} patterns");
}

/// A selector's shortcuts answer as the search does.
fn agrees(pattern: &str, texts: &[String]) {
    let (Ok(test), Ok(regex)) = (Test::new(pattern), Regex::anchored(pattern)) else {
        return;
    };
    for text in texts {
        assert_eq!(
            test.is_match(text),
            regex.is_match(text),
            "{pattern} {text}"
        );
    }
}

#[test]
fn depth_and_size_are_bounded() {
    let refused = |pattern: String| Test::new(&pattern).err().map(|e| e.problem);
    let nested =
        |open: &str, times: usize| format!("{}a*{}", open.repeat(times), ")".repeat(times));
    assert_eq!(refused(nested("(", 200)), None);
    assert_eq!(refused(nested("(", 100_000)), Some(Problem::Depth));
    assert_eq!(refused("(".repeat(100_000)), Some(Problem::OpenParen));
    assert_eq!(refused(")".repeat(100_000)), Some(Problem::ClosingParen));
    // Groups that only group add no depth, as in Go.
    assert_eq!(refused(nested("(?:", 100_000)), None);
    assert_eq!(refused("(?:a*)*\\Q\\E*".repeat(200)), None);
    assert_eq!(
        refused("a*".to_owned() + &"\\Q\\E*".repeat(1000)),
        Some(Problem::Depth)
    );
    assert_eq!(refused("[^a]{1000}".repeat(20)), Some(Problem::Size));
    assert_eq!(refused(".{1000}".to_owned()), None);
    assert_eq!(refused("a".repeat(2 << 20)), Some(Problem::Size));
    assert_eq!(refused("a|".repeat(100_000)), None);
    assert_eq!(refused(format!("[{}]b*", "a-b".repeat(100_000))), None);
}

#[test]
fn templates_read_as_in_go() {
    let regex = Regex::anchored("(a)(?P<n>b)?(?P<n>c)?").unwrap();
    let expand = |text: &str, template: &str| {
        let mut into = String::new();
        regex.captures(text).unwrap().expand(template, &mut into);
        into
    };
    for (template, expanded) in [
        ("$1-$2", "a-b"),
        ("$1x", ""),
        ("${1}x", "ax"),
        ("$$1$", "$1$"),
        ("${1", "${1"),
        ("$ {1}", "$ {1}"),
        ("${1-}", "${1-}"),
        ("$01 $9 $n ${n}", "  b b"),
        ("$é.$1", ".a"),
    ] {
        assert_eq!(expand("ab", template), expanded, "{template}");
    }
    assert_eq!(expand("ac", "$n"), "c");
}

/// Pieces that mean something to the grammar.
fn pieces() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "a",
        "b",
        "é",
        ".",
        "*",
        "+",
        "?",
        "|",
        "(",
        ")",
        "(?:",
        "(?i)",
        "(?P<n>",
        "[",
        "[^",
        "]",
        "-",
        "\\d",
        "\\W",
        "\\b",
        "^",
        "$",
        "{2}",
        "{1,2}",
        "{0,}",
        "\\pL",
        "\\p{Greek}",
        "\\x",
        "\\Q",
        "\\E",
        "[:alpha:]",
        "(?m)",
        "(?s-U",
        "\n",
        "{",
        "}",
        "1",
        "&&",
        "\\",
        "\\1",
        "\\12",
        "<",
        ">",
        ":",
    ]);
    prop::collection::vec(piece, 0..16).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn no_pattern_panics(pattern in "\\PC{0,40}", text in "\\PC{0,20}") {
        agrees(&pattern, &[text]);
    }

    #[test]
    fn no_row_of_pieces_panics(pattern in pieces(), text in "[abé1\n]{0,6}") {
        agrees(&pattern, &[text]);
    }

    #[test]
    fn what_is_quoted_matches_itself(text in "\\PC{0,20}") {
        prop_assume!(!text.contains("\\E"));
        let pattern = format!("\\Q{text}\\E");
        prop_assert!(Regex::anchored(&pattern).unwrap().is_match(&text));
        prop_assert_eq!(Test::new(&pattern).unwrap().is_match(&text), true);
    }
}
