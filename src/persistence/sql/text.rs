//! The texts of statements, one file each, for one group.

/// A statement: the name of its file, and its text for the group.
#[derive(Clone, Debug)]
pub(in crate::persistence) struct Text {
    pub(in crate::persistence) name: &'static str,
    pub(in crate::persistence) sql: String,
}

/// Defines a struct with one text a file of a directory in `sql/`.
macro_rules! texts {
    ($directory:literal, $for_group:ident, $($name:ident)*) => {
        /// Every statement but those that make the tables.
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

pub(in crate::persistence) use texts;
