//! Names: directories as the node sees them and as a power cut would leave them.
//!
//! Every change of a name waits in order until a directory it touches is flushed. A rename is one
//! change of two names, so it happens wholly or not at all. Knows no handles and no faults.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::path::{Component, Path, PathBuf};

use model::port::Dice;

use super::content::Content;
use crate::SimDice;

pub(super) type Ino = u64;
type Names = BTreeMap<OsString, Ino>;

const ROOT: Ino = 0;

#[derive(Debug, Clone)]
enum Node {
    File(Content),
    Dir { seen: Names, durable: Names },
}

/// One name of one directory set or taken away.
#[derive(Debug, Clone)]
struct Edit {
    dir: Ino,
    name: OsString,
    to: Option<Ino>,
}

/// Edits that become durable together.
type Change = Vec<Edit>;

/// Invariants: every ino named anywhere has a node; `pending` applied over the durable names gives
/// the names seen.
#[derive(Debug, Clone)]
pub(super) struct Tree {
    nodes: BTreeMap<Ino, Node>,
    next: Ino,
    pending: Vec<Change>,
}

impl Tree {
    pub(super) fn new() -> Self {
        let root = Node::Dir {
            seen: Names::new(),
            durable: Names::new(),
        };
        Self {
            nodes: BTreeMap::from([(ROOT, root)]),
            next: ROOT + 1,
            pending: Vec::new(),
        }
    }

    pub(super) fn create(&mut self, path: &Path) -> io::Result<Ino> {
        let (dir, name) = self.place(path)?;
        if self.names(dir)?.contains_key(&name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let ino = self.add(Node::File(Content::default()));
        self.change(vec![Edit {
            dir,
            name,
            to: Some(ino),
        }]);
        Ok(ino)
    }

    pub(super) fn create_dir_all(&mut self, path: &Path) -> io::Result<()> {
        let mut dir = ROOT;
        for name in names(path)? {
            dir = match self.names(dir)?.get(&name) {
                Some(&ino) => ino,
                None => {
                    let to = self.add(Node::Dir {
                        seen: Names::new(),
                        durable: Names::new(),
                    });
                    self.change(vec![Edit {
                        dir,
                        name,
                        to: Some(to),
                    }]);
                    to
                }
            };
        }
        // A file where the directory should be: what mkdir answers to that.
        self.names(dir)
            .map(|_| ())
            .map_err(|_| io::ErrorKind::AlreadyExists.into())
    }

    pub(super) fn file(&self, path: &Path) -> io::Result<Ino> {
        let ino = self.resolve(path)?;
        match self.node(ino) {
            Node::File(_) => Ok(ino),
            Node::Dir { .. } => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    pub(super) fn content(&self, ino: Ino) -> &Content {
        match self.node(ino) {
            Node::File(content) => content,
            Node::Dir { .. } => unreachable!("only files are opened"),
        }
    }

    pub(super) fn content_mut(&mut self, ino: Ino) -> &mut Content {
        match self.nodes.get_mut(&ino) {
            Some(Node::File(content)) => content,
            _ => unreachable!("only files are opened"),
        }
    }

    pub(super) fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        match self.resolve(path) {
            Ok(ino) => Ok(self.names(ino)?.keys().map(PathBuf::from).collect()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(e) => Err(e),
        }
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let (from_dir, from_name) = self.place(from)?;
        let (to_dir, to_name) = self.place(to)?;
        let ino = *self
            .names(from_dir)?
            .get(&from_name)
            .ok_or(io::ErrorKind::NotFound)?;
        let moves_dir = matches!(self.node(ino), Node::Dir { .. });
        if moves_dir && self.holds(ino, to_dir) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let old = self.names(to_dir)?.get(&to_name);
        match old.map(|&old| (old, self.node(old))) {
            Some((old, _)) if old != ino && self.holds(old, from_dir) => {
                return Err(io::ErrorKind::DirectoryNotEmpty.into());
            }
            // The same file under both names: POSIX leaves both.
            Some((old, _)) if old == ino => return Ok(()),
            Some((_, Node::File(_))) if moves_dir => {
                return Err(io::ErrorKind::NotADirectory.into());
            }
            Some((_, Node::Dir { .. })) if !moves_dir => {
                return Err(io::ErrorKind::IsADirectory.into());
            }
            Some((_, Node::Dir { seen, .. })) if !seen.is_empty() => {
                return Err(io::ErrorKind::DirectoryNotEmpty.into());
            }
            _ => {}
        }
        self.change(vec![
            Edit {
                dir: from_dir,
                name: from_name,
                to: None,
            },
            Edit {
                dir: to_dir,
                name: to_name,
                to: Some(ino),
            },
        ]);
        Ok(())
    }

    pub(super) fn link(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let ino = self.resolve(from)?;
        let (dir, name) = self.place(to)?;
        if self.names(dir)?.contains_key(&name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if matches!(self.node(ino), Node::Dir { .. }) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        self.change(vec![Edit {
            dir,
            name,
            to: Some(ino),
        }]);
        Ok(())
    }

    pub(super) fn remove(&mut self, path: &Path) -> io::Result<()> {
        self.file(path)?;
        let (dir, name) = self.place(path)?;
        self.change(vec![Edit {
            dir,
            name,
            to: None,
        }]);
        Ok(())
    }

    /// Removes from the leaves up, each name by itself, as the system call by system call does.
    pub(super) fn remove_dir_all(&mut self, path: &Path) -> io::Result<()> {
        let (dir, name) = self.place(path)?;
        let ino = *self.names(dir)?.get(&name).ok_or(io::ErrorKind::NotFound)?;
        self.names(ino)?;
        self.empty(ino);
        self.change(vec![Edit {
            dir,
            name,
            to: None,
        }]);
        Ok(())
    }

    /// Makes every change that touches the directory durable, and before it whatever it builds on.
    pub(super) fn flush_dir(&mut self, path: &Path) -> io::Result<()> {
        let dir = self.resolve(path)?;
        self.names(dir)?;
        let touches = |change: &Change| change.iter().any(|edit| edit.dir == dir);
        let chosen = self.pending.iter().map(touches).collect();
        self.commit(chosen);
        Ok(())
    }

    /// The certain content of the file a power cut leaves under this name, if it certainly leaves
    /// the name.
    pub(super) fn durable(&self, path: &Path) -> Option<&Content> {
        let mut ino = ROOT;
        for name in names(path).ok()? {
            let Node::Dir { durable, .. } = self.node(ino) else {
                return None;
            };
            let child = *durable.get(&name)?;
            let undoes = |e: &Edit| e.dir == ino && e.name == name && e.to != Some(child);
            if self.pending.iter().flatten().any(undoes) {
                return None;
            }
            ino = child;
        }
        match self.node(ino) {
            Node::File(content) => Some(content),
            Node::Dir { .. } => None,
        }
    }

    /// Settles what a power cut leaves, by the dice.
    pub(super) fn settle(&mut self, dice: &SimDice) {
        let count = self.pending.len();
        let chosen = match dice.below(4) {
            0 => vec![false; count],
            1 => vec![true; count],
            // A journal that had come this far.
            2 => {
                let done = dice.up_to(count);
                (0..count).map(|i| i < done).collect()
            }
            _ => (0..count).map(|_| dice.one_in(2)).collect(),
        };
        self.commit(chosen);
        self.pending.clear();
        for node in self.nodes.values_mut() {
            if let Node::Dir { seen, durable } = node {
                seen.clone_from(durable);
            }
        }
        self.forget(&BTreeSet::new());
        for node in self.nodes.values_mut() {
            if let Node::File(content) = node {
                content.settle(dice);
            }
        }
    }

    /// Drops nodes that no name, seen, durable or pending, and no handle of `open` leads to.
    pub(super) fn forget(&mut self, open: &BTreeSet<Ino>) {
        let mut reached = BTreeSet::new();
        let mut queue = vec![ROOT];
        queue.extend(open);
        while let Some(ino) = queue.pop() {
            if !reached.insert(ino) {
                continue;
            }
            if let Some(Node::Dir { seen, durable }) = self.nodes.get(&ino) {
                queue.extend(seen.values().chain(durable.values()));
                let edits = self.pending.iter().flatten().filter(|e| e.dir == ino);
                queue.extend(edits.filter_map(|e| e.to));
            }
        }
        self.nodes.retain(|ino, _| reached.contains(ino));
        self.pending
            .retain(|change| change.iter().any(|e| reached.contains(&e.dir)));
    }

    /// All files there are to be seen, by path, and their lengths.
    pub(super) fn files(&self) -> Vec<(PathBuf, u64)> {
        let mut files = Vec::new();
        let mut queue = vec![(PathBuf::new(), ROOT)];
        while let Some((path, ino)) = queue.pop() {
            match self.node(ino) {
                Node::File(content) => files.push((path, content.data().len() as u64)),
                Node::Dir { seen, .. } => {
                    queue.extend(seen.iter().map(|(name, ino)| (path.join(name), *ino)));
                }
            }
        }
        files.sort();
        files
    }

    /// Bytes in files that a name leads to or may lead to again.
    pub(super) fn bytes(&self) -> u64 {
        let files = self.nodes.values().map(|node| match node {
            Node::File(content) => content.data().len() as u64,
            Node::Dir { .. } => 0,
        });
        files.sum()
    }

    /// Applies chosen changes to the durable names, with every earlier change they build on (one
    /// that sets the same name).
    fn commit(&mut self, mut chosen: Vec<bool>) {
        let mut touched = BTreeSet::new();
        for (change, chosen) in self.pending.iter().zip(&mut chosen).rev() {
            *chosen |= change.iter().any(|e| touched.contains(&(e.dir, &e.name)));
            if *chosen {
                touched.extend(change.iter().map(|e| (e.dir, &e.name)));
            }
        }
        let mut left = Vec::new();
        for (change, chosen) in std::mem::take(&mut self.pending).into_iter().zip(chosen) {
            if !chosen {
                left.push(change);
                continue;
            }
            for edit in change {
                if let Some(Node::Dir { durable, .. }) = self.nodes.get_mut(&edit.dir) {
                    set(durable, edit.name, edit.to);
                }
            }
        }
        self.pending = left;
    }

    fn change(&mut self, change: Change) {
        for edit in &change {
            let Some(Node::Dir { seen, .. }) = self.nodes.get_mut(&edit.dir) else {
                unreachable!("a name is set in a directory");
            };
            set(seen, edit.name.clone(), edit.to);
        }
        self.pending.push(change);
    }

    fn empty(&mut self, dir: Ino) {
        let Node::Dir { seen, .. } = self.node(dir) else {
            return;
        };
        for (name, ino) in seen.clone() {
            self.empty(ino);
            self.change(vec![Edit {
                dir,
                name,
                to: None,
            }]);
        }
    }

    fn add(&mut self, node: Node) -> Ino {
        let ino = self.next;
        self.next += 1;
        self.nodes.insert(ino, node);
        ino
    }

    fn node(&self, ino: Ino) -> &Node {
        self.nodes.get(&ino).expect("a name leads to a node")
    }

    fn names(&self, dir: Ino) -> io::Result<&Names> {
        match self.node(dir) {
            Node::Dir { seen, .. } => Ok(seen),
            Node::File(_) => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    fn resolve(&self, path: &Path) -> io::Result<Ino> {
        names(path)?.into_iter().try_fold(ROOT, |dir, name| {
            self.names(dir)?
                .get(&name)
                .copied()
                .ok_or(io::ErrorKind::NotFound.into())
        })
    }

    /// The directory a name stands in, and the name.
    fn place(&self, path: &Path) -> io::Result<(Ino, OsString)> {
        let mut names = names(path)?;
        let name = names.pop().ok_or(io::ErrorKind::InvalidInput)?;
        let dir = self.resolve(&names.iter().collect::<PathBuf>())?;
        self.names(dir)?;
        Ok((dir, name))
    }

    /// Whether `inner` is `outer` or below it.
    fn holds(&self, outer: Ino, inner: Ino) -> bool {
        outer == inner
            || match self.node(outer) {
                Node::Dir { seen, .. } => seen.values().any(|&child| self.holds(child, inner)),
                Node::File(_) => false,
            }
    }
}

fn set(names: &mut Names, name: OsString, to: Option<Ino>) {
    match to {
        Some(ino) => names.insert(name, ino),
        None => names.remove(&name),
    };
}

/// A relative path's names; one that leads out of the root is an error.
fn names(path: &Path) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => names.push(name.to_owned()),
            Component::CurDir => {}
            _ => return Err(io::ErrorKind::InvalidInput.into()),
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcomes(tree: &Tree) -> BTreeSet<Vec<String>> {
        (0..300)
            .map(|seed| {
                let mut tree = tree.clone();
                tree.settle(&SimDice::new(seed));
                let names = tree.list(Path::new("")).unwrap();
                names.iter().map(|n| n.display().to_string()).collect()
            })
            .collect()
    }

    fn set_of(lists: &[&[&str]]) -> BTreeSet<Vec<String>> {
        lists
            .iter()
            .map(|l| l.iter().map(|s| (*s).to_owned()).collect())
            .collect()
    }

    #[test]
    fn names_are_certain_only_after_a_directory_flush() {
        let mut tree = Tree::new();
        tree.create(Path::new("a")).unwrap();
        assert_eq!(outcomes(&tree), set_of(&[&[], &["a"]]));
        assert!(tree.durable(Path::new("a")).is_none());
        tree.flush_dir(Path::new("")).unwrap();
        assert_eq!(outcomes(&tree), set_of(&[&["a"]]));
        assert!(tree.durable(Path::new("a")).is_some());
        tree.remove(Path::new("a")).unwrap();
        assert_eq!(outcomes(&tree), set_of(&[&[], &["a"]]));
        assert!(tree.durable(Path::new("a")).is_none());
    }

    #[test]
    fn a_rename_happens_wholly_or_not_at_all() {
        let mut tree = Tree::new();
        for name in ["new", "old"] {
            tree.create(Path::new(name)).unwrap();
        }
        tree.flush_dir(Path::new("")).unwrap();
        tree.rename(Path::new("new"), Path::new("old")).unwrap();
        assert_eq!(outcomes(&tree), set_of(&[&["new", "old"], &["old"]]));
    }

    #[test]
    fn changes_of_different_names_may_swap() {
        let mut tree = Tree::new();
        for name in ["a", "b"] {
            tree.create(Path::new(name)).unwrap();
        }
        let expected = set_of(&[&[], &["a"], &["b"], &["a", "b"]]);
        assert_eq!(outcomes(&tree), expected);
    }

    #[test]
    fn a_flush_of_one_directory_leaves_the_others_uncertain() {
        let mut tree = Tree::new();
        tree.create_dir_all(Path::new("d")).unwrap();
        tree.create(Path::new("d/f")).unwrap();
        tree.flush_dir(Path::new("d")).unwrap();
        assert_eq!(outcomes(&tree), set_of(&[&[], &["d"]]));
        tree.flush_dir(Path::new("")).unwrap();
        assert!(tree.durable(Path::new("d/f")).is_some());
    }

    #[test]
    fn nodes_nothing_leads_to_are_forgotten() {
        let mut tree = Tree::new();
        tree.create_dir_all(Path::new("d/e")).unwrap();
        tree.create(Path::new("d/e/f")).unwrap();
        tree.flush_dir(Path::new("")).unwrap();
        tree.remove_dir_all(Path::new("d")).unwrap();
        tree.flush_dir(Path::new("")).unwrap();
        tree.settle(&SimDice::new(1));
        assert_eq!(tree.nodes.len(), 1);
    }
}
