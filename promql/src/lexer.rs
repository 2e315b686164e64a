//! Text to tokens.
//!
//! The rules for what may stand where inside braces and brackets are Prometheus' (3.5), so that
//! its messages come out at its positions. The first thing that is no token ends the list with an
//! [`Kind::Error`]; the parser reports it when it gets there.

use crate::ast::{AggregateOp, BinaryOp};
use crate::error::Span;
use crate::parser::ParseOptions;
use crate::parser::duration::duration_function;
use model::quote::{is_printable, quote, quote_char};

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Token {
    pub kind: Kind,
    pub span: Span,
}

/// What a token is. Those with a value that matters keep it in the text.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Kind {
    End,
    Error(String),
    Comma,
    Colon,
    LeftParen,
    RightParen,
    LeftBrace,
    RightBrace,
    LeftBracket,
    RightBracket,
    Equal,
    EqualRegex,
    NotRegex,
    At,
    Operator(BinaryOp),
    Aggregator(AggregateOp),
    Keyword(Keyword),
    Identifier,
    MetricIdentifier,
    String,
    Number,
    Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keyword {
    Offset,
    By,
    Without,
    On,
    Ignoring,
    GroupLeft,
    GroupRight,
    Bool,
    Start,
    End,
}

impl Kind {
    /// How messages name a token of this kind and text.
    pub fn describe(&self, text: &str) -> String {
        // Prometheus counts bytes, and cuts characters.
        let shown = || match text.len() > 10 {
            true => format!("{}...", quote(&text.chars().take(10).collect::<String>())),
            false => quote(text),
        };
        match self {
            Self::End => "end of input".to_owned(),
            Self::Error(message) => message.clone(),
            Self::Operator(_) | Self::EqualRegex | Self::NotRegex => format!("<op:{text}>"),
            // Prometheus has no name for it, and shows its number.
            Self::At => format!("\"<Item 57400>\" <op:{text}>"),
            Self::Aggregator(_) => format!("<aggr:{text}>"),
            Self::Keyword(Keyword::Start | Keyword::End) => shown(),
            Self::Keyword(_) => format!("<{text}>"),
            Self::Identifier => format!("identifier {}", quote(text)),
            Self::MetricIdentifier => format!("metric identifier {}", quote(text)),
            Self::String => format!("string {}", shown()),
            Self::Number => format!("number {}", shown()),
            Self::Duration => format!("duration {}", shown()),
            _ => shown(),
        }
    }
}

/// The tokens of `text`; the last one is [`Kind::End`] or [`Kind::Error`].
///
/// The options decide about words newer than 3.5.
pub(crate) fn lex(text: &str, options: ParseOptions) -> Vec<Token> {
    let mut lexer = Lexer {
        text,
        at: 0,
        start: 0,
        tokens: Vec::new(),
        parens: 0,
        brackets: Bracket::Closed,
        had_duration: false,
        in_braces: false,
        options,
    };
    while lexer.token() == More::Yes {}
    lexer.tokens
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bracket {
    Closed,
    /// Right after `[`, or after an arithmetic sign inside.
    Fresh,
    /// After the range.
    Open,
    /// After the colon.
    Colon,
}

/// Whether there may be another token after this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum More {
    Yes,
    No,
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
    start: usize,
    tokens: Vec<Token>,
    parens: usize,
    brackets: Bracket,
    /// Brackets somewhere before had a duration: Prometheus forgets to ask for one in the next.
    had_duration: bool,
    in_braces: bool,
    options: ParseOptions,
}

/// Bytes that are no UTF-8 came in as replacement characters, and one that was sent is refused like
/// them: Prometheus cannot tell them apart either.
const NOT_UTF8: &str = "invalid UTF-8 rune";

const DIGITS: &str = "0123456789";
const HEX_DIGITS: &str = "0123456789abcdefABCDEF";

impl Lexer<'_> {
    fn peek(&self) -> Option<char> {
        self.text
            .get(self.at..)
            .and_then(|rest| rest.chars().next())
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }

    fn accept(&mut self, set: &str) -> bool {
        let accepted = self.peek().is_some_and(|c| set.contains(c));
        if accepted {
            self.next();
        }
        accepted
    }

    fn accept_while(&mut self, keep: impl Fn(char) -> bool) {
        while self.peek().is_some_and(&keep) {
            self.next();
        }
    }

    fn so_far(&self) -> &str {
        self.text.get(self.start..self.at).unwrap_or_default()
    }

    fn emit(&mut self, kind: Kind) -> More {
        let span = Span::new(self.start, self.at);
        self.tokens.push(Token { kind, span });
        self.start = self.at;
        More::Yes
    }

    /// Ends the list: nothing after an error is looked at.
    fn fail(&mut self, message: String) -> More {
        let span = Span::new(self.start, self.text.len());
        let kind = Kind::Error(message);
        self.tokens.push(Token { kind, span });
        More::No
    }

    /// Lexes one token.
    fn token(&mut self) -> More {
        self.accept_while(is_space);
        // Right behind a bracket Prometheus knows no comments.
        while self.peek() == Some('#') && self.brackets != Bracket::Fresh {
            self.accept_while(|c| c != '\n' && c != '\r');
            self.accept_while(is_space);
        }
        self.start = self.at;
        match () {
            () if self.in_braces => self.token_in_braces(),
            () if self.brackets == Bracket::Fresh => self.token_in_fresh_bracket(),
            () => self.token_in_statement(),
        }
    }

    fn end(&mut self) -> More {
        if self.parens != 0 {
            return self.fail("unclosed left parenthesis".to_owned());
        }
        if self.brackets != Bracket::Closed {
            return self.fail("unclosed left bracket".to_owned());
        }
        self.emit(Kind::End);
        More::No
    }

    fn token_in_statement(&mut self) -> More {
        let Some(c) = self.next() else {
            return self.end();
        };
        match c {
            ',' => self.emit(Kind::Comma),
            '*' => self.emit(Kind::Operator(BinaryOp::Mul)),
            '/' => self.emit(Kind::Operator(BinaryOp::Div)),
            '%' => self.emit(Kind::Operator(BinaryOp::Mod)),
            '+' => self.emit(Kind::Operator(BinaryOp::Add)),
            '-' => self.emit(Kind::Operator(BinaryOp::Sub)),
            '^' => self.emit(Kind::Operator(BinaryOp::Pow)),
            '=' if self.accept("=") => self.emit(Kind::Operator(BinaryOp::Equal)),
            '=' if self.peek() == Some('~') => {
                self.fail("unexpected character after '=': '~'".to_owned())
            }
            '=' => self.emit(Kind::Equal),
            '!' if self.accept("=") => self.emit(Kind::Operator(BinaryOp::NotEqual)),
            '!' => {
                let next = quote_char(self.peek());
                self.fail(format!("unexpected character after '!': {next}"))
            }
            '<' if self.accept("=") => self.emit(Kind::Operator(BinaryOp::LessEqual)),
            '<' => self.emit(Kind::Operator(BinaryOp::Less)),
            '>' if self.accept("=") => self.emit(Kind::Operator(BinaryOp::GreaterEqual)),
            '>' => self.emit(Kind::Operator(BinaryOp::Greater)),
            '0'..='9' => self.number_or_duration(c),
            '.' if self.peek().is_some_and(|c| c.is_ascii_digit()) => self.number_or_duration(c),
            '"' | '\'' => self.string(c),
            '`' => self.raw_string(),
            '(' => {
                self.parens += 1;
                self.emit(Kind::LeftParen)
            }
            ')' if self.parens == 0 => {
                // The parenthesis itself still counts as read: the message stands behind it.
                self.start = self.at;
                self.fail("unexpected right parenthesis ')'".to_owned())
            }
            ')' => {
                self.parens -= 1;
                self.emit(Kind::RightParen)
            }
            '{' => {
                self.in_braces = true;
                self.emit(Kind::LeftBrace)
            }
            '[' if self.brackets != Bracket::Closed => {
                self.fail("unexpected left bracket '['".to_owned())
            }
            '[' => {
                self.brackets = Bracket::Fresh;
                self.emit(Kind::LeftBracket)
            }
            ']' => self.close_bracket(),
            '@' => self.emit(Kind::At),
            ':' | '_' | 'a'..='z' | 'A'..='Z' => self.word(c),
            _ => self.fail(format!("unexpected character: {}", quote_char(Some(c)))),
        }
    }

    fn close_bracket(&mut self) -> More {
        if self.brackets == Bracket::Closed {
            return self.fail("unexpected right bracket ']'".to_owned());
        }
        self.brackets = Bracket::Closed;
        self.emit(Kind::RightBracket)
    }

    fn token_in_fresh_bracket(&mut self) -> More {
        match self.next() {
            None => self.fail("unexpected end of input in duration expression".to_owned()),
            Some(']') => self.close_bracket(),
            Some(':') if self.had_duration => {
                self.brackets = Bracket::Colon;
                self.emit(Kind::Colon)
            }
            Some(':') => {
                self.start = self.at;
                self.fail("unexpected colon before duration in duration expression".to_owned())
            }
            Some(c @ ('+' | '-' | '*' | '/' | '%' | '^' | '(' | ')')) => self.duration_sign(c),
            Some(c) if c.is_ascii_digit() => self.range(c),
            Some('.') if self.peek().is_some_and(|c| c.is_ascii_digit()) => self.range('.'),
            Some(_) if self.takes_duration_function() => self.emit(Kind::Identifier),
            Some(c) => self.fail(format!(
                "unexpected character in duration expression: {}",
                quote_char(Some(c))
            )),
        }
    }

    fn range(&mut self, first: char) -> More {
        self.brackets = Bracket::Open;
        self.had_duration = true;
        self.number_or_duration(first)
    }

    fn duration_sign(&mut self, c: char) -> More {
        match c {
            '+' => self.emit(Kind::Operator(BinaryOp::Add)),
            '-' => self.emit(Kind::Operator(BinaryOp::Sub)),
            '*' => self.emit(Kind::Operator(BinaryOp::Mul)),
            '/' => self.emit(Kind::Operator(BinaryOp::Div)),
            '%' => self.emit(Kind::Operator(BinaryOp::Mod)),
            '^' => self.emit(Kind::Operator(BinaryOp::Pow)),
            '(' => {
                self.parens += 1;
                self.emit(Kind::LeftParen)
            }
            _ if self.parens == 0 => {
                self.start = self.at;
                self.fail("unexpected right parenthesis ')'".to_owned())
            }
            _ => {
                self.parens -= 1;
                self.emit(Kind::RightParen)
            }
        }
    }

    /// A function on durations that begins with the character just taken.
    fn takes_duration_function(&mut self) -> bool {
        if !self.options.duration_expressions || self.brackets == Bracket::Closed {
            return false;
        }
        let rest = self.text.get(self.start..).unwrap_or_default();
        let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        let is_known = duration_function(&rest[..end]).is_some();
        if is_known {
            self.at = self.start + end;
            if self.brackets == Bracket::Fresh {
                self.brackets = Bracket::Open;
            }
        }
        is_known
    }

    fn word(&mut self, first: char) -> More {
        if self.takes_duration_function() {
            return self.emit(Kind::Identifier);
        }
        match (self.brackets, first) {
            (Bracket::Closed, _) => {}
            (Bracket::Colon, _) => {
                let colon = quote_char(Some(first));
                return self.fail(format!("unexpected colon {colon}"));
            }
            _ => {
                // Any letter is taken for the colon, as in Prometheus.
                self.brackets = Bracket::Colon;
                return self.emit(Kind::Colon);
            }
        }
        self.accept_while(|c| c == ':' || is_word(c));
        let kind = keyword(self.so_far()).unwrap_or_else(|| {
            if self.so_far().contains(':') {
                Kind::MetricIdentifier
            } else {
                Kind::Identifier
            }
        });
        self.emit(kind)
    }

    fn token_in_braces(&mut self) -> More {
        match self.next() {
            None => self.fail("unexpected end of input inside braces".to_owned()),
            Some('_' | 'a'..='z' | 'A'..='Z') => {
                self.accept_while(is_word);
                self.emit(Kind::Identifier)
            }
            Some(',') => self.emit(Kind::Comma),
            Some(quote @ ('"' | '\'')) => self.string(quote),
            Some('`') => self.raw_string(),
            Some('=') if self.accept("~") => self.emit(Kind::EqualRegex),
            Some('=') => self.emit(Kind::Equal),
            Some('!') if self.accept("~") => self.emit(Kind::NotRegex),
            Some('!') if self.accept("=") => self.emit(Kind::Operator(BinaryOp::NotEqual)),
            Some('!') => {
                let next = quote_char(self.peek());
                self.fail(format!(
                    "unexpected character after '!' inside braces: {next}"
                ))
            }
            Some('{') => self.fail("unexpected left brace '{'".to_owned()),
            Some('}') => {
                self.in_braces = false;
                self.emit(Kind::RightBrace)
            }
            Some(c) => {
                let shown = quote_char(Some(c));
                self.fail(format!("unexpected character inside braces: {shown}"))
            }
        }
    }

    /// A quoted string; its escapes are checked here and decoded by the parser.
    fn string(&mut self, quote: char) -> More {
        loop {
            match self.next() {
                None | Some('\n') => return self.fail("unterminated quoted string".to_owned()),
                Some(c) if c == quote => return self.emit(Kind::String),
                Some(char::REPLACEMENT_CHARACTER) => return self.fail(NOT_UTF8.to_owned()),
                Some('\\') => {
                    if let Err(message) = self.escape(quote) {
                        return self.fail(message);
                    }
                }
                Some(_) => {}
            }
        }
    }

    fn escape(&mut self, quote: char) -> Result<(), String> {
        const UNTERMINATED: &str = "escape sequence not terminated";
        let Some(c) = self.next() else {
            return Err(UNTERMINATED.to_owned());
        };
        let (digits, base, max) = match c {
            'a' | 'b' | 'f' | 'n' | 'r' | 't' | 'v' | '\\' => return Ok(()),
            _ if c == quote => return Ok(()),
            '0'..='7' => (3, 8, 255),
            'x' => (2, 16, 255),
            'u' => (4, 16, u32::from(char::MAX)),
            'U' => (8, 16, u32::from(char::MAX)),
            _ => return Err(format!("unknown escape sequence {}", code_point(c))),
        };
        let mut value: u32 = 0;
        let mut digit = if base == 8 { Some(c) } else { self.next() };
        for left in (0..digits).rev() {
            let Some(c) = digit else {
                return Err(UNTERMINATED.to_owned());
            };
            let Some(d) = c.to_digit(base) else {
                return Err(format!(
                    "illegal character {} in escape sequence",
                    code_point(c)
                ));
            };
            value = value.saturating_mul(base).saturating_add(d);
            if left > 0 {
                digit = self.next();
            }
        }
        if value > max || (0xd800..0xe000).contains(&value) {
            return Err("escape sequence is an invalid Unicode code point".to_owned());
        }
        Ok(())
    }

    fn raw_string(&mut self) -> More {
        self.accept_while(|c| c != '`' && c != char::REPLACEMENT_CHARACTER);
        match self.next() {
            Some(char::REPLACEMENT_CHARACTER) => self.fail(NOT_UTF8.to_owned()),
            Some(_) => self.emit(Kind::String),
            None => self.fail("unterminated raw string".to_owned()),
        }
    }

    /// `first` is already taken.
    fn number_or_duration(&mut self, first: char) -> More {
        self.at -= first.len_utf8();
        if self.number() {
            return self.emit(Kind::Number);
        }
        if self.duration_after_digits() {
            return self.emit(Kind::Duration);
        }
        // The character that broke it belongs to the message.
        let shown = quote(self.so_far());
        self.fail(format!("bad number or duration syntax: {shown}"))
    }

    /// Takes as much as looks like a number; false when it is none, or when something follows
    /// that makes it one of another kind.
    fn number(&mut self) -> bool {
        let is_hex = self.accept("0") && self.accept("xX");
        let digits = if is_hex { HEX_DIGITS } else { DIGITS };
        if is_hex {
            self.accept("_");
        }
        self.accept(".");
        self.accept(digits);
        let (mut had_dot, mut had_exponent) = (false, false);
        while let Some(c) = self.peek() {
            if c == '.' {
                self.next();
                if had_dot || self.accept("_.") || is_hex {
                    return false;
                }
                had_dot = true;
            } else if matches!(c, 'e' | 'E') {
                self.next();
                if had_exponent {
                    return false;
                }
                had_exponent = true;
                self.accept("+-");
                if self.accept("._eE") || self.peek().is_none() {
                    return false;
                }
            } else if digits.contains(c) {
                // Of hexadecimal digits an `e` at the front was taken for an exponent.
                self.accept_while(|c| digits.contains(c));
            } else if c == '_' {
                self.next();
                if self.accept("._eE") || self.peek().is_none() {
                    return false;
                }
            } else {
                break;
            }
        }
        !self.peek().is_some_and(is_word)
    }

    /// Takes the rest of a duration whose first digits are taken.
    fn duration_after_digits(&mut self) -> bool {
        if !self.accept("smhdwy") {
            return false;
        }
        self.accept("s");
        while self.accept(DIGITS) {
            self.accept_while(|c| c.is_ascii_digit());
            if !self.accept("smhdw") {
                return false;
            }
            self.accept("s");
        }
        match self.peek() {
            Some(c) if is_word(c) => {
                self.next();
                false
            }
            _ => true,
        }
    }
}

/// `U+0041 'A'`; one that does not print is not shown.
fn code_point(c: char) -> String {
    if is_printable(c) {
        return format!("U+{:04X} '{c}'", c as u32);
    }
    format!("U+{:04X}", c as u32)
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r')
}

fn is_word(c: char) -> bool {
    c == '_' || c.is_ascii_alphanumeric()
}

/// What a word means, in any case; `None` for a name.
fn keyword(word: &str) -> Option<Kind> {
    let lower = word.to_ascii_lowercase();
    if let Some(op) = AggregateOp::ALL.into_iter().find(|op| op.as_str() == lower) {
        return Some(Kind::Aggregator(op));
    }
    Some(match lower.as_str() {
        "and" => Kind::Operator(BinaryOp::And),
        "or" => Kind::Operator(BinaryOp::Or),
        "unless" => Kind::Operator(BinaryOp::Unless),
        "atan2" => Kind::Operator(BinaryOp::Atan2),
        "offset" => Kind::Keyword(Keyword::Offset),
        "by" => Kind::Keyword(Keyword::By),
        "without" => Kind::Keyword(Keyword::Without),
        "on" => Kind::Keyword(Keyword::On),
        "ignoring" => Kind::Keyword(Keyword::Ignoring),
        "group_left" => Kind::Keyword(Keyword::GroupLeft),
        "group_right" => Kind::Keyword(Keyword::GroupRight),
        "bool" => Kind::Keyword(Keyword::Bool),
        "start" => Kind::Keyword(Keyword::Start),
        "end" => Kind::Keyword(Keyword::End),
        "inf" | "nan" => Kind::Number,
        _ => return None,
    })
}
