//! The texts of `sql/mysql/` that elections use, for one group.

use crate::{
    db::{Text, mysql::statement, texts},
    types::Group,
};

texts! { "mysql", statement,
    begin_tenure
    close_tenures
    end_lease
    end_tenure
    forget
    hold_baton
    hold_lock
    lease
    leave
    look
    namesakes
    own_lease
    own_lock
    release
    renew_lease
    sessions
    sign
    survey_baton
    survey_brokers
    survey_tenures
    take_lease
    take_over
    taken
}
