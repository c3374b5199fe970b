//! The columns of a group's tables, held against those that batonmq made.
//!
//! A batch would find out too, but not the first one: the statement that needs the column may be a rare one. More than
//! columns may have been altered; what costs longer looks is the doctor's business.

use std::collections::BTreeSet;

use super::SchemaError;
use crate::types::Group;

/// A column, as a database tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Column {
    pub(super) table: String,
    pub(super) name: String,
    /// A row can't be inserted without it.
    pub(super) must_be_filled: bool,
}

/// Checks that all columns are there, and that rows can be inserted as batonmq inserts them. `shape` has the lines of
/// tables that nobody altered.
pub(super) fn check(group: &Group, shape: &str, found: &[Column]) -> Result<(), SchemaError> {
    let problems = problems(shape, found);
    if problems.is_empty() {
        return Ok(());
    }
    Err(SchemaError::Altered { group: group.clone(), statement: "columns", source: problems.join("; ").into() })
}

/// The tables of `shape`.
#[cfg(feature = "mysql")]
pub(super) fn tables(shape: &str) -> BTreeSet<&str> {
    made(shape).map(|(table, _)| table).collect()
}

/// Each table, with the name of a column.
fn made(shape: &str) -> impl Iterator<Item = (&str, &str)> {
    shape.lines().filter_map(|line| line.strip_prefix("column ")?.split(' ').next()?.split_once('.'))
}

fn problems(shape: &str, found: &[Column]) -> Vec<String> {
    let made: BTreeSet<_> = made(shape).collect();
    let there: BTreeSet<_> = found.iter().map(|column| (&*column.table, &*column.name)).collect();
    let missing = made.difference(&there).map(|(table, name)| format!("table {table} lacks the column {name}"));
    let in_the_way = found.iter().filter(|column| column.must_be_filled);
    let in_the_way = in_the_way.filter(|column| !made.contains(&(&*column.table, &*column.name)));
    let in_the_way = in_the_way.map(|Column { table, name, .. }| {
        format!("table {table} has a column {name} that is not batonmq's and must be filled")
    });
    missing.chain(in_the_way).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: &str = "column held.durable bigint not null\ncolumn held.size int\nindex held.by_size (size)";

    fn column(name: &str, must_be_filled: bool) -> Column {
        Column { table: "held".to_owned(), name: name.to_owned(), must_be_filled }
    }

    #[test]
    fn a_column_that_is_missing_and_one_that_is_in_the_way_are_named_with_their_table() {
        let made = [column("durable", true), column("size", false)];
        assert_eq!(problems(SHAPE, &made), [""; 0]);
        let added = [&made[..], &[column("note", false)]].concat();
        assert_eq!(problems(SHAPE, &added), [""; 0], "nobody has to fill it");
        let renamed = [column("holder", true), column("size", false)];
        let told = [
            "table held lacks the column durable",
            "table held has a column holder that is not batonmq's and must be filled",
        ];
        assert_eq!(problems(SHAPE, &renamed), told);
    }
}
