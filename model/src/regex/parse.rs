//! A pattern to a tree, by the rules of Go's `regexp/syntax` with its Perl flags.
//!
//! Open groups are kept in a list, not on the call stack, so no pattern can make the parser
//! recurse; the tree it yields is no deeper than `REGEX_DEPTH_MAX`.

use regex_syntax::hir::{self, Class, Dot, Hir, Look, Repetition};

use crate::limits::{REGEX_DEPTH_MAX, REGEX_PATTERN_BYTES_MAX};

use super::class;
use super::error::{PatternError, Problem};
use super::escape::escape;

/// The most a repetition may ask for, also as the product of nested ones.
const REPEAT_MAX: u32 = 1000;

#[derive(Debug, Clone, Copy)]
struct Flags {
    fold: bool,
    multi_line: bool,
    dot_matches_newline: bool,
    prefer_short: bool,
}

/// A finished part.
struct Term {
    hir: Hir,
    depth: usize,
    /// The product of the nested repetitions in it that is largest.
    repeats: u32,
}

impl Term {
    fn leaf(hir: Hir) -> Self {
        Self {
            hir,
            depth: 1,
            repeats: 0,
        }
    }

    fn join(mut terms: Vec<Self>, join: fn(Vec<Hir>) -> Hir) -> Self {
        if terms.len() == 1 {
            return terms.remove(0);
        }
        let depth = terms.iter().map(|t| t.depth).max().unwrap_or(0) + 1;
        let repeats = terms.iter().map(|t| t.repeats).max().unwrap_or(0);
        Self {
            hir: join(terms.into_iter().map(|t| t.hir).collect()),
            depth,
            repeats,
        }
    }
}

/// What a parenthesis opened.
struct Open {
    /// As they were before it.
    flags: Flags,
    capture: Option<u32>,
}

/// A group being read.
#[derive(Default)]
struct Group {
    open: Option<Open>,
    alternatives: Vec<Term>,
    /// What stands behind the last bar.
    terms: Vec<Term>,
}

impl Group {
    fn end_alternative(&mut self) {
        let terms = std::mem::take(&mut self.terms);
        self.alternatives.push(Term::join(terms, Hir::concat));
    }

    fn finish(mut self) -> (Term, Option<Open>) {
        self.end_alternative();
        (Term::join(self.alternatives, Hir::alternation), self.open)
    }
}

/// A pattern that was read.
pub(super) struct Tree {
    pub hir: Hir,
    /// The groups that have names, by index; a name may come twice.
    pub names: Vec<(u32, Box<str>)>,
}

/// Reads `pattern`; `.` matches a newline from the start if asked.
pub(super) fn parse(pattern: &str, dot_matches_newline: bool) -> Result<Tree, PatternError> {
    if pattern.len() > REGEX_PATTERN_BYTES_MAX {
        return Err(PatternError::new(Problem::Size, pattern));
    }
    let mut parser = Parser {
        whole: pattern,
        rest: pattern,
        flags: Flags {
            fold: false,
            multi_line: false,
            dot_matches_newline,
            prefer_short: false,
        },
        group: Group::default(),
        outer: Vec::new(),
        captures: 0,
        names: Vec::new(),
        repetition: None,
    };
    while !parser.rest.is_empty() {
        parser.step()?;
    }
    if !parser.outer.is_empty() {
        return Err(PatternError::new(Problem::OpenParen, pattern));
    }
    Ok(Tree {
        hir: parser.group.finish().0.hir,
        names: parser.names,
    })
}

struct Parser<'p> {
    whole: &'p str,
    rest: &'p str,
    flags: Flags,
    group: Group,
    /// The groups around it.
    outer: Vec<Group>,
    captures: u32,
    names: Vec<(u32, Box<str>)>,
    /// Where the repetition operator just read begins.
    repetition: Option<&'p str>,
}

impl<'p> Parser<'p> {
    fn step(&mut self) -> Result<(), PatternError> {
        let before = self.repetition.take();
        let Some(c) = self.rest.chars().next() else {
            return Ok(());
        };
        let after = &self.rest[c.len_utf8()..];
        match c {
            '(' if after.starts_with('?') => return self.perl_group(),
            '(' => {
                self.captures += 1;
                self.open(Some(self.captures));
            }
            ')' => self.close()?,
            '|' => self.group.end_alternative(),
            '^' if self.flags.multi_line => self.look(Look::StartLF)?,
            '^' => self.look(Look::Start)?,
            '$' if self.flags.multi_line => self.look(Look::EndLF)?,
            '$' => self.look(Look::End)?,
            '.' if self.flags.dot_matches_newline => self.push(Hir::dot(Dot::AnyChar))?,
            '.' => self.push(Hir::dot(Dot::AnyCharExceptLF))?,
            '[' => {
                let (class, after) = class::bracketed(self.rest, self.flags.fold)?;
                self.rest = after;
                return self.push(Hir::class(Class::Unicode(class)));
            }
            '*' => return self.repeat(0, None, after, before),
            '+' => return self.repeat(1, None, after, before),
            '?' => return self.repeat(0, Some(1), after, before),
            '{' => {
                if let Some((least, most, after)) = counts(after) {
                    return self.counted(least, most, after, before);
                }
                self.literal(c.into())?;
            }
            '\\' => return self.backslash(),
            _ => self.literal(c.into())?,
        }
        self.rest = after;
        Ok(())
    }

    fn push(&mut self, hir: Hir) -> Result<(), PatternError> {
        self.push_term(Term::leaf(hir))
    }

    fn push_term(&mut self, term: Term) -> Result<(), PatternError> {
        // What is joined from it later may be two deeper: a part of a row, a row of a choice.
        if term.depth + 2 > REGEX_DEPTH_MAX {
            return Err(PatternError::new(Problem::Depth, self.whole));
        }
        self.group.terms.push(term);
        Ok(())
    }

    fn look(&mut self, look: Look) -> Result<(), PatternError> {
        self.push(Hir::look(look))
    }

    fn literal(&mut self, code: u32) -> Result<(), PatternError> {
        let hir = match char::from_u32(code) {
            Some(c) if !self.flags.fold => {
                Hir::literal(c.encode_utf8(&mut [0; 4]).as_bytes().to_vec())
            }
            _ => Hir::class(Class::Unicode(class::single(code, self.flags.fold))),
        };
        self.push(hir)
    }

    fn open(&mut self, capture: Option<u32>) {
        let inner = Group {
            open: Some(Open {
                flags: self.flags,
                capture,
            }),
            ..Group::default()
        };
        self.outer.push(std::mem::replace(&mut self.group, inner));
    }

    fn close(&mut self) -> Result<(), PatternError> {
        let Some(outer) = self.outer.pop() else {
            return Err(PatternError::new(Problem::ClosingParen, self.whole));
        };
        let inner = std::mem::replace(&mut self.group, outer);
        let (mut term, open) = inner.finish();
        let Some(open) = open else { return Ok(()) };
        self.flags = open.flags;
        if let Some(index) = open.capture {
            let sub = Box::new(term.hir);
            // Names are kept apart: they may come twice.
            let name = None;
            term.hir = Hir::capture(hir::Capture { index, name, sub });
            term.depth += 1;
        }
        self.push_term(term)
    }

    /// `(?P<name>`, `(?<name>`, `(?i)`, `(?s-m:`.
    fn perl_group(&mut self) -> Result<(), PatternError> {
        let text = self.rest;
        for start in ["(?P<", "(?<"] {
            // As in Go, a name needs something behind the angle.
            if let Some(name) = text.strip_prefix(start).filter(|name| !name.is_empty()) {
                return self.named_group(text, name);
            }
        }
        let mut flags = self.flags;
        let (mut on, mut saw_flag) = (true, false);
        let mut rest = text[2..].chars();
        while let Some(c) = rest.next() {
            match c {
                'i' => flags.fold = on,
                'm' => flags.multi_line = on,
                's' => flags.dot_matches_newline = on,
                'U' => flags.prefer_short = on,
                '-' if on => on = false,
                ':' | ')' if on || saw_flag => {
                    if c == ':' {
                        self.open(None);
                    }
                    self.flags = flags;
                    self.rest = rest.as_str();
                    return Ok(());
                }
                _ => break,
            }
            saw_flag = c != '-';
        }
        let part = &text[..text.len() - rest.as_str().len()];
        Err(PatternError::new(Problem::PerlSyntax, part))
    }

    fn named_group(&mut self, text: &'p str, after: &'p str) -> Result<(), PatternError> {
        let Some(length) = after.find('>') else {
            return Err(PatternError::new(Problem::NamedCapture, text));
        };
        let name = &after[..length];
        let rest = &after[length + 1..];
        let is_word = |c: char| c == '_' || c.is_ascii_alphanumeric();
        if name.is_empty() || !name.chars().all(is_word) {
            let part = &text[..text.len() - rest.len()];
            return Err(PatternError::new(Problem::NamedCapture, part));
        }
        self.captures += 1;
        self.names.push((self.captures, name.into()));
        self.open(Some(self.captures));
        self.rest = rest;
        Ok(())
    }

    fn counted(
        &mut self,
        least: Count,
        most: Option<Count>,
        after: &'p str,
        before: Option<&'p str>,
    ) -> Result<(), PatternError> {
        let part = &self.rest[..self.rest.len() - after.len()];
        let wrong = || PatternError::new(Problem::RepeatCount, part);
        let least = least.ok_or_else(wrong)?;
        let most = match most {
            Some(most) => Some(most.filter(|&most| most >= least).ok_or_else(wrong)?),
            None => None,
        };
        self.repeat(least, most, after, before)
    }

    /// Repeats the last term; `before` is the repetition that already does, if one does.
    fn repeat(
        &mut self,
        least: u32,
        most: Option<u32>,
        mut after: &'p str,
        before: Option<&'p str>,
    ) -> Result<(), PatternError> {
        let operator = self.rest;
        let is_marked = after.starts_with('?');
        if is_marked {
            after = &after[1..];
        }
        if let Some(first) = before {
            let part = &first[..first.len() - after.len()];
            return Err(PatternError::new(Problem::NestedRepetition, part));
        }
        let part = &operator[..operator.len() - after.len()];
        let Some(term) = self.group.terms.pop() else {
            return Err(PatternError::new(Problem::RepeatsNothing, part));
        };
        let repeats = match most.unwrap_or(least) {
            0 if most == Some(0) => 0,
            0 => term.repeats,
            times if operator.starts_with('{') => times.saturating_mul(term.repeats.max(1)),
            _ => term.repeats,
        };
        let is_counted = operator.starts_with('{') && most.unwrap_or(least) >= 2;
        if is_counted && repeats > REPEAT_MAX {
            return Err(PatternError::new(Problem::RepeatCount, part));
        }
        let hir = Hir::repetition(Repetition {
            min: least,
            max: most,
            greedy: is_marked == self.flags.prefer_short,
            sub: Box::new(term.hir),
        });
        self.repetition = Some(operator);
        self.rest = after;
        self.push_term(Term {
            hir,
            depth: term.depth + 1,
            repeats,
        })
    }

    fn backslash(&mut self) -> Result<(), PatternError> {
        let text = self.rest;
        let second = text[1..].chars().next();
        let look = match second {
            Some('A') => Some(Look::Start),
            Some('z') => Some(Look::End),
            Some('b') => Some(Look::WordAscii),
            Some('B') => Some(Look::WordAsciiNegate),
            Some('Q') => return self.quoted(&text[2..]),
            _ => None,
        };
        if let Some(look) = look {
            self.rest = &text[2..];
            return self.look(look);
        }
        if let Some((class, after)) = class::escaped(text, self.flags.fold)? {
            self.rest = after;
            return self.push(Hir::class(Class::Unicode(class)));
        }
        let (code, after) = escape(text)?;
        self.rest = after;
        self.literal(code)
    }

    /// Everything up to `\E` or the end stands for itself.
    fn quoted(&mut self, text: &'p str) -> Result<(), PatternError> {
        let (inside, after) = text.split_once("\\E").unwrap_or((text, ""));
        self.rest = after;
        inside.chars().try_for_each(|c| self.literal(c.into()))
    }
}

/// A number in braces; `None` when it is too large.
type Count = Option<u32>;

/// The counts behind an opening brace: `3}`, `3,}`, `3,5}`, and what follows them. `None` when
/// the brace stands for itself.
fn counts(text: &str) -> Option<(Count, Option<Count>, &str)> {
    let (least, rest) = count(text)?;
    if let Some(after) = rest.strip_prefix('}') {
        return Some((least, Some(least), after));
    }
    let rest = rest.strip_prefix(',')?;
    if let Some(after) = rest.strip_prefix('}') {
        return Some((least, None, after));
    }
    let (most, rest) = count(rest)?;
    Some((least, Some(most), rest.strip_prefix('}')?))
}

fn count(text: &str) -> Option<(Count, &str)> {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    if digits.is_empty() || (digits.len() > 1 && digits.starts_with('0')) {
        return None;
    }
    let count = digits.parse().ok().filter(|&count| count <= REPEAT_MAX);
    Some((count, rest))
}
