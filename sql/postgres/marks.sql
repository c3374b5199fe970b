-- Every dispatch mark that covers something.
SELECT holder_kind, holder, upto FROM {group}.dispatch_mark WHERE upto > 0
