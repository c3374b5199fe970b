-- Every destination.
SELECT id, kind, name FROM {group}_destination
