-- With a take-over, and in the same transaction: the lease belongs to its tenure, and whoever had it before lost it.
UPDATE {group}_lease SET token = (SELECT b.token FROM {group}_baton AS b WHERE b.id = 1) WHERE id = 1
