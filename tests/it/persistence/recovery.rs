//! The table of `recovery.rs`, a test for each row: what a journal's files mean at the start.

use std::{fs, os::unix::fs::MetadataExt, sync::Arc};

use batonmq::{
    persistence::{
        MessageReader, PageRange, PersistenceAdapter, StoreError,
        journal::{Health, JournalAdapter, RealDisk, inspect},
    },
    types::{Catalog, Holder, Priority, Term},
};

use super::{
    EVERYTHING, LARGE, ORDERS,
    files::{Files, RECORDS_AT, SEGMENT_BYTES, index, name, seq},
    insert, settle,
};

/// A frame around `record` whose checksum is right.
fn frame(record: &[u8]) -> Vec<u8> {
    let length = (record.len() as u32).to_le_bytes();
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&length), record);
    [&length, checksum.to_le_bytes().as_slice(), record].concat()
}

#[tokio::test]
async fn a_missing_directory_becomes_a_new_journal() {
    let files = Files::empty();
    let data = files.0.path().join("a/b");
    let mut adapter = JournalAdapter::open(&data, Files::options()).unwrap();
    assert_eq!(adapter.recover().await.unwrap(), Catalog::default());
    assert_eq!(fs::read_dir(data.join("journal")).unwrap().count(), 2, "a segment and the reserve");
}

#[tokio::test]
async fn unfinished_files_are_removed_and_a_whole_spare_is_kept() {
    let files = Files::with(2).await;
    fs::write(files.path("spare.new"), [1; 100]).unwrap();
    fs::write(files.path("large.new"), [1; 100]).unwrap();
    fs::write(files.path("spare"), vec![1; SEGMENT_BYTES as usize]).unwrap();
    files.assert_holds(1..=2).await;
    assert_eq!(files.names(), [&name(1), "reserve", "spare"]);
    let mut broker = files.start().await;
    for counter in 3..=9 {
        broker.commit(vec![insert(seq(counter), 10_000)]).await;
    }
    drop(broker);
    assert_eq!(files.names(), [&index(1), &name(1), &name(2), "reserve"], "the spare was used");
    files.assert_holds(1..=9).await;
}

#[tokio::test]
async fn a_spare_or_reserve_of_another_size_is_removed() {
    let files = Files::with(2).await;
    fs::write(files.path("spare"), [1; 100]).unwrap();
    fs::write(files.path("reserve"), [1; 100]).unwrap();
    files.assert_holds(1..=2).await;
    assert_eq!(files.names(), [&name(1), "reserve"]);
    assert_eq!(fs::metadata(files.path("reserve")).unwrap().len(), SEGMENT_BYTES, "there has to be one");
}

/// What a power loss may leave of a rename.
#[tokio::test]
async fn a_segment_that_is_called_spare_too_is_not_used_again() {
    for other in ["spare", "reserve"] {
        let files = Files::with(2).await;
        fs::remove_file(files.path("reserve")).unwrap();
        fs::hard_link(files.path(&name(1)), files.path(other)).unwrap();
        let mut broker = files.start().await;
        assert_eq!(files.names(), [&name(1), "reserve"]);
        assert_eq!(fs::metadata(files.path(&name(1))).unwrap().nlink(), 1);
        for counter in 3..=9 {
            broker.commit(vec![insert(seq(counter), 10_000)]).await;
        }
        drop(broker);
        files.assert_holds(1..=9).await;
    }
}

#[tokio::test]
async fn a_newer_format_is_refused_as_such() {
    let files = Files::with(2).await;
    files.set_format(1, 9);
    let error = files.refusal().await;
    assert!(matches!(error, StoreError::NewerFormat { found: 9, supported: 1, .. }), "{error}");
}

#[tokio::test]
async fn a_bad_header_is_damage() {
    let files = Files::with(8).await;
    files.flip(2, 17);
    files.assert_damaged(2, 0, "the header's checksum").await;
    fs::write(files.path(&name(2)), [0; 10]).unwrap();
    files.assert_damaged(2, 0, "shorter than its header").await;
    fs::copy(files.path(&name(1)), files.path(&name(2))).unwrap();
    files.assert_damaged(2, 0, "that of another segment").await;
}

#[tokio::test]
async fn a_segment_without_its_catalog_is_damage() {
    let files = Files::with(8).await;
    let whole = files.read(2);
    files.flip(2, RECORDS_AT + 20);
    files.assert_damaged(2, RECORDS_AT, "first record").await;
    files.write(2, &whole, 0);
    files.write(2, &vec![0; (SEGMENT_BYTES - RECORDS_AT) as usize], RECORDS_AT);
    files.assert_damaged(2, RECORDS_AT, "first record").await;
}

#[tokio::test]
async fn r34_a_missing_segment_is_damage() {
    let files = Files::with(20).await;
    fs::remove_file(files.path(&name(2))).unwrap();
    files.assert_damaged(2, 0, "the file is missing").await;
}

/// Nothing but the newest knows that it was there; the one before it was told when it was durable.
#[tokio::test]
async fn a_newest_segment_that_was_removed_is_missed() {
    let files = Files::with(20).await;
    let newest = files.newest();
    for gone in [newest, newest - 1] {
        fs::remove_file(files.path(&name(gone))).unwrap();
        files.assert_damaged(gone, 0, "the file is missing").await;
    }
}

/// Segments leave oldest first (R34), after a record said that they may.
#[tokio::test]
async fn r34_an_oldest_segment_that_was_removed_is_missed() {
    for settled in [0, 6, 12] {
        let files = Files::with(32).await;
        let mut broker = files.start().await;
        for counter in 1..=settled {
            broker.commit(vec![settle(seq(counter))]).await;
        }
        drop(broker);
        files.assert_holds(settled + 1..=32).await;
        let oldest = files.oldest();
        assert_eq!(oldest > 1, settled > 0, "segments leave");
        fs::remove_file(files.path(&name(oldest))).unwrap();
        files.assert_damaged(oldest, 0, "the file is missing").await;
        fs::remove_file(files.path(&name(oldest + 1))).unwrap();
        files.assert_damaged(oldest, 0, "the file is missing").await;
    }
}

#[tokio::test]
async fn a_journal_whose_segments_were_all_removed_is_no_new_one() {
    let files = Files::with(8).await;
    for number in files.oldest()..=files.newest() {
        fs::remove_file(files.path(&name(number))).unwrap();
    }
    let error = files.refusal().await;
    assert!(error.to_string().ends_with("journal/*.journal is damaged at byte 0: all segments are missing"), "{error}");
}

#[tokio::test]
async fn files_of_two_journals_in_one_directory_are_told_apart() {
    let (files, other) = (Files::with(20).await, Files::with(20).await);
    for segment in [2, 3] {
        let own = files.read(segment);
        fs::copy(other.path(&name(segment)), files.path(&name(segment))).unwrap();
        files.assert_damaged(segment, 0, "two journals are mixed").await;
        fs::write(files.path(&name(segment)), own).unwrap();
    }
    files.assert_holds(1..=20).await;
}

/// Also the newest, where a missing end would pass for the end.
#[tokio::test]
async fn a_segment_that_was_cut_short_by_hand_is_damage() {
    for segment in [1, 2] {
        let files = Files::with(8).await;
        for length in [SEGMENT_BYTES - 1, *files.records(segment).last().unwrap(), RECORDS_AT] {
            files.cut(segment, length);
            files.assert_damaged(segment, length, "cut short").await;
        }
    }
}

#[tokio::test]
async fn an_older_segment_that_ends_early_is_damage() {
    let files = Files::with(8).await;
    fs::remove_file(files.path(&index(1))).unwrap();
    let records = files.records(1);
    let last = records[records.len() - 2];
    files.write(1, &vec![0; (SEGMENT_BYTES - last) as usize], last);
    files.assert_damaged(1, last, "records are missing").await;
}

#[tokio::test]
async fn a_bad_record_in_an_older_segment_is_damage() {
    let files = Files::with(8).await;
    fs::remove_file(files.path(&index(1))).unwrap();
    let records = files.records(1);
    let last = records[records.len() - 2];
    files.flip(1, last + 5_000);
    files.assert_damaged(1, last, "checksum").await;
}

/// R36: a start does not read it, so whoever does tells.
#[tokio::test]
async fn a_bad_record_in_a_sealed_segment_is_found_by_who_reads_it() {
    let files = Files::with(8).await;
    let records = files.records(1);
    let last = records[records.len() - 2];
    files.flip(1, last + 5_000);
    assert!(matches!(files.health(), Health::Good), "inspect reads what a start reads");
    let damage = files.verified().unwrap().damage;
    assert_eq!((&damage[0].path, damage[0].offset), (&files.path(&name(1)), last), "verify reads everything");
    let broker = files.start().await;
    let (reader, queue) = (broker.adapter.reader(), Holder::Queue(ORDERS));
    let good = PageRange { upto: seq(5), ..EVERYTHING };
    assert_eq!(reader.page(queue, Priority::default(), good, LARGE).await.unwrap().messages.len(), 5);
    let page = reader.page(queue, Priority::default(), EVERYTHING, LARGE).await;
    let Err(StoreError::Damaged { path, offset, .. }) = page else { panic!("{page:?}") };
    assert!(path == files.path(&name(1)) && (last..last + 10_000).contains(&offset), "{} {offset}", path.display());
}

#[tokio::test]
async fn an_index_that_is_of_no_use_is_made_anew() {
    let whole = Files::with(14).await;
    let bytes = fs::read(whole.path(&index(1))).unwrap();
    let other = fs::read(whole.path(&index(2))).unwrap();
    let flipped = |at: usize| {
        let mut bytes = bytes.clone();
        bytes[at] ^= 1;
        bytes
    };
    let unusable = [vec![], bytes[..40].to_vec(), bytes[..70].to_vec(), flipped(8), flipped(30), flipped(70), other];
    for (case, content) in unusable.into_iter().enumerate() {
        fs::write(whole.path(&index(1)), content).unwrap();
        let mut broker = whole.start().await;
        assert_eq!(broker.messages(ORDERS).await.len(), 14, "case {case}");
        broker.commit(vec![]).await; // its time for what nobody waits for
        drop(broker);
        assert_eq!(fs::read(whole.path(&index(1))).unwrap(), bytes, "case {case}");
    }
}

#[tokio::test]
async fn an_index_whose_tables_are_damaged_is_mended_when_it_is_read() {
    for table in 1..=2 {
        let files = Files::with(8).await;
        let mut bytes = fs::read(files.path(&index(1))).unwrap();
        bytes[table * 4_096 + 10] ^= 1; // the lanes, then the places
        fs::write(files.path(&index(1)), bytes).unwrap();
        files.assert_holds(1..=8).await;
    }
}

#[tokio::test]
async fn an_index_without_a_sealed_segment_is_removed() {
    let files = Files::with(8).await;
    for number in [0, 2, 7] {
        fs::copy(files.path(&index(1)), files.path(&index(number))).unwrap();
    }
    files.assert_holds(1..=8).await;
    assert_eq!(files.names(), [&index(1), &name(1), &name(2), "reserve"]);
}

#[tokio::test]
async fn bad_bytes_below_a_record_that_proves_them_durable_are_damage() {
    let files = Files::with(4).await;
    let whole = files.read(1);
    let records = files.records(1);
    for (index, record) in records.iter().enumerate().skip(1).take(records.len() - 3) {
        for at in [*record, record + 4, record + 20] {
            files.flip(1, at);
            let error = files.refusal().await;
            let StoreError::Damaged { offset, .. } = error else { panic!("record {index}, byte {at}: {error}") };
            assert_eq!(offset, *record, "record {index}, byte {at}");
            files.write(1, &whole, 0);
        }
        files.write(1, &vec![0; (records[index + 1] - record) as usize], *record);
        files.assert_damaged(1, *record, "a record is missing").await;
        files.write(1, &whole, 0);
    }
    files.assert_holds(1..=4).await;
}

#[tokio::test]
async fn a_record_out_of_turn_is_damage() {
    let files = Files::with(4).await;
    let (whole, records) = (files.read(1), files.records(1));
    let (two, three, end) = (records[4], records[5], records[6]);
    files.write(1, &whole[three as usize..end as usize], two); // the one after follows at once
    files.write(1, &vec![0; (SEGMENT_BYTES - three) as usize], two + (end - three));
    files.assert_damaged(1, two, "not the next one").await;
}

#[tokio::test]
async fn a_record_that_is_whole_but_makes_no_sense_is_damage() {
    let files = Files::with(2).await;
    let records = files.records(1);
    let end = *records.last().unwrap();
    let bytes = files.read(1);
    let lead = &bytes[RECORDS_AT as usize + 8..RECORDS_AT as usize + 18]; // the incarnation
    files.write(1, &frame(&[lead, &[0x3a, 0x7f, 0x01]].concat()), end);
    files.assert_damaged(1, end, "not what this version calls a record").await;
}

#[tokio::test]
async fn a_torn_last_write_is_cut_and_the_journal_goes_on() {
    let files = Files::with(4).await;
    let records = files.records(1);
    let last = records[records.len() - 2];
    files.write(1, &[0; 4_096], (last + 4_096) & !4_095); // a page of it never reached the disk
    let Health::Torn { offset, .. } = files.health() else { panic!("{:?}", files.health()) };
    assert_eq!(offset, last);
    let verified = files.verified().unwrap();
    assert!(verified.damage.is_empty() && verified.torn.is_some(), "{verified:?}");
    files.assert_holds(1..=3).await;
    let mut broker = files.start().await;
    broker.commit(vec![settle(seq(1)), insert(seq(9), 10)]).await;
    drop(broker);
    files.assert_holds([2, 3, 9]).await;
}

#[tokio::test]
async fn a_last_write_torn_anywhere_is_cut() {
    let whole = Files::with(2).await;
    let (bytes, records) = (whole.read(1), whole.records(1));
    let (last, end) = (records[records.len() - 2], *records.last().unwrap());
    for cut in (last..end).step_by(997).chain([last + 1, last + 4, last + 8, end - 9]) {
        let files = Files::with(0).await;
        let torn = [&bytes[..cut as usize], &vec![0; (SEGMENT_BYTES - cut) as usize]].concat();
        fs::write(files.path(&name(1)), torn).unwrap();
        files.assert_holds(1..=1).await;
    }
}

#[tokio::test]
async fn a_record_of_the_files_earlier_life_is_the_end() {
    let files = Files::with(2).await;
    let end = *files.records(1).last().unwrap();
    let other = Files::with(2).await; // its incarnation is another one
    let records = other.records(1);
    let stale = other.read(1)[records[3] as usize..records[4] as usize].to_vec();
    files.write(1, &stale, end);
    files.assert_holds(1..=2).await;
}

#[tokio::test]
async fn a_flip_in_the_last_record_is_torn_unless_the_end_was_polite() {
    let files = Files::with(2).await;
    let records = files.records(1);
    files.flip(1, records[records.len() - 2] + 20);
    files.assert_holds(1..=1).await;

    let files = Files::with(2).await;
    files.start().await.adapter.close().await.unwrap();
    let records = files.records(1);
    files.flip(1, records[4] + 20); // behind it: the tenure of the second start, and the mark of its end
    files.assert_damaged(1, records[4], "checksum").await;
    files.flip(1, records[4] + 20);
    files.flip(1, records[5] + 10); // the tenure
    files.assert_damaged(1, records[5], "checksum").await;
}

#[tokio::test]
async fn a_message_damaged_while_the_broker_runs_is_named() {
    let files = Files::with(2).await;
    let broker = files.start().await;
    let records = files.records(1);
    files.flip(1, records[4] + 5_000);
    let (reader, queue) = (broker.adapter.reader(), Holder::Queue(ORDERS));
    let page = reader.page(queue, Priority::default(), EVERYTHING, LARGE).await;
    assert!(matches!(page, Err(StoreError::Damaged { .. })), "{page:?}");
}

#[tokio::test]
async fn inspect_counts_what_is_there() {
    let files = Files::with(8).await;
    let report = inspect(&(Arc::new(RealDisk) as Arc<_>), files.0.path()).unwrap();
    assert_eq!(report.segments.iter().map(|segment| segment.live_messages).collect::<Vec<_>>(), [6, 2]);
    assert_eq!(report.segments.iter().map(|segment| segment.batches).sum::<u64>(), 9);
    assert_eq!((report.live_messages(), report.tenure.term), (8, Term(1)));
    let queue = report.messages.iter().find(|(destination, _)| destination.name() == "orders");
    assert_eq!(queue.unwrap().1, 8);
}
