-- All that a holder ($1, $2) has at or below $3 is gone from now on; the rows follow with later batches.
INSERT INTO {group}.purged AS old (holder_kind, holder, upto) VALUES ($1, $2, $3)
ON CONFLICT (holder_kind, holder) DO UPDATE SET upto = greatest(old.upto, excluded.upto)
