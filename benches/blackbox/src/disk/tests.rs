//! What survives which sequence of changes and syncs, without mounting anything.

use std::collections::BTreeSet;
use std::ffi::OsStr;

use holdfast_sim::random::Random;

use super::{Disk, Kind, PAGE_BYTES, ROOT, Refusal, SECTOR_BYTES, Survival};

const ALL: [Survival; 4] = [Survival::Nothing, Survival::Everything, Survival::Pages(500), Survival::Sectors(500)];

fn disk() -> Disk {
    Disk::new(Random::new(1))
}

fn name(text: &str) -> &OsStr {
    OsStr::new(text)
}

fn file(disk: &mut Disk, text: &str, bytes: &[u8]) -> u64 {
    let number = disk.create(ROOT, name(text)).unwrap();
    disk.write(number, 0, bytes).unwrap();
    number
}

fn contents(disk: &Disk, text: &str) -> Option<Vec<u8>> {
    let number = disk.lookup(ROOT, name(text)).ok()?;
    Some(disk.read(number, 0, 1 << 20).unwrap())
}

fn names(disk: &Disk) -> BTreeSet<String> {
    disk.list(ROOT).unwrap().into_iter().map(|(name, _)| name.into_string().unwrap()).collect()
}

/// What a disk may look like after a cut, over many cuts of every kind.
fn outcomes<T: Ord>(disk: &Disk, look: impl Fn(&Disk) -> T) -> BTreeSet<T> {
    let outcome = |seed: u64| {
        let (mut copy, mut random) = (disk.clone(), Random::new(seed));
        copy.cut(ALL[random.index(4)], ALL[random.index(4)], &mut random);
        look(&copy)
    };
    (0..400).map(outcome).collect()
}

#[test]
fn synced_bytes_and_their_size_survive_every_cut() {
    let mut disk = disk();
    let number = file(&mut disk, "a", &[7; 10_000]);
    disk.sync(number).unwrap();
    disk.sync_folder(ROOT).unwrap();
    assert_eq!(outcomes(&disk, |disk| contents(disk, "a")), BTreeSet::from([Some(vec![7; 10_000])]));
}

#[test]
fn synced_file_without_its_name_may_be_gone() {
    let mut disk = disk();
    let number = file(&mut disk, "a", b"x");
    disk.sync(number).unwrap();
    let expected = BTreeSet::from([None, Some(b"x".to_vec())]);
    assert_eq!(outcomes(&disk, |disk| contents(disk, "a")), expected);
}

#[test]
fn name_without_its_bytes_is_an_empty_or_torn_file() {
    let mut disk = disk();
    file(&mut disk, "a", b"xyz");
    disk.sync_folder(ROOT).unwrap();
    for found in outcomes(&disk, |disk| contents(disk, "a")) {
        let found = found.unwrap();
        assert!(found.len() <= 3 && (b"xyz".starts_with(&found) || found.iter().all(|byte| *byte == 0)), "{found:?}");
    }
    assert!(outcomes(&disk, |disk| contents(disk, "a")).len() >= 4);
}

#[test]
fn overwritten_sectors_are_each_old_or_new() {
    let mut disk = disk();
    let number = file(&mut disk, "a", &[1; PAGE_BYTES]);
    disk.sync(number).unwrap();
    disk.sync_folder(ROOT).unwrap();
    disk.write(number, 0, &[2; PAGE_BYTES]).unwrap();
    assert_eq!(contents(&disk, "a"), Some(vec![2; PAGE_BYTES]));
    let found = outcomes(&disk, |disk| contents(disk, "a").unwrap());
    for bytes in &found {
        assert_eq!(bytes.len(), PAGE_BYTES);
        for sector in bytes.chunks(SECTOR_BYTES) {
            assert!(sector == [1; SECTOR_BYTES] || sector == [2; SECTOR_BYTES]);
        }
    }
    assert!(found.contains(&vec![1; PAGE_BYTES]) && found.contains(&vec![2; PAGE_BYTES]) && found.len() > 50);
}

#[test]
fn failed_sync_is_seen_by_readers_and_lost_at_the_cut() {
    let mut disk = disk();
    let number = file(&mut disk, "a", b"old");
    disk.sync(number).unwrap();
    disk.sync_folder(ROOT).unwrap();
    disk.write(number, 0, b"new").unwrap();
    disk.fail_sync(number).unwrap();
    // The next one succeeds, and has nothing to write.
    disk.sync(number).unwrap();
    assert_eq!(contents(&disk, "a"), Some(b"new".to_vec()));
    disk.cut(Survival::Nothing, Survival::Nothing, &mut Random::new(1));
    assert_eq!(contents(&disk, "a"), Some(b"old".to_vec()));
}

#[test]
fn bytes_written_again_after_a_failed_sync_are_durable_with_the_next() {
    let mut disk = disk();
    let number = file(&mut disk, "a", b"old");
    disk.sync(number).unwrap();
    disk.sync_folder(ROOT).unwrap();
    disk.write(number, 0, b"new").unwrap();
    disk.fail_sync(number).unwrap();
    disk.write(number, 0, b"new").unwrap();
    disk.sync(number).unwrap();
    assert_eq!(outcomes(&disk, |disk| contents(disk, "a")), BTreeSet::from([Some(b"new".to_vec())]));
}

#[test]
fn rename_over_a_file_leaves_one_of_the_two_whole() {
    let mut disk = disk();
    for (text, bytes) in [("a", b"old"), ("a.new", b"new")] {
        let number = file(&mut disk, text, bytes);
        disk.sync(number).unwrap();
    }
    disk.sync_folder(ROOT).unwrap();
    disk.rename((ROOT, name("a.new")), (ROOT, name("a"))).unwrap();
    let found = outcomes(&disk, |disk| (names(disk), contents(disk, "a").unwrap()));
    let both = BTreeSet::from(["a".to_owned(), "a.new".to_owned()]);
    let expected = [(both, b"old".to_vec()), (BTreeSet::from(["a".to_owned()]), b"new".to_vec())];
    assert_eq!(found, BTreeSet::from(expected));
    disk.sync_folder(ROOT).unwrap();
    assert_eq!(outcomes(&disk, |disk| contents(disk, "a")), BTreeSet::from([Some(b"new".to_vec())]));
}

#[test]
fn unsynced_changes_of_different_names_survive_in_any_combination() {
    let mut disk = disk();
    file(&mut disk, "kept", b"");
    disk.sync_folder(ROOT).unwrap();
    file(&mut disk, "made", b"");
    disk.remove(ROOT, name("kept")).unwrap();
    assert_eq!(outcomes(&disk, names).len(), 4);
}

#[test]
fn later_change_of_a_name_needs_the_earlier_one() {
    let mut disk = disk();
    file(&mut disk, "a", b"");
    disk.rename((ROOT, name("a")), (ROOT, name("b"))).unwrap();
    disk.rename((ROOT, name("b")), (ROOT, name("c"))).unwrap();
    let single = |text: &str| BTreeSet::from([text.to_owned()]);
    let expected = BTreeSet::from([BTreeSet::new(), single("a"), single("b"), single("c")]);
    assert_eq!(outcomes(&disk, names), expected);
}

#[test]
fn sync_of_one_folder_takes_what_it_depends_on_along() {
    let mut disk = disk();
    let sub = disk.create_folder(ROOT, name("sub")).unwrap();
    disk.sync_folder(ROOT).unwrap();
    let number = file(&mut disk, "a", b"x");
    disk.sync(number).unwrap();
    file(&mut disk, "other", b"");
    disk.rename((ROOT, name("a")), (sub, name("a"))).unwrap();
    disk.sync_folder(sub).unwrap();
    for (root, sub) in outcomes(&disk, |disk| {
        let sub = disk.lookup(ROOT, name("sub")).unwrap();
        (names(disk), disk.list(sub).unwrap().len())
    }) {
        assert!(!root.contains("a") && sub == 1, "{root:?}");
    }
}

#[test]
fn folder_whose_own_name_is_lost_takes_its_files_along() {
    let mut disk = disk();
    let sub = disk.create_folder(ROOT, name("sub")).unwrap();
    let number = disk.create(sub, name("a")).unwrap();
    disk.sync(number).unwrap();
    disk.sync_folder(sub).unwrap();
    disk.cut(Survival::Nothing, Survival::Nothing, &mut Random::new(1));
    assert_eq!(names(&disk), BTreeSet::new());
    assert_eq!(disk.kind(number), Err(Refusal::NotFound));
}

#[test]
fn end_that_was_cut_off_comes_back_as_it_was_or_not_at_all() {
    let mut disk = disk();
    let bytes: Vec<u8> = (0..9000u32).map(|at| (at / 100) as u8 + 1).collect();
    let number = file(&mut disk, "a", &bytes);
    disk.sync(number).unwrap();
    disk.sync_folder(ROOT).unwrap();
    disk.set_size(number, 5000).unwrap();
    for found in outcomes(&disk, |disk| contents(disk, "a").unwrap()) {
        assert!(found == bytes || found == bytes[..5000], "{} bytes", found.len());
    }
    disk.sync(number).unwrap();
    assert_eq!(outcomes(&disk, |disk| contents(disk, "a").unwrap()), BTreeSet::from([bytes[..5000].to_vec()]));
    disk.set_size(number, 6000).unwrap();
    assert_eq!(contents(&disk, "a").unwrap()[5000..], [0; 1000]);
}

#[test]
fn full_disk_takes_what_has_its_space_already() {
    let mut disk = disk();
    let (written, reserved) = (file(&mut disk, "a", &[1; PAGE_BYTES]), file(&mut disk, "b", b""));
    disk.reserve(reserved, 0, 2 * PAGE_BYTES as u64, false).unwrap();
    assert_eq!(disk.kind(reserved), Ok(Kind::File { size: 2 * PAGE_BYTES as u64, allocated: 0 }));
    disk.set_full(true);
    disk.write(written, 0, &[2; PAGE_BYTES]).unwrap();
    disk.write(reserved, 0, &[2; 2 * PAGE_BYTES]).unwrap();
    assert_eq!(disk.write(written, PAGE_BYTES as u64, b"x"), Err(Refusal::NoSpace));
    assert_eq!(disk.reserve(written, 0, 1 << 20, true), Err(Refusal::NoSpace));
    assert_eq!(disk.create(ROOT, name("c")), Err(Refusal::NoSpace));
    disk.rename((ROOT, name("a")), (ROOT, name("b"))).unwrap();
    disk.set_full(false);
    disk.create(ROOT, name("c")).unwrap();
}

#[test]
fn removed_file_is_there_for_whoever_holds_it_and_its_memory_goes_with_the_last() {
    let mut disk = disk();
    let number = file(&mut disk, "a", &[1; 100_000]);
    disk.hold(number);
    disk.remove(ROOT, name("a")).unwrap();
    disk.sync_folder(ROOT).unwrap();
    assert_eq!(disk.read(number, 0, 10).unwrap(), [1; 10]);
    assert!(disk.allocated() >= 100_000);
    disk.release(number, 1);
    assert_eq!(disk.allocated(), 0);
}

#[test]
fn folders_refuse_what_folders_refuse() {
    let mut disk = disk();
    let sub = disk.create_folder(ROOT, name("sub")).unwrap();
    let number = disk.create(sub, name("a")).unwrap();
    assert_eq!(disk.create(sub, name("a")), Err(Refusal::Exists));
    assert_eq!(disk.remove_folder(ROOT, name("sub")), Err(Refusal::NotEmpty));
    assert_eq!(disk.remove(ROOT, name("sub")), Err(Refusal::IsFolder));
    assert_eq!(disk.lookup(number, name("a")), Err(Refusal::NotFolder));
    assert_eq!(disk.rename((sub, name("a")), (ROOT, name("sub"))), Err(Refusal::IsFolder));
    assert_eq!(disk.read(sub, 0, 1), Err(Refusal::IsFolder));
    disk.remove(sub, name("a")).unwrap();
    disk.remove_folder(ROOT, name("sub")).unwrap();
    assert_eq!(names(&disk), BTreeSet::new());
}

/// Random files written, synced and cut: whatever was synced and not touched since is there, whatever else happens.
#[test]
fn random_histories_never_lose_what_was_synced() {
    for seed in 0..60 {
        let mut random = Random::new(seed);
        let mut disk = Disk::new(random.fork("disk"));
        let number = disk.create(ROOT, name("a")).unwrap();
        disk.sync_folder(ROOT).unwrap();
        // For each byte, the values that it may have after a cut.
        let mut may: Vec<BTreeSet<u8>> = vec![BTreeSet::from([0]); 9_000];
        disk.set_size(number, may.len() as u64).unwrap();
        disk.sync(number).unwrap();
        for _ in 0..40 {
            match random.weighted(&[60, 25, 15]) {
                0 => {
                    let (start, value) = (random.index(may.len()), random.below(256) as u8);
                    let end = (start + random.index(3000)).min(may.len());
                    disk.write(number, start as u64, &vec![value; end - start]).unwrap();
                    for byte in &mut may[start..end] {
                        byte.insert(value);
                    }
                }
                1 => {
                    disk.sync(number).unwrap();
                    let now = disk.read(number, 0, may.len()).unwrap();
                    may = now.into_iter().map(|byte| BTreeSet::from([byte])).collect();
                }
                _ => {
                    disk.cut(ALL[random.index(4)], Survival::Nothing, &mut random);
                    let now = disk.read(number, 0, may.len()).unwrap();
                    assert_eq!(now.len(), may.len(), "seed {seed}");
                    for (byte, may) in now.iter().zip(&may) {
                        assert!(may.contains(byte), "seed {seed}");
                    }
                    may = now.into_iter().map(|byte| BTreeSet::from([byte])).collect();
                }
            }
        }
    }
}
