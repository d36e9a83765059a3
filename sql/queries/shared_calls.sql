-- name: lock_shares
-- One worker at a time changes who may send a service how much.
SELECT pg_advisory_xact_lock(4711008, hashtext(:service))

-- name: set_share
-- How many calls a worker wants to have under way, and how many it holds; a worker that says so is there.
INSERT INTO service_shares (service, worker_id, wanted, held) VALUES (:service, :worker_id, :wanted, :held)
ON CONFLICT (worker_id) DO UPDATE
SET service = excluded.service, wanted = excluded.wanted, held = excluded.held, unseen_since = NULL
WHERE (service_shares.service, service_shares.wanted, service_shares.held) <> (excluded.service, excluded.wanted, excluded.held)
   OR service_shares.unseen_since IS NOT NULL

-- name: note_unseen
-- Note since when each of the others is not to be seen: its session or its lease is gone.
UPDATE service_shares SET unseen_since = CASE WHEN unseen_since IS NULL THEN clock_timestamp() END
FROM workers
WHERE service = :service AND workers.worker_id = service_shares.worker_id AND workers.worker_id <> :worker_id
  AND (unseen_since IS NULL) <> (lease_until > clock_timestamp() AND EXISTS (
           SELECT FROM pg_locks JOIN pg_database ON pg_database.oid = pg_locks.database
           WHERE locktype = 'advisory' AND granted AND datname = current_database()
             AND classid = :lock_class AND objid = workers.worker_id))

-- name: drop_unseen_shares
-- Remove the shares of workers that had time to come back and did not.
DELETE FROM service_shares
WHERE service = :service AND unseen_since < clock_timestamp() - make_interval(secs => :unseen_s)

-- name: shares
-- The calls of all workers, and whose turn it is; a worker that is not seen or was given up wants none.
SELECT worker_id, CASE WHEN unseen_since IS NULL AND ended_at IS NULL THEN wanted ELSE 0 END AS wanted, held,
       CAST(extract(epoch FROM clock_timestamp()) AS bigint) AS turn
FROM service_shares JOIN workers USING (worker_id)
WHERE service = :service
ORDER BY worker_id

-- name: drop_share
-- A worker holds nothing any more.
DELETE FROM service_shares WHERE worker_id = :worker_id
