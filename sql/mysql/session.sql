-- What every session of a broker relies on, whatever server, database or role say by default. MariaDB alone reads what
-- stands behind M!, MySQL alone what stands behind !80000.
SET NAMES utf8mb4 COLLATE utf8mb4_bin;

-- What does not fit is an error, and never cut to what does. Backslashes escape and double quotes quote text, as usual.
SET SESSION sql_mode = 'STRICT_ALL_TABLES,STRICT_TRANS_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION';

-- Without gap locks: who deletes one message is in nobody's way. A statement is a transaction unless one was begun.
SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED;
SET SESSION TRANSACTION READ WRITE;
SET SESSION autocommit = 1, completion_type = 'NO_CHAIN';

-- Who waits here has a clock of its own; what takes longer than these was forgotten. Unit: seconds.
SET SESSION innodb_lock_wait_timeout = 10, lock_wait_timeout = 10;

-- An idle broker keeps its sessions. A transaction that is left open (a frozen broker) is ended by MariaDB.
SET SESSION wait_timeout = 604800
    /*M! , idle_transaction_timeout = 10, max_statement_time = 0 */
    /*!80000 , max_execution_time = 0 */;

-- Times for people are written in UTC. A list of holders is never cut.
SET SESSION time_zone = '+00:00', group_concat_max_len = 1073741824;

-- Lists of any length are looked up in an index, one by one.
SET SESSION eq_range_index_dive_limit = 0
