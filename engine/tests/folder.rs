//! The data folder: identity, lock, and what is refused.

use holdfast_engine::Error;
use holdfast_engine::folder::{DataFolder, STARTS_KEPT};
use holdfast_engine::state_file;
use holdfast_engine::store::StoreKind;
use holdfast_engine::vfs::{CrashPlan, OsVfs, SimVfs, Vfs};
use std::path::Path;

const DIR: &str = "/var/holdfast-data";

fn open(vfs: &SimVfs) -> Result<DataFolder, Error> {
    DataFolder::open(vfs.shared(), Path::new(DIR), 0xabc, StoreKind::Fjall)
}

#[test]
fn identity_is_kept_and_each_open_counts() {
    let vfs = SimVfs::new();
    let mut folder = open(&vfs).unwrap();
    assert_eq!((folder.identity().folder, folder.identity().boot), (0xabc, 1));
    assert!(!folder.identity().initialised);
    folder.set_initialised().unwrap();
    folder.join_cluster(5, 3).unwrap();
    folder.join_cluster(5, 3).unwrap();
    assert!(folder.join_cluster(6, 3).is_err());
    assert!(folder.join_cluster(5, 4).is_err());
    for boot in 2..5 {
        drop(folder);
        let vfs = vfs.crash(CrashPlan::synced_only());
        folder = DataFolder::open(vfs.shared(), Path::new(DIR), 0xdef, StoreKind::Fjall).unwrap();
        let identity = folder.identity();
        assert_eq!((identity.folder, identity.cluster, identity.node, identity.boot), (0xabc, 5, 3, boot));
        assert!(identity.initialised);
    }
}

#[test]
fn last_starts_are_told_apart() {
    let vfs = SimVfs::new();
    for boot in 1..=20_u64 {
        let start = u128::from(1000 + boot);
        let folder = DataFolder::open(vfs.shared(), Path::new(DIR), start, StoreKind::Fjall).unwrap();
        let identity = folder.identity();
        assert_eq!(identity.boot, boot);
        let expected: Vec<u64> = (0..STARTS_KEPT as u64).map(|n| if n < boot { 1000 + boot - n } else { 0 }).collect();
        assert_eq!(identity.starts.to_vec(), expected, "newest first");
    }
}

#[test]
fn folder_is_used_by_one_process_at_a_time() {
    let vfs = SimVfs::new();
    let held = open(&vfs).unwrap();
    let error = open(&vfs).unwrap_err();
    assert!(matches!(&error, Error::Locked { path } if path == Path::new(DIR)));
    assert!(error.to_string().contains("another process"), "{error}");
    assert_eq!(held.identity().boot, 1);
    drop(held);
    assert_eq!(open(&vfs).unwrap().identity().boot, 2, "the refused open counted for nothing");
    // On the real file system, too.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a/b");
    let held = DataFolder::open(OsVfs::shared(), &path, 1, StoreKind::Sled).unwrap();
    let second = DataFolder::open(OsVfs::shared(), &path, 1, StoreKind::Sled);
    assert!(matches!(second, Err(Error::Locked { .. })));
    drop(held);
    DataFolder::open(OsVfs::shared(), &path, 1, StoreKind::Sled).unwrap();
}

#[test]
fn other_store_is_refused() {
    let vfs = SimVfs::new();
    drop(open(&vfs).unwrap());
    let error = DataFolder::open(vfs.shared(), Path::new(DIR), 1, StoreKind::Sled).unwrap_err();
    assert!(matches!(error, Error::Foreign { .. }));
    let text = error.to_string();
    assert!(text.contains("\"fjall\"") && text.contains("\"sled\""), "{text}");
}

#[test]
fn folder_of_a_newer_release_is_refused_and_left_alone() {
    let vfs = SimVfs::new();
    drop(open(&vfs).unwrap());
    let path = Path::new(DIR).join("IDENTITY");
    state_file::write(&*vfs.shared(), &path, *b"HFFOLDER", 3, &[0; 99]).unwrap();
    let before = vfs.contents(&path);
    let error = open(&vfs).unwrap_err();
    assert!(matches!(error, Error::Foreign { .. }));
    assert!(error.to_string().contains("newer release"), "{error}");
    assert_eq!(vfs.contents(&path), before);
}

#[test]
fn damaged_identity_is_refused_at_every_byte_and_every_length() {
    let vfs = SimVfs::new();
    drop(open(&vfs).unwrap());
    let path = Path::new(DIR).join("IDENTITY");
    let good = vfs.contents(&path);
    for at in 0..good.len() {
        vfs.flip_bit(&path, at as u64, (at % 8) as u8);
        assert!(matches!(open(&vfs), Err(Error::Damaged { .. })), "byte {at}");
        vfs.replace(&path, &good[..at]);
        assert!(matches!(open(&vfs), Err(Error::Damaged { .. })), "length {at}");
        vfs.replace(&path, &good);
    }
    assert_eq!(open(&vfs).unwrap().identity().boot, 2);
}

#[test]
fn folder_with_files_but_no_identity_is_refused() {
    let vfs = SimVfs::new();
    vfs.create_dir_all(Path::new(DIR)).unwrap();
    vfs.replace(&Path::new(DIR).join("thesis.doc"), b"dear to someone");
    let error = open(&vfs).unwrap_err();
    assert!(matches!(error, Error::Foreign { .. }));
    assert!(error.to_string().contains("thesis.doc"), "{error}");
}

#[test]
fn unwritable_folder_is_said() {
    let vfs = SimVfs::new();
    drop(open(&vfs).unwrap());
    vfs.set_read_only(true);
    let error = open(&vfs).unwrap_err();
    assert!(error.to_string().contains(DIR), "{error}");
    let file = tempfile::NamedTempFile::new().unwrap();
    let error = DataFolder::open(OsVfs::shared(), &file.path().join("x"), 1, StoreKind::Fjall).unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error}");
}

#[test]
fn crash_at_each_step_of_opening_leaves_the_old_identity_or_the_new() {
    for halt in 0..40 {
        for seed in 0..5 {
            let vfs = SimVfs::new();
            vfs.halt_after(halt);
            let mut boots = 0;
            for _ in 0..3 {
                match open(&vfs) {
                    Ok(_) => boots += 1,
                    Err(_) => break,
                }
            }
            let vfs = vfs.crash(CrashPlan::power_cut(seed));
            let boot = open(&vfs).unwrap_or_else(|e| panic!("halt {halt} seed {seed}: {e}")).identity().boot;
            assert!(boot > boots, "halt {halt} seed {seed}: {boot} after {boots}");
        }
    }
}
