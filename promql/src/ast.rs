//! The tree of an expression.
//!
//! Every node knows its place in the text, so that messages can point at it. A tree built by the
//! parser is well typed, and no higher than `model::limits::QUERY_HEIGHT_MAX`: whoever walks it may
//! recurse.

use model::Matcher;

use crate::duration::Length;
use crate::error::Span;
use crate::function::Function;

/// What an expression yields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    Scalar,
    String,
    Vector,
    Matrix,
}

impl Type {
    /// The name the API uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::String => "string",
            Self::Vector => "vector",
            Self::Matrix => "matrix",
        }
    }

    /// The name messages use.
    pub fn documented(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::String => "string",
            Self::Vector => "instant vector",
            Self::Matrix => "range vector",
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub enum Expr {
    Number(NumberLiteral),
    String(StringLiteral),
    Vector(VectorSelector),
    Matrix(MatrixSelector),
    Subquery(Subquery),
    Call(Call),
    Aggregate(Aggregate),
    Binary(Binary),
    Unary(Unary),
    Paren(Paren),
}

#[derive(Debug, Clone)]
pub struct NumberLiteral {
    pub value: f64,
    /// Written as a duration, `5m`, and printed as one.
    pub is_duration: bool,
    pub span: Span,
}

/// Equal also when both are NaN.
impl PartialEq for NumberLiteral {
    fn eq(&self, other: &Self) -> bool {
        self.value.to_bits() == other.value.to_bits()
            && (self.is_duration, self.span) == (other.is_duration, other.span)
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct StringLiteral {
    pub value: String,
    /// The bytes as escapes spelled them, when they are not UTF-8; `value` then holds replacement
    /// characters.
    pub not_utf8: Option<Vec<u8>>,
    pub span: Span,
}

/// When a selector or subquery looks, relative to the step it is evaluated at.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Shift {
    /// Positive looks back.
    pub offset: Length,
    pub at: Option<At>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// Milliseconds since 1970.
    Timestamp(i64),
    Start,
    End,
}

/// What a selector takes for the values at the ends of its window; all but the first are newer
/// than Prometheus 3.5.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// None: only what lies inside.
    #[default]
    Inside,
    /// `anchored`: the last samples before them.
    Anchored,
    /// `smoothed`: interpolated between the samples around them.
    Smoothed,
}

impl Reach {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Inside => "",
            Self::Anchored => "anchored",
            Self::Smoothed => "smoothed",
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct VectorSelector {
    /// The name before the braces, if there is one; its matcher is in `matchers`, last.
    pub name: Option<String>,
    pub matchers: Vec<Matcher>,
    pub reach: Reach,
    pub shift: Shift,
    pub span: Span,
}

impl VectorSelector {
    /// Whether both find the same at every instant.
    pub(crate) fn selects_as(&self, other: &Self) -> bool {
        self.matchers == other.matchers && self.reach == other.reach && self.shift == other.shift
    }
}

/// `selector[range]`. The shift is the selector's.
#[derive(Debug, Clone, PartialEq)]
pub struct MatrixSelector {
    pub selector: VectorSelector,
    pub range: Length,
    pub span: Span,
}

/// `expr[range:step]`; without a step the engine's default evaluation interval counts.
#[derive(Debug, Clone, PartialEq)]
pub struct Subquery {
    pub expr: Box<Expr>,
    pub range: Length,
    pub step: Option<Length>,
    pub shift: Shift,
    pub span: Span,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    pub function: &'static Function,
    pub args: Vec<Expr>,
    pub span: Span,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AggregateOp {
    Sum,
    Avg,
    Count,
    Min,
    Max,
    Group,
    Stddev,
    Stdvar,
    Topk,
    Bottomk,
    CountValues,
    Quantile,
    Limitk,
    LimitRatio,
}

impl AggregateOp {
    pub const ALL: [Self; 14] = [
        Self::Sum,
        Self::Avg,
        Self::Count,
        Self::Min,
        Self::Max,
        Self::Group,
        Self::Stddev,
        Self::Stdvar,
        Self::Topk,
        Self::Bottomk,
        Self::CountValues,
        Self::Quantile,
        Self::Limitk,
        Self::LimitRatio,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sum => "sum",
            Self::Avg => "avg",
            Self::Count => "count",
            Self::Min => "min",
            Self::Max => "max",
            Self::Group => "group",
            Self::Stddev => "stddev",
            Self::Stdvar => "stdvar",
            Self::Topk => "topk",
            Self::Bottomk => "bottomk",
            Self::CountValues => "count_values",
            Self::Quantile => "quantile",
            Self::Limitk => "limitk",
            Self::LimitRatio => "limit_ratio",
        }
    }

    /// The type of the parameter before the vector, if there is one.
    pub fn parameter(self) -> Option<Type> {
        match self {
            Self::CountValues => Some(Type::String),
            Self::Topk | Self::Bottomk | Self::Quantile | Self::Limitk | Self::LimitRatio => {
                Some(Type::Scalar)
            }
            _ => None,
        }
    }

    pub fn is_experimental(self) -> bool {
        matches!(self, Self::Limitk | Self::LimitRatio)
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct Aggregate {
    pub op: AggregateOp,
    pub expr: Box<Expr>,
    pub param: Option<Box<Expr>>,
    pub grouping: Vec<String>,
    pub without: bool,
    pub span: Span,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BinaryOp {
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    Pow,
    Atan2,
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    And,
    Or,
    Unless,
}

impl BinaryOp {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Sub => "-",
            Self::Mul => "*",
            Self::Div => "/",
            Self::Mod => "%",
            Self::Pow => "^",
            Self::Atan2 => "atan2",
            Self::Equal => "==",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::LessEqual => "<=",
            Self::Greater => ">",
            Self::GreaterEqual => ">=",
            Self::And => "and",
            Self::Or => "or",
            Self::Unless => "unless",
        }
    }

    /// Higher binds tighter.
    pub fn precedence(self) -> u8 {
        match self {
            Self::Or => 1,
            Self::And | Self::Unless => 2,
            _ if self.is_comparison() => 3,
            Self::Add | Self::Sub => 4,
            Self::Pow => 6,
            _ => 5,
        }
    }

    pub fn is_comparison(self) -> bool {
        matches!(
            self,
            Self::Equal
                | Self::NotEqual
                | Self::Less
                | Self::LessEqual
                | Self::Greater
                | Self::GreaterEqual
        )
    }

    pub fn is_set(self) -> bool {
        matches!(self, Self::And | Self::Or | Self::Unless)
    }
}

/// How many series of each side one match may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cardinality {
    OneToOne,
    /// `group_left`
    ManyToOne,
    /// `group_right`
    OneToMany,
    /// set operators
    ManyToMany,
}

/// What stands in for a series that one side lacks; newer than Prometheus 3.5.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Fill {
    pub left: Option<NumberLiteral>,
    pub right: Option<NumberLiteral>,
}

impl Fill {
    pub fn is_none(&self) -> bool {
        self.left.is_none() && self.right.is_none()
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct Matching {
    pub cardinality: Cardinality,
    /// `on (labels)`; otherwise `ignoring (labels)`.
    pub on: bool,
    pub labels: Vec<String>,
    /// Labels that `group_left` and `group_right` copy from the one side.
    pub include: Vec<String>,
    pub fill: Fill,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Binary {
    pub op: BinaryOp,
    pub left: Box<Expr>,
    pub right: Box<Expr>,
    /// Comparisons that answer 0 or 1 instead of filtering.
    pub return_bool: bool,
    /// Set exactly when both sides are vectors.
    pub matching: Option<Matching>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Unary {
    /// `-`; otherwise `+`.
    pub negative: bool,
    pub expr: Box<Expr>,
    /// Where the sign stands.
    pub start: usize,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Paren {
    pub expr: Box<Expr>,
    pub span: Span,
}

impl Expr {
    pub fn ty(&self) -> Type {
        match self {
            Self::Number(_) => Type::Scalar,
            Self::String(_) => Type::String,
            Self::Vector(_) | Self::Aggregate(_) => Type::Vector,
            Self::Matrix(_) | Self::Subquery(_) => Type::Matrix,
            Self::Call(call) => call.function.returns,
            Self::Binary(b) if b.left.ty() == Type::Scalar && b.right.ty() == Type::Scalar => {
                Type::Scalar
            }
            Self::Binary(_) => Type::Vector,
            Self::Unary(unary) => unary.expr.ty(),
            Self::Paren(paren) => paren.expr.ty(),
        }
    }

    pub fn span(&self) -> Span {
        match self {
            Self::Number(n) => n.span,
            Self::String(s) => s.span,
            Self::Vector(v) => v.span,
            Self::Matrix(m) => m.span,
            Self::Subquery(s) => s.span,
            Self::Call(c) => c.span,
            Self::Aggregate(a) => a.span,
            Self::Binary(b) => b.left.span().to(b.right.span()),
            Self::Unary(u) => Span::new(u.start, u.expr.span().end),
            Self::Paren(p) => p.span,
        }
    }

    /// This expression without the parentheses around it.
    pub fn unwrap_parens(&self) -> &Self {
        let mut expr = self;
        while let Self::Paren(paren) = expr {
            expr = &paren.expr;
        }
        expr
    }
}
