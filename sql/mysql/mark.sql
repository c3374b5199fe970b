-- Marks never fall. ?: [[kind, holder, upto], …]
INSERT INTO {group}_dispatch_mark (holder_kind, holder, upto)
SELECT k.holder_kind, k.holder, k.upto
FROM JSON_TABLE(?, '$[*]' COLUMNS (
    holder_kind VARCHAR(16) PATH '$[0]', holder BIGINT PATH '$[1]', upto BIGINT PATH '$[2]'
)) AS k
ON DUPLICATE KEY UPDATE upto = GREATEST({group}_dispatch_mark.upto, k.upto)
