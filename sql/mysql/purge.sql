-- All that a holder (?1, ?2) has at or below ?3 is gone from now on; the rows follow with later batches.
INSERT INTO {group}_purged (holder_kind, holder, upto) VALUES (?, ?, ?)
ON DUPLICATE KEY UPDATE upto = GREATEST(upto, VALUES(upto))
