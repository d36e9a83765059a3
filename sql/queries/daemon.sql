-- name: note_daemon
-- Held by the session of each daemon, of those too that wait.
SELECT pg_try_advisory_lock_shared(:lock_class, 2)

-- name: try_lock_daemon
-- Held by the session of the one daemon that works.
SELECT pg_try_advisory_lock(:lock_class, 1)

-- name: daemons
-- How many daemons there are.
SELECT count(*) FROM pg_locks JOIN pg_database ON pg_database.oid = pg_locks.database
WHERE locktype = 'advisory' AND granted AND datname = current_database() AND classid = :lock_class AND objid = 2
