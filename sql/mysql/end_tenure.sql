-- The mastership of a process (?2) is over, because ?1.
UPDATE {group}_tenure SET ended = UTC_TIMESTAMP(3), reason = ? WHERE instance = ? AND ended IS NULL
