//! One character behind a backslash.

use super::error::{PatternError, Problem};

/// Reads the escape `text` begins with, its backslash included: the code point, which may be a
/// surrogate that no text contains, and what is left.
pub(super) fn escape(text: &str) -> Result<(u32, &str), PatternError> {
    let mut rest = text[1..].chars();
    let Some(c) = rest.next() else {
        return Err(PatternError::new(Problem::TrailingBackslash, ""));
    };
    let simple = |code: u32| Ok((code, rest.as_str()));
    match c {
        '1'..='7' if !rest.as_str().starts_with(is_octal) => Err(invalid(text, rest.as_str())),
        '0'..='7' => Ok(octal(&text[1..])),
        'x' => hexadecimal(text, rest.as_str()),
        'a' => simple(0x07),
        'f' => simple(0x0c),
        'n' => simple(0x0a),
        'r' => simple(0x0d),
        't' => simple(0x09),
        'v' => simple(0x0b),
        _ if c.is_ascii() && !c.is_ascii_alphanumeric() => simple(c.into()),
        _ => Err(invalid(text, rest.as_str())),
    }
}

/// Everything up to where reading stopped is what is invalid.
fn invalid(text: &str, rest: &str) -> PatternError {
    PatternError::new(Problem::Escape, &text[..text.len() - rest.len()])
}

fn is_octal(c: char) -> bool {
    ('0'..='7').contains(&c)
}

/// Up to three digits.
fn octal(text: &str) -> (u32, &str) {
    let digits = text.chars().take(3).take_while(|&c| is_octal(c)).count();
    let (number, rest) = text.split_at(digits);
    let code = number
        .chars()
        .fold(0, |code, c| code * 8 + c.to_digit(8).unwrap_or(0));
    (code, rest)
}

/// `\x41` or `\x{1F600}`; `after` begins behind the x.
fn hexadecimal<'t>(text: &'t str, after: &'t str) -> Result<(u32, &'t str), PatternError> {
    let mut rest = after.chars();
    let Some(first) = rest.next() else {
        return Err(invalid(text, after));
    };
    if first == '{' {
        return in_braces(text, rest.as_str());
    }
    let second = rest.next();
    let digits = (first.to_digit(16), second.and_then(|c| c.to_digit(16)));
    match digits {
        (Some(high), Some(low)) => Ok((high * 16 + low, rest.as_str())),
        _ => Err(invalid(text, rest.as_str())),
    }
}

fn in_braces<'t>(text: &'t str, after: &'t str) -> Result<(u32, &'t str), PatternError> {
    let mut rest = after.chars();
    let mut code: u32 = 0;
    let mut digits = 0;
    while let Some(c) = rest.next() {
        if c == '}' && digits > 0 {
            return Ok((code, rest.as_str()));
        }
        let Some(digit) = c.to_digit(16) else { break };
        code = code * 16 + digit;
        digits += 1;
        if code > u32::from(char::MAX) {
            break;
        }
    }
    Err(invalid(text, rest.as_str()))
}
