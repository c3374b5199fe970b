//! The texts of `sql/mysql/`, for one group.

use mysql_async::{Error, prelude::Queryable as _};

use crate::{
    db::mysql::{Session, statement},
    persistence::sql::{Text, texts},
    types::Group,
};

/// One statement inserts so many messages at most. Unit: messages.
const INSERT_ROWS_MAX: usize = 128;

/// The columns of a message.
const ROW: &str = "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";

texts! { "mysql", statement,
    backlog_of_durable
    backlog_of_queue
    came_back
    create_destination
    create_durable
    delete_durable
    destinations
    due
    durables
    fence
    hold
    hold_baton
    insert
    last_writer
    mark
    marks
    messages
    name_writer
    next_durable
    next_queue
    orphans
    page_of_durable
    page_of_queue
    purge
    purge_is_done
    purged
    purged_of_durable
    purged_of_queue
    raise
    settle_durables
    settle_queues
}

impl Texts {
    /// Prepares all that a batch may need: tables that were altered by hand are found now and not with the first
    /// message.
    pub(super) async fn prepare(&self, session: &mut Session, inserts: &Inserts) -> Result<(), (&'static str, Error)> {
        let texts = [
            &self.fence,
            &self.create_destination,
            &self.create_durable,
            &self.delete_durable,
            &self.purge,
            &self.purge_is_done,
            &self.purged_of_durable,
            &self.purged_of_queue,
            &self.settle_queues,
            &self.settle_durables,
            &self.orphans,
            &self.came_back,
            &self.hold,
            inserts.of(1).1,
            &self.mark,
        ];
        for text in texts {
            session.prep(text.sql.as_str()).await.map_err(|error| (text.name, error))?;
        }
        Ok(())
    }
}

/// The statement that inserts messages, for 1, 2, 4 … of them: few that are prepared once serve any number.
#[derive(Debug)]
pub(super) struct Inserts(Vec<Text>);

impl Inserts {
    pub(super) fn new(insert: &Text) -> Self {
        let sizes = std::iter::successors(Some(1), |&rows| (rows < INSERT_ROWS_MAX).then_some(rows * 2));
        let text = |rows| Text { name: insert.name, sql: insert.sql.replace("{rows}", &vec![ROW; rows].join(", ")) };
        Self(sizes.map(text).collect())
    }

    /// How many of `rows` (one at least) the largest of them takes, and its text.
    pub(super) fn of(&self, rows: usize) -> (usize, &Text) {
        let at = (rows.max(1).ilog2() as usize).min(self.0.len() - 1);
        (1 << at, self.0.get(at).expect("there is one for each power of two up to the largest"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_number_of_rows_is_made_of_few_statements() {
        let inserts = Inserts::new(&Text { name: "insert", sql: "VALUES {rows}".to_owned() });
        let rows_of = |mut rows: usize| {
            let mut taken = Vec::new();
            while rows > 0 {
                let (take, text) = inserts.of(rows);
                assert_eq!(text.sql.matches("(?").count(), take);
                taken.push(take);
                rows -= take;
            }
            taken
        };
        assert_eq!(rows_of(1), [1]);
        assert_eq!(rows_of(100), [64, 32, 4]);
        assert_eq!(rows_of(300), [128, 128, 32, 8, 4]);
    }
}
