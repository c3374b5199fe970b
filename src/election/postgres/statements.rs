//! The texts of `sql/postgres/` that elections use, for one group.

use crate::{
    db::{Text, postgres::statement, texts},
    types::Group,
};

texts! { "postgres", statement,
    end_lease
    end_own_lock
    end_sessions
    hold
    hold_baton
    lease
    leave
    look
    namesakes
    release
    renew_lease
    sign
    survey_baton
    survey_brokers
    survey_tenures
    take_lease
    take_over
}
