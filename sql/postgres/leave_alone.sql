-- Tells autovacuum that somebody else vacuums the tables whose rows come and go. (It still freezes what is too
-- old.) Three seconds are more than the server takes to end an autovacuum that is in the way.
SET lock_timeout = '3s';
ALTER TABLE {group}.message SET (autovacuum_enabled = off, toast.autovacuum_enabled = off);
ALTER TABLE {group}.held SET (autovacuum_enabled = off);
ALTER TABLE {group}.returned SET (autovacuum_enabled = off);
SET lock_timeout = 0;
