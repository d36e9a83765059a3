-- What is common to payments, refunds and notifications: a statement with {braces} is made for each of these.
-- for: {"ledger": "payments", "item": "payment", "planned": "planned", "succeeded": "succeeded", "declined": "declined", "which": "true"}
-- for: {"ledger": "refunds", "item": "refund", "planned": "planned", "succeeded": "succeeded", "declined": "declined", "which": "true"}
-- for: {"ledger": "results", "item": "notification", "planned": "ready", "succeeded": "sent", "declined": "failed", "which": "kind = 'result'"}
-- for: {"ledger": "corrections", "item": "notification", "planned": "ready", "succeeded": "sent", "declined": "failed", "which": "kind = 'correction'"}

-- name: release_{ledger}
-- What a lost worker was sending may have arrived; without a key, it may have been sent until the worker's lease was over.
-- The same holds for claims that the caller has and does not know of, because the answer to its claim was lost.
UPDATE {item}s SET status = 'unknown', claimed_by = NULL, outcome_code = 'worker-lost', next_attempt_at = CASE
    WHEN created_at > clock_timestamp() - make_interval(secs => :keys_kept_s)
    THEN sent_at + make_interval(secs => :lost_wait_s)
    ELSE greatest(sent_at, lease_until) + make_interval(secs => :doubt_s) END
FROM workers
WHERE {item}s.batch_id = :batch_id AND {which} AND settled_at IS NULL
  AND workers.worker_id = claimed_by AND (workers.ended_at IS NOT NULL OR claimed_by = :caller_id)
RETURNING {item}_id AS item_id

-- name: renew_{ledger}
-- A new drain tries everything again; what waits for a look-up, or for a person, may keep its time.
UPDATE {item}s SET attempts = 0,
                   next_attempt_at = CASE WHEN status = '{planned}' OR NOT :look_ups_wait THEN now() ELSE next_attempt_at END
WHERE batch_id = :batch_id AND {which} AND status IN ('{planned}', 'unknown') AND claimed_by IS NULL
  AND (attempts > 0 OR (next_attempt_at > now() AND (status = '{planned}' OR NOT :look_ups_wait)))

-- name: claim_{ledger}
-- Take what is due for a worker, that first which was tried before; what was planned is being sent from here on.
WITH again AS (
    SELECT {item}_id, status AS was FROM {item}s
    WHERE batch_id = :batch_id AND {which} AND claimed_by IS NULL AND attempts > 0 AND status IN ('{planned}', 'unknown')
      AND next_attempt_at <= statement_timestamp() AND attempts < :max_attempts
    ORDER BY next_attempt_at LIMIT CASE WHEN :retries THEN CAST(:limit AS integer) ELSE 0 END
    FOR UPDATE SKIP LOCKED
), first AS (
    SELECT {item}_id, status AS was FROM {item}s
    WHERE batch_id = :batch_id AND {which} AND claimed_by IS NULL AND attempts = 0 AND status IN ('{planned}', 'unknown')
      AND next_attempt_at <= statement_timestamp()
    ORDER BY next_attempt_at LIMIT :limit - (SELECT count(*) FROM again)
    FOR UPDATE SKIP LOCKED
), due AS (
    SELECT * FROM again UNION ALL SELECT * FROM first
)
UPDATE {item}s SET status = CASE due.was WHEN '{planned}' THEN 'sending' ELSE 'unknown' END,
                   claimed_by = :worker_id, attempts = attempts + 1, sent_at = clock_timestamp()
FROM due WHERE {item}s.{item}_id = due.{item}_id
RETURNING {item}s.{item}_id AS item_id

-- name: record_{ledger}
-- The results of this worker's claims, and of what was carried out and nobody claims now.
-- It is found by key, as the index of claims is full.
UPDATE {item}s SET status = result.status, claimed_by = NULL, outcome_code = result.code,
                   attempts = attempts - CASE WHEN result.code = :called_off THEN 1 ELSE 0 END,
                   service_{item}_id = coalesce(result.service_id, service_{item}_id),
                   next_attempt_at = clock_timestamp() + make_interval(secs => result.delay_s),
                   settled_at = CASE WHEN result.status IN ('{succeeded}', '{declined}') THEN clock_timestamp() END
FROM unnest(CAST(:item_ids AS uuid[]), CAST(:statuses AS text[]), CAST(:service_ids AS text[]), CAST(:codes AS text[]),
            CAST(:delays_s AS double precision[])) AS result (item_id, status, service_id, code, delay_s)
WHERE {item}_id = result.item_id
  AND (claimed_by IS NOT DISTINCT FROM :worker_id
       OR ({item}s.status = 'unknown' AND claimed_by IS NULL AND result.status = '{succeeded}'))
RETURNING {item}_id AS item_id, {item}s.status

-- name: seconds_to_next_{ledger}
-- How long until something of a batch may be tried, or others' claims are looked at again; without what a person decides.
SELECT extract(epoch FROM least(
    (SELECT min(next_attempt_at) FROM {item}s
     WHERE batch_id = :batch_id AND {which} AND claimed_by IS NULL AND attempts = 0 AND status IN ('{planned}', 'unknown')
       AND next_attempt_at < now() + interval '1 day'),
    (SELECT min(next_attempt_at) FROM {item}s
     WHERE batch_id = :batch_id AND {which} AND claimed_by IS NULL AND attempts > 0 AND status IN ('{planned}', 'unknown')
       AND attempts < :max_attempts AND next_attempt_at < now() + interval '1 day'),
    (SELECT clock_timestamp() + interval '1 second' FROM {item}s
     WHERE batch_id = :batch_id AND {which} AND claimed_by IS NOT NULL LIMIT 1)
) - clock_timestamp())
