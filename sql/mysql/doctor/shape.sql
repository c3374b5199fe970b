-- What the tables of a group (?) look like: a line for each thing that a broker relies on, or that could be in its way.
-- ../shape.txt has the lines of tables that nobody altered.
WITH relation AS (
    SELECT t.table_name AS full_name, SUBSTR(t.table_name, CHAR_LENGTH(g.name) + 2) AS name, t.engine, t.table_collation
    FROM (SELECT ? AS name) AS g
    JOIN information_schema.tables AS t
        ON t.table_schema = DATABASE() AND t.table_type = 'BASE TABLE'
            AND t.table_name REGEXP CONCAT(
                '^', g.name, '_(baton|broker|destination|dispatch_mark|durable|held|lease|message|purged|returned',
                '|schema_version|tenure)$'
            )
)
SELECT CONVERT(CONCAT('table ', r.name, ' ', r.engine, ' ', r.table_collation) USING utf8mb4) AS line
FROM relation AS r
UNION ALL
SELECT
    CONVERT(CONCAT(
        'column ', r.name, '.', c.column_name, ' ', c.data_type,
        IF(c.is_nullable = 'NO' AND c.column_default IS NULL, ' not null', '')
    ) USING utf8mb4)
FROM relation AS r
JOIN information_schema.columns AS c ON c.table_schema = DATABASE() AND c.table_name = r.full_name
UNION ALL
SELECT
    CONVERT(CONCAT(
        IF(MIN(s.non_unique) = 0, 'unique index ', 'index '), r.name, '.', s.index_name, ' (',
        GROUP_CONCAT(s.column_name ORDER BY s.seq_in_index SEPARATOR ', '), ')'
    ) USING utf8mb4)
FROM relation AS r
JOIN information_schema.statistics AS s ON s.table_schema = DATABASE() AND s.table_name = r.full_name
GROUP BY r.name, s.index_name
UNION ALL
SELECT CONVERT(CONCAT('constraint ', r.name, '.', k.constraint_name, ' ', k.constraint_type) USING utf8mb4)
FROM relation AS r
JOIN information_schema.table_constraints AS k ON k.table_schema = DATABASE() AND k.table_name = r.full_name
WHERE k.constraint_type IN ('CHECK', 'FOREIGN KEY')
UNION ALL
SELECT CONVERT(CONCAT('trigger ', t.trigger_name, ' on ', r.name) USING utf8mb4)
FROM relation AS r
JOIN information_schema.triggers AS t ON t.event_object_schema = DATABASE() AND t.event_object_table = r.full_name
