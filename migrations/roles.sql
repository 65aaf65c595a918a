-- The role that Clawback's processes connect with, beside the one that owns the database and runs `clawback migrate up`. It reads and
-- changes rows. It can't change tables, drop or disable the trigger that keeps history append-only, or truncate anything.
-- Run once in Clawback's database, with psql, as its owner and before the first migration:
--   POSTGRES_RUN_PASSWORD=… psql -f migrations/roles.sql "$OWNERS_URL"
\getenv password POSTGRES_RUN_PASSWORD
CREATE ROLE clawback_run LOGIN PASSWORD :'password';
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO clawback_run;
