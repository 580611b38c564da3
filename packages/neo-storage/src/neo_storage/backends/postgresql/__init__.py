"""PostgreSQL, through psycopg2."""
