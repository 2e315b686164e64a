//! Python's pickle format, as far as carbon's receiver needs it: lists, tuples, texts, numbers.
//!
//! Grammar: `pickletools` of CPython, protocols 0 to 5. Everything that would name, build or call
//! an object is refused, so there is nothing a message could make us do. Memory stays
//! proportional to the message: texts and tuples that are used again are shared, a list that is
//! used again is refused, and nesting is bounded.

use std::sync::Arc;

/// How deep tuples and lists may nest; a batch of points needs three.
const DEPTH_MAX: usize = 16;

/// Why a message is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PickleError {
    #[error("the message ends in the middle")]
    Truncated,
    #[error("opcode {0:#04x} is not one of lists, tuples, texts and numbers")]
    Opcode(u8),
    #[error("malformed {0}")]
    Malformed(&'static str),
    #[error("a list that is used twice, or nests too deep")]
    Shared,
    #[error("not a list of (path, (time, value))")]
    Shape,
}

/// One point: path, value, seconds since 1970.
pub type PicklePoint = (Arc<str>, f64, f64);

#[derive(Debug, Clone, PartialEq)]
enum Value {
    None,
    Number(f64),
    Text(Arc<str>),
    Tuple(Arc<[Value]>, usize),
    /// Its depth stands beside it, as with tuples.
    List(Vec<Value>, usize),
}

impl Value {
    fn depth(&self) -> usize {
        match self {
            Self::Tuple(_, depth) | Self::List(_, depth) => *depth,
            _ => 0,
        }
    }
}

/// Reads one message without its length in front: `[(path, (time, value)), …]`.
pub fn read(message: &[u8]) -> Result<Vec<PicklePoint>, PickleError> {
    let mut machine = Machine::default();
    let mut input = Input(message);
    while machine.step(&mut input)? {}
    let items = match machine.stack.pop() {
        Some(Value::List(items, _)) => items,
        Some(Value::Tuple(items, _)) => items.to_vec(),
        _ => return Err(PickleError::Shape),
    };
    items.iter().map(point).collect()
}

fn point(item: &Value) -> Result<PicklePoint, PickleError> {
    let two = |value: &Value| match value {
        Value::Tuple(items, _) if items.len() == 2 => Some((items[0].clone(), items[1].clone())),
        Value::List(items, _) if items.len() == 2 => Some((items[0].clone(), items[1].clone())),
        _ => None,
    };
    let number = |value: &Value| match value {
        Value::Number(number) => Some(*number),
        Value::Text(text) => model::number::parse(text.trim()),
        _ => None,
    };
    let (path, datum) = two(item).ok_or(PickleError::Shape)?;
    let (time, value) = two(&datum).ok_or(PickleError::Shape)?;
    match (path, number(&time), number(&value)) {
        (Value::Text(path), Some(time), Some(value)) => Ok((path, value, time)),
        _ => Err(PickleError::Shape),
    }
}

/// What is left of a message.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], PickleError> {
        let (taken, rest) = self
            .0
            .split_at_checked(length)
            .ok_or(PickleError::Truncated)?;
        self.0 = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, PickleError> {
        self.take(1).map(|bytes| bytes[0])
    }

    /// A little-endian number of `length` bytes, at most eight.
    fn unsigned(&mut self, length: usize) -> Result<u64, PickleError> {
        let bytes = self.take(length)?;
        Ok(bytes.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b)))
    }

    fn length(&mut self, length: usize) -> Result<usize, PickleError> {
        let declared = self.unsigned(length)?;
        usize::try_from(declared).map_err(|_| PickleError::Truncated)
    }

    fn text(&mut self, length: usize) -> Result<Value, PickleError> {
        let bytes = self.take(length)?;
        let text = std::str::from_utf8(bytes).map_err(|_| PickleError::Malformed("text"))?;
        Ok(Value::Text(text.into()))
    }

    fn line(&mut self) -> Result<&'a str, PickleError> {
        let end = self.0.iter().position(|byte| *byte == b'\n');
        let line = self.take(end.ok_or(PickleError::Truncated)?)?;
        self.take(1)?;
        std::str::from_utf8(line).map_err(|_| PickleError::Malformed("line"))
    }

    fn line_number(&mut self) -> Result<Value, PickleError> {
        let line = self.line()?;
        let number = model::number::parse(line.strip_suffix('L').unwrap_or(line));
        let number = number.ok_or(PickleError::Malformed("number"))?;
        Ok(Value::Number(number))
    }

    /// A little-endian number in two's complement of any length.
    fn long(&mut self, length: usize) -> Result<Value, PickleError> {
        let bytes = self.take(length)?;
        let negative = bytes.last().is_some_and(|byte| *byte >= 0x80);
        let start = if negative { -1.0 } else { 0.0 };
        let folded = bytes
            .iter()
            .rev()
            .fold(start, |n, byte| n * 256.0 + f64::from(*byte));
        Ok(Value::Number(folded))
    }
}

#[derive(Default)]
struct Machine {
    stack: Vec<Value>,
    /// Heights of the stack.
    marks: Vec<usize>,
    /// `None` for lists, which may not be used again.
    memo: std::collections::BTreeMap<u64, Option<Value>>,
}

impl Machine {
    /// One opcode; false behind the last.
    fn step(&mut self, input: &mut Input<'_>) -> Result<bool, PickleError> {
        let opcode = input.byte()?;
        let value = match opcode {
            b'.' => return Ok(false),
            0x80 => return input.take(1).map(|_| true),
            0x95 => return input.take(8).map(|_| true),
            b'(' => {
                self.marks.push(self.stack.len());
                return Ok(true);
            }
            b'p' | b'q' | b'r' | 0x94 => {
                self.remember(opcode, input)?;
                return Ok(true);
            }
            b'a' | b'e' => {
                self.append(opcode)?;
                return Ok(true);
            }
            b'g' | b'h' | b'j' => self.recall(opcode, input)?,
            b']' => list(Vec::new())?,
            b'l' => list(self.take_to_mark()?)?,
            b')' => tuple(Vec::new())?,
            b't' => tuple(self.take_to_mark()?)?,
            0x85..=0x87 => tuple(self.top(usize::from(opcode - 0x84))?)?,
            b'N' => Value::None,
            0x88 => Value::Number(1.0),
            0x89 => Value::Number(0.0),
            _ => scalar(opcode, input)?,
        };
        self.stack.push(value);
        Ok(true)
    }

    fn key(opcode: u8, input: &mut Input<'_>) -> Result<u64, PickleError> {
        match opcode {
            b'p' | b'g' => {
                let line = input.line()?;
                line.parse().map_err(|_| PickleError::Malformed("memo"))
            }
            b'q' | b'h' => input.unsigned(1),
            _ => input.unsigned(4),
        }
    }

    fn remember(&mut self, opcode: u8, input: &mut Input<'_>) -> Result<(), PickleError> {
        let key = match opcode {
            0x94 => self.memo.len() as u64,
            _ => Self::key(opcode, input)?,
        };
        let top = self.stack.last().ok_or(PickleError::Malformed("stack"))?;
        let kept = match top {
            Value::List(..) => None,
            other => Some(other.clone()),
        };
        self.memo.insert(key, kept);
        Ok(())
    }

    fn recall(&mut self, opcode: u8, input: &mut Input<'_>) -> Result<Value, PickleError> {
        let key = Self::key(opcode, input)?;
        match self.memo.get(&key) {
            Some(Some(value)) => Ok(value.clone()),
            Some(None) => Err(PickleError::Shared),
            None => Err(PickleError::Malformed("memo")),
        }
    }

    fn take_to_mark(&mut self) -> Result<Vec<Value>, PickleError> {
        let mark = self.marks.pop().ok_or(PickleError::Malformed("mark"))?;
        // Values below a mark may have been taken since.
        match mark <= self.stack.len() {
            true => Ok(self.stack.split_off(mark)),
            false => Err(PickleError::Malformed("mark")),
        }
    }

    fn top(&mut self, count: usize) -> Result<Vec<Value>, PickleError> {
        let at = self.stack.len().checked_sub(count);
        Ok(self
            .stack
            .split_off(at.ok_or(PickleError::Malformed("stack"))?))
    }

    fn append(&mut self, opcode: u8) -> Result<(), PickleError> {
        let items = match opcode {
            b'e' => self.take_to_mark()?,
            _ => self.top(1)?,
        };
        let Some(Value::List(list, depth)) = self.stack.last_mut() else {
            return Err(PickleError::Malformed("append"));
        };
        *depth = (*depth).max(depth_above(&items)?);
        list.extend(items);
        Ok(())
    }
}

fn scalar(opcode: u8, input: &mut Input<'_>) -> Result<Value, PickleError> {
    match opcode {
        b'K' => Ok(Value::Number(input.unsigned(1)? as f64)),
        b'M' => Ok(Value::Number(input.unsigned(2)? as f64)),
        b'J' => {
            let bits = input.unsigned(4)? as u32;
            Ok(Value::Number(f64::from(bits as i32)))
        }
        b'G' => {
            let bits = input.unsigned(8)?.swap_bytes();
            Ok(Value::Number(f64::from_bits(bits)))
        }
        b'I' | b'L' | b'F' => input.line_number(),
        0x8a => {
            let length = input.length(1)?;
            input.long(length)
        }
        0x8b => {
            let length = input.length(4)?;
            input.long(length)
        }
        b'U' | b'C' | 0x8c => {
            let length = input.length(1)?;
            input.text(length)
        }
        b'T' | b'B' | b'X' => {
            let length = input.length(4)?;
            input.text(length)
        }
        0x8d | 0x8e => {
            let length = input.length(8)?;
            input.text(length)
        }
        b'V' => Ok(Value::Text(input.line()?.into())),
        b'S' => {
            let line = input.line()?;
            let quoted = line.len() >= 2 && line.starts_with(['\'', '"']);
            match quoted && line.as_bytes().first() == line.as_bytes().last() {
                true => Ok(Value::Text(line[1..line.len() - 1].into())),
                false => Err(PickleError::Malformed("text")),
            }
        }
        other => Err(PickleError::Opcode(other)),
    }
}

fn list(items: Vec<Value>) -> Result<Value, PickleError> {
    let depth = depth_above(&items)?;
    Ok(Value::List(items, depth))
}

fn tuple(items: Vec<Value>) -> Result<Value, PickleError> {
    let depth = depth_above(&items)?;
    // A tuple may be used again, so what it holds must not be a list.
    match items.iter().any(|item| matches!(item, Value::List(..))) {
        true => Err(PickleError::Shared),
        false => Ok(Value::Tuple(items.into(), depth)),
    }
}

fn depth_above(items: &[Value]) -> Result<usize, PickleError> {
    let depth = 1 + items.iter().map(Value::depth).max().unwrap_or(0);
    match depth <= DEPTH_MAX {
        true => Ok(depth),
        false => Err(PickleError::Shared),
    }
}
