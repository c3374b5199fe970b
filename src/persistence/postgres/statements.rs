//! The texts of `sql/postgres/`, for one group.

use tokio_postgres::{Error, Statement};

use crate::{
    db::postgres::{Session, statement},
    persistence::sql::{Text, texts},
    types::Group,
};

texts! { "postgres", statement,
    any_returned
    backlog_of_durable
    backlog_of_queue
    commit
    commit_of_one
    commit_of_queues
    create_destination
    create_durable
    delete_durable
    destinations
    due
    durables
    end_writer
    fence
    hold_baton
    holders
    horizon
    leave_alone
    marks
    may_vacuum
    messages
    name_writer
    page_of_durable
    page_of_queue
    purge
    purge_is_done
    purged
    purged_of_durable
    purged_of_queue
    raise
    slack
    vacuum
}

/// The statements of a batch, which are prepared once a session.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) commit: Statement,
    pub(super) commit_of_one: Statement,
    pub(super) commit_of_queues: Statement,
    pub(super) fence: Statement,
    pub(super) create_destination: Statement,
    pub(super) create_durable: Statement,
    pub(super) delete_durable: Statement,
    pub(super) purge: Statement,
    pub(super) purge_is_done: Statement,
    pub(super) purged_of_durable: Statement,
    pub(super) purged_of_queue: Statement,
}

impl Prepared {
    /// Prepares them all: tables that were altered by hand are found now and not with the first message.
    pub(super) async fn on(session: &Session, texts: &Texts) -> Result<Self, (&'static str, Error)> {
        let prepare = async |text: &Text| session.prepare(&text.sql).await.map_err(|error| (text.name, error));
        let (commit, commit_of_one, commit_of_queues, fence) = tokio::try_join!(
            prepare(&texts.commit),
            prepare(&texts.commit_of_one),
            prepare(&texts.commit_of_queues),
            prepare(&texts.fence),
        )?;
        let (create_destination, create_durable, delete_durable) = tokio::try_join!(
            prepare(&texts.create_destination),
            prepare(&texts.create_durable),
            prepare(&texts.delete_durable),
        )?;
        let (purge, purge_is_done, purged_of_durable, purged_of_queue) = tokio::try_join!(
            prepare(&texts.purge),
            prepare(&texts.purge_is_done),
            prepare(&texts.purged_of_durable),
            prepare(&texts.purged_of_queue),
        )?;
        Ok(Self {
            commit,
            commit_of_one,
            commit_of_queues,
            fence,
            create_destination,
            create_durable,
            delete_durable,
            purge,
            purge_is_done,
            purged_of_durable,
            purged_of_queue,
        })
    }
}
