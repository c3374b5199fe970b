-- The last row of a holder's purge ($2, $3) up to $4 is gone. Proves the token ($1), as every write does.
WITH fence AS MATERIALIZED (
    SELECT b.token FROM {group}.baton AS b WHERE b.id = 1 AND b.token = $1 FOR SHARE
)
DELETE FROM {group}.purged AS p USING fence WHERE p.holder_kind = $2 AND p.holder = $3 AND p.upto = $4
