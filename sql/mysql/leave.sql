-- This process (?) ends.
DELETE FROM {group}_broker WHERE instance = ?
