//! What docs/databases.md says of MySQL and MariaDB is so.

use std::{fs, path::Path};

use batonmq::db::mysql::schema;

use crate::harness::{MariadbServer, own_group};

/// The statements in the `sql` blocks of its part of the document, for another group.
fn statements(group: &str) -> Vec<String> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/databases.md")).unwrap();
    let part = text.split("## MySQL and MariaDB").nth(1).unwrap();
    let blocks = part.split("```sql\n").skip(1).map(|block| block.split("```").next().unwrap());
    let statements = blocks.flat_map(|block| block.split_inclusive(";\n")).map(str::trim);
    statements
        .filter(|statement| !statement.is_empty())
        .map(|text| text.replace("batonmq_", &format!("{group}_")))
        .collect()
}

#[tokio::test]
async fn the_statements_of_the_document_work() {
    let (server, group) = (MariadbServer::shared(), own_group());
    let connector = server.connector("one");
    schema::migrate(&connector, &mut connector.connect("migrate").await.unwrap(), &group).await.unwrap();
    server.client(&format!("CREATE USER broker_{group} IDENTIFIED BY 'own'"));
    let statements = statements(group.as_str());
    assert!(statements.len() >= 4, "{statements:?}");
    for statement in statements {
        let statement = statement.replace(" broker;", &format!(" broker_{group};"));
        server.client(&statement.replace(" brokers.", &format!(" {}.", server.database())));
    }
}

#[tokio::test]
async fn the_views_show_what_is_there() {
    let (server, group) = (MariadbServer::shared(), own_group());
    let connector = server.connector("one");
    schema::migrate(&connector, &mut connector.connect("migrate").await.unwrap(), &group).await.unwrap();
    server.client(&format!(
        "INSERT INTO {group}_destination VALUES (1, 'queue', 'orders'), (2, 'topic', 'news'), (3, 'queue', 'empty'); \
         INSERT INTO {group}_durable VALUES (5, 'me', 'mine', 2); \
         INSERT INTO {group}_message (sequence, queue, destination, priority, persistent, created, size, message_id, \
                                      body_kind, headers, body) \
         VALUES (1, 1, 1, 4, TRUE, 1700000000000, 300, 'ID:1', 'text', '{{\"colour\":\"grün\"}}', 'größe'), \
                (2, 1, 1, 4, TRUE, 1700000001000, 300, 'ID:2', 'bytes', '{{}}', X'ff00'), \
                (3, NULL, 2, 4, TRUE, 1700000002000, 300, 'ID:3', 'bytes', '{{}}', 'x'); \
         INSERT INTO {group}_held VALUES (3, 5, 4, 300)"
    ));
    let shows =
        |query: &str| server.client(&format!("SET time_zone = '+00:00'; {}", query.replace("{}", group.as_str())));
    assert_eq!(
        shows("SELECT name, messages, bytes, oldest, age > 24 * 60 * 60 FROM {}_queue_depth ORDER BY name"),
        "empty\t0\t0\tNULL\tNULL\norders\t2\t600\t2023-11-14 22:13:20.0000\t1"
    );
    assert_eq!(
        shows(
            "SELECT message_id, destination, JSON_VALUE(headers, '$.colour'), body_text FROM {}_message_view \
               ORDER BY sequence"
        ),
        "ID:1\torders\tgrün\tgröße\nID:2\torders\tNULL\tNULL\nID:3\tnews\tNULL\tNULL"
    );
    assert_eq!(
        shows("SELECT client_id, name, topic, messages, oldest FROM {}_durable_subscription"),
        "me\tmine\tnews\t1\t2023-11-14 22:13:22.0000"
    );
}
