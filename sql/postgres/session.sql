-- What every session of a broker relies on, whatever server, database or role say by default.

-- Nothing is found by a search path: every name below is written with its schema.
SET search_path = pg_catalog;
SET client_min_messages = warning;

-- A batch is confirmed when it is on disk, and on the synchronous standby if there is one.
SET synchronous_commit = on;
SET default_transaction_isolation = 'read committed';
SET default_transaction_read_only = off;
SET default_transaction_deferrable = off;

-- Who waits here has a clock of its own. A transaction that is left open (a frozen broker) is ended by the server.
SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_session_timeout = 0;
SET idle_in_transaction_session_timeout = '10s';

-- A broker's host that is gone is noticed within ten seconds. (They mean nothing on a Unix socket.)
SET tcp_keepalives_idle = 5;
SET tcp_keepalives_interval = 2;
SET tcp_keepalives_count = 3;
SET tcp_user_timeout = 8000;
SET client_connection_check_interval = '2s';

-- Queues are empty one minute and full the next, so statistics are always wrong. Statements are planned once, and can
-- only follow an index, in its order: a plan that was made on an empty table stays a good one. (A bitmap of an index has
-- no order: each page of a queue would be sorted out of all that waits in it.)
SET plan_cache_mode = force_generic_plan;
SET enable_seqscan = off;
SET enable_bitmapscan = off;
SET enable_hashjoin = off;
SET enable_mergejoin = off;
SET jit = off;
