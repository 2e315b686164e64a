//! An expression's tree as JSON, as Prometheus' `/api/v1/parse_query` serves it.

use model::Matcher;

use crate::ast::{
    Aggregate, At, Binary, Call, Cardinality, Expr, Matching, MatrixSelector, Shift, Subquery,
    VectorSelector,
};
use crate::duration::Length;
use crate::error::ParseError;
use crate::function::Variadic;
use crate::parser::{ParseOptions, parse_with};
use crate::printer::format_float;

/// Reads an expression and writes its tree: objects with their keys in alphabetical order.
pub fn parse_tree_json(text: &str, options: ParseOptions) -> Result<String, ParseError> {
    parse_with(text, options).map(|expr| tree_json(&expr))
}

/// The tree of `expr`.
pub fn tree_json(expr: &Expr) -> String {
    let mut out = String::new();
    write_expr(&mut out, expr);
    out
}

/// Writes `{"key":value,…}`; values write themselves.
struct Object<'o> {
    out: &'o mut String,
    is_empty: bool,
}

impl<'o> Object<'o> {
    fn new(out: &'o mut String) -> Self {
        out.push('{');
        Self {
            out,
            is_empty: true,
        }
    }

    fn raw(&mut self, key: &str, value: &str) -> &mut Self {
        self.with(key, |out| out.push_str(value))
    }

    fn text(&mut self, key: &str, value: &str) -> &mut Self {
        self.with(key, |out| write_string(out, value))
    }

    fn expr(&mut self, key: &str, value: &Expr) -> &mut Self {
        self.with(key, |out| write_expr(out, value))
    }

    fn with(&mut self, key: &str, value: impl FnOnce(&mut String)) -> &mut Self {
        if !self.is_empty {
            self.out.push(',');
        }
        self.is_empty = false;
        write_string(self.out, key);
        self.out.push(':');
        value(self.out);
        self
    }

    fn end(&mut self) {
        self.out.push('}');
    }
}

/// A JSON string, with the characters escaped that Go's encoder escapes.
fn write_string(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\0'..='\u{1f}' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                out.push_str(&format!("\\u{:04x}", c as u32));
            }
            _ => out.push(c),
        }
    }
    out.push('"');
}

fn write_list<T>(out: &mut String, items: &[T], write: impl Fn(&mut String, &T)) {
    out.push('[');
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        write(out, item);
    }
    out.push(']');
}

fn write_labels(out: &mut String, labels: &[String]) {
    write_list(out, labels, |out, label| write_string(out, label));
}

/// Recursion is bounded by the depth of the tree.
fn write_expr(out: &mut String, expr: &Expr) {
    let mut object = Object::new(out);
    match expr {
        Expr::Number(number) => {
            let value = format_float(number.value);
            object.text("type", "numberLiteral").text("val", &value);
        }
        Expr::String(string) => {
            object
                .text("type", "stringLiteral")
                .text("val", &string.value);
        }
        Expr::Vector(selector) => {
            selector_keys(&mut object, selector, None);
            object.text("type", "vectorSelector");
        }
        Expr::Matrix(matrix) => matrix_selector(&mut object, matrix),
        Expr::Subquery(subquery) => subquery_keys(&mut object, subquery),
        Expr::Call(call) => call_keys(&mut object, call),
        Expr::Aggregate(aggregate) => aggregate_keys(&mut object, aggregate),
        Expr::Binary(binary) => binary_keys(&mut object, binary),
        Expr::Unary(unary) => {
            let op = if unary.negative { "-" } else { "+" };
            object.expr("expr", &unary.expr).text("op", op);
            object.text("type", "unaryExpr");
        }
        Expr::Paren(paren) => {
            object.expr("expr", &paren.expr).text("type", "parenExpr");
        }
    }
    object.end();
}

/// Milliseconds; a computed length is told as none, as long as nobody has computed it.
fn millis(length: &Length) -> String {
    match length {
        Length::Fixed(ms) => ms.to_string(),
        Length::Computed(_) => "0".to_owned(),
    }
}

fn start_or_end(shift: &Shift) -> &'static str {
    match shift.at {
        Some(At::Start) => "\"start\"",
        Some(At::End) => "\"end\"",
        Some(At::Timestamp(_)) | None => "null",
    }
}

fn timestamp(shift: &Shift) -> String {
    match shift.at {
        Some(At::Timestamp(ms)) => ms.to_string(),
        Some(At::Start | At::End) | None => "null".to_owned(),
    }
}

fn selector_keys(object: &mut Object<'_>, selector: &VectorSelector, range: Option<&Length>) {
    let name = selector.name.as_deref().unwrap_or_default();
    object.with("matchers", |out| {
        write_list(out, &selector.matchers, write_matcher);
    });
    object.text("name", name);
    object.raw("offset", &millis(&selector.shift.offset));
    if let Some(range) = range {
        object.raw("range", &millis(range));
    }
    object.raw("startOrEnd", start_or_end(&selector.shift));
    object.raw("timestamp", &timestamp(&selector.shift));
}

fn write_matcher(out: &mut String, matcher: &Matcher) {
    Object::new(out)
        .text("name", &matcher.name)
        .text("type", matcher.op.as_str())
        .text("value", &matcher.value)
        .end();
}

fn matrix_selector(object: &mut Object<'_>, matrix: &MatrixSelector) {
    selector_keys(object, &matrix.selector, Some(&matrix.range));
    object.text("type", "matrixSelector");
}

fn subquery_keys(object: &mut Object<'_>, subquery: &Subquery) {
    let step = subquery.step.as_ref().map_or("0".to_owned(), millis);
    object
        .expr("expr", &subquery.expr)
        .raw("offset", &millis(&subquery.shift.offset))
        .raw("range", &millis(&subquery.range))
        .raw("startOrEnd", start_or_end(&subquery.shift))
        .raw("step", &step)
        .raw("timestamp", &timestamp(&subquery.shift))
        .text("type", "subquery");
}

fn call_keys(object: &mut Object<'_>, call: &Call) {
    let function = call.function;
    object.with("args", |out| write_list(out, &call.args, write_expr));
    object.with("func", |out| {
        let variadic = match function.variadic {
            Variadic::No => "0".to_owned(),
            Variadic::UpTo(times) => times.to_string(),
            Variadic::Any => "-1".to_owned(),
        };
        Object::new(out)
            .with("argTypes", |out| {
                write_list(out, function.args, |out, ty| write_string(out, ty.as_str()));
            })
            .text("name", function.name)
            .text("returnType", function.returns.as_str())
            .raw("variadic", &variadic)
            .end();
    });
    object.text("type", "call");
}

fn aggregate_keys(object: &mut Object<'_>, aggregate: &Aggregate) {
    object.expr("expr", &aggregate.expr);
    object.with("grouping", |out| write_labels(out, &aggregate.grouping));
    object.text("op", aggregate.op.as_str());
    match &aggregate.param {
        Some(param) => object.expr("param", param),
        None => object.raw("param", "null"),
    };
    object.text("type", "aggregation");
    object.raw("without", bool_text(aggregate.without));
}

fn bool_text(is_true: bool) -> &'static str {
    if is_true { "true" } else { "false" }
}

fn binary_keys(object: &mut Object<'_>, binary: &Binary) {
    object.raw("bool", bool_text(binary.return_bool));
    object.expr("lhs", &binary.left);
    match &binary.matching {
        Some(matching) => object.with("matching", |out| write_matching(out, matching)),
        None => object.raw("matching", "null"),
    };
    object.text("op", binary.op.as_str());
    object.expr("rhs", &binary.right);
    object.text("type", "binaryExpr");
}

fn write_matching(out: &mut String, matching: &Matching) {
    let cardinality = match matching.cardinality {
        Cardinality::OneToOne => "one-to-one",
        Cardinality::ManyToOne => "many-to-one",
        Cardinality::OneToMany => "one-to-many",
        Cardinality::ManyToMany => "many-to-many",
    };
    Object::new(out)
        .text("card", cardinality)
        .with("include", |out| write_labels(out, &matching.include))
        .with("labels", |out| write_labels(out, &matching.labels))
        .raw("on", bool_text(matching.on))
        .end();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trees_are_those_of_prometheus() {
        let options = ParseOptions {
            experimental_functions: true,
            duration_expressions: true,
            ..ParseOptions::default()
        };
        let mut count = 0;
        for line in include_str!("tree.txt").lines().skip(1) {
            let (text, tree) = line.split_once(" => ").expect("text => tree");
            assert_eq!(
                parse_tree_json(text, options).as_deref(),
                Ok(tree),
                "{text}"
            );
            count += 1;
        }
        assert!(count > 40, "only {count} trees");
    }
}
