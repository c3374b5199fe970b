-- Indexes that are much larger than the few rows they have: a VACUUM makes their pages free, and gives none of them
-- back. Whoever makes one anew reads the whole table, so that has to be small too.
SELECT format('%I.%I', n.nspname, c.relname)
FROM pg_index AS i
JOIN pg_class AS c ON c.oid = i.indexrelid
JOIN pg_class AS t ON t.oid = i.indrelid
JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE t.oid IN ('{group}.message'::regclass, '{group}.held'::regclass, '{group}.returned'::regclass)
    AND t.reltuples < $1 AND pg_relation_size(t.oid) < 256 << 20 AND pg_relation_size(c.oid) > $2
