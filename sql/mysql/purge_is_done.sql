-- The last row of a holder's purge (?1, ?2) up to ?3 is gone.
DELETE FROM {group}_purged WHERE holder_kind = ? AND holder = ? AND upto = ?
