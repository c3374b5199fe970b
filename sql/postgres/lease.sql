-- Whether the lease has run out, and a number that changes with each renewal.
SELECT until < clock_timestamp() AS is_over, beat FROM {group}.lease WHERE id = 1
