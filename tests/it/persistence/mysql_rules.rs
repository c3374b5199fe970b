//! What the store in MySQL or MariaDB promises when connections are lost, sessions freeze, and others take over.
