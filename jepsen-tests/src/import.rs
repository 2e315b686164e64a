//! `import`: what a real Prometheus has stored, taken into quorate, and both asked the same.
//!
//! A Prometheus gets data of every kind, native histograms among it, has some of it deleted, and is
//! stopped. Its data directory (a head alone), its snapshot (a block, of which something is deleted
//! too) and blocks that promtool makes of OpenMetrics are imported, each into a fresh quorate, by
//! quorate's own command line. Every metric is then asked of both: all samples as they are, and a
//! range with steps. An import that is run again must store the same and refuse nothing. Then the way back: a
//! snapshot of the quorate is written as blocks, and a fresh Prometheus with these must answer as the first one.

mod said;

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fmt::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, bail, ensure};
use lexopt::ValueExt;
use model::Value;

use crate::differ::command::Find;
use crate::differ::data::{BEGIN_MS, Data, END_MS, Series};
use crate::differ::peers::{Client, Folder, Programs, Prometheus, Quorate};
use crate::differ::question::{Asked, At, escaped};

pub const USAGE: &str = "\
jepsen-tests import [--seed 1] [--prometheus PATH] [--promtool PATH] [--bin PATH]
    data directories of a real Prometheus imported into quorate: both must answer the same";

/// Exit code of what cannot be done on this machine.
const SKIPPED: u8 = 77;

/// Runs it; success only when no answer differs.
pub fn import(arguments: Vec<OsString>, quorate: Find) -> anyhow::Result<ExitCode> {
    let mut seed = 1;
    let mut binary = None;
    let mut prometheus = std::env::var_os("PROMETHEUS_BIN").map(PathBuf::from);
    let mut promtool = std::env::var_os("PROMTOOL_BIN").map(PathBuf::from);
    let mut parser = lexopt::Parser::from_args(arguments);
    while let Some(argument) = parser.next()? {
        match argument {
            lexopt::Arg::Long("seed") => seed = parser.value()?.parse()?,
            lexopt::Arg::Long("bin") => binary = Some(parser.value()?.into()),
            lexopt::Arg::Long("prometheus") => prometheus = Some(parser.value()?.into()),
            lexopt::Arg::Long("promtool") => promtool = Some(parser.value()?.into()),
            other => bail!("{}\n{USAGE}", other.unexpected()),
        }
    }
    let Some(prometheus) = prometheus else {
        println!("SKIP: no Prometheus to import from (--prometheus or PROMETHEUS_BIN)");
        return Ok(ExitCode::from(SKIPPED));
    };
    let beside = || Some(prometheus.parent()?.join("promtool")).filter(|path| path.is_file());
    let promtool = promtool.or_else(beside);
    let (launcher, quorate) = quorate(binary)?;
    let programs = Programs {
        launcher,
        quorate,
        prometheus: Some(prometheus.canonicalize()?),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let differences = runtime.block_on(course(&programs, promtool.as_deref(), seed))?;
    println!("{}", if differences == 0 { "VALID" } else { "INVALID" });
    Ok(ExitCode::from(u8::from(differences > 0)))
}

async fn course(programs: &Programs, promtool: Option<&Path>, seed: u64) -> anyhow::Result<usize> {
    let data = Data::generate(seed, true);
    let prometheus = Prometheus::start(programs).await?;
    let mut client = Client::new(prometheus.address);
    client.load(&data.slices()).await?;
    said::tell(&mut client).await?;
    client.order(&deletion(&data.series[0])).await?;
    let snapshot = client.order("/api/v1/admin/tsdb/snapshot").await?;
    let snapshot: serde_json::Value = serde_json::from_slice(&snapshot)?;
    let name = snapshot["data"]["name"]
        .as_str()
        .context("a snapshot has a name")?;
    let folder = prometheus.stop().await?;
    let head = Prometheus::data(&folder);
    let blocks = Folder::create("prometheus-snapshot")?;
    std::fs::rename(head.join("snapshots").join(name), Prometheus::data(&blocks))?;
    let mut differences = side_by_side(programs, folder, &data, HEAD).await?;

    // Something of the block goes too, which its tombstones tell.
    let prometheus = Prometheus::start_in(programs, blocks).await?;
    let mut client = Client::new(prometheus.address);
    client.order(&deletion(&data.series[1])).await?;
    let blocks = prometheus.stop().await?;
    differences += side_by_side(programs, blocks, &data, "blocks").await?;

    match promtool {
        Some(promtool) => {
            let floats = Data::generate(seed, false);
            differences += openmetrics(programs, promtool, &floats).await?;
        }
        None => println!("no promtool beside Prometheus: its blocks are not compared"),
    }
    Ok(differences)
}

/// Half of what a series has.
fn deletion(series: &Series) -> String {
    let selector = escaped(&crate::differ::data::selector(&series.labels));
    let (start, end) = (BEGIN_MS as f64 / 1e3, (BEGIN_MS + END_MS) as f64 / 2e3);
    format!("/api/v1/admin/tsdb/delete_series?match%5B%5D={selector}&start={start}&end={end}")
}

/// Imports a data directory, twice, and compares with the Prometheus that it belongs to.
async fn side_by_side(
    programs: &Programs,
    folder: Folder,
    data: &Data,
    what: &str,
) -> anyhow::Result<usize> {
    let quorate = Quorate::start(programs, 1, 4).await?;
    let address = *quorate.addresses().first().context("one node")?;
    let from = Prometheus::data(&folder).display().to_string();
    let before = files(&Prometheus::data(&folder))?;
    let words = ["import-blocks", "--from", &from];
    let first = run_import(&programs.quorate, &words, address)?;
    let again = run_import(&programs.quorate, &words, address)?;
    ensure!(first == again, "again it says {again:?} after {first:?}");
    ensure!(
        before == files(&Prometheus::data(&folder))?,
        "the directory was changed"
    );
    let dir = Prometheus::data(&folder);
    let told = flipped(&programs.quorate, &dir, address, &first)?;
    println!("{what}: {told} flipped bytes were told or changed nothing");
    let prometheus = Prometheus::start_in(programs, folder).await?;
    let differences = compare(prometheus.address, address, data, what).await?;
    if what == HEAD {
        let (mut reference, mut own) = (Client::new(prometheus.address), Client::new(address));
        said::compare(&mut reference, &mut own).await?;
    }
    println!("{what}: {}; {differences} differences", first.trim());
    let exported = export(programs, &quorate).await?;
    let what = format!("{what}, exported");
    let back = Prometheus::start_in(programs, exported).await?;
    Ok(differences + compare(prometheus.address, back.address, data, &what).await?)
}

/// A folder with what a quorate holds as the data directory of a Prometheus.
async fn export(programs: &Programs, quorate: &Quorate) -> anyhow::Result<Folder> {
    let address = *quorate.addresses().first().context("one node")?;
    let mut client = Client::new(address);
    let answer = client.order("/api/v1/admin/tsdb/snapshot").await?;
    let answer: serde_json::Value = serde_json::from_slice(&answer)?;
    let name = answer["data"]["name"].as_str();
    let name = name.context("a snapshot has a name")?;
    let found = files(&quorate.folder.0)?.into_iter().find_map(|(path, _)| {
        let mut above = path.ancestors();
        let snapshot = above.find(|dir| dir.file_name() == Some(OsStr::new(name)));
        snapshot.map(Path::to_owned)
    });
    let snapshot = found.context("a snapshot has files")?;
    let folder = Folder::create("exported")?;
    let mut command = Command::new(&programs.quorate);
    command.args(["tsdb", "export-blocks"]).arg(snapshot);
    let ran = command.arg(Prometheus::data(&folder)).output()?;
    let complained = String::from_utf8_lossy(&ran.stderr).into_owned();
    ensure!(ran.status.success(), "export-blocks: {complained}");
    Ok(folder)
}

/// Promtool's blocks of a text beside the text itself, and both beside Prometheus.
async fn openmetrics(programs: &Programs, promtool: &Path, data: &Data) -> anyhow::Result<usize> {
    let folder = Folder::create("openmetrics")?;
    let text = folder.0.join("text");
    std::fs::write(&text, as_text(data))?;
    let blocks = Prometheus::data(&folder);
    let made = Command::new(promtool)
        .args(["tsdb", "create-blocks-from", "openmetrics"])
        .args([&text, &blocks])
        .output()?;
    let said = String::from_utf8_lossy(&made.stderr).into_owned();
    ensure!(made.status.success(), "promtool: {said}");
    let quorate = Quorate::start(programs, 1, 4).await?;
    let address = *quorate.addresses().first().context("one node")?;
    let path = text.display().to_string();
    let said = run_import(&programs.quorate, &["import-openmetrics", &path], address)?;
    let by_text = folder.0.join("data").display().to_string();
    let again = run_import(
        &programs.quorate,
        &["import-blocks", "--from", &by_text],
        address,
    )?;
    ensure!(
        said == again,
        "by text {said:?}, by promtool's blocks {again:?}"
    );
    let differences = side_by_side(programs, folder, data, "promtool's blocks").await?;
    Ok(differences)
}

/// Floats only; values as exact as they are.
fn as_text(data: &Data) -> String {
    let mut text = String::new();
    for series in &data.series {
        let pairs = series.labels.iter().map(|(name, value)| {
            let value = value.replace('\\', "\\\\").replace('"', "\\\"");
            format!("\"{name}\"=\"{}\"", value.replace('\n', "\\n"))
        });
        let labels: Vec<String> = pairs.collect();
        let name = series.labels.iter().find(|(name, _)| name == "__name__");
        let Some((_, name)) = name.filter(|(_, name)| is_plain(name)) else {
            continue;
        };
        let labels: Vec<&str> = labels
            .iter()
            .filter(|pair| !pair.starts_with("\"__name__\""))
            .map(String::as_str)
            .collect();
        for point in &series.points {
            let Value::Float(value) = point.value else {
                continue;
            };
            // The text has one word for all of these.
            if value.is_nan() {
                continue;
            }
            let value = match value {
                f64::INFINITY => "+Inf".to_owned(),
                f64::NEG_INFINITY => "-Inf".to_owned(),
                value => format!("{value:?}"),
            };
            let (seconds, millis) = (point.at_ms / 1000, point.at_ms % 1000);
            writeln!(
                text,
                "{name}{{{}}} {value} {seconds}.{millis:03}",
                labels.join(",")
            )
            .expect("a String grows");
        }
    }
    text.push_str("# EOF\n");
    text
}

fn is_plain(name: &str) -> bool {
    name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// A data directory without blocks.
const HEAD: &str = "a head";
/// Places tried in each file.
const FLIPS: u64 = 6;

/// Imports with one byte of a file changed: either that is told with the file's name, or the import
/// is the same as before. What a wrong byte had let in would show in the comparison behind this.
fn flipped(quorate: &Path, dir: &Path, address: SocketAddr, first: &str) -> anyhow::Result<usize> {
    let mut tried = 0;
    let names = ["index", "tombstones", "meta.json"];
    for (path, len) in files(dir)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let is_number = name.bytes().all(|b| b.is_ascii_digit());
        if len == 0 || !(is_number || names.contains(&&*name)) {
            continue;
        }
        let whole = std::fs::read(&path)?;
        for flip in 0..FLIPS {
            let mut bytes = whole.clone();
            let at = (len * flip / FLIPS + flip).min(len - 1) as usize;
            bytes[at] ^= 1 << (flip % 8);
            std::fs::write(&path, &bytes)?;
            let ran = import_command(
                quorate,
                &["import-blocks", "--from"],
                &[dir.as_os_str()],
                address,
            )
            .output();
            std::fs::write(&path, &whole)?;
            let ran = ran?;
            let said = String::from_utf8_lossy(&ran.stdout).into_owned();
            let complained = String::from_utf8_lossy(&ran.stderr).into_owned();
            let told = complained.contains(&*path.to_string_lossy());
            let same = ran.status.success() && said == first;
            ensure!(
                told || same,
                "byte {at} of {}: {said}{complained}",
                path.display()
            );
            tried += 1;
        }
    }
    Ok(tried)
}

/// What the command prints.
fn run_import(quorate: &Path, words: &[&str], address: SocketAddr) -> anyhow::Result<String> {
    let ran = import_command(quorate, words, &[], address).output()?;
    let said = String::from_utf8_lossy(&ran.stdout).into_owned();
    let complained = String::from_utf8_lossy(&ran.stderr).into_owned();
    ensure!(ran.status.success(), "{words:?}: {said}{complained}");
    Ok(said)
}

fn import_command(
    quorate: &Path,
    words: &[&str],
    paths: &[&OsStr],
    address: SocketAddr,
) -> Command {
    let mut command = Command::new(quorate);
    command.arg("tsdb").args(words).args(paths);
    command.args(["--to", &format!("http://{address}")]);
    command
}

/// Names and sizes, all the way down.
fn files(dir: &Path) -> anyhow::Result<BTreeSet<(PathBuf, u64)>> {
    let mut found = BTreeSet::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(&dir)? {
            let entry = entry?;
            match entry.file_type()?.is_dir() {
                true => dirs.push(entry.path()),
                false => drop(found.insert((entry.path(), entry.metadata()?.len()))),
            }
        }
    }
    Ok(found)
}

/// Asks both for everything; how many answers differ.
async fn compare(
    prometheus: SocketAddr,
    quorate: SocketAddr,
    data: &Data,
    what: &str,
) -> anyhow::Result<usize> {
    let (mut reference, mut own) = (Client::new(prometheus), Client::new(quorate));
    let names = data.series.iter().flat_map(|series| &series.labels);
    let names: BTreeSet<&str> = names
        .filter(|(name, _)| name == "__name__")
        .map(|(_, value)| value.as_str())
        .collect();
    let mut differences = 0;
    let mut values = 0;
    for asked in questions(&names) {
        let expected = reference.answer(&asked).await?;
        let found = own.answer(&asked).await?;
        let verdict = expected.compare(&found, false);
        match verdict {
            Ok(tally) if tally.values == tally.bit_exact => values += tally.values,
            Ok(tally) => {
                differences += 1;
                println!("{what}: {}: not to the last bit: {tally:?}", asked.line());
            }
            Err(why) => {
                differences += 1;
                println!("{what}: {}: {why}", asked.line());
            }
        }
    }
    ensure!(values > 10_000, "only {values} values were compared");
    println!("{what}: {values} values are equal to the last bit");
    Ok(differences)
}

fn questions(names: &BTreeSet<&str>) -> Vec<Asked> {
    let range = At::Range {
        start_ms: BEGIN_MS,
        end_ms: END_MS,
        step_ms: 15_000,
    };
    let ask = |query: String, at| Asked {
        query,
        at,
        ordered: false,
    };
    let mut asked = vec![
        ask("count({__name__=~\".+\"})".to_owned(), range),
        ask("{job=~\".+\",instance!~\"x.*\"}".to_owned(), range),
    ];
    for name in names {
        asked.push(ask(
            format!("{{{name:?}}}[4h]"),
            At::Instant(END_MS + 60_000),
        ));
        asked.push(ask(format!("{{{name:?}}}"), range));
    }
    asked
}
