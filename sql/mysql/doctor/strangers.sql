-- The session that has the lock of this name (?1), unless it is the one that the row names as the master's.
SELECT h.session
FROM (SELECT IS_USED_LOCK(?) AS session) AS h
LEFT JOIN {group}_baton AS b
    ON b.id = 1 AND b.lock_session = h.session AND b.lock_session = IS_USED_LOCK(COALESCE(b.lock_mark, '-'))
WHERE h.session IS NOT NULL AND b.id IS NULL
