//! What the binary says of a journal that somebody laid hands on: a start names the file and what to do, and ends with
//! the code for it; `journal verify` names the same file. Nothing is changed.

use std::{fs, process::Command};

use super::files::{Files, name};

/// What somebody did; the file that is named, the exit code, and a word of what to do.
type Case = (&'static str, fn(&Files, &Files), String, i32, &'static str);

fn remove(files: &Files, number: u32) {
    fs::remove_file(files.path(&name(number))).unwrap();
}

/// What a command of the binary says, and its exit code.
fn say(files: &Files, command: &[&str], more: &[&str]) -> (Option<i32>, String) {
    let mut batonmq = Command::new(env!("CARGO_BIN_EXE_batonmq"));
    let output = batonmq.args(command).arg(files.0.path()).args(more).current_dir("/").output().unwrap();
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    (output.status.code(), said)
}

#[tokio::test]
async fn a_journal_that_somebody_laid_hands_on_is_refused_by_file_and_fix() {
    let repair = "batonmq journal repair";
    let cases: [Case; 8] = [
        ("removed in the middle", |files, _| remove(files, 2), name(2), 5, repair),
        ("removed at the front", |files, _| remove(files, 1), name(1), 5, repair),
        ("removed at the end", |files, _| remove(files, files.newest()), name(4), 5, repair),
        ("all removed", |files, _| (1..=4).for_each(|number| remove(files, number)), "*.journal".to_owned(), 5, repair),
        ("cut short", |files, _| files.cut(3, 20_000), name(3), 5, repair),
        ("a byte flipped", |files, _| files.flip(4, 4_200), name(4), 5, repair),
        (
            "two journals mixed",
            |files, other| fs::write(files.path(&name(3)), other.read(3)).unwrap(),
            name(3),
            5,
            repair,
        ),
        ("a newer version's", |files, _| files.set_format(4, 9), name(4), 6, "the newer version"),
    ];
    for (what, spoil, file, code, fix) in cases {
        println!("case: {what}");
        let (files, other) = (Files::with(20).await, Files::with(20).await);
        assert_eq!((files.oldest(), files.newest()), (1, 4));
        spoil(&files, &other);
        let before = files.contents();
        let (exit, said) = say(&files, &["start", "--data"], &["--listen", "stomp://127.0.0.1:0"]);
        assert_eq!(exit, Some(code), "{said}");
        assert!(said.contains(files.path(&file).to_str().unwrap()) && said.contains(fix), "{said}");
        let (exit, said) = say(&files, &["journal", "verify"], &[]);
        assert_eq!(exit, Some(code), "{said}");
        assert!(said.contains(&file), "{said}");
        assert!(files.contents() == before, "nothing is changed");
    }
}
