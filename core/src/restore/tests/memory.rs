//! Memory does not grow with the database (invariant 9).

use std::io::{BufWriter, Seek, SeekFrom, Write};

use super::world::{START, World, run, txid};
use crate::ltx::{Encoder, Header, Mark, Spill, Tracking};
use crate::manifest::FileKey;
use crate::restore::{LeaveState, RestoreTarget};
use crate::types::{DatabaseSum, PageCount, Timestamp, TxidRange};

/// The most memory that this process ever had resident, in KiB.
pub(crate) fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Run it alone: the peak is the process's.
#[test]
#[ignore = "takes minutes and gigabytes"]
fn s7_ten_million_pages_restore_in_64_mib() {
    // As the programs run it.
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.max_blocking_threads(4).enable_all();
    runtime.build().unwrap().block_on(restore_large());
}

/// A snapshot of `PAGES` random pages of `PAGE_SIZE`, by default ten million of 512 bytes.
pub(crate) async fn large_snapshot() -> (World, PageCount, DatabaseSum) {
    let size: u32 = std::env::var("PAGE_SIZE").map_or(512, |text| text.parse().unwrap());
    let count: u32 = std::env::var("PAGES").map_or(10_000_000, |text| text.parse().unwrap());
    let world = World::new(90, size);
    let path = world.path_of(FileKey::snapshot(txid(1)));
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut file = std::fs::File::create(&path).unwrap();
    file.write_all(&[0; 100]).unwrap();
    let spill = Spill::Directory(world.directory.path().to_owned());
    let out = BufWriter::with_capacity(1 << 20, file);
    let mut encoder = Encoder::new(out, world.page_size, PageCount(count), spill);
    let mut noise = fastrand::Rng::with_seed(1);
    let mut data = vec![0; size as usize];
    let mut sum = DatabaseSum::EMPTY;
    for page in world.page_size.stored_pages(PageCount(count)) {
        noise.fill(&mut data);
        let page = crate::ltx::Page::new(page, &data, world.page_size);
        encoder.write(&page).unwrap();
        sum.add(page.sum());
    }
    let header = Header {
        page_size: world.page_size,
        commit: PageCount(count),
        range: TxidRange::snapshot(txid(1)),
        timestamp: Timestamp::from_millis(START),
        tracking: Tracking::Tracked { pre_apply: None },
        wal: None,
        node: world.stream.to_node_id(),
        digest: Some(sum.digest),
        mark: Mark::None,
        span_ms: 0,
    };
    let finished = encoder.finish(&header, Some(sum.checksum)).unwrap();
    let mut file = finished.out.into_inner().unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    file.write_all(&finished.header).unwrap();
    (world, PageCount(count), sum)
}

async fn restore_large() {
    let (world, count, sum) = large_snapshot().await;
    let before = peak_kib();
    let mut request = world.request(RestoreTarget::Latest);
    request.state = LeaveState::Yes;
    let report = run(&world.store, &request).await.unwrap();
    assert_eq!((report.checksum, report.digest), (sum.checksum, sum.digest));
    let peak = peak_kib();
    eprintln!("{report:?}");
    eprintln!("peak {before} KiB while encoding, {peak} KiB after the restore");
    assert!(peak < 64 * 1024, "{peak} KiB");
    assert_eq!(
        std::fs::metadata(world.output()).unwrap().len(),
        world.page_size.total(count)
    );
}
