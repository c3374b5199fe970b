-- The sessions that the row names, if there are still those: a number alone could be somebody else's by now. Only the session
-- that wrote a mark (a name that is given once) holds the lock of this name. Whoever goes on in a term (?; a
-- higher one than any: it takes over) ends nobody's that took over.
SELECT b.lock_session
FROM {group}_baton AS b
WHERE b.id = 1 AND b.lock_session = IS_USED_LOCK(COALESCE(b.lock_mark, '-')) AND b.term <= ?
UNION ALL
SELECT b.writer_session
FROM {group}_baton AS b
WHERE b.id = 1 AND b.writer_session = IS_USED_LOCK(COALESCE(b.writer_mark, '-')) AND b.term <= ?
