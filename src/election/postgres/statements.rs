//! The texts of `sql/postgres/` that elections use, for one group.

use crate::{db::postgres::statement, types::Group};

/// A statement: the name of its file, and its text for the group.
#[derive(Clone, Debug)]
pub(super) struct Text {
    pub(super) name: &'static str,
    pub(super) sql: String,
}

/// Defines a struct with one text a file.
macro_rules! texts {
    ($($name:ident)*) => {
        #[derive(Debug)]
        pub(super) struct Texts {
            $(pub(super) $name: Text,)*
        }

        impl Texts {
            pub(super) fn new(group: &Group) -> Self {
                Self {
                    $($name: Text {
                        name: stringify!($name),
                        sql: statement(
                            include_str!(concat!("../../../sql/postgres/", stringify!($name), ".sql")),
                            group,
                        ),
                    },)*
                }
            }
        }
    };
}

texts! {
    end_lease
    end_own_lock
    end_sessions
    hold
    lease
    leave
    look
    namesakes
    own_lease
    release
    renew_lease
    sign
    survey_baton
    survey_brokers
    survey_tenures
    take_lease
    take_over
}
