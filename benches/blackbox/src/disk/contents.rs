//! What a file holds: as its readers see it, and as the disk has it.

use std::collections::BTreeMap;

use holdfast_sim::random::Random;

/// What is written whole or not at all, in bytes.
pub const SECTOR_BYTES: usize = 512;
/// The unit in which memory is kept and space is given out, in bytes.
pub const PAGE_BYTES: usize = 4096;

type Page = Box<[u8; PAGE_BYTES]>;

/// What the disk has where that may differ from what readers see.
#[derive(Debug, Clone)]
struct OnDisk {
    /// The page; none is zeros.
    page: Option<Page>,
    /// Whether the next sync will write what readers see. After a failed sync it won't: the page looks clean.
    is_dirty: bool,
}

/// How much of what was not synced is on the disk after a power cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Survival {
    /// None of it.
    Nothing,
    /// All of it: the cut came after everything was written back.
    Everything,
    /// Each page with a chance of so many in a thousand, whole.
    Pages(u32),
    /// Each sector with a chance of so many in a thousand.
    Sectors(u32),
}

impl Survival {
    fn draw(self, random: &mut Random) -> bool {
        match self {
            Survival::Nothing => false,
            Survival::Everything => true,
            Survival::Pages(chance) | Survival::Sectors(chance) => random.chance(chance),
        }
    }
}

/// A file's bytes.
#[derive(Debug, Clone, Default)]
pub struct Contents {
    size: u64,
    /// What readers see; what is not there is zeros.
    pages: BTreeMap<u64, Page>,
    /// What the disk has, of the pages where it may be something else.
    on_disk: BTreeMap<u64, OnDisk>,
    size_on_disk: u64,
    is_size_dirty: bool,
    /// The smallest size since the last sync: what the disk has beyond it was cut off.
    shrunk_to: Option<u64>,
    /// Space up to here is the file's, written or not.
    reserved: u64,
}

impl Contents {
    /// The size that readers see.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Bytes of memory, and of the disk, that it takes.
    pub fn allocated(&self) -> u64 {
        (self.pages.len() * PAGE_BYTES) as u64
    }

    /// Whether something is not synced, or was lost by a failed sync.
    pub fn is_clean(&self) -> bool {
        self.on_disk.is_empty() && self.size == self.size_on_disk && self.shrunk_to.is_none()
    }

    /// What readers get; less than asked for at the end of the file.
    pub fn read(&self, offset: u64, length: usize) -> Vec<u8> {
        let end = self.size.min(offset.saturating_add(length as u64));
        let mut bytes = vec![0; end.saturating_sub(offset) as usize];
        for (page, within, range) in parts(offset, bytes.len()) {
            if let Some(page) = self.pages.get(&page) {
                let length = range.len();
                bytes[range].copy_from_slice(&page[within..within + length]);
            }
        }
        bytes
    }

    /// Whether a write needs space that the file does not have yet.
    pub fn needs_space(&self, offset: u64, length: usize) -> bool {
        parts(offset, length)
            .any(|(page, ..)| !self.pages.contains_key(&page) && (page + 1) * PAGE_BYTES as u64 > self.reserved)
    }

    /// Writes, for readers; the disk has what it had.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) {
        for (number, within, range) in parts(offset, bytes.len()) {
            self.touch(number);
            let page = self.pages.entry(number).or_insert_with(|| Box::new([0; PAGE_BYTES]));
            page[within..within + range.len()].copy_from_slice(&bytes[range]);
        }
        let end = offset.saturating_add(bytes.len() as u64);
        if !bytes.is_empty() && end > self.size {
            self.size = end;
            self.is_size_dirty = true;
        }
    }

    /// Sets the size; what is new is zeros.
    pub fn set_size(&mut self, size: u64) {
        if size < self.size {
            self.drop_beyond(size);
            self.shrunk_to = Some(self.shrunk_to.map_or(size, |other| other.min(size)));
        }
        if size != self.size {
            self.size = size;
            self.is_size_dirty = true;
        }
    }

    fn drop_beyond(&mut self, size: u64) {
        let first_gone = size.div_ceil(PAGE_BYTES as u64);
        let gone: Vec<u64> = self.pages.range(first_gone..).map(|(number, _)| *number).collect();
        for number in gone {
            self.touch(number);
            self.pages.remove(&number);
        }
        let (last, within) = (size / PAGE_BYTES as u64, (size % PAGE_BYTES as u64) as usize);
        if within > 0 && self.pages.contains_key(&last) {
            self.touch(last);
            if let Some(page) = self.pages.get_mut(&last) {
                page[within..].fill(0);
            }
        }
        self.reserved = self.reserved.min(size);
    }

    /// Gives the file the space up to there, written or not.
    pub fn reserve(&mut self, end: u64) {
        self.reserved = self.reserved.max(end);
    }

    fn touch(&mut self, number: u64) {
        match self.on_disk.get_mut(&number) {
            Some(page) => page.is_dirty = true,
            None => {
                let page = self.pages.get(&number).cloned();
                self.on_disk.insert(number, OnDisk { page, is_dirty: true });
            }
        }
    }

    /// Everything that is dirty, the size too, is on the disk from now on.
    pub fn sync(&mut self) {
        self.on_disk.retain(|_, page| !page.is_dirty);
        if self.is_size_dirty {
            (self.size_on_disk, self.is_size_dirty) = (self.size, false);
        }
        self.shrunk_to = None;
    }

    /// A sync fails: nothing reaches the disk, and what was dirty looks clean to every later sync.
    pub fn fail_sync(&mut self) {
        self.on_disk.values_mut().for_each(|page| page.is_dirty = false);
        self.is_size_dirty = false;
    }

    /// The system writes some pages back by itself, as it likes.
    pub fn write_back(&mut self, random: &mut Random) {
        // What was cut off stays on the disk until the new size is there.
        let shrunk_to = self.shrunk_to.unwrap_or(u64::MAX);
        self.on_disk.retain(|number, page| {
            !page.is_dirty || (number + 1) * PAGE_BYTES as u64 > shrunk_to || random.chance(500)
        });
    }

    /// The power is gone: what readers see from now on is what the disk has, and as much of the rest as survives.
    pub fn cut(&mut self, survival: Survival, random: &mut Random) {
        let keeps_size = survival.draw(random);
        // A cut-off end comes back as it was, or is gone; there is no half of it.
        let restored_from = match self.shrunk_to {
            Some(size) if !keeps_size => size,
            _ => u64::MAX,
        };
        for (number, old) in std::mem::take(&mut self.on_disk) {
            let start = number * PAGE_BYTES as u64;
            let whole = matches!(survival, Survival::Pages(_)).then(|| survival.draw(random));
            let zeros = [0; PAGE_BYTES];
            let before = old.page.as_deref().unwrap_or(&zeros);
            let mut page = self.pages.remove(&number).unwrap_or_else(|| Box::new(zeros));
            for sector in 0..PAGE_BYTES / SECTOR_BYTES {
                let range = sector * SECTOR_BYTES..(sector + 1) * SECTOR_BYTES;
                let kept = whole.unwrap_or_else(|| survival.draw(random));
                if !kept || start + range.end as u64 > restored_from {
                    page[range.clone()].copy_from_slice(&before[range]);
                }
            }
            if *page != zeros || old.page.is_some() {
                self.pages.insert(number, page);
            }
        }
        if !keeps_size {
            self.size = self.size_on_disk;
        } else if self.size > self.size_on_disk && survival != Survival::Everything {
            self.size = random.range(self.size_on_disk..=self.size);
        }
        self.drop_beyond(self.size);
        // What the disk has is all there is now.
        self.on_disk.clear();
        (self.size_on_disk, self.is_size_dirty, self.shrunk_to) = (self.size, false, None);
    }
}

/// The pages that a piece of a file touches: number, where in the page, and which bytes of the piece.
fn parts(offset: u64, length: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        (done < length).then(|| {
            let at = offset + done as u64;
            let within = (at % PAGE_BYTES as u64) as usize;
            let count = (PAGE_BYTES - within).min(length - done);
            let range = done..done + count;
            done += count;
            (at / PAGE_BYTES as u64, within, range)
        })
    })
}
