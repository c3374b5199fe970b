-- This process ($1) ends.
DELETE FROM {group}.broker WHERE instance = $1
