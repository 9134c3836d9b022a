//! Files and folders: what processes see, what the disk has, and what is between the two.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};

use holdfast_sim::random::Random;

use super::contents::{Contents, Survival};

/// The number of the topmost folder.
pub const ROOT: u64 = 1;

/// One in so many changes lets the system write back something by itself.
const WRITE_BACK_EVERY: u64 = 400;
/// More changes of names than this don't wait for a sync: the system commits them in time.
const CHANGES_MAX: usize = 400;

/// Why something was not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// There is no such file or folder.
    NotFound,
    /// There is one already.
    Exists,
    /// The folder has something in it.
    NotEmpty,
    /// It is no folder.
    NotFolder,
    /// It is a folder.
    IsFolder,
    /// The disk is full.
    NoSpace,
    /// This disk does not do that.
    Unsupported,
}

/// What a number stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A file of this size, with so many bytes allocated.
    File {
        /// Bytes that a reader gets.
        size: u64,
        /// Bytes that it takes.
        allocated: u64,
    },
    /// A folder.
    Folder,
}

type Names = BTreeMap<OsString, u64>;

#[derive(Debug, Clone)]
enum Node {
    File(Contents),
    /// As processes see it, and as the disk has it.
    Folder {
        seen: Names,
        on_disk: Names,
    },
}

/// A change of one or two names that the disk does not have yet: folder, name, and what the name stands for afterwards.
#[derive(Debug, Clone)]
struct Change(Vec<(u64, OsString, Option<u64>)>);

impl Change {
    fn touches(&self, folder: u64) -> bool {
        self.0.iter().any(|(other, ..)| *other == folder)
    }

    fn names(&self) -> impl Iterator<Item = (u64, &OsStr)> {
        self.0.iter().map(|(folder, name, _)| (*folder, name.as_os_str()))
    }
}

/// A disk.
#[derive(Debug, Clone)]
pub struct Disk {
    nodes: BTreeMap<u64, Node>,
    next: u64,
    /// In the order in which they were made.
    changes: Vec<Change>,
    /// Numbers that a process still holds, and how often.
    held: BTreeMap<u64, u64>,
    random: Random,
    is_full: bool,
}

impl Disk {
    /// An empty disk. The random numbers decide what the system writes back by itself.
    pub fn new(random: Random) -> Disk {
        let root = Node::Folder { seen: Names::new(), on_disk: Names::new() };
        Disk {
            nodes: BTreeMap::from([(ROOT, root)]),
            next: ROOT + 1,
            changes: Vec::new(),
            held: BTreeMap::new(),
            random,
            is_full: false,
        }
    }

    /// Whether nothing more can be allocated.
    pub fn set_full(&mut self, is_full: bool) {
        self.is_full = is_full;
    }

    /// Bytes that all files take.
    pub fn allocated(&self) -> u64 {
        self.nodes.values().map(|node| if let Node::File(file) = node { file.allocated() } else { 0 }).sum()
    }

    /// What a number stands for.
    ///
    /// # Errors
    /// If there is nothing.
    pub fn kind(&self, number: u64) -> Result<Kind, Refusal> {
        Ok(match self.nodes.get(&number).ok_or(Refusal::NotFound)? {
            Node::File(file) => Kind::File { size: file.size(), allocated: file.allocated() },
            Node::Folder { .. } => Kind::Folder,
        })
    }

    /// What a name in a folder stands for.
    ///
    /// # Errors
    /// If there is no such name.
    pub fn lookup(&self, folder: u64, name: &OsStr) -> Result<u64, Refusal> {
        self.folder(folder)?.get(name).copied().ok_or(Refusal::NotFound)
    }

    /// The names in a folder.
    ///
    /// # Errors
    /// If it is none.
    pub fn list(&self, folder: u64) -> Result<Vec<(OsString, u64)>, Refusal> {
        Ok(self.folder(folder)?.iter().map(|(name, number)| (name.clone(), *number)).collect())
    }

    /// Makes a file.
    ///
    /// # Errors
    /// If the name is taken, or the disk full.
    pub fn create(&mut self, folder: u64, name: &OsStr) -> Result<u64, Refusal> {
        self.add(folder, name, Node::File(Contents::default()))
    }

    /// Makes a folder.
    ///
    /// # Errors
    /// If the name is taken, or the disk full.
    pub fn create_folder(&mut self, folder: u64, name: &OsStr) -> Result<u64, Refusal> {
        self.add(folder, name, Node::Folder { seen: Names::new(), on_disk: Names::new() })
    }

    fn add(&mut self, folder: u64, name: &OsStr, node: Node) -> Result<u64, Refusal> {
        if self.folder(folder)?.contains_key(name) {
            return Err(Refusal::Exists);
        }
        if self.is_full {
            return Err(Refusal::NoSpace);
        }
        let number = self.next;
        self.next += 1;
        self.nodes.insert(number, node);
        self.change(vec![(folder, name.to_owned(), Some(number))]);
        Ok(number)
    }

    /// Removes a file's name.
    ///
    /// # Errors
    /// If there is none, or it is a folder's.
    pub fn remove(&mut self, folder: u64, name: &OsStr) -> Result<(), Refusal> {
        match self.kind(self.lookup(folder, name)?)? {
            Kind::File { .. } => self.change(vec![(folder, name.to_owned(), None)]),
            Kind::Folder => return Err(Refusal::IsFolder),
        }
        Ok(())
    }

    /// Removes an empty folder.
    ///
    /// # Errors
    /// If there is none of that name, or it isn't empty.
    pub fn remove_folder(&mut self, folder: u64, name: &OsStr) -> Result<(), Refusal> {
        if !self.folder(self.lookup(folder, name)?)?.is_empty() {
            return Err(Refusal::NotEmpty);
        }
        self.change(vec![(folder, name.to_owned(), None)]);
        Ok(())
    }

    /// Gives a file or folder another name, which loses what it stood for.
    ///
    /// # Errors
    /// If there is no such name, or the new one can't be taken over.
    pub fn rename(&mut self, source: (u64, &OsStr), target: (u64, &OsStr)) -> Result<(), Refusal> {
        let number = self.lookup(source.0, source.1)?;
        if let Ok(other) = self.lookup(target.0, target.1) {
            if other == number {
                return Ok(());
            }
            match (self.kind(number)?, self.kind(other)?) {
                (Kind::File { .. }, Kind::Folder) => return Err(Refusal::IsFolder),
                (Kind::Folder, Kind::File { .. }) => return Err(Refusal::NotFolder),
                (Kind::Folder, Kind::Folder) if !self.folder(other)?.is_empty() => return Err(Refusal::NotEmpty),
                _ => {}
            }
        }
        self.folder(target.0)?;
        self.change(vec![(source.0, source.1.to_owned(), None), (target.0, target.1.to_owned(), Some(number))]);
        Ok(())
    }

    /// Reads a file.
    ///
    /// # Errors
    /// If it is none.
    pub fn read(&self, file: u64, offset: u64, length: usize) -> Result<Vec<u8>, Refusal> {
        match self.nodes.get(&file).ok_or(Refusal::NotFound)? {
            Node::File(file) => Ok(file.read(offset, length)),
            Node::Folder { .. } => Err(Refusal::IsFolder),
        }
    }

    /// Writes to a file.
    ///
    /// # Errors
    /// If it is none, or the disk full.
    pub fn write(&mut self, file: u64, offset: u64, bytes: &[u8]) -> Result<(), Refusal> {
        let is_full = self.is_full;
        let file = self.file(file)?;
        if is_full && file.needs_space(offset, bytes.len()) {
            return Err(Refusal::NoSpace);
        }
        file.write(offset, bytes);
        self.write_back_sometimes();
        Ok(())
    }

    /// Sets a file's size.
    ///
    /// # Errors
    /// If it is none.
    pub fn set_size(&mut self, file: u64, size: u64) -> Result<(), Refusal> {
        self.file(file)?.set_size(size);
        Ok(())
    }

    /// Gives a file its space in advance, and the size that goes with it.
    ///
    /// # Errors
    /// If it is none, or the disk full.
    pub fn reserve(&mut self, file: u64, offset: u64, length: u64, keeps_size: bool) -> Result<(), Refusal> {
        let end = offset.saturating_add(length);
        let is_full = self.is_full;
        let file = self.file(file)?;
        if is_full {
            return Err(Refusal::NoSpace);
        }
        file.reserve(end);
        if !keeps_size && end > file.size() {
            file.set_size(end);
        }
        Ok(())
    }

    /// A sync of a file: its bytes and its size are on the disk, its name not.
    ///
    /// # Errors
    /// If it is none.
    pub fn sync(&mut self, file: u64) -> Result<(), Refusal> {
        self.file(file)?.sync();
        Ok(())
    }

    /// A sync of a file that fails.
    ///
    /// # Errors
    /// If it is no file.
    pub fn fail_sync(&mut self, file: u64) -> Result<(), Refusal> {
        self.file(file)?.fail_sync();
        Ok(())
    }

    /// A sync of a folder: its names are on the disk, and whatever earlier changes they depend on.
    ///
    /// # Errors
    /// If it is none.
    pub fn sync_folder(&mut self, folder: u64) -> Result<(), Refusal> {
        self.folder(folder)?;
        let mut needed = BTreeSet::<(u64, OsString)>::new();
        let mut chosen = vec![false; self.changes.len()];
        for (place, change) in self.changes.iter().enumerate().rev() {
            let is_needed = change.names().any(|(folder, name)| needed.contains(&(folder, name.to_owned())));
            if change.touches(folder) || is_needed {
                chosen[place] = true;
                needed.extend(change.names().map(|(folder, name)| (folder, name.to_owned())));
            }
        }
        let changes = std::mem::take(&mut self.changes);
        for (change, chosen) in changes.into_iter().zip(chosen) {
            if chosen {
                self.commit(&change);
            } else {
                self.changes.push(change);
            }
        }
        self.forget_unreachable();
        Ok(())
    }

    /// A process holds a number: what it stands for stays when its name goes.
    pub fn hold(&mut self, number: u64) {
        *self.held.entry(number).or_default() += 1;
    }

    /// It was held `times` less.
    pub fn release(&mut self, number: u64, times: u64) {
        if let Some(count) = self.held.get_mut(&number) {
            *count = count.saturating_sub(times);
            if *count == 0 {
                self.held.remove(&number);
                if let Some(Node::File(_)) = self.nodes.get(&number) {
                    self.forget_unreachable();
                }
            }
        }
    }

    /// The power is gone. What is there afterwards is what the disk has, and what survives of the rest.
    pub fn cut(&mut self, data: Survival, names: Survival, random: &mut Random) {
        self.held.clear();
        let mut lost = BTreeSet::<(u64, OsString)>::new();
        let by_order = random.chance(300);
        let mut is_over = false;
        for change in std::mem::take(&mut self.changes) {
            let is_orphan = change.names().any(|(folder, name)| lost.contains(&(folder, name.to_owned())));
            let survives = match names {
                Survival::Nothing => false,
                Survival::Everything => true,
                Survival::Pages(chance) | Survival::Sectors(chance) => random.chance(chance),
            };
            if survives && !is_orphan && !is_over {
                self.commit(&change);
            } else {
                // A journal ends somewhere; other systems lose one change and keep a later one.
                is_over = by_order;
                lost.extend(change.names().map(|(folder, name)| (folder, name.to_owned())));
            }
        }
        for node in self.nodes.values_mut() {
            match node {
                Node::File(file) => file.cut(data, random),
                Node::Folder { seen, on_disk } => seen.clone_from(on_disk),
            }
        }
        self.forget_unreachable();
    }

    fn folder(&self, number: u64) -> Result<&Names, Refusal> {
        match self.nodes.get(&number).ok_or(Refusal::NotFound)? {
            Node::Folder { seen, .. } => Ok(seen),
            Node::File(_) => Err(Refusal::NotFolder),
        }
    }

    fn file(&mut self, number: u64) -> Result<&mut Contents, Refusal> {
        match self.nodes.get_mut(&number).ok_or(Refusal::NotFound)? {
            Node::File(file) => Ok(file),
            Node::Folder { .. } => Err(Refusal::IsFolder),
        }
    }

    fn change(&mut self, entries: Vec<(u64, OsString, Option<u64>)>) {
        for (folder, name, number) in &entries {
            if let Some(Node::Folder { seen, .. }) = self.nodes.get_mut(folder) {
                put(seen, name, *number);
            }
        }
        self.changes.push(Change(entries));
        if self.changes.len() > CHANGES_MAX {
            let rest = self.changes.split_off(CHANGES_MAX / 2);
            for change in std::mem::replace(&mut self.changes, rest) {
                self.commit(&change);
            }
            self.forget_unreachable();
        }
        self.write_back_sometimes();
    }

    fn commit(&mut self, change: &Change) {
        for (folder, name, number) in &change.0 {
            if let Some(Node::Folder { on_disk, .. }) = self.nodes.get_mut(folder) {
                put(on_disk, name, *number);
            }
        }
    }

    fn write_back_sometimes(&mut self) {
        if self.random.below(WRITE_BACK_EVERY) > 0 {
            return;
        }
        for node in self.nodes.values_mut() {
            if let Node::File(file) = node {
                file.write_back(&mut self.random);
            }
        }
        if !self.changes.is_empty() {
            let rest = self.changes.split_off(self.random.below(self.changes.len() as u64 + 1) as usize);
            for change in std::mem::replace(&mut self.changes, rest) {
                self.commit(&change);
            }
            self.forget_unreachable();
        }
    }

    /// Lets go of what no name stands for any more, seen or on the disk or on the way there, and no process holds.
    fn forget_unreachable(&mut self) {
        let mut reached = BTreeSet::from([ROOT]);
        reached.extend(self.held.keys());
        reached.extend(self.changes.iter().flat_map(|change| change.0.iter().filter_map(|(.., number)| *number)));
        let mut open: Vec<u64> = reached.iter().copied().collect();
        while let Some(number) = open.pop() {
            if let Some(Node::Folder { seen, on_disk }) = self.nodes.get(&number) {
                open.extend(seen.values().chain(on_disk.values()).filter(|number| reached.insert(**number)));
            }
        }
        self.nodes.retain(|number, _| reached.contains(number));
    }
}

fn put(names: &mut Names, name: &OsStr, number: Option<u64>) {
    match number {
        Some(number) => names.insert(name.to_owned(), number),
        None => names.remove(name),
    };
}
