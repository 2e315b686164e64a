//! A query as a tree that can be printed and taken apart.

use std::fmt;

/// The types of PromQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    Vector,
    Matrix,
    Scalar,
    Text,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Expr {
    Number(String),
    Text(String),
    Select(Selector),
    /// Expression, range, step, modifiers.
    Subquery(Box<Expr>, String, Option<String>, Modifiers),
    Negate(Box<Expr>),
    /// In parentheses, which places in messages depend on.
    Paren(Box<Expr>),
    Binary(Box<Binary>),
    Aggregate(Box<Aggregate>),
    Call(&'static str, Type, Vec<Expr>),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Selector {
    pub name: Option<&'static str>,
    /// Name, operator, value.
    pub matchers: Vec<(&'static str, &'static str, &'static str)>,
    /// Makes it a matrix.
    pub range: Option<String>,
    pub modifiers: Modifiers,
}

/// `@` and `offset`, each as its text after the keyword.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Modifiers {
    pub at: Option<String>,
    pub offset: Option<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Binary {
    pub op: &'static str,
    pub is_bool: bool,
    pub matching: Option<Matching>,
    pub lhs: Expr,
    pub rhs: Expr,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Matching {
    /// `on` or `ignoring`.
    pub keyword: &'static str,
    pub labels: Vec<&'static str>,
    /// `group_left` or `group_right`, and what it includes.
    pub group: Option<(&'static str, Vec<&'static str>)>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Aggregate {
    pub op: &'static str,
    /// `by` or `without`.
    pub grouping: Option<(&'static str, Vec<&'static str>)>,
    pub param: Option<Expr>,
    pub of: Expr,
}

impl Expr {
    pub fn kind(&self) -> Type {
        match self {
            Self::Number(_) => Type::Scalar,
            Self::Text(_) => Type::Text,
            Self::Select(selector) if selector.range.is_some() => Type::Matrix,
            Self::Subquery(..) => Type::Matrix,
            Self::Select(_) | Self::Aggregate(_) => Type::Vector,
            Self::Negate(of) | Self::Paren(of) => of.kind(),
            Self::Binary(binary) => match (binary.lhs.kind(), binary.rhs.kind()) {
                (Type::Scalar, Type::Scalar) => Type::Scalar,
                _ => Type::Vector,
            },
            Self::Call(_, returns, _) => *returns,
        }
    }

    /// The expressions right below.
    pub fn children(&self) -> Vec<&Self> {
        match self {
            Self::Number(_) | Self::Text(_) | Self::Select(_) => Vec::new(),
            Self::Subquery(of, ..) | Self::Negate(of) | Self::Paren(of) => vec![of],
            Self::Binary(binary) => vec![&binary.lhs, &binary.rhs],
            Self::Aggregate(aggregate) => aggregate.param.iter().chain([&aggregate.of]).collect(),
            Self::Call(_, _, arguments) => arguments.iter().collect(),
        }
    }

    pub fn children_mut(&mut self) -> Vec<&mut Self> {
        match self {
            Self::Number(_) | Self::Text(_) | Self::Select(_) => Vec::new(),
            Self::Subquery(of, ..) | Self::Negate(of) | Self::Paren(of) => vec![of],
            Self::Binary(binary) => vec![&mut binary.lhs, &mut binary.rhs],
            Self::Aggregate(aggregate) => {
                let Aggregate { param, of, .. } = &mut **aggregate;
                param.iter_mut().chain([of]).collect()
            }
            Self::Call(_, _, arguments) => arguments.iter_mut().collect(),
        }
    }

    /// What it is made of, without names and numbers: two findings with one shape are likely one.
    pub fn shape(&self) -> String {
        let below: Vec<String> = self.children().iter().map(|e| e.shape()).collect();
        let head = match self {
            Self::Number(_) | Self::Text(_) => return String::new(),
            Self::Select(selector) => match selector.range {
                Some(_) => "range",
                None => "v",
            },
            Self::Subquery(..) => "subquery",
            Self::Negate(_) => "-",
            Self::Paren(of) => return of.shape(),
            Self::Binary(binary) => binary.op,
            Self::Aggregate(aggregate) => aggregate.op,
            Self::Call(name, ..) => name,
        };
        format!("{head}({})", below.join(","))
    }

    /// Whether its answer has an order of its own.
    pub fn is_ordered(&self) -> bool {
        match self {
            Self::Call(name, ..) => name.starts_with("sort"),
            Self::Paren(of) => of.is_ordered(),
            // Groups come in any order.
            Self::Aggregate(aggregate) => {
                aggregate.grouping.is_none() && matches!(aggregate.op, "topk" | "bottomk")
            }
            _ => false,
        }
    }
}

/// A label's name where PromQL wants one: quoted when it has to be.
fn label(name: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    match name.chars().all(plain) {
        true => name.to_owned(),
        false => format!("{name:?}"),
    }
}

fn labels(names: &[&str]) -> String {
    let names: Vec<String> = names.iter().map(|name| label(name)).collect();
    names.join(", ")
}

/// A text literal; Rust's own would escape what PromQL does not know.
pub fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(text) => f.write_str(text),
            Self::Text(text) => f.write_str(&quoted(text)),
            Self::Select(selector) => selector.fmt(f),
            Self::Subquery(of, range, step, modifiers) => {
                let step = step.as_deref().unwrap_or("");
                write!(f, "{}[{range}:{step}]{modifiers}", Operand(of))
            }
            Self::Negate(of) => write!(f, "-{}", Operand(of)),
            Self::Paren(of) => write!(f, "({of})"),
            Self::Binary(binary) => binary.fmt(f),
            Self::Aggregate(aggregate) => aggregate.fmt(f),
            Self::Call(name, _, arguments) => {
                let arguments: Vec<String> = arguments.iter().map(Self::to_string).collect();
                write!(f, "{name}({})", arguments.join(", "))
            }
        }
    }
}

/// In parentheses where it has parts at the outside.
struct Operand<'a>(&'a Expr);

impl fmt::Display for Operand<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Expr::Binary(_) | Expr::Negate(_) | Expr::Subquery(..) => write!(f, "({})", self.0),
            Expr::Number(text) if text.starts_with(['-', '+']) => write!(f, "({text})"),
            other => other.fmt(f),
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut inside: Vec<String> = self
            .matchers
            .iter()
            .map(|(name, op, value)| format!("{}{op}{}", label(name), quoted(value)))
            .collect();
        match self.name {
            Some(name) if label(name) == name => f.write_str(name)?,
            Some(name) => inside.insert(0, format!("{name:?}")),
            None => {}
        }
        if !inside.is_empty() {
            write!(f, "{{{}}}", inside.join(","))?;
        }
        if let Some(range) = &self.range {
            write!(f, "[{range}]")?;
        }
        self.modifiers.fmt(f)
    }
}

impl fmt::Display for Modifiers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(at) = &self.at {
            write!(f, " @ {at}")?;
        }
        match &self.offset {
            Some(offset) => write!(f, " offset {offset}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Binary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", Operand(&self.lhs), self.op)?;
        if self.is_bool {
            f.write_str(" bool")?;
        }
        if let Some(matching) = &self.matching {
            write!(f, " {} ({})", matching.keyword, labels(&matching.labels))?;
            if let Some((side, include)) = &matching.group {
                write!(f, " {side} ({})", labels(include))?;
            }
        }
        write!(f, " {}", Operand(&self.rhs))
    }
}

impl fmt::Display for Aggregate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.op)?;
        if let Some((keyword, names)) = &self.grouping {
            write!(f, " {keyword} ({})", labels(names))?;
        }
        match &self.param {
            Some(param) => write!(f, "({param}, {})", self.of),
            None => write!(f, "({})", self.of),
        }
    }
}
