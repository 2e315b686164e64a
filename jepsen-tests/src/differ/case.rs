//! A finding as a file: the question and the data, whole, so that it replays when the generator
//! has long changed.

use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::{Value, json};

use super::data::{Data, Point, Series, decode, encode};
use super::question::Asked;

#[derive(Debug, Clone, PartialEq)]
pub struct Case {
    pub asked: Asked,
    pub data: Data,
}

impl Case {
    pub fn write(&self, directory: &Path, seed: u64, n: usize) -> anyhow::Result<PathBuf> {
        std::fs::create_dir_all(directory)
            .with_context(|| format!("create {}", directory.display()))?;
        let path = directory.join(format!("case-{seed}-{n}.json"));
        std::fs::write(&path, serde_json::to_vec(&self.json())?)
            .with_context(|| format!("write {}", path.display()))?;
        Ok(path)
    }

    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
        Self::parse(&serde_json::from_slice(&text)?)
            .with_context(|| format!("{} is no case", path.display()))
    }

    fn json(&self) -> Value {
        let series: Vec<Value> = self
            .data
            .series
            .iter()
            .map(|series| {
                let points = series
                    .points
                    .iter()
                    .map(|p| json!([p.at_ms, encode(&p.value)]));
                json!({"labels": series.labels, "points": points.collect::<Vec<_>>()})
            })
            .collect();
        json!({"asked": self.asked.json(), "series": series, "rests": self.data.rests})
    }

    fn parse(value: &Value) -> anyhow::Result<Self> {
        let asked = Asked::read(&value["asked"]).context("no question")?;
        let series = value["series"].as_array().context("no series")?;
        let series = series.iter().map(|one| {
            let points = one["points"].as_array().context("no points")?;
            let points = points.iter().map(|point| {
                Ok(Point {
                    at_ms: point[0].as_i64().context("no time")?,
                    value: decode(point[1].as_str().context("no value")?)?,
                })
            });
            Ok(Series {
                labels: serde_json::from_value(one["labels"].clone())?,
                points: points.collect::<anyhow::Result<_>>()?,
            })
        });
        Ok(Self {
            asked,
            data: Data {
                series: series.collect::<anyhow::Result<_>>()?,
                rests: value["rests"].as_bool().unwrap_or(false),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::generate::Generator;
    use super::*;

    #[test]
    fn a_case_is_read_as_it_was_written() {
        let case = Case {
            asked: Generator::new(1, true).question().asked(),
            data: Data::generate(1, true),
        };
        let directory = tempfile::tempdir().unwrap();
        let path = case.write(directory.path(), 1, 0).unwrap();
        let read = Case::read(&path).unwrap();
        // NaN is not equal to itself; its bits are.
        assert_eq!(read.json(), case.json());
    }
}
