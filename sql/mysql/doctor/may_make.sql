-- Whether this user may make tables here, as far as its own grants tell.
SELECT EXISTS (
    SELECT 1
    FROM (
        SELECT u.grantee, u.privilege_type, '%' AS place FROM information_schema.user_privileges AS u
        UNION ALL
        SELECT s.grantee, s.privilege_type, s.table_schema FROM information_schema.schema_privileges AS s
    ) AS granted
    WHERE granted.grantee = CONCAT('''', REPLACE(CURRENT_USER(), '@', '''@'''), '''')
        AND granted.privilege_type = 'CREATE' AND DATABASE() LIKE granted.place
)
