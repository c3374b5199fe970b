-- Notes this session (with the mark ?1) as the one on which the holder (?2) has the lock.
UPDATE {group}_baton SET lock_session = CONNECTION_ID(), lock_mark = ? WHERE id = 1 AND instance = ?
