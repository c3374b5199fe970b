-- Whether anything may have come back that is not settled: a table that never had a row has no page, and one that a
-- VACUUM found empty has none either.
SELECT pg_relation_size('{group}.returned'::regclass) > 0
