//! `name{label="value", …}`.

use model::labels::METRIC_NAME;
use model::{MatchOp, Matcher};

use super::{Parsed, Parser, literal};
use crate::ast::{BinaryOp, Reach, Shift, VectorSelector};
use crate::error::Span;
use crate::lexer::{Keyword, Kind};

impl Parser<'_> {
    /// Whether the next token may begin a selector: braces, or a name; most keywords are names
    /// too where nothing else fits.
    pub(super) fn starts_selector(&self) -> bool {
        match self.peek().kind {
            Kind::LeftBrace | Kind::Identifier | Kind::MetricIdentifier | Kind::Aggregator(_) => {
                true
            }
            Kind::Operator(op) => op.is_set(),
            Kind::Keyword(word) => matches!(
                word,
                Keyword::Offset | Keyword::By | Keyword::Without | Keyword::Start | Keyword::End
            ),
            _ => false,
        }
    }

    /// A selector and nothing else, of which nothing is checked that an expression is checked for.
    pub(super) fn bare_selector(&mut self) -> Parsed<VectorSelector> {
        if !self.starts_selector() {
            return Err(self.unexpected("", ""));
        }
        self.vector_selector()
    }

    pub(super) fn vector_selector(&mut self) -> Parsed<VectorSelector> {
        let start = self.peek().span;
        let mut span = start;
        let mut name = None;
        if self.peek().kind != Kind::LeftBrace {
            self.advance();
            name = Some(self.text_of(start).to_owned());
        }
        let mut matchers = Vec::new();
        if self.peek().kind == Kind::LeftBrace {
            let (inside, braces) = self.label_matchers()?;
            matchers = inside;
            span = start.to(braces);
        }
        if let Some(name) = &name {
            matchers.push(Matcher::equal(METRIC_NAME, name));
        }
        Ok(VectorSelector {
            name,
            matchers,
            reach: Reach::Inside,
            shift: Shift::default(),
            span,
        })
    }

    fn label_matchers(&mut self) -> Parsed<(Vec<Matcher>, Span)> {
        let open = self.advance().span;
        let mut matchers = Vec::new();
        loop {
            if let Some(close) = self.accept(&Kind::RightBrace) {
                return Ok((matchers, open.to(close)));
            }
            matchers.extend(self.label_matcher()?);
            match self.peek().kind {
                Kind::Comma => drop(self.advance()),
                Kind::RightBrace => {}
                _ => return Err(self.unexpected("label matching", "\",\" or \"}\"")),
            }
        }
    }

    /// `None` after a mistake that was noted and can be read over.
    fn label_matcher(&mut self) -> Parsed<Option<Matcher>> {
        let token = self.peek().clone();
        let text = self.text_of(token.span);
        let name = match token.kind {
            Kind::Identifier => text.to_owned(),
            Kind::String => literal::string(text, token.span).value,
            _ => return Err(self.unexpected("label matching", "identifier or \"}\"")),
        };
        self.advance();
        let is_quoted = token.kind == Kind::String;
        if is_quoted && matches!(self.peek().kind, Kind::Comma | Kind::RightBrace) {
            return Ok(Some(Matcher::equal(METRIC_NAME, name)));
        }
        let Some(op) = self.match_op() else {
            let expected = if is_quoted {
                "\",\" or \"}\""
            } else {
                "label matching operator"
            };
            return Err(self.unexpected("label matching", expected));
        };
        let value = self.peek().clone();
        if value.kind != Kind::String {
            return Err(self.unexpected("label matching", "string"));
        }
        self.advance();
        let value = literal::string(self.text_of(value.span), value.span).value;
        match Matcher::new(op, name, value) {
            Ok(matcher) => Ok(Some(matcher)),
            Err(error) => {
                self.report(token.span, error.to_string());
                Ok(None)
            }
        }
    }

    fn match_op(&mut self) -> Option<MatchOp> {
        let op = match self.peek().kind {
            Kind::Equal => MatchOp::Equal,
            Kind::EqualRegex => MatchOp::Regex,
            Kind::NotRegex => MatchOp::NotRegex,
            Kind::Operator(BinaryOp::NotEqual) => MatchOp::NotEqual,
            _ => return None,
        };
        self.advance();
        Some(op)
    }
}
