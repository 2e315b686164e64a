//! Text in quotes, as Prometheus prints it in expressions and messages.

/// `"a\"b\n"`: double quotes, escapes only where a reader would not see the character.
pub fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    text.chars().for_each(|c| push_escaped(&mut quoted, c, '"'));
    quoted.push('"');
    quoted
}

/// As [`quote`], for bytes that need not be UTF-8: those that are not become `\xff`.
pub fn quote_bytes(bytes: impl AsRef<[u8]>) -> String {
    let bytes = bytes.as_ref();
    let mut quoted = String::with_capacity(bytes.len() + 2);
    quoted.push('"');
    for chunk in bytes.utf8_chunks() {
        chunk
            .valid()
            .chars()
            .for_each(|c| push_escaped(&mut quoted, c, '"'));
        for byte in chunk.invalid() {
            quoted.push_str(&format!("\\x{byte:02x}"));
        }
    }
    quoted.push('"');
    quoted
}

/// `'x'`: one character; the end of the input prints as the replacement character.
pub fn quote_char(c: Option<char>) -> String {
    let mut quoted = String::from("'");
    push_escaped(&mut quoted, c.unwrap_or('\u{fffd}'), '\'');
    quoted.push('\'');
    quoted
}

fn push_escaped(out: &mut String, c: char, quote: char) {
    match c {
        _ if c == quote || c == '\\' => out.extend(['\\', c]),
        '\u{7}' => out.push_str("\\a"),
        '\u{8}' => out.push_str("\\b"),
        '\u{c}' => out.push_str("\\f"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        '\u{b}' => out.push_str("\\v"),
        ' '..='~' => out.push(c),
        '\0'..='\u{7f}' => out.push_str(&format!("\\x{:02x}", c as u32)),
        _ if is_printable(c) => out.push(c),
        '\u{80}'..='\u{ffff}' => out.push_str(&format!("\\u{:04x}", c as u32)),
        _ => out.push_str(&format!("\\U{:08x}", c as u32)),
    }
}

/// Whether Go prints `c` as it is: letters, marks, numbers, punctuation, symbols, and the space.
pub fn is_printable(c: char) -> bool {
    // The standard library escapes what does not print, and a combining mark that comes first.
    let behind_another = ['a', c].iter().collect::<String>();
    let escaped = behind_another.escape_debug().count();
    matches!(c, ' '..='~')
        || !c.is_control() && !c.is_whitespace() && (escaped == 2 || c.is_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_invisible_is_escaped() {
        assert_eq!(quote("a\"b'\\é\n\u{1}"), r#""a\"b'\\é\n\x01""#);
        assert_eq!(quote("e\u{301}\u{200b}"), "\"e\u{301}\\u200b\"");
        assert_eq!(quote_bytes(b"a\xc5z"), r#""a\xc5z""#);
        assert_eq!(
            quote_bytes(b"a\"\\\n\x01\xff\xc3\xa9"),
            "\"a\\\"\\\\\\n\\x01\\xff\u{e9}\""
        );
        assert_eq!(quote_char(Some('\'')), r"'\''");
        assert_eq!(quote_char(None), "'\u{fffd}'");
    }
}
