-- What is gone although its rows may still be there.
SELECT holder_kind, holder, upto FROM {group}_purged
