-- Whether the lease has run out, and a number that changes with each renewal.
SELECT until < UTC_TIMESTAMP(3), beat FROM {group}_lease WHERE id = 1
