-- name: watch_client
-- Let the server notice within half a minute that the host at the other end of this connection has vanished.
-- While an answer is on its way there, only the last of these counts: else locks would be kept for a quarter of an hour.
SELECT set_config('tcp_keepalives_idle', '10', false), set_config('tcp_keepalives_interval', '5', false),
       set_config('tcp_keepalives_count', '4', false), set_config('tcp_user_timeout', '30000', false)

-- name: start_worker
-- Start a worker on a batch; whoever sees its row sees its lock too.
WITH begun AS (
    INSERT INTO workers (batch_id, run_id, lease_until)
    VALUES (:batch_id, :run_id, clock_timestamp() + make_interval(secs => :lease_s)) RETURNING worker_id
)
SELECT worker_id FROM begun WHERE pg_try_advisory_lock(:lock_class, CAST(worker_id AS integer))

-- name: renew_lease
-- Renew a worker's lease; whether it was not given up.
UPDATE workers SET lease_until = clock_timestamp() + make_interval(secs => :lease_s)
WHERE worker_id = :worker_id RETURNING ended_at IS NULL

-- name: end_worker
-- End a worker in good order.
UPDATE workers SET ended_at = now() WHERE worker_id = :worker_id AND ended_at IS NULL

-- name: end_lost_workers
-- Give up workers of a batch whose lease ran out or whose session is gone, but never the caller.
UPDATE workers SET ended_at = now()
WHERE batch_id = :batch_id AND ended_at IS NULL AND worker_id IS DISTINCT FROM :caller_id
  AND (lease_until < clock_timestamp()
       OR NOT CAST(:only_by_lease AS boolean) AND NOT EXISTS (
           SELECT FROM pg_locks JOIN pg_database ON pg_database.oid = pg_locks.database
           WHERE locktype = 'advisory' AND granted AND datname = current_database()
             AND classid = :lock_class AND objid = worker_id))
RETURNING worker_id, run_id

-- name: end_all_lost_workers
-- The same in all batches; these are offered at once, unless runs were requested for them again and again.
WITH lost AS (
    UPDATE workers SET ended_at = now()
    WHERE ended_at IS NULL
      AND (lease_until < clock_timestamp()
           OR NOT EXISTS (
               SELECT FROM pg_locks JOIN pg_database ON pg_database.oid = pg_locks.database
               WHERE locktype = 'advisory' AND granted AND datname = current_database()
                 AND classid = :lock_class AND objid = worker_id))
    RETURNING batch_id
)
UPDATE batches SET idle_since = now() - interval '1 day',
                   run_requested_at = CASE WHEN run_requests > 3 THEN run_requested_at END
FROM lost
WHERE batches.batch_id = lost.batch_id AND finished_at IS NULL

-- name: offer_batch
-- A run has left a batch that has more to do: it is offered at once, and that run was none that failed.
UPDATE batches SET idle_since = now() - interval '1 day', run_requested_at = NULL, run_requests = 0
WHERE batch_id = :batch_id AND finished_at IS NULL

-- name: note_idle_batches
-- Note since when each unfinished batch has no worker, and no process that stages, validates or loads it.
WITH busy AS (
    SELECT batch_id FROM workers WHERE ended_at IS NULL
    UNION
    SELECT batch_id FROM batches JOIN pg_locks ON locktype = 'advisory' AND granted AND classid = :lock_class
                             AND objid = CAST(CAST(hashtext(batch_id) AS bigint) & 4294967295 AS oid)
    JOIN pg_database ON pg_database.oid = pg_locks.database AND datname = current_database()
    WHERE finished_at IS NULL
)
UPDATE batches SET idle_since = CASE WHEN batch_id IN (SELECT batch_id FROM busy) THEN NULL ELSE now() END
WHERE finished_at IS NULL AND (idle_since IS NULL) <> (batch_id IN (SELECT batch_id FROM busy))

-- name: live_workers
-- The live workers of a batch.
SELECT worker_id, run_id FROM workers WHERE batch_id = :batch_id AND ended_at IS NULL

-- name: lock_worker
-- Lock a worker in a new session after its former one broke, which the server may not have noticed yet.
SELECT pg_try_advisory_lock(:lock_class, CAST(:worker_id AS integer))

-- name: let_go
-- Gives up all locks of a session.
SELECT pg_advisory_unlock_all()

-- name: lock_run
-- Held by the session of the process behind one of Dagster's runs.
SELECT pg_try_advisory_lock(:lock_class, hashtext(:run_id))

-- name: lock_as_processing
-- Held by each session that processes a batch.
SELECT pg_try_advisory_lock_shared(:lock_class, hashtext(:batch_id))

-- name: batches_being_processed
-- Those of some batches that a process is processing.
SELECT batch_id FROM unnest(CAST(:batch_ids AS text[])) AS batch_id
WHERE EXISTS (SELECT FROM pg_locks JOIN pg_database ON pg_database.oid = pg_locks.database
              WHERE locktype = 'advisory' AND granted AND datname = current_database()
                AND classid = :lock_class AND objid = CAST(CAST(hashtext(batch_id) AS bigint) & 4294967295 AS oid))

-- name: idle_batches
-- Those of some batches that have work left which no process has done for a while, and since when.
-- Not where a person is waited for; whether it is tried again at a time of its own. A lease says when its worker was last heard.
SELECT batch_id, idle.since, status IN ('paused', 'cancelling') OR status_code IS NOT NULL AS is_tried_again
FROM batches CROSS JOIN LATERAL (
    SELECT greatest(received_at, approval_decided_at, resumed_at, cancelled_at, idle_since,
                    max(lease_until) - make_interval(secs => :lease_s)) AS since
    FROM workers WHERE workers.batch_id = batches.batch_id
) AS idle
WHERE batch_id = ANY (CAST(:batch_ids AS text[])) AND finished_at IS NULL AND status NOT IN ('stopped', 'awaiting_approval')
  AND idle.since < now() - make_interval(secs => :patience_s)
  AND NOT EXISTS (SELECT FROM pg_locks JOIN pg_database ON pg_database.oid = pg_locks.database
                  WHERE locktype = 'advisory' AND granted AND datname = current_database()
                    AND classid = :lock_class AND objid = CAST(CAST(hashtext(batch_id) AS bigint) & 4294967295 AS oid))

-- name: is_there
-- The session is still there.
SELECT true

-- name: runs_with_process
-- Those of some runs whose process is there.
SELECT run_id FROM unnest(CAST(:run_ids AS text[])) AS run_id
WHERE EXISTS (SELECT FROM pg_locks JOIN pg_database ON pg_database.oid = pg_locks.database
              WHERE locktype = 'advisory' AND granted AND datname = current_database()
                AND classid = :lock_class AND objid = CAST(CAST(hashtext(run_id) AS bigint) & 4294967295 AS oid))

-- name: try_lock_batch
-- Held while one process stages, validates or loads a batch.
SELECT pg_try_advisory_lock(:lock_class, hashtext(:batch_id))

-- name: take_batch
-- From here on nobody else records anything of the batch; waits for what the former holder is committing.
INSERT INTO batch_locks (batch_id, lock_no) VALUES (:batch_id, 1)
ON CONFLICT (batch_id) DO UPDATE SET lock_no = batch_locks.lock_no + 1 RETURNING lock_no

-- name: hold_batch
-- The batch lock is still ours, and stays so until this transaction ends; no row when somebody else has taken it.
SELECT lock_no FROM batch_locks WHERE batch_id = :batch_id AND lock_no = :lock_no FOR SHARE

-- name: is_batch_held
-- Whether the batch lock is still ours.
SELECT EXISTS (SELECT FROM batch_locks WHERE batch_id = :batch_id AND lock_no = :lock_no)

-- name: unlock_batch
-- Release the batch lock.
SELECT pg_advisory_unlock(:lock_class, hashtext(:batch_id))

-- name: offer_slots
-- Held by the session of a process that runs so many of Dagster's runs at once.
SELECT pg_try_advisory_lock_shared(:lock_class, :slots)

-- name: offered_slots
-- How many runs at once each process offers that offers any.
SELECT CAST(objid AS bigint) AS slots FROM pg_locks JOIN pg_database ON pg_database.oid = pg_locks.database
WHERE locktype = 'advisory' AND granted AND datname = current_database() AND classid = :lock_class
ORDER BY slots DESC
