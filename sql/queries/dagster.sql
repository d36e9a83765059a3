-- name: long_finished_batches
-- Those of some batches that were finished before Dagster's history begins.
SELECT batch_id FROM batches
WHERE batch_id = ANY (CAST(:batch_ids AS text[])) AND finished_at < now() - (SELECT events FROM dagster_retention)
ORDER BY batch_id LIMIT :limit

-- name: create_dagster_schema
-- Dagster's own records live beside ours, in a schema of their own.
CREATE SCHEMA IF NOT EXISTS dagster
