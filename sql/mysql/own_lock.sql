-- The session on which this process (?) held the lock, if the row still says so and there is still that one.
SELECT b.lock_session
FROM {group}_baton AS b
WHERE b.id = 1 AND b.instance = ? AND b.lock_session = IS_USED_LOCK(COALESCE(b.lock_mark, '-'))
    AND b.lock_session <> CONNECTION_ID()
