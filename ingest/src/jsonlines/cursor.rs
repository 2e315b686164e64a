//! A place in one JSON text (RFC 8259), as far as lines of samples need it.
//!
//! Own and small, because numbers must be read to the last bit and a line may hold a million of
//! them: nothing is built but what is asked for. Nesting is bounded where values are skipped.

use std::borrow::Cow;

/// How deep an unknown value may nest.
const DEPTH_MAX: usize = 32;

/// Where and why a text is not what was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} at byte {at}")]
pub struct JsonError {
    pub what: &'static str,
    /// Counted from 1.
    pub at: usize,
}

#[derive(Debug, Clone)]
pub struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    pub fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    pub fn error(&self, what: &'static str) -> JsonError {
        JsonError {
            what,
            at: self.at + 1,
        }
    }

    /// The next byte that is no blank.
    pub fn peek(&mut self) -> Option<u8> {
        let bytes = self.text.as_bytes();
        while matches!(bytes.get(self.at), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
        bytes.get(self.at).copied()
    }

    pub fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    pub fn expect(&mut self, byte: u8, what: &'static str) -> Result<(), JsonError> {
        match self.eat(byte) {
            true => Ok(()),
            false => Err(self.error(what)),
        }
    }

    /// Takes `word` if it stands here.
    pub fn eat_word(&mut self, word: &str) -> bool {
        let found = self.peek().is_some() && self.text[self.at..].starts_with(word);
        self.at += if found { word.len() } else { 0 };
        found
    }

    /// Behind an element: whether another one follows, or `close` ended the list.
    pub fn goes_on(&mut self, close: u8, what: &'static str) -> Result<bool, JsonError> {
        if self.eat(b',') {
            return Ok(true);
        }
        self.expect(close, what).map(|()| false)
    }

    /// The text of a number; what it is worth is the caller's business.
    pub fn number(&mut self) -> Result<&'a str, JsonError> {
        self.peek();
        let rest = &self.text.as_bytes()[self.at..];
        let part = |b: &u8| b.is_ascii_digit() || matches!(b, b'+' | b'-' | b'.' | b'e' | b'E');
        let length = rest.iter().take_while(|b| part(b)).count();
        if length == 0 {
            return Err(self.error("expected a number"));
        }
        let start = self.at;
        self.at += length;
        Ok(&self.text[start..self.at])
    }

    /// A string, its escapes undone.
    pub fn string(&mut self) -> Result<Cow<'a, str>, JsonError> {
        self.expect(b'"', "expected a string")?;
        let start = self.at;
        let bytes = self.text.as_bytes();
        let plain = bytes[start..].iter();
        let length = plain.take_while(|b| !matches!(b, b'"' | b'\\')).count();
        self.at += length;
        let plain = &self.text[start..self.at];
        if bytes.get(self.at) == Some(&b'"') {
            self.at += 1;
            return Ok(Cow::Borrowed(plain));
        }
        let mut out = plain.to_owned();
        loop {
            let rest = &self.text[self.at..];
            let c = rest.chars().next();
            let c = c.ok_or_else(|| self.error("a string without end"))?;
            self.at += c.len_utf8();
            match c {
                '"' => return Ok(Cow::Owned(out)),
                '\\' => out.push(self.escaped()?),
                c => out.push(c),
            }
        }
    }

    fn escaped(&mut self) -> Result<char, JsonError> {
        let byte = self.text.as_bytes().get(self.at).copied();
        let c = match byte {
            Some(b'n') => '\n',
            Some(b't') => '\t',
            Some(b'r') => '\r',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(byte @ (b'"' | b'\\' | b'/')) => char::from(byte),
            Some(b'u') => {
                self.at += 1;
                return self.code_point();
            }
            _ => return Err(self.error("an unknown escape")),
        };
        self.at += 1;
        Ok(c)
    }

    /// Four digits, or eight as a surrogate pair; half a pair becomes the replacement character.
    fn code_point(&mut self) -> Result<char, JsonError> {
        let high = self.four_digits()?;
        if !(0xd800..0xdc00).contains(&high) {
            return Ok(char::from_u32(high).unwrap_or(char::REPLACEMENT_CHARACTER));
        }
        if !self.text[self.at..].starts_with("\\u") {
            return Ok(char::REPLACEMENT_CHARACTER);
        }
        self.at += 2;
        let low = self.four_digits()?;
        if !(0xdc00..0xe000).contains(&low) {
            return Ok(char::REPLACEMENT_CHARACTER);
        }
        let code = 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
        Ok(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER))
    }

    fn four_digits(&mut self) -> Result<u32, JsonError> {
        let digits = self.text.get(self.at..self.at + 4);
        let digits = digits.filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()));
        let code = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
        let code = code.ok_or_else(|| self.error("expected four hexadecimal digits"))?;
        self.at += 4;
        Ok(code)
    }

    /// Passes over one value of any kind.
    pub fn skip(&mut self) -> Result<(), JsonError> {
        self.skip_below(DEPTH_MAX)
    }

    fn skip_below(&mut self, depth: usize) -> Result<(), JsonError> {
        let depth = depth.checked_sub(1);
        let depth = depth.ok_or_else(|| self.error("a value that nests too deep"))?;
        let close = match self.peek() {
            Some(b'"') => return self.string().map(drop),
            Some(b'{') => b'}',
            Some(b'[') => b']',
            _ => {
                let known = ["true", "false", "null"];
                return match known.iter().any(|word| self.eat_word(word)) {
                    true => Ok(()),
                    false => self.number().map(drop),
                };
            }
        };
        self.at += 1;
        if self.eat(close) {
            return Ok(());
        }
        loop {
            if close == b'}' {
                self.string()?;
                self.expect(b':', "expected ':'")?;
            }
            self.skip_below(depth)?;
            if !self.goes_on(close, "expected ',' or the end")? {
                return Ok(());
            }
        }
    }
}
