-- Roles: whose the schema is, and what the application may do with what the files after this one make. What a table or
-- function gives or takes besides stands beside it.

-- orders_audit owns the audit, and nobody logs in as it; orders_app is what the application may do, whoever logs in.
DO $$
DECLARE
    role_name text;
BEGIN
    FOREACH role_name IN ARRAY ARRAY['orders_audit', 'orders_app'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role_name) THEN
            BEGIN
                EXECUTE format('CREATE ROLE %I NOLOGIN', role_name);
            EXCEPTION WHEN duplicate_object OR unique_violation THEN
                NULL;  -- another database of this server was migrated meanwhile
            END;
        END IF;
        IF NOT pg_has_role(role_name, 'USAGE') THEN
            EXECUTE format('GRANT %I TO CURRENT_USER', role_name);
        END IF;
    END LOOP;
    EXECUTE format('GRANT CREATE, USAGE ON SCHEMA %I TO orders_audit', current_schema());
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO orders_app', current_schema());
    -- tables and views are the application's, unless their file says otherwise
    EXECUTE format('ALTER DEFAULT PRIVILEGES IN SCHEMA %I GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO orders_app',
                   current_schema());
END $$;
GRANT SELECT ON flyway_schema_history TO orders_app;
