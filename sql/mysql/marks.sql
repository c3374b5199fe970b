-- Every dispatch mark that covers something.
SELECT holder_kind, holder, upto FROM {group}_dispatch_mark WHERE upto > 0
