//! Protobuf's wire format: a reader that borrows from the message.
//!
//! [`Fields`] walks a message's fields without copying; what decodes many samples a second is
//! built on it. Repeated numbers are read packed and one by one, as protobuf demands of a reader.
//! Not here: what a message means.

/// Bytes that are not a protobuf message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    #[error("the message ends in the middle of a field")]
    Truncated,
    #[error("a varint of more than 64 bits")]
    VarintTooLong,
    #[error("field number {0} out of range")]
    FieldNumber(u64),
    #[error("field {field} of wire type {wire_type}, which this message does not use")]
    WireType { field: u32, wire_type: u8 },
    #[error("field {0} is not UTF-8")]
    NotUtf8(u32),
}

/// A field's value as it stands on the wire.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    Bytes(&'a [u8]),
}

/// One field of a message.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Field<'a> {
    pub number: u32,
    pub value: Value<'a>,
}

impl<'a> Field<'a> {
    pub fn bytes(&self) -> Result<&'a [u8], WireError> {
        match self.value {
            Value::Bytes(bytes) => Ok(bytes),
            _ => Err(self.unexpected()),
        }
    }

    pub fn text(&self) -> Result<&'a str, WireError> {
        std::str::from_utf8(self.bytes()?).map_err(|_| WireError::NotUtf8(self.number))
    }

    pub fn double(&self) -> Result<f64, WireError> {
        match self.value {
            Value::Fixed64(bits) => Ok(f64::from_bits(bits)),
            _ => Err(self.unexpected()),
        }
    }

    /// Any varint but a zigzag one; a shorter type is a cast of it.
    pub fn int64(&self) -> Result<i64, WireError> {
        match self.value {
            Value::Varint(word) => Ok(word as i64),
            _ => Err(self.unexpected()),
        }
    }

    /// A zigzag varint.
    pub fn sint64(&self) -> Result<i64, WireError> {
        Ok(unzigzag(self.int64()? as u64))
    }

    /// Adds what the field holds to a `repeated double`.
    pub fn append_doubles(&self, to: &mut Vec<f64>) -> Result<(), WireError> {
        let Value::Bytes(bytes) = self.value else {
            to.push(self.double()?);
            return Ok(());
        };
        let (words, rest) = bytes.as_chunks();
        if !rest.is_empty() {
            return Err(WireError::Truncated);
        }
        to.extend(words.iter().map(|word| f64::from_le_bytes(*word)));
        Ok(())
    }

    /// Adds what the field holds to a `repeated sint64`.
    pub fn append_sint64s(&self, to: &mut Vec<i64>) -> Result<(), WireError> {
        let Value::Bytes(bytes) = self.value else {
            to.push(self.sint64()?);
            return Ok(());
        };
        let mut packed = Fields::new(bytes);
        while !packed.rest.is_empty() {
            to.push(unzigzag(packed.varint()?));
        }
        Ok(())
    }

    /// Adds what the field holds to a `repeated uint32`.
    pub fn append_uint32s(&self, to: &mut Vec<u32>) -> Result<(), WireError> {
        let Value::Bytes(bytes) = self.value else {
            to.push(self.int64()? as u32);
            return Ok(());
        };
        let mut packed = Fields::new(bytes);
        while !packed.rest.is_empty() {
            to.push(packed.varint()? as u32);
        }
        Ok(())
    }

    fn unexpected(&self) -> WireError {
        let wire_type = match self.value {
            Value::Varint(_) => 0,
            Value::Fixed64(_) => 1,
            Value::Bytes(_) => 2,
            Value::Fixed32(_) => 5,
        };
        WireError::WireType {
            field: self.number,
            wire_type,
        }
    }
}

fn unzigzag(word: u64) -> i64 {
    (word >> 1) as i64 ^ -((word & 1) as i64)
}

/// Cuts one message off a sequence of them, each behind its length (encoding `delimited`).
pub fn split_delimited(bytes: &[u8]) -> Result<(&[u8], &[u8]), WireError> {
    let mut fields = Fields::new(bytes);
    let length = fields.varint()?;
    let length = usize::try_from(length).map_err(|_| WireError::Truncated)?;
    let message = fields.cut(length)?;
    Ok((message, fields.rest))
}

/// Walks the fields of one message in wire order. Ends after the first error.
#[derive(Debug, Clone)]
pub struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub fn new(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    fn read(&mut self) -> Result<Field<'a>, WireError> {
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3)
            .ok()
            .filter(|n| (1..1 << 29).contains(n))
            .ok_or(WireError::FieldNumber(tag >> 3))?;
        let value = match (tag & 7) as u8 {
            0 => Value::Varint(self.varint()?),
            1 => Value::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => {
                let len = usize::try_from(self.varint()?).map_err(|_| WireError::Truncated)?;
                Value::Bytes(self.cut(len)?)
            }
            5 => Value::Fixed32(u32::from_le_bytes(self.array()?)),
            wire_type => {
                return Err(WireError::WireType {
                    field: number,
                    wire_type,
                });
            }
        };
        Ok(Field { number, value })
    }

    fn cut(&mut self, len: usize) -> Result<&'a [u8], WireError> {
        let (taken, rest) = self
            .rest
            .split_at_checked(len)
            .ok_or(WireError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(WireError::Truncated)?;
        self.rest = rest;
        Ok(*taken)
    }

    fn varint(&mut self) -> Result<u64, WireError> {
        let mut word = 0;
        for shift in (0..70).step_by(7) {
            let [byte] = self.array()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(WireError::VarintTooLong);
            }
            word |= bits << shift;
            if byte < 0x80 {
                return Ok(word);
            }
        }
        Err(WireError::VarintTooLong)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>, WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.read();
        if field.is_err() {
            self.rest = &[];
        }
        Some(field)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message;

    use super::*;
    use crate::remote::{Histogram, Label, Sample};

    fn read_label(message: &[u8]) -> Result<Label, WireError> {
        let mut label = Label::default();
        for field in Fields::new(message) {
            let field = field?;
            match field.number {
                1 => label.name = field.text()?.to_owned(),
                2 => label.value = field.text()?.to_owned(),
                _ => {}
            }
        }
        Ok(label)
    }

    fn read_sample(message: &[u8]) -> Result<Sample, WireError> {
        let mut sample = Sample::default();
        for field in Fields::new(message) {
            let field = field?;
            match field.number {
                1 => sample.value = field.double()?,
                2 => sample.timestamp = field.int64()?,
                _ => {}
            }
        }
        Ok(sample)
    }

    #[test]
    fn broken_messages_are_named() {
        for (bytes, error) in [
            (&b"\x0a\x05ab"[..], WireError::Truncated),
            (b"\x80", WireError::Truncated),
            (b"\x00\x01", WireError::FieldNumber(0)),
            (
                b"\x0b",
                WireError::WireType {
                    field: 1,
                    wire_type: 3,
                },
            ),
            (b"\x0a\x01\xff", WireError::NotUtf8(1)),
            (
                b"\x08\x01",
                WireError::WireType {
                    field: 1,
                    wire_type: 0,
                },
            ),
            (&[0xff; 11], WireError::VarintTooLong),
        ] {
            assert_eq!(read_label(bytes), Err(error));
        }
    }

    proptest! {
        #[test]
        fn reads_what_the_generated_types_write(name: String, value: String, bits: u64, timestamp: i64) {
            let label = Label { name, value };
            prop_assert_eq!(read_label(&label.encode_to_vec()), Ok(label));
            let sample = Sample { value: f64::from_bits(bits), timestamp };
            let read = read_sample(&sample.encode_to_vec()).unwrap();
            prop_assert_eq!((read.value.to_bits(), read.timestamp), (bits, timestamp));
        }

        #[test]
        fn repeated_numbers_are_read_packed_and_one_by_one(deltas: Vec<i64>, counts: Vec<f64>) {
            let message = Histogram {
                positive_deltas: deltas.clone(),
                positive_counts: counts.clone(),
                ..Histogram::default()
            };
            let bits = |floats: &[f64]| floats.iter().map(|f| f.to_bits()).collect::<Vec<_>>();
            let mut one_by_one = Vec::new();
            for delta in &deltas {
                prost::encoding::sint64::encode(12, delta, &mut one_by_one);
            }
            for count in &counts {
                prost::encoding::double::encode(13, count, &mut one_by_one);
            }
            for bytes in [message.encode_to_vec(), one_by_one] {
                let (mut read_deltas, mut read_counts) = (Vec::new(), Vec::new());
                for field in Fields::new(&bytes) {
                    let field = field.unwrap();
                    match field.number {
                        12 => field.append_sint64s(&mut read_deltas).unwrap(),
                        13 => field.append_doubles(&mut read_counts).unwrap(),
                        other => panic!("field {other}"),
                    }
                }
                prop_assert_eq!(&read_deltas, &deltas);
                prop_assert_eq!(bits(&read_counts), bits(&counts));
            }
        }

        #[test]
        fn delimited_messages_come_off_one_by_one(messages in prop::collection::vec(any::<Vec<u8>>(), 0..4), junk: Vec<u8>) {
            let mut bytes = Vec::new();
            for message in &messages {
                prost::encoding::encode_varint(message.len() as u64, &mut bytes);
                bytes.extend(message);
            }
            let mut rest = &bytes[..];
            for message in &messages {
                let (first, behind) = split_delimited(rest).unwrap();
                prop_assert_eq!(first, &message[..]);
                rest = behind;
            }
            prop_assert!(rest.is_empty());
            if let Ok((message, behind)) = split_delimited(&junk) {
                prop_assert!(message.len() + behind.len() < junk.len());
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic_and_agree_with_the_generated_types(bytes in prop::collection::vec(any::<u8>(), 0..48)) {
            if let Ok(read) = read_label(&bytes) {
                prop_assert_eq!(Label::decode(&bytes[..]).ok(), Some(read));
            }
        }
    }
}
