-- Gives back the rows that were deleted. Whoever holds a table against that is not waited for.
VACUUM (SKIP_LOCKED, PARALLEL 0) {group}.message, {group}.held, {group}.returned
