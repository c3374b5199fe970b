-- The version of a group's tables. Asked only when the table is there.
SELECT MAX(version) FROM {group}_schema_version
