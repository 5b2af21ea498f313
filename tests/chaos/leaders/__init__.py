"""Several services on one PostgreSQL, of which the leader, or the database, is struck."""
