-- For people: who holds the baton, and whether the lock (?) or the lease is held at this moment.
SELECT
    b.term, b.token, b.holder, b.instance, b.released, IS_USED_LOCK(?) IS NOT NULL,
    TIMESTAMPDIFF(MICROSECOND, b.since, UTC_TIMESTAMP(3)) DIV 1000,
    IF(e.until > '1970-01-02', TIMESTAMPDIFF(MICROSECOND, UTC_TIMESTAMP(3), e.until) DIV 1000, NULL)
FROM {group}_baton AS b
JOIN {group}_lease AS e ON e.id = 1
WHERE b.id = 1
