-- The version of a group's tables. Asked only when the table is there.
SELECT max(version) FROM {group}.schema_version
