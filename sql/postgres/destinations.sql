-- Every destination.
SELECT id, kind, name FROM {group}.destination
