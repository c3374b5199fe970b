-- Which rights on the tables of a group ($1) a broker needs and this role lacks.
SELECT format('USAGE on schema %s', n.nspname) AS lacking
FROM pg_namespace AS n
WHERE n.nspname = $1 AND NOT has_schema_privilege(n.oid, 'USAGE')
UNION ALL
SELECT format('%s on %s', string_agg(p.privilege, ', ' ORDER BY p.place), c.relname)
FROM pg_namespace AS n
JOIN pg_class AS c ON c.relnamespace = n.oid
CROSS JOIN unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) WITH ORDINALITY AS p (privilege, place)
WHERE n.nspname = $1 AND NOT has_table_privilege(c.oid, p.privilege)
    AND (c.relkind = 'r' OR c.relname = 'stored_message' AND p.privilege = 'SELECT')
GROUP BY c.relname
ORDER BY lacking
