//! The disk, mounted: what the kernel makes of it. Skipped aloud where this machine may not mount.

#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use holdfast_blackbox::disk::{Disk, Faults, Mount, Survival};
use holdfast_sim::random::Random;

/// Mounts a new disk, or says why not.
fn mounted(folder: &Path) -> Option<Mount> {
    match Mount::new(Disk::new(Random::new(1)), folder) {
        Ok(mount) => Some(mount),
        Err(story) => {
            eprintln!("SKIPPED: this machine can't mount a disk of ours: {story}");
            None
        }
    }
}

fn cut(mount: Mount, folder: &Path) -> Mount {
    mount.power_off();
    mount.release_the_dead();
    let mut disk = mount.take().unwrap();
    disk.cut(Survival::Nothing, Survival::Nothing, &mut Random::new(1));
    Mount::new(disk, folder).unwrap()
}

#[test]
fn only_what_was_synced_is_there_after_a_cut() {
    let folder = tempfile::tempdir().unwrap();
    let Some(mount) = mounted(folder.path()) else { return };
    let sub = folder.path().join("sub");
    fs::create_dir(&sub).unwrap();
    let mut file = File::create(sub.join("a")).unwrap();
    file.write_all(&[1; 100_000]).unwrap();
    file.sync_all().unwrap();
    File::open(&sub).unwrap().sync_all().unwrap();
    File::open(folder.path()).unwrap().sync_all().unwrap();
    file.write_at(&[2; 1000], 50_000).unwrap();
    fs::write(sub.join("b"), b"never synced").unwrap();
    fs::rename(sub.join("a"), sub.join("c")).unwrap();
    assert_eq!(fs::read(sub.join("c")).unwrap()[50_000], 2);
    drop(file);

    let mount = cut(mount, folder.path());
    let names: Vec<_> = fs::read_dir(&sub).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["a"]);
    assert_eq!(fs::read(sub.join("a")).unwrap(), [1; 100_000]);
    fs::remove_dir_all(&sub).unwrap();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    drop(mount);
}

#[test]
fn faults_are_what_a_process_gets_and_go_when_they_are_mended() {
    let folder = tempfile::tempdir().unwrap();
    let Some(mount) = mounted(folder.path()) else { return };
    let path = folder.path().join("a");
    let file = File::options().create_new(true).read(true).write(true).open(&path).unwrap();
    file.write_at(b"old", 0).unwrap();
    file.sync_all().unwrap();
    let code = |error: std::io::Error| error.raw_os_error().unwrap();
    let (eio, enospc) = (5, 28);

    mount.set_faults(Faults { full: true, ..Faults::default() });
    assert_eq!(file.write_at(&[0; 10_000], 0).map_err(code), Err(enospc));
    assert_eq!(File::create(folder.path().join("b")).map_err(code).err(), Some(enospc));
    mount.set_faults(Faults { write_errors: true, ..Faults::default() });
    assert_eq!(file.write_at(b"x", 0).map_err(code), Err(eio));
    mount.set_faults(Faults { read_errors: true, ..Faults::default() });
    assert_eq!(file.read_at(&mut [0; 3], 0).map_err(code), Err(eio));
    mount.set_faults(Faults { sync_errors: true, ..Faults::default() });
    assert_eq!(file.sync_data().map_err(code), Err(eio));
    assert_eq!(mount.counts().errors, 5);
    mount.set_faults(Faults::default());
    file.write_at(b"new", 0).unwrap();
    file.sync_data().unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"new");
}

#[test]
fn stalled_sync_holds_nobody_else_and_ends_when_it_is_mended() {
    let folder = tempfile::tempdir().unwrap();
    let Some(mount) = mounted(folder.path()) else { return };
    let file = File::create(folder.path().join("a")).unwrap();
    let stall = Duration::from_secs(600);
    mount.set_faults(Faults { sync_stall: Some(stall), ..Faults::default() });
    let began = Instant::now();
    let syncing = std::thread::spawn(move || file.sync_all());
    while mount.counts().stalls == 0 {
        std::thread::yield_now();
    }
    fs::write(folder.path().join("b"), b"meanwhile").unwrap();
    assert!(!syncing.is_finished());
    mount.set_faults(Faults::default());
    syncing.join().unwrap().unwrap();
    assert!(began.elapsed() < stall);
}
