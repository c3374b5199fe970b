-- The database's clock. Unit: milliseconds since 1970.
SELECT CAST(UNIX_TIMESTAMP(NOW(3)) * 1000 AS SIGNED)
