//! The texts of statements, one file each, for one group.

/// A statement: the name of its file, and its text for the group.
#[derive(Clone, Debug)]
pub(crate) struct Text {
    pub(crate) name: &'static str,
    pub(crate) sql: String,
}

/// Defines a struct with one text a file of a directory in `sql/`.
macro_rules! texts {
    ($directory:literal, $for_group:ident, $($name:ident)*) => {
        /// What each statement is, for one group.
        #[derive(Debug)]
        pub(super) struct Texts {
            $(pub(super) $name: Text,)*
        }

        impl Texts {
            pub(super) fn new(group: &Group) -> Self {
                Self {
                    $($name: Text {
                        name: stringify!($name),
                        sql: $for_group(
                            include_str!(concat!("../../../sql/", $directory, "/", stringify!($name), ".sql")),
                            group,
                        ),
                    },)*
                }
            }
        }
    };
}

pub(crate) use texts;
