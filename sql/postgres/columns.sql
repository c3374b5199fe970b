-- The columns of a group's ($1) tables, and of the view that its brokers read, in order.
SELECT
    c.relname::text AS table_name, a.attname::text AS name,
    a.attnotnull AND NOT a.atthasdef AND a.attidentity = '' AS must_be_filled
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE n.nspname = $1 AND (c.relkind = 'r' OR c.relname = 'stored_message')
ORDER BY c.relname, a.attnum
