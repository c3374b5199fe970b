-- Every dispatch mark.
SELECT holder_kind, holder, upto FROM {group}_dispatch_mark
