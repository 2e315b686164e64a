//! What an index may know of a pattern without running it.

use regex_syntax::hir::{Class, Hir, HirKind, Look};

/// So many texts a pattern may stand for and still be a list, when it is shorter than they are.
const TEXTS_MAX: usize = 256;

/// All texts that `hir` matches as a whole, sorted, if they are few: at most [`TEXTS_MAX`], or no
/// longer in sum than the pattern that spells them out.
pub(super) fn texts(hir: &Hir, pattern: &str) -> Option<Vec<String>> {
    let mut texts = spell(hir, pattern.len())?;
    texts.sort_unstable();
    texts.dedup();
    Some(texts)
}

fn is_few(texts: usize, bytes: usize, bytes_max: usize) -> bool {
    texts <= TEXTS_MAX || bytes <= bytes_max
}

/// Recursion is bounded by the depth of the tree.
fn spell(hir: &Hir, bytes_max: usize) -> Option<Vec<String>> {
    match hir.kind() {
        HirKind::Empty => Some(vec![String::new()]),
        HirKind::Literal(literal) => {
            let text = std::str::from_utf8(&literal.0).ok()?;
            Some(vec![text.to_owned()])
        }
        HirKind::Class(Class::Unicode(class)) => {
            let count: usize = class.iter().map(|range| range.len()).sum();
            (count <= TEXTS_MAX).then(|| {
                let chars = class.iter().flat_map(|range| range.start()..=range.end());
                chars.map(String::from).collect()
            })
        }
        HirKind::Capture(capture) => spell(&capture.sub, bytes_max),
        HirKind::Alternation(choices) => {
            let mut texts = Vec::new();
            let mut bytes = 0;
            for choice in choices {
                let more = spell(choice, bytes_max)?;
                bytes += more.iter().map(String::len).sum::<usize>();
                texts.extend(more);
                if !is_few(texts.len(), bytes, bytes_max) {
                    return None;
                }
            }
            Some(texts)
        }
        HirKind::Concat(parts) => parts.iter().try_fold(vec![String::new()], |heads, part| {
            pairs(&heads, &spell(part, bytes_max)?, bytes_max)
        }),
        HirKind::Repetition(repetition) if repetition.max == Some(1) && repetition.min == 0 => {
            let mut texts = spell(&repetition.sub, bytes_max)?;
            texts.push(String::new());
            Some(texts)
        }
        HirKind::Class(_) | HirKind::Look(_) | HirKind::Repetition(_) => None,
    }
}

/// Every head with every tail.
fn pairs(heads: &[String], tails: &[String], bytes_max: usize) -> Option<Vec<String>> {
    let length = |texts: &[String]| texts.iter().map(String::len).sum::<usize>();
    let bytes = length(heads)
        .saturating_mul(tails.len())
        .saturating_add(length(tails).saturating_mul(heads.len()));
    let count = heads.len().saturating_mul(tails.len());
    // Long texts are multiplied too: 256 of them may not become megabytes.
    if !is_few(count, bytes, bytes_max) || bytes > bytes_max.saturating_add(1 << 16) {
        return None;
    }
    let joined = heads
        .iter()
        .flat_map(|head| tails.iter().map(move |tail| format!("{head}{tail}")));
    Some(joined.collect())
}

/// The text everything that `hir` matches from the start begins with; may be empty.
pub(super) fn prefix(hir: &Hir) -> String {
    let mut prefix = String::new();
    extend_prefix(hir, &mut prefix);
    prefix
}

/// Whether what comes behind `hir` may lengthen the prefix further.
fn extend_prefix(hir: &Hir, prefix: &mut String) -> bool {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(Look::Start) => true,
        HirKind::Literal(literal) => {
            let text = std::str::from_utf8(&literal.0);
            text.map(|text| prefix.push_str(text)).is_ok()
        }
        HirKind::Capture(capture) => extend_prefix(&capture.sub, prefix),
        HirKind::Concat(parts) => parts.iter().all(|part| extend_prefix(part, prefix)),
        HirKind::Class(_) | HirKind::Look(_) | HirKind::Repetition(_) | HirKind::Alternation(_) => {
            false
        }
    }
}
