//! One line: `name:value|type[|@rate][|#tag:value,…]`, values and samples repeated.

use std::borrow::Cow;

use model::number;

use super::tags;

/// What happened, once.
#[derive(Debug, Clone, PartialEq)]
pub struct Event<'a> {
    /// Without tags.
    pub name: Cow<'a, str>,
    /// Names are legal ones.
    pub tags: Vec<(String, String)>,
    pub kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// Scaled up by the sample rate.
    Count(f64),
    Gauge(f64),
    /// A change of a gauge: its value had a sign.
    Change(f64),
    /// A value, as seconds where it was a timer's, and how many it stands for.
    Observation {
        value: f64,
        times: f64,
    },
}

/// Lines and parts of lines that became no event.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    pub malformed: u64,
    /// Tags that were left out.
    pub bad_tags: u64,
}

/// Of a line: value, type, and six more.
const PARTS_MAX: usize = 8;
/// An observation at a rate lower than one in so many counts as so many.
const TIMES_MAX: f64 = 1e9;

/// The events of one line. Text is UTF-8 already.
pub fn parse<'a>(line: &'a str, tally: &mut Tally) -> Vec<Event<'a>> {
    let mut events = Vec::new();
    if line.is_empty() {
        return events;
    }
    if parse_into(line, &mut events, tally).is_none() {
        tally.malformed += 1;
    }
    events
}

fn parse_into<'a>(line: &'a str, events: &mut Vec<Event<'a>>, tally: &mut Tally) -> Option<()> {
    let (name, rest) = line.split_once(':').filter(|(name, _)| !name.is_empty())?;
    let name_tags = tags::of_name(name, &mut tally.bad_tags);
    let is_datadog = rest.contains("|#");
    // Two styles of tags in one line are an error.
    if is_datadog && !name_tags.tags.is_empty() {
        return None;
    }
    let (values, behind) = rest.split_once('|')?;
    let context = Context {
        name: &name_tags.name,
        tags: &name_tags.tags,
    };
    if context.name.is_empty() {
        return None;
    }
    if values.contains(':') {
        // Datadog's packed values, for what can be observed.
        let kind = behind.split('|').next().unwrap_or_default();
        if !matches!(kind, "ms" | "h" | "d") {
            return None;
        }
        for value in values.split(':') {
            context.sample(value, behind, events, tally);
        }
    } else if is_datadog {
        context.sample(values, behind, events, tally);
    } else {
        for sample in rest.split(':') {
            let (value, behind) = sample.split_once('|').unwrap_or((sample, ""));
            context.sample(value, behind, events, tally);
        }
    }
    Some(())
}

/// What all samples of a line share.
struct Context<'a, 't> {
    name: &'t Cow<'a, str>,
    tags: &'t [(String, String)],
}

impl<'a> Context<'a, '_> {
    fn sample(&self, value: &str, behind: &str, events: &mut Vec<Event<'a>>, tally: &mut Tally) {
        match self.read(value, behind, tally) {
            Some(Some(event)) => events.push(event),
            Some(None) => {}
            None => tally.malformed += 1,
        }
    }

    /// `None`: malformed; an inner `None`: nothing happened.
    fn read(&self, value: &str, behind: &str, tally: &mut Tally) -> Option<Option<Event<'a>>> {
        let mut parts = behind.split('|');
        let kind = parts.next()?;
        let is_relative = value.starts_with(['+', '-']);
        let value = number::parse(value).filter(|value| value.is_finite())?;
        let mut tags = self.tags.to_vec();
        let mut rate = 1.0;
        for (index, part) in parts.enumerate() {
            if index + 2 >= PARTS_MAX {
                return None;
            }
            match part.split_at_checked(1)? {
                // Told, and then as if there were none: the sample itself is right.
                ("@", text) => {
                    let read = read_rate(text);
                    tally.malformed += u64::from(read.is_none());
                    rate = read.unwrap_or(1.0);
                }
                ("#", text) => tags::of_datadog(text, &mut tags, &mut tally.bad_tags),
                ("c", text) => {
                    let id = text.strip_prefix(':').filter(|id| !id.is_empty())?;
                    tags.push(("container_id".to_owned(), id.to_owned()));
                }
                // A time of its own is checked and not used, as there.
                ("T", text) => drop(text.parse::<i64>().ok()?),
                _ => return None,
            }
        }
        let kind = match kind {
            "c" => Kind::Count(value / rate),
            "g" if is_relative => Kind::Change(value),
            "g" => Kind::Gauge(value),
            "ms" => observation(value / 1000.0, rate),
            "h" | "d" => observation(value, rate),
            _ => return None,
        };
        match kind {
            // A counter that goes down is refused there, too.
            Kind::Count(count) if count < 0.0 || !count.is_finite() => return None,
            Kind::Observation { times, .. } if times < 1.0 => return Some(None),
            _ => {}
        }
        let name = self.name.clone();
        Some(Some(Event { name, tags, kind }))
    }
}

fn observation(value: f64, rate: f64) -> Kind {
    let times = (1.0 / rate).trunc().min(TIMES_MAX);
    Kind::Observation { value, times }
}

/// A rate of zero stands for one.
fn read_rate(text: &str) -> Option<f64> {
    let rate = number::parse(text).filter(|rate| rate.is_finite())?;
    Some(if rate == 0.0 { 1.0 } else { rate })
}
