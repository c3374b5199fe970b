-- Every dispatch mark.
SELECT holder_kind, holder, upto FROM {group}.dispatch_mark
