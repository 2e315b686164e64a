//! External labels of what leaves by remote read.
//!
//! A reader knows our series with the external labels on, and asks for them so: a matcher that an
//! external label satisfies is true of every series here. As in Prometheus only one for equality
//! is taken so. Unlike it, `label=""` is not taken for one of a label that is not external.

use model::{Labels, MatchOp, Matcher};
use proto::remote::Label;

use super::samples::field_len;

/// `global.external_labels`.
#[derive(Debug, Clone, Default)]
pub struct External(pub Labels);

impl External {
    /// The matchers that are left to ask of our series.
    pub fn strip(&self, matchers: &[Matcher]) -> Vec<Matcher> {
        let asked = matchers.iter().filter(|m| {
            let external = self.0.get(&m.name);
            !(m.op == MatchOp::Equal && external == Some(m.value.as_str()))
        });
        asked.cloned().collect()
    }

    /// The series' labels and the external ones it lacks, sorted.
    pub fn add(&self, labels: &Labels) -> Vec<Label> {
        let lacking = self.0.iter().filter(|(name, _)| labels.get(name).is_none());
        let all = labels.iter().chain(lacking);
        let mut all: Vec<_> = all
            .map(|(name, value)| Label {
                name: name.to_owned(),
                value: value.to_owned(),
            })
            .collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// What [`Self::add`] gives takes so much in a message of them, with their keys.
    pub fn encoded_len(&self, labels: &Labels) -> usize {
        let lacking = self.0.iter().filter(|(name, _)| labels.get(name).is_none());
        let text = |text: &str| match text.len() {
            0 => 0,
            len => field_len(len),
        };
        let all = labels.iter().chain(lacking);
        all.map(|(name, value)| field_len(text(name) + text(value)))
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matchers_of_external_labels_go_and_the_labels_come_back() {
        let external = External(Labels::from_pairs([("region", "eu"), ("zone", "z")]));
        let asked = [
            Matcher::equal("__name__", "up"),
            Matcher::equal("region", "eu"),
            Matcher::equal("zone", "other"),
            Matcher::equal("nosuch", ""),
            Matcher::new(MatchOp::Regex, "region", "e.").unwrap(),
        ];
        let left = [0, 2, 3, 4].map(|i: usize| asked[i].clone());
        assert_eq!(external.strip(&asked), left);
        let labels = Labels::from_pairs([("__name__", "up"), ("zone", "own"), ("a", "b")]);
        let added: Vec<_> = external.add(&labels);
        let added: Vec<_> = added.iter().map(|l| (&*l.name, &*l.value)).collect();
        assert_eq!(
            added,
            [
                ("__name__", "up"),
                ("a", "b"),
                ("region", "eu"),
                ("zone", "own")
            ]
        );
    }
}
