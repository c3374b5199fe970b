-- Tables of a group (?) that have no transactions.
SELECT t.table_name, t.engine
FROM information_schema.tables AS t
WHERE t.table_schema = DATABASE() AND t.engine <> 'InnoDB' AND t.table_type = 'BASE TABLE'
    AND t.table_name REGEXP CONCAT(
        '^', ?, '_(baton|broker|destination|dispatch_mark|durable|held|lease|message|purged|returned|schema_version',
        '|tenure)$'
    )
