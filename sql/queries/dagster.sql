-- name: create_dagster_schema
-- Dagster's own records live beside ours, in a schema of their own.
CREATE SCHEMA IF NOT EXISTS dagster
