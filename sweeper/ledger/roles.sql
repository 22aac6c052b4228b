-- The roles of a PostgreSQL store of sweeper's. Run this as the store's OWNER, the user who makes its tables, in the
-- store's own database, before or after the first sweep:
--
--     sweeper doctor --roles | psql postgresql://OWNER@HOST/DATABASE
--
--   owner             makes and migrates the tables: whoever runs this. After an update of sweeper, the owner's first
--                     command (such as `sweeper status`) migrates them.
--   sweeper_worker    runs sweeps: reads and changes rows. It can't create, change or drop tables.
--   sweeper_analyst   looks: status, trials, best, price, report. It can't change anything.
--
-- Then give people and machines users of their own, and these one role each:
--
--     CREATE USER gpu7 PASSWORD '...';  GRANT sweeper_worker TO gpu7;
--     CREATE USER ada  PASSWORD '...';  GRANT sweeper_analyst TO ada;
--
-- It may be run again at any time. The owner needs CREATEROLE, unless an administrator made the two roles before. A
-- store in another schema than public needs that name in its place.

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'sweeper_worker') THEN
        CREATE ROLE sweeper_worker NOLOGIN;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'sweeper_analyst') THEN
        CREATE ROLE sweeper_analyst NOLOGIN;
    END IF;
END $$;

-- Nobody makes tables but the owner: before version 15 everybody may, and temporary ones in any version.
GRANT CREATE ON SCHEMA public TO CURRENT_USER;
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
DO $$ BEGIN EXECUTE format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC', current_database()); END $$;
GRANT USAGE ON SCHEMA public TO sweeper_worker, sweeper_analyst;

-- The tables that are there, and those that later migrations will make.
GRANT SELECT ON ALL TABLES IN SCHEMA public TO sweeper_analyst;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO sweeper_worker;
GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO sweeper_worker;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO sweeper_analyst;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO sweeper_worker;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT USAGE, SELECT ON SEQUENCES TO sweeper_worker;
