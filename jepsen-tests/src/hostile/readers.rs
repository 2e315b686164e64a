//! What others make of a page: each of them reads the whole of it, or the run fails.

use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context, ensure};
use prost::Message;
use proto::exposition::MetricFamily;

use crate::differ::peers::Folder;

/// Messages behind their lengths, and names as they are.
pub const DELIMITED: &str = "application/vnd.google.protobuf;\
    proto=io.prometheus.client.MetricFamily;encoding=delimited;escaping=allow-utf-8";

/// The Python client, if there is one: as many samples as there are lines.
pub fn prometheus_client(text: &str) -> anyhow::Result<Option<&'static str>> {
    const PROGRAM: &str = "import sys\n\
        try: from prometheus_client.parser import text_string_to_metric_families as parse\n\
        except ImportError: sys.exit(77)\n\
        text = sys.stdin.buffer.read().decode('utf-8')\n\
        print(sum(len(family.samples) for family in parse(text)))\n";
    let mut command = Command::new("python3");
    let Ok(ran) = ask(command.args(["-c", PROGRAM]), text) else {
        return Ok(None);
    };
    if ran.status.code() == Some(77) {
        return Ok(None);
    }
    let said = String::from_utf8_lossy(&ran.stderr);
    ensure!(ran.status.success(), "prometheus_client: {}", said.trim());
    let expected = text.lines().filter(|line| !line.starts_with('#')).count();
    let found: usize = String::from_utf8_lossy(&ran.stdout).trim().parse()?;
    ensure!(
        found == expected,
        "prometheus_client finds {found} samples, there are {expected}"
    );
    Ok(Some("prometheus_client"))
}

/// `promtool check metrics` of Prometheus: 0 is a page, 3 one whose names it does not like. Its parser
/// takes any `le` and `quantile` of a histogram or summary for a bound, so sums and counts of groups
/// with a label of that name are not for it.
pub fn promtool(promtool: &Path, text: &str) -> anyhow::Result<&'static str> {
    let plain: String = text
        .split_inclusive('\n')
        .filter(|line| !is_total_with_bound(line))
        .collect();
    let mut command = Command::new(promtool);
    let ran = ask(command.args(["check", "metrics"]), &plain)
        .with_context(|| promtool.display().to_string())?;
    let said = String::from_utf8_lossy(&ran.stderr);
    let said: String = said.trim().chars().take(500).collect();
    ensure!(
        matches!(ran.status.code(), Some(0 | 3)) && !said.contains("error while linting"),
        "promtool, {}: {said}",
        ran.status
    );
    Ok("promtool")
}

/// The page in protobuf, by the library that makes messages of it.
pub fn protobuf(mut page: &[u8]) -> anyhow::Result<&'static str> {
    let mut families = 0;
    while !page.is_empty() {
        let family = MetricFamily::decode_length_delimited(&mut page)
            .with_context(|| format!("family {families} of the page in protobuf"))?;
        ensure!(family.name.is_some(), "family {families} has no name");
        families += 1;
    }
    ensure!(families > 0, "no family in protobuf");
    Ok("prost")
}

fn is_total_with_bound(line: &str) -> bool {
    let name = line.split('{').next().unwrap_or_default();
    let bounds = ["{le=\"", ",le=\"", "{quantile=\"", ",quantile=\""];
    (name.ends_with("_sum") || name.ends_with("_count"))
        && bounds.iter().any(|bound| line.contains(bound))
}

fn ask(command: &mut Command, text: &str) -> anyhow::Result<Output> {
    let folder = Folder::create("quorate-page")?;
    let file = folder.0.join("page");
    std::fs::write(&file, text)?;
    let input = std::fs::File::open(&file)?;
    Ok(command.stdin(input).output()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_of_groups_with_a_bound_are_known() {
        assert!(is_total_with_bound("h_sum{job=\"a\",le=\"x\"} 1\n"));
        assert!(is_total_with_bound("s_count{quantile=\"x\"} 1\n"));
        assert!(!is_total_with_bound("h_bucket{job=\"a\",le=\"1\"} 1\n"));
        assert!(!is_total_with_bound("h_sum{job=\"le\"} 1\n"));
    }

    #[test]
    fn what_is_no_page_is_told() {
        let family = MetricFamily {
            name: Some("a".to_owned()),
            ..MetricFamily::default()
        };
        let mut page = family.encode_length_delimited_to_vec();
        assert!(protobuf(&page).is_ok());
        page.pop();
        assert!(protobuf(&page).is_err());
        assert!(protobuf(&MetricFamily::default().encode_length_delimited_to_vec()).is_err());
        assert!(protobuf(&[]).is_err());
        // Where there is no Python client nobody reads.
        if prometheus_client("# TYPE a gauge\na 1\n")
            .unwrap()
            .is_some()
        {
            assert!(prometheus_client("# TYPE a gauge\na{ 1\n").is_err());
        }
    }
}
