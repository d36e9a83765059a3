-- name: partitions_to_retire
-- Those of some partitions whose batches were finished before Dagster's history begins, or that were typed and are no batch.
SELECT batch_id FROM unnest(CAST(:batch_ids AS text[])) AS known (batch_id) LEFT JOIN batches USING (batch_id)
WHERE batches.received_at IS NULL OR finished_at < now() - (SELECT events FROM dagster_retention)
ORDER BY batch_id LIMIT :limit

-- name: dagster_schema_exists
-- Whether Dagster's schema is there: to ask for one that is takes the right to make it.
SELECT to_regnamespace('dagster') IS NOT NULL

-- name: may_make_dagster_schema
-- Whether this login owns Dagster's schema, or there is none that another owns.
SELECT NOT EXISTS (SELECT FROM pg_namespace WHERE nspname = 'dagster' AND NOT pg_has_role(nspowner, 'USAGE'))

-- name: create_dagster_schema
-- Dagster's own records live beside ours, in a schema of their own.
CREATE SCHEMA IF NOT EXISTS dagster

-- name: grant_dagster_schema
-- What the application's login needs of Dagster's tables where another login has made them.
DO $$ BEGIN
    GRANT USAGE ON SCHEMA dagster TO orders_app;
    GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA dagster TO orders_app;
    GRANT USAGE ON ALL SEQUENCES IN SCHEMA dagster TO orders_app;
END $$

-- name: dagster_runs_exist
-- Whether Dagster has its tables of runs here.
SELECT to_regclass('dagster.runs') IS NOT NULL

-- name: queued_batches
-- Which batches have a run that has not begun, or so lately that its process may not be known from its lock yet.
SELECT DISTINCT tags.value AS batch_id FROM dagster.run_tags AS tags JOIN dagster.runs ON runs.run_id = tags.run_id
WHERE tags.key = 'dagster/partition'
  AND (runs.status IN ('QUEUED', 'NOT_STARTED', 'STARTING')
       OR runs.status = 'STARTED' AND runs.start_time > extract(epoch FROM now()) - :lately_s)

-- name: dagster_heartbeats_exist
-- Whether Dagster's daemon has ever run here.
SELECT to_regclass('dagster.daemon_heartbeats') IS NOT NULL

-- name: daemon_is_alive
-- Whether the part of the daemon that looks at sensors has lately said that it lives.
SELECT EXISTS (SELECT FROM dagster.daemon_heartbeats
               WHERE daemon_type = 'SENSOR'
                 AND timestamp > (now() - make_interval(secs => :seconds)) AT TIME ZONE 'UTC')
