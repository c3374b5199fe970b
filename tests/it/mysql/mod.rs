//! What only MySQL and MariaDB have: sessions, how they are known again, the tables of a group, and what a DBA sees of
//! them. The behaviour suite runs in `persistence`.

mod broker;
mod docs;
mod election;
mod schema;
mod sessions;
