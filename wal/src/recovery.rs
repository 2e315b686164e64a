//! Opening: from the segment files back to what the log holds.
//!
//! Sealed segments are read by their footers; one without a readable footer is scanned. The last
//! segment's end may be torn: what nothing valid follows was never acknowledged and is cut. A
//! batch that cannot be read although something valid follows was durable: it is damage, and
//! every group that may have had records there goes into quarantine, unless a later head or
//! footer proves that nothing of it is missed.
//!
//! It purposely repairs nothing: a group in quarantine comes back by rejoining as a new learner.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use model::GroupId;
use model::port::{Dice, Disk, read_all, replace_by};
use tracing::{info, warn};

use crate::batch::{HEADER_BYTES, Header, Kind, NoHeader};
use crate::run::Run;
use crate::segment::{Body, Footer, Piece, lay_out_footer, number_of, path_of, read_footer, scan};
use crate::state::{State, States};
use crate::summary::Summary;
use crate::writer::{Sealed, Tail};

/// Why the log cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("opening the log: {path}")]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// Opening would cut it as torn, so it is left alone.
    #[error("{path} was written in format version {version}, which this program does not know")]
    Version { path: PathBuf, version: u8 },
    #[error("{path} belongs to another log than the segments beside it")]
    Foreign { path: PathBuf },
}

/// A group whose acknowledged records are lost here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quarantine {
    pub group: GroupId,
    pub what: String,
}

/// What opening found.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Recovery {
    pub quarantined: Vec<Quarantine>,
    /// Groups of which nothing else is known may have had records in a damaged batch; ask
    /// [`crate::Log::quarantined`] about each.
    pub unseen_quarantined: bool,
    /// Bytes cut off the end: begun but never acknowledged.
    pub torn_bytes: u64,
    /// Each damaged place in what was durable, harmless or not.
    pub damage: Vec<String>,
    pub segments: usize,
    /// Segments read whole because no footer could be used.
    pub segments_scanned: usize,
}

/// What the log goes on from.
pub(crate) struct Recovered {
    pub states: States,
    pub runs: BTreeMap<GroupId, Run>,
    pub tail: Tail,
    /// What the last segment is to be before anything is written behind it or acknowledged.
    pub rewrite: Option<Rewrite>,
    pub report: Recovery,
}

/// A segment that is to be written again as it was read, cut and sealed.
///
/// After a failed flush the system shows bytes that never reached the medium and that no later flush
/// will write. Only a new file makes what is read here durable. What is read may be used meanwhile: the
/// entries stand at the same offsets of both files.
pub(crate) struct Rewrite {
    path: PathBuf,
    pieces: Vec<Bytes>,
}

impl Rewrite {
    pub async fn run(self, disk: &dyn Disk) -> io::Result<()> {
        replace_by(disk, &self.path, self.pieces).await
    }
}

/// Reads the log in `dir`; a torn tail is cut and the last segment sealed by the [`Rewrite`].
pub(crate) async fn recover(
    disk: &dyn Disk,
    dice: &dyn Dice,
    dir: &Path,
) -> Result<Recovered, OpenError> {
    prepare(disk, dir).await.map_err(at(dir))?;
    let numbers = list(disk, dir).await.map_err(at(dir))?;
    let heads = read_heads(disk, dir, &numbers).await?;
    let log = match heads.values().next() {
        Some(head) => head.log,
        None => search_log(disk, dir, &numbers)
            .await?
            .unwrap_or_else(|| dice.roll()),
    };
    let mut recovery = Reading {
        disk,
        dir,
        log,
        heads,
        fold: Fold::default(),
        report: Recovery::default(),
        kept: Vec::new(),
        rewrite: None,
    };
    for (i, &number) in numbers.iter().enumerate() {
        let path = path_of(dir, number);
        let read = match numbers.get(i + 1) {
            Some(&next) => recovery.segment(number, &path, next).await,
            None => recovery.last_segment(number, &path).await,
        };
        read.map_err(at(&path))?;
    }
    Ok(recovery.finish(numbers.last().map_or(1, |last| last + 1)))
}

fn at(path: &Path) -> impl Fn(io::Error) -> OpenError {
    move |source| OpenError::Io {
        path: path.to_owned(),
        source,
    }
}

async fn prepare(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
    disk.create_dir_all(dir).await?;
    if let Some(parent) = dir.parent() {
        disk.flush_dir(parent).await?;
    }
    Ok(())
}

pub(crate) async fn list(disk: &dyn Disk, dir: &Path) -> io::Result<Vec<u32>> {
    let mut numbers = Vec::new();
    for name in disk.list(dir).await? {
        match number_of(&name) {
            Some(number) => numbers.push(number),
            // A segment that is written again, or was when the power went.
            None if name.extension().is_some_and(|end| end == "tmp") => {}
            None => warn!(name = %name.display(), "not a segment, left alone"),
        }
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// The first header of each segment that has one.
async fn read_heads(
    disk: &dyn Disk,
    dir: &Path,
    numbers: &[u32],
) -> Result<BTreeMap<u32, Header>, OpenError> {
    let mut heads: BTreeMap<u32, Header> = BTreeMap::new();
    for &number in numbers {
        let path = path_of(dir, number);
        let bytes = disk.read(&path, 0, HEADER_BYTES).await.map_err(at(&path))?;
        match Header::parse(&bytes) {
            Ok(head) if heads.values().next().is_some_and(|h| h.log != head.log) => {
                return Err(OpenError::Foreign { path });
            }
            Ok(head) => drop(heads.insert(number, head)),
            Err(NoHeader::Version(version)) => return Err(OpenError::Version { path, version }),
            Err(NoHeader::Damaged) => {}
        }
    }
    Ok(heads)
}

/// The log's own random number when no segment has its first header: that of any batch.
async fn search_log(
    disk: &dyn Disk,
    dir: &Path,
    numbers: &[u32],
) -> Result<Option<u64>, OpenError> {
    for &number in numbers {
        let path = path_of(dir, number);
        let bytes = read_all(disk, &path).await.map_err(at(&path))?;
        let header = (0..bytes.len()).find_map(|from| Header::parse(bytes.get(from..)?).ok());
        if let Some(header) = header {
            return Ok(Some(header.log));
        }
    }
    Ok(None)
}

struct Reading<'a> {
    disk: &'a dyn Disk,
    dir: &'a Path,
    log: u64,
    heads: BTreeMap<u32, Header>,
    fold: Fold,
    report: Recovery,
    /// Segments whose files remain.
    kept: Vec<u32>,
    rewrite: Option<Rewrite>,
}

impl Reading<'_> {
    /// One that has others behind it.
    async fn segment(&mut self, number: u32, path: &Path, next: u32) -> io::Result<()> {
        let len = self.disk.len(path).await?;
        let footer_at = match self.footer(number, path, len).await? {
            Ok(()) => return Ok(()),
            Err(footer_at) => footer_at,
        };
        let bytes = read_all(self.disk, path).await?;
        let pieces = scan(&bytes, number, self.log, self.fold.lsn);
        let mut judged = self.judge(number, &pieces);
        let ends = |piece: &Piece| {
            piece.header.is_some_and(|h| h.kind == Kind::Footer) || Some(piece.at) == footer_at
        };
        if !pieces.iter().any(ends) {
            let bits = self.lost_before(next, judged.lsn);
            let what = format!("{} offset {len}: the end is damaged", path.display());
            judged.summary.damage_all(bits, &what);
            self.report.damage.push(what);
        }
        self.fold.apply(judged.summary, judged.lsn);
        self.kept.push(number);
        Ok(())
    }

    /// The newest one: it is cut where it is torn and ends with a footer, so that nothing is ever appended
    /// behind what a crash left.
    async fn last_segment(&mut self, number: u32, path: &Path) -> io::Result<()> {
        let len = self.disk.len(path).await?;
        let has_footer = self.footer(number, path, len).await?.is_ok();
        let bytes = read_all(self.disk, path).await?;
        let mut pieces = vec![bytes.clone()];
        if !has_footer {
            let mut found = scan(&bytes, number, self.log, self.fold.lsn);
            let cut = torn_at(&found);
            found.retain(|piece| piece.at < cut);
            self.report.torn_bytes += len - cut;
            if cut < len {
                info!(path = %path.display(), bytes = len - cut, "torn tail cut");
            }
            // Behind damage it stays, empty and sealed: that it was begun tells the damage from a torn end.
            if cut == 0 && self.report.damage.is_empty() {
                self.disk.remove(path).await?;
                return self.disk.flush_dir(self.dir).await;
            }
            let judged = self.judge(number, &found);
            pieces = vec![bytes.slice(..cut as usize)];
            let mut lsn = judged.lsn;
            if !judged.is_sealed {
                lsn += 1;
                let Judged { summary, .. } = &judged;
                let footer = lay_out_footer(self.log, lsn, judged.groups_last, summary, cut);
                pieces.extend(footer);
            }
            self.fold.apply(judged.summary, lsn);
            self.kept.push(number);
        }
        let path = path.to_owned();
        self.rewrite = Some(Rewrite { path, pieces });
        Ok(())
    }

    /// Takes a segment by its footer; else where that starts, if this much is known, and the segment is to
    /// be scanned.
    async fn footer(
        &mut self,
        number: u32,
        path: &Path,
        len: u64,
    ) -> io::Result<Result<(), Option<u64>>> {
        let footer_at = match read_footer(self.disk, path, number, self.log, len).await? {
            Footer::Whole(header, summary) if header.lsn > self.fold.lsn => {
                self.kept.push(number);
                self.fold.apply(summary, header.lsn);
                return Ok(Ok(()));
            }
            Footer::Whole(..) => None,
            Footer::Damaged(footer_at) => footer_at,
        };
        self.report.segments_scanned += 1;
        match u32::try_from(len) {
            Ok(_) => Ok(Err(footer_at)),
            Err(_) => Err(io::Error::other("larger than any segment")),
        }
    }

    /// Which groups may have had records after `lsn` in a segment whose end is damaged, by what
    /// the next segment's first header says.
    fn lost_before(&self, next: u32, lsn: u64) -> u64 {
        let head = self.heads.get(&next);
        head.filter(|head| head.lsn > lsn)
            .map_or(u64::MAX, |head| lost_between(lsn, head))
    }

    /// Applies the pieces in order and says what is missing between them.
    fn judge(&mut self, number: u32, pieces: &[Piece]) -> Judged {
        let path = path_of(self.dir, number);
        let mut lsn = self.fold.lsn;
        let mut summary = Summary::after(self.fold.states.clone());
        for piece in pieces {
            let what = format!("{} offset {}: damaged", path.display(), piece.at);
            if !piece.is_whole() {
                warn!(path = %path.display(), offset = piece.at, "damage in what was durable");
                self.report.damage.push(what.clone());
            }
            let Some(header) = &piece.header else {
                continue;
            };
            match &piece.body {
                Body::Head(states) if piece.at == 0 => summary = Summary::after(states.clone()),
                Body::Footer(footer) => summary = footer.clone(),
                body => {
                    let missing = lost_between(lsn, header);
                    summary.damage_all(missing, &format!("{what}: a batch before it is lost"));
                    apply(&mut summary, body, header, number, &what);
                }
            }
            lsn = header.lsn;
        }
        let last = pieces.last();
        Judged {
            summary,
            lsn,
            groups_last: last.and_then(|piece| piece.header).map_or(0, |h| h.groups),
            is_sealed: last.is_some_and(|piece| matches!(piece.body, Body::Footer(_))),
        }
    }

    fn finish(mut self, segment_next: u32) -> Recovered {
        let lsn_next = self.fold.lsn + 1;
        let (states, runs) = self.fold.finish();
        let mut report = self.report;
        report.segments = self.kept.len();
        report.unseen_quarantined = states.lost != 0;
        for (&group, state) in &states.groups {
            if let Some(what) = state.damaged.clone() {
                warn!(%group, what, "group in quarantine");
                report.quarantined.push(Quarantine { group, what });
            }
        }
        let mut tail = Tail::new(
            self.log,
            lsn_next,
            segment_next,
            Summary::after(states.clone()),
        );
        tail.sealed = needed(&runs, std::mem::take(&mut self.kept));
        Recovered {
            states,
            runs,
            tail,
            rewrite: self.rewrite,
            report,
        }
    }
}

/// What a scanned segment amounts to.
struct Judged {
    summary: Summary,
    lsn: u64,
    groups_last: u64,
    is_sealed: bool,
}

/// Where the torn end of the last segment starts. As one write is in flight at a time, a header
/// proves that all before it was durable; whatever follows the last header, and that last batch
/// itself unless it is whole, was never acknowledged.
fn torn_at(pieces: &[Piece]) -> u64 {
    match pieces.iter().rfind(|piece| piece.header.is_some()) {
        Some(last) if last.is_whole() => last.end(),
        Some(last) => last.at,
        None => 0,
    }
}

/// Which groups had records in the batches missing between `lsn` and the one of `header`.
fn lost_between(lsn: u64, header: &Header) -> u64 {
    match header.lsn - lsn {
        1 => 0,
        2 => header.groups_before,
        _ => u64::MAX,
    }
}

fn apply(summary: &mut Summary, body: &Body, header: &Header, number: u32, what: &str) {
    match body {
        Body::Records(records) => {
            for (record, offset, whole) in records {
                if *whole {
                    summary.apply(record, number, *offset);
                } else {
                    summary.damage(record.group, what);
                }
            }
        }
        Body::Damaged if header.kind == Kind::Data => summary.damage_all(header.groups, what),
        Body::Damaged | Body::Head(_) | Body::Footer(_) => {}
    }
}

/// Segments laid over one another, oldest first.
#[derive(Default)]
struct Fold {
    states: States,
    /// Stretches of entries; more than one per group when something between them is not there,
    /// which is fine as long as a later segment says it is not needed.
    runs: BTreeMap<GroupId, Vec<Run>>,
    lsn: u64,
}

impl Fold {
    /// Lays the next segment over those before. A group it does not name is gone; one in
    /// quarantine holds no index, so its older entries go too.
    fn apply(&mut self, summary: Summary, lsn: u64) {
        self.runs
            .retain(|group, _| summary.states.groups.contains_key(group));
        for (group, run) in summary.entries {
            lay_over(self.runs.entry(group).or_default(), run);
        }
        for (group, state) in &summary.states.groups {
            if let Some(runs) = self.runs.get_mut(group) {
                trim(runs, state.indexes());
            }
        }
        self.states = summary.states;
        self.lsn = lsn;
    }

    /// Ends with one run per group, without gaps; a group that should have more than there is
    /// goes into quarantine.
    fn finish(mut self) -> (States, BTreeMap<GroupId, Run>) {
        let mut whole = BTreeMap::new();
        let groups: Vec<(GroupId, State)> = self.states.groups.clone().into_iter().collect();
        for (group, state) in groups {
            let runs = self.runs.remove(&group).unwrap_or_default();
            let expected = state.indexes();
            if state.damaged.is_some() || expected.is_empty() {
                continue;
            }
            match <[Run; 1]>::try_from(runs) {
                Ok([run]) if is_whole(&run, &state) => drop(whole.insert(group, run)),
                _ => {
                    let Range { start, end } = expected;
                    let what = format!("entries are missing between {start} and {}", end - 1);
                    self.states.damage(group, &what);
                }
            }
        }
        (self.states, whole)
    }
}

/// Whether the run has the entries the state speaks of, each from the segment it names: an older
/// copy of an index may otherwise fill the hole that a lost file leaves.
fn is_whole(run: &Run, state: &State) -> bool {
    (run.first..run.end()) == state.indexes()
        && run.last() == state.held.last
        && (run.first..run.end())
            .zip(&run.positions)
            .all(|(index, position)| state.segment_of(index) == Some(position.segment))
}

fn lay_over(runs: &mut Vec<Run>, mut newer: Run) {
    trim(runs, 0..newer.first);
    match runs.last_mut() {
        Some(last) if last.end() == newer.first => last.positions.append(&mut newer.positions),
        _ => runs.push(newer),
    }
}

/// Keeps what lies inside `range`.
fn trim(runs: &mut Vec<Run>, range: Range<u64>) {
    for run in runs.iter_mut() {
        run.cut(range.end);
        run.drop_below(range.start);
    }
    runs.retain(|run| !run.is_empty());
}

/// Which entries of which segment are still needed.
fn needed(runs: &BTreeMap<GroupId, Run>, segments: Vec<u32>) -> Vec<Sealed> {
    let mut needed: BTreeMap<u32, BTreeMap<GroupId, Range<u64>>> = BTreeMap::new();
    for (&group, run) in runs {
        for (index, position) in (run.first..run.end()).zip(&run.positions) {
            needed
                .entry(position.segment)
                .or_default()
                .entry(group)
                .or_insert(index..index)
                .end = index + 1;
        }
    }
    segments
        .into_iter()
        .map(|number| Sealed {
            number,
            needed: needed.remove(&number).unwrap_or_default(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use model::NodeId;

    use super::*;
    use crate::LogId;
    use crate::record::{Change, Record};

    const G: GroupId = GroupId(1);

    fn id(term: u64, index: u64) -> LogId {
        LogId {
            term,
            node: NodeId(1),
            index,
        }
    }

    fn segment(states: States, number: u32, changes: &[Change]) -> Summary {
        let mut summary = Summary::after(states);
        for &change in changes {
            summary.apply(&Record { group: G, change }, number, 0);
        }
        summary
    }

    fn append(term: u64, index: u64) -> Change {
        Change::Append {
            id: id(term, index),
            len: 0,
            crc: 0,
        }
    }

    fn fold(segments: &[&Summary]) -> (States, BTreeMap<GroupId, Run>) {
        let mut fold = Fold::default();
        for summary in segments {
            fold.apply((*summary).clone(), fold.lsn + 1);
        }
        fold.finish()
    }

    fn terms(runs: &BTreeMap<GroupId, Run>) -> Vec<(u64, u64)> {
        let run = runs.get(&G).cloned().unwrap_or_default();
        (run.first..run.end())
            .map(|i| (i, run.get(i).unwrap().0.term))
            .collect()
    }

    #[test]
    fn an_overwritten_entry_does_not_come_back() {
        let one = segment(
            States::default(),
            1,
            &[append(1, 0), append(1, 1), append(1, 2)],
        );
        let two = segment(
            one.states.clone(),
            2,
            &[Change::Truncate(Some(id(1, 0))), append(2, 1)],
        );
        assert_eq!(terms(&fold(&[&one, &two]).1), [(0, 1), (1, 2)]);
    }

    #[test]
    fn a_deleted_middle_segment_is_not_missed() {
        let one = segment(States::default(), 1, &[append(1, 0), append(1, 1)]);
        let keep_first = Change::Truncate(Some(id(1, 0)));
        let two = segment(
            one.states.clone(),
            2,
            &[keep_first, append(2, 1), keep_first],
        );
        let three = segment(two.states.clone(), 3, &[append(3, 1)]);
        let all = fold(&[&one, &two, &three]);
        assert_eq!(terms(&all.1), [(0, 1), (1, 3)]);
        assert_eq!(fold(&[&one, &three]), all);
    }

    #[test]
    fn a_missing_segment_that_is_needed_is_seen() {
        let one = segment(States::default(), 1, &[append(1, 0)]);
        let two = segment(one.states.clone(), 2, &[append(1, 1)]);
        let three = segment(two.states.clone(), 3, &[append(1, 2)]);
        let (states, runs) = fold(&[&one, &three]);
        assert!(runs.is_empty() && states.damage_of(G).is_some());
        let four = segment(three.states.clone(), 4, &[Change::Purge(id(1, 1))]);
        let (states, runs) = fold(&[&one, &three, &four]);
        assert_eq!((states.damage_of(G), terms(&runs)), (None, vec![(2, 1)]));
    }

    #[test]
    fn an_overwritten_entry_does_not_stand_in_for_a_missing_one() {
        let one = segment(States::default(), 1, &[append(1, 0), append(1, 1)]);
        let keep_first = Change::Truncate(Some(id(1, 0)));
        let two = segment(one.states.clone(), 2, &[keep_first, append(2, 1)]);
        let three = segment(two.states.clone(), 3, &[append(2, 2)]);
        let (states, runs) = fold(&[&one, &three]);
        assert!(runs.is_empty() && states.damage_of(G).is_some());
        // Here the head of three names two's entry, but nothing of two is needed in the end.
        let three = segment(two.states.clone(), 3, &[keep_first, append(3, 1)]);
        let (states, runs) = fold(&[&one, &three]);
        assert_eq!(
            (states.damage_of(G), terms(&runs)),
            (None, vec![(0, 1), (1, 3)])
        );
    }

    #[test]
    fn a_stale_entry_does_not_fill_the_hole_damage_left() {
        let one = segment(States::default(), 1, &[append(1, 0), append(1, 1)]);
        let mut two = segment(one.states.clone(), 2, &[]);
        two.damage(G, "damaged");
        let healthy = segment(
            one.states.clone(),
            2,
            &[Change::Truncate(Some(id(1, 0))), append(2, 1)],
        );
        let three = segment(healthy.states, 3, &[append(2, 2)]);
        let (states, runs) = fold(&[&one, &two, &three]);
        assert!(runs.is_empty() && states.damage_of(G).is_some());
    }
}
