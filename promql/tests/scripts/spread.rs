//! The same scripts however the series lie on shards: in one place, on one shard, on three, on
//! seven, and on so many that most are empty.
//!
//! What the scripts beside `sharded` expect was answered by Prometheus 3.5.3. An answer must be the
//! expected one for every number of shards, and its bytes the same for all of them.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use model::Timestamp;
use model::source::Source;
use promql::{Engine, EngineOptions, QueryParams};

use crate::memory::Memory;
use crate::run::{Outcome, Still, Tolerance, block_on, run, run_over};
use crate::script::{Command, Eval, Item, parse};
use crate::sharded::Shards;
use crate::{read, scripts};

const COUNTS: [usize; 4] = [1, 3, 7, 64];

fn all_scripts() -> Vec<(String, String)> {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let paths = ["sharded", "scripts"].map(|dir| scripts(&tests.join(dir)));
    let named = |path: std::path::PathBuf| (path.display().to_string(), read(&path));
    paths.into_iter().flatten().map(named).collect()
}

#[test]
fn every_number_of_shards_gives_the_expected_answer() {
    let mut failures = Vec::new();
    for (name, text) in all_scripts() {
        let is_own = name.contains("sharded");
        // One place may add up in another order than many; of these scripts no sum shows it.
        let tolerance = match is_own {
            true => Tolerance::None,
            false => Tolerance::Millionth,
        };
        let counts = COUNTS.map(Some);
        for count in counts.into_iter().chain([None]) {
            let outcomes = match count {
                Some(_) => run_over(&text, EngineOptions::default(), tolerance, count),
                None if is_own => run(&text, EngineOptions::default(), tolerance),
                None => continue,
            };
            assert!(outcomes.len() >= 5, "{name} evaluates next to nothing");
            for (line, outcome) in outcomes {
                if let Outcome::Failed(why) = outcome {
                    failures.push(format!("{name}:{line} on {count:?} shards: {why}"));
                }
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn the_bytes_are_the_same_for_every_number_of_shards() {
    let (mut asked, mut empty) = (0, 0);
    for (name, text) in all_scripts() {
        let (mut memory, mut options) = (Memory::default(), EngineOptions::default());
        for command in parse(&text) {
            match command {
                Command::Clear => memory = Memory::default(),
                Command::Options(names) => switch(&mut options, &names),
                Command::Load(series) => {
                    for one in series {
                        for (at, item) in one.samples {
                            put(&mut memory, &one.labels, at, item);
                        }
                    }
                }
                Command::Eval(eval) => {
                    let engine = Engine::new(options.clone(), Arc::new(Still));
                    let answers = COUNTS.map(|count| {
                        let shards = Shards::of(&memory, count, Arc::new(Still));
                        empty += shards.empty();
                        answer(&engine, &shards, &eval)
                    });
                    for (count, more) in COUNTS.iter().zip(&answers) {
                        let place = format!("{name}:{} {} on {count}", eval.line, eval.query);
                        assert_eq!(*more, answers[0], "{place}");
                    }
                    asked += 1;
                }
            }
        }
    }
    assert!(asked > 300 && empty > asked, "{asked} {empty}");
}

fn switch(options: &mut EngineOptions, names: &[String]) {
    for name in names {
        match name.as_str() {
            "experimental_functions" => options.experimental_functions = true,
            "delayed_name_removal" => options.delayed_name_removal = true,
            "type_and_unit_labels" => options.type_and_unit_labels = true,
            _ => {}
        }
    }
}

fn put(memory: &mut Memory, labels: &model::Labels, at: i64, item: Item) {
    match item {
        Item::Float(value) => memory.add(labels, at, value),
        Item::Histogram(told) => memory.add_histogram(labels, at, told.histogram),
    }
}

/// Everything an answer says: values to the bit, order, texts.
fn answer(engine: &Engine, source: &dyn Source, eval: &Eval) -> String {
    let (start, end) = (Timestamp(eval.start), Timestamp(eval.end));
    let params = QueryParams::default();
    let result = block_on(async {
        match eval.step > 0 {
            true => {
                let step = Duration::from_millis(eval.step as u64);
                engine
                    .range(source, &eval.query, start, end, step, &params)
                    .await
            }
            false => engine.instant(source, &eval.query, end, &params).await,
        }
    });
    match result {
        Ok(result) => format!(
            "{:?} {:?} {:?}",
            result.value, result.warnings, result.infos
        ),
        Err(error) => error.to_string(),
    }
}
