//! The checkpoint store on a disk that loses power. Skipped aloud where this machine may not mount.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use holdfast_blackbox::disk::{Disk, Mount, Survival};
use holdfast_engine::store::{OPEN_PATIENCE, OpenedStore, StoreKind, StoreOptions, open_store};
use holdfast_engine::vfs::OsVfs;
use holdfast_sim::random::Random;

fn open(folder: &Path) -> OpenedStore {
    let options = StoreOptions {
        dir: folder.join("data/table"),
        kind: StoreKind::Fjall,
        folder: 0,
        cache_bytes_max: 1 << 20,
        boot_id: String::new(),
        open_patience: OPEN_PATIENCE,
    };
    open_store(&OsVfs::shared(), &options).unwrap()
}

fn row(generation: u64) -> [u8; 8] {
    generation.to_be_bytes()
}

/// Each generation that was taken in is there after a power cut, whatever else survives of what was not synced: the store
/// claims so, and the log is cut on its word. The first cut comes when the store is new.
#[test]
fn what_fjall_calls_durable_survives_every_power_cut() {
    let survivals = [Survival::Nothing, Survival::Sectors(500), Survival::Pages(500), Survival::Everything];
    for (seed, survival) in (0..).zip(survivals) {
        let folder = tempfile::tempdir().unwrap();
        let mut random = Random::new(seed);
        let mut mount = match Mount::new(Disk::new(random.fork("disk")), folder.path()) {
            Ok(mount) => mount,
            Err(story) => return eprintln!("SKIPPED: this machine can't mount a disk of ours: {story}"),
        };
        let mut generation = 0;
        for _ in 0..5 {
            let OpenedStore { store, set_aside } = open(folder.path());
            assert_eq!(set_aside, None, "{survival:?}");
            for earlier in 0..generation {
                let found = store.get(&row(earlier)).unwrap();
                assert_eq!(found.as_deref(), Some(&b"value"[..]), "{survival:?}: generation {earlier} of {generation}");
            }
            for _ in 0..random.range(1..=8) {
                store.ingest(&mut |sink| sink.put(&row(generation), b"va", b"lue")).unwrap();
                generation += 1;
            }
            mount.power_off();
            mount.release_the_dead();
            drop(store);
            let mut disk = mount.take().unwrap();
            disk.cut(survival, survival, &mut random);
            mount = Mount::new(disk, folder.path()).unwrap();
        }
    }
}
