//! What docs/databases.md says is so.

use std::{collections::BTreeSet, fs, path::Path};

use batonmq::db::postgres::schema;

use super::session;
use crate::harness::{PostgresServer, own_group};

/// All of it but the part that is not about PostgreSQL.
pub(super) fn document() -> String {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/databases.md")).unwrap();
    text.split("## MySQL and MariaDB").next().unwrap().to_owned()
}

/// The names in the first column of a document's tables.
fn listed(document: &str) -> BTreeSet<String> {
    let rows = document.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.filter_map(|row| Some(row.split_once('`')?.0.to_owned())).collect()
}

/// The statements in its `sql` blocks, for another group.
pub(super) fn statements(document: &str, group: &str) -> Vec<String> {
    let blocks = document.split("```sql\n").skip(1).map(|block| block.split("```").next().unwrap());
    let statements = blocks.flat_map(|block| block.split_inclusive(";\n")).map(str::trim);
    let of_group = |statement: &str| {
        statement.replace("batonmq.", &format!("{group}.")).replace(" batonmq ", &format!(" {group} "))
    };
    statements.filter(|statement| !statement.is_empty()).map(of_group).collect()
}

#[tokio::test]
async fn the_document_lists_every_table_and_view_and_its_statements_work() {
    let (server, group) = (PostgresServer::shared(), own_group());
    schema::migrate(&session(&server.connector("one"), "migrate").await, &group).await.unwrap();
    let tables = format!("SELECT table_name FROM information_schema.tables WHERE table_schema = '{group}'");
    let tables: BTreeSet<String> = server.psql(&tables).lines().map(ToOwned::to_owned).collect();
    assert_eq!(listed(&document()), tables, "left: docs/databases.md, right: sql/postgres");
    server.psql(&format!("CREATE ROLE broker_{group}"));
    let statements = statements(&document(), group.as_str());
    assert!(statements.len() >= 7, "{statements:?}");
    for statement in statements {
        server.psql(&statement.replace(" broker;", &format!(" broker_{group};")));
    }
}

#[tokio::test]
async fn the_views_show_what_is_there() {
    let (server, group) = (PostgresServer::shared(), own_group());
    schema::migrate(&session(&server.connector("one"), "migrate").await, &group).await.unwrap();
    server.psql(&format!(
        "INSERT INTO {group}.destination VALUES (1, 'queue', 'orders'), (2, 'topic', 'news'), (3, 'queue', 'empty'); \
         INSERT INTO {group}.durable VALUES (5, 'me', 'mine', 2); \
         INSERT INTO {group}.message (sequence, queue, destination, priority, persistent, created, size, message_id, \
                                      body_kind, headers, body) \
         VALUES (1, 1, 1, 4, true, 1700000000000, 300, 'ID:1', 'text', '{{\"colour\":\"grün\"}}', 'größe'), \
                (2, 1, 1, 4, true, 1700000001000, 300, 'ID:2', 'text', '{{}}', '\\xff00'), \
                (3, NULL, 2, 4, true, 1700000002000, 300, 'ID:3', 'bytes', '{{}}', 'x'); \
         INSERT INTO {group}.held VALUES (3, 5, 4, 300)"
    ));
    let shows = |query: &str| server.psql(&format!("SET timezone = 'UTC'; {}", query.replace("{}", group.as_str())));
    assert_eq!(
        shows("SELECT name, messages, bytes, oldest, age > '1 day' FROM {}.queue_depth ORDER BY name"),
        "empty|0|0||\norders|2|600|2023-11-14 22:13:20+00|t"
    );
    assert_eq!(
        shows("SELECT message_id, destination, headers ->> 'colour', body_text FROM {}.message_view ORDER BY sequence"),
        "ID:1|orders|grün|größe\nID:2|orders||\\377\\000\nID:3|news||"
    );
    assert_eq!(
        shows("SELECT client_id, name, topic, messages, oldest FROM {}.durable_subscription"),
        "me|mine|news|1|2023-11-14 22:13:22+00"
    );
}
