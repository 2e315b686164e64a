//! Sets of characters: `[a-z]`, `\d`, `[:alpha:]`, `\p{Greek}`.

use regex_syntax::hir::{Class, ClassUnicode, ClassUnicodeRange, HirKind};

use super::error::{PatternError, Problem};
use super::escape::escape;

/// First and last code point, both included.
type Range = (u32, u32);

const DIGIT: &[Range] = &[(0x30, 0x39)];
const SPACE: &[Range] = &[(0x09, 0x0a), (0x0c, 0x0d), (0x20, 0x20)];
const WORD: &[Range] = &[(0x30, 0x39), (0x41, 0x5a), (0x5f, 0x5f), (0x61, 0x7a)];

/// The classes between `[:` and `:]`.
const POSIX: [(&str, &[Range]); 14] = [
    ("alnum", &[(0x30, 0x39), (0x41, 0x5a), (0x61, 0x7a)]),
    ("alpha", &[(0x41, 0x5a), (0x61, 0x7a)]),
    ("ascii", &[(0x00, 0x7f)]),
    ("blank", &[(0x09, 0x09), (0x20, 0x20)]),
    ("cntrl", &[(0x00, 0x1f), (0x7f, 0x7f)]),
    ("digit", DIGIT),
    ("graph", &[(0x21, 0x7e)]),
    ("lower", &[(0x61, 0x7a)]),
    ("print", &[(0x20, 0x7e)]),
    (
        "punct",
        &[(0x21, 0x2f), (0x3a, 0x40), (0x5b, 0x60), (0x7b, 0x7e)],
    ),
    ("space", &[(0x09, 0x0d), (0x20, 0x20)]),
    ("upper", &[(0x41, 0x5a)]),
    ("word", WORD),
    ("xdigit", &[(0x30, 0x39), (0x41, 0x46), (0x61, 0x66)]),
];

/// A class that was read, and what is left behind it.
type Read<'t> = (ClassUnicode, &'t str);

/// The set of `ranges`; surrogates, which no text contains, are left out.
fn set(ranges: impl IntoIterator<Item = Range>) -> ClassUnicode {
    let scalars = ranges.into_iter().filter_map(|(low, high)| {
        let low = char::from_u32(low).unwrap_or('\u{e000}');
        let high = char::from_u32(high).unwrap_or('\u{d7ff}');
        (low <= high).then(|| ClassUnicodeRange::new(low, high))
    });
    ClassUnicode::new(scalars)
}

/// One character, with those that differ from it by case only if `fold`.
pub(super) fn single(code: u32, fold: bool) -> ClassUnicode {
    let mut class = set([(code, code)]);
    if fold {
        class.case_fold_simple();
    }
    class
}

/// A named group as the flags want it: folded before it is negated.
fn group(mut class: ClassUnicode, negated: bool, fold: bool) -> ClassUnicode {
    if fold {
        class.case_fold_simple();
    }
    if negated {
        class.negate();
    }
    class
}

/// `\d`, `\pL`, `\p{Greek}` and the like; `None` when `text` does not begin with one.
pub(super) fn escaped(text: &str, fold: bool) -> Result<Option<Read<'_>>, PatternError> {
    if text.starts_with("\\p") || text.starts_with("\\P") {
        return unicode(text, fold).map(Some);
    }
    let Some(letter) = text.strip_prefix('\\').and_then(|rest| rest.chars().next()) else {
        return Ok(None);
    };
    let ranges = match letter {
        'd' | 'D' => DIGIT,
        's' | 'S' => SPACE,
        'w' | 'W' => WORD,
        _ => return Ok(None),
    };
    let class = group(set(ranges.iter().copied()), letter.is_uppercase(), fold);
    Ok(Some((class, &text[2..])))
}

fn unicode(text: &str, fold: bool) -> Result<Read<'_>, PatternError> {
    let wrong = |part: &str| PatternError::new(Problem::CharRange, part);
    let after = &text[2..];
    let end = match after.chars().next() {
        Some('{') => 2 + after.find('}').ok_or_else(|| wrong(text))? + 1,
        Some(c) => 2 + c.len_utf8(),
        None => return Err(wrong(text)),
    };
    let (whole, rest) = text.split_at(end);
    let name = whole[2..].trim_start_matches('{').trim_end_matches('}');
    let (name, inverted) = match name.strip_prefix('^') {
        Some(name) => (name, true),
        None => (name, false),
    };
    let class = named(name).ok_or_else(|| wrong(whole))?;
    let negated = inverted != text.starts_with("\\P");
    Ok((group(class, negated, fold), rest))
}

/// The general categories Go knows.
const CATEGORIES: [&str; 38] = [
    "C", "Cc", "Cf", "Cn", "Co", "Cs", "L", "LC", "Ll", "Lm", "Lo", "Lt", "Lu", "M", "Mc", "Me",
    "Mn", "N", "Nd", "Nl", "No", "P", "Pc", "Pd", "Pe", "Pf", "Pi", "Po", "Ps", "S", "Sc", "Sk",
    "Sm", "So", "Z", "Zl", "Zp", "Zs",
];

/// Scripts whose own names look like the four-letter codes of others, which Go does not know.
const SHORT_SCRIPTS: [&str; 9] = [
    "Ahom", "Cham", "Kawi", "Lisu", "Miao", "Modi", "Newa", "Thai", "Toto",
];

/// The characters of a general category or a script, by Go's names. The library's lookup is loose
/// about case, takes codes and many more names; Go's is not and does not.
fn named(name: &str) -> Option<ClassUnicode> {
    if CATEGORIES.contains(&name) || name == "Any" {
        return property("gc", name);
    }
    let is_code = name.len() == 4 && !SHORT_SCRIPTS.contains(&name);
    let is_capitalized = |word: &str| {
        let mut chars = word.chars();
        chars.next().is_some_and(|c| c.is_ascii_uppercase())
            && chars.all(|c| c.is_ascii_lowercase())
    };
    let is_spelled = name.split('_').all(is_capitalized) || name == "SignWriting";
    (is_spelled && !is_code && name != "Unknown").then(|| property("sc", name))?
}

fn property(kind: &str, name: &str) -> Option<ClassUnicode> {
    let hir = regex_syntax::parse(&format!("\\p{{{kind}={name}}}")).ok()?;
    match hir.into_kind() {
        HirKind::Class(Class::Unicode(class)) => Some(class),
        _ => None,
    }
}

/// The class in brackets that `text` begins with.
pub(super) fn bracketed(text: &str, fold: bool) -> Result<Read<'_>, PatternError> {
    let mut rest = &text[1..];
    let negated = rest.starts_with('^');
    if negated {
        rest = &rest[1..];
    }
    let mut ranges: Vec<Range> = Vec::new();
    let mut is_first = true;
    while is_first || !rest.starts_with(']') {
        is_first = false;
        if let Some((class, after)) = member_class(rest, fold)? {
            let spans = class.iter();
            ranges.extend(spans.map(|r| (u32::from(r.start()), u32::from(r.end()))));
            rest = after;
            continue;
        }
        let (range, after) = member_range(rest, text)?;
        ranges.push(range);
        rest = after;
    }
    Ok((group(set(ranges), negated, fold), &rest[1..]))
}

fn member_class(text: &str, fold: bool) -> Result<Option<Read<'_>>, PatternError> {
    if let Some(after) = text.strip_prefix("[:")
        && let Some(length) = after.find(":]")
    {
        let (name, negated) = match after[..length].strip_prefix('^') {
            Some(name) => (name, true),
            None => (&after[..length], false),
        };
        let whole = &text[..length + 4];
        let Some((_, ranges)) = POSIX.iter().find(|(posix, _)| *posix == name) else {
            return Err(PatternError::new(Problem::CharRange, whole));
        };
        let class = group(set(ranges.iter().copied()), negated, fold);
        return Ok(Some((class, &text[length + 4..])));
    }
    escaped(text, fold)
}

/// `a` or `a-z`; a minus before the closing bracket stands for itself.
fn member_range<'t>(text: &'t str, whole: &str) -> Result<(Range, &'t str), PatternError> {
    let (low, rest) = member(text, whole)?;
    let Some(after) = rest.strip_prefix('-') else {
        return Ok(((low, low), rest));
    };
    if after.is_empty() || after.starts_with(']') {
        return Ok(((low, low), rest));
    }
    let (high, after) = member(after, whole)?;
    if high < low {
        let part = &text[..text.len() - after.len()];
        return Err(PatternError::new(Problem::CharRange, part));
    }
    Ok(((low, high), after))
}

fn member<'t>(text: &'t str, whole: &str) -> Result<(u32, &'t str), PatternError> {
    let mut chars = text.chars();
    match chars.next() {
        None => Err(PatternError::new(Problem::OpenBracket, whole)),
        Some('\\') => escape(text),
        Some(c) => Ok((c.into(), chars.as_str())),
    }
}
