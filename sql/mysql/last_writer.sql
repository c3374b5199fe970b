-- The session that the row names as the last writer, if there is still that one: its number alone could be somebody
-- else's by now. Only the session that wrote the mark (a name that is given once) holds the lock of this name. Whoever goes on
-- in a term (?; a higher one than any: a new one begins) ends nobody's that took over.
SELECT b.writer_session
FROM {group}_baton AS b
WHERE b.id = 1 AND b.writer_session = IS_USED_LOCK(COALESCE(b.writer_mark, '-')) AND b.term <= ?
