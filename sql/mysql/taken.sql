-- The tenure that a take-over wrote, in the same transaction.
SELECT term, token FROM {group}_baton WHERE id = 1
