-- Whether this role may make the tables of a group ($1).
SELECT
    CASE
        WHEN to_regnamespace(quote_ident($1)) IS NULL THEN has_database_privilege(current_database(), 'CREATE')
        ELSE has_schema_privilege(quote_ident($1), 'CREATE')
    END
