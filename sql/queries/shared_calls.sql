-- name: lock_shares
-- One worker at a time changes who may send a service how much.
SELECT pg_advisory_xact_lock(4711008, hashtext(:service))

-- name: set_share
-- How many calls a worker wants to have under way, and how many it holds.
INSERT INTO service_shares (service, worker_id, wanted, held) VALUES (:service, :worker_id, :wanted, :held)
ON CONFLICT (worker_id) DO UPDATE SET service = excluded.service, wanted = excluded.wanted, held = excluded.held
WHERE (service_shares.service, service_shares.wanted, service_shares.held) <> (excluded.service, excluded.wanted, excluded.held)

-- name: shares
-- The shares of all workers that are there, and whose turn it is.
SELECT worker_id, wanted, held, CAST(extract(epoch FROM clock_timestamp()) AS bigint) AS turn
FROM service_shares JOIN workers USING (worker_id)
WHERE service = :service AND ended_at IS NULL
  AND (worker_id = :worker_id OR (lease_until > clock_timestamp() AND EXISTS (
           SELECT FROM pg_locks JOIN pg_database ON pg_database.oid = pg_locks.database
           WHERE locktype = 'advisory' AND granted AND datname = current_database()
             AND classid = :lock_class AND objid = worker_id)))
ORDER BY worker_id

-- name: drop_shares
-- A worker holds nothing any more; neither do those that are gone.
DELETE FROM service_shares WHERE service = :service AND (worker_id = :worker_id OR NOT EXISTS (
    SELECT FROM workers WHERE workers.worker_id = service_shares.worker_id AND ended_at IS NULL))
