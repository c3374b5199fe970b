-- With a take-over, and last: its record.
INSERT INTO {group}_tenure (token, term, broker, instance, began)
SELECT b.token, b.term, b.holder, b.instance, UTC_TIMESTAMP(3) FROM {group}_baton AS b WHERE b.id = 1
