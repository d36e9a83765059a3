-- name: lock_migrations
-- Hosts that start together apply migrations one after the other.
SELECT pg_advisory_xact_lock(4711001)

-- name: create_schema_history
-- Flyway's own table, as Flyway makes it.
CREATE TABLE IF NOT EXISTS flyway_schema_history (
    installed_rank integer NOT NULL CONSTRAINT flyway_schema_history_pk PRIMARY KEY,
    version        varchar(50),
    description    varchar(200) NOT NULL,
    type           varchar(20) NOT NULL,
    script         varchar(1000) NOT NULL,
    checksum       integer,
    installed_by   varchar(100) NOT NULL,
    installed_on   timestamp NOT NULL DEFAULT now(),
    execution_time integer NOT NULL,
    success        boolean NOT NULL
)

-- name: schema_history_exists
-- Whether any migration has ever been applied here.
SELECT to_regclass('flyway_schema_history') IS NOT NULL

-- name: schema_history
-- What has been applied, by version.
SELECT version, checksum, success FROM flyway_schema_history WHERE version IS NOT NULL

-- name: record_migration
-- One applied file.
INSERT INTO flyway_schema_history
    (installed_rank, version, description, type, script, checksum, installed_by, execution_time, success)
SELECT coalesce(max(installed_rank), 0) + 1,
       :version, :description, 'SQL', :script, :checksum, current_user, :execution_time, true
FROM flyway_schema_history
