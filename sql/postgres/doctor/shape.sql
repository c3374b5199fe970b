-- What the tables of a group ($1) look like: a line for each thing that a broker relies on, or that could be in its way.
-- ../shape.txt has the lines of tables that nobody altered.
WITH relation AS (
    SELECT c.*
    FROM pg_class AS c
    JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = $1 AND (c.relkind = 'r' OR c.relname = 'stored_message')
)
SELECT
    format(
        '%s %s%s%s', CASE r.relkind WHEN 'r' THEN 'table' ELSE 'view' END, r.relname,
        CASE r.relpersistence WHEN 'u' THEN ' unlogged' ELSE '' END,
        CASE WHEN r.relrowsecurity THEN ' with row security' ELSE '' END
    ) AS line
FROM relation AS r
UNION ALL
SELECT
    format(
        'column %s.%s %s%s', r.relname, a.attname, format_type(a.atttypid, a.atttypmod),
        CASE WHEN a.attnotnull AND NOT a.atthasdef THEN ' not null' ELSE '' END
    )
FROM relation AS r
JOIN pg_attribute AS a ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped
UNION ALL
SELECT
    format(
        '%s %s %s%s', CASE WHEN i.indisunique THEN 'unique index' ELSE 'index' END, x.relname,
        substring(pg_get_indexdef(x.oid) FROM ' USING (.*)'), CASE WHEN i.indisvalid THEN '' ELSE ' invalid' END
    )
FROM relation AS r
JOIN pg_index AS i ON i.indrelid = r.oid
JOIN pg_class AS x ON x.oid = i.indexrelid
UNION ALL
SELECT format('constraint %s.%s %s', r.relname, k.conname, pg_get_constraintdef(k.oid))
FROM relation AS r
JOIN pg_constraint AS k ON k.conrelid = r.oid AND k.contype IN ('c', 'f', 'x')
UNION ALL
SELECT format('trigger %s on %s', t.tgname, r.relname)
FROM relation AS r
JOIN pg_trigger AS t ON t.tgrelid = r.oid AND NOT t.tgisinternal
