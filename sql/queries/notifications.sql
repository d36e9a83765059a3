-- name: orders_to_notify
-- Orders whose customer is to be told and that no notification covers yet.
SELECT order_id, customer_code, is_nobodys, notify_channel, import_row_number, personal FROM orders
WHERE batch_id = :batch_id AND notify_channel <> 'none'
  AND NOT EXISTS (SELECT FROM notification_orders AS member WHERE member.order_id = orders.order_id)
ORDER BY import_row_number

-- name: next_notification_ids
-- The ids of the next notifications about some rows of a batch each, in order.
WITH batch AS MATERIALIZED (SELECT batch_identity(:batch_id) AS identity)
SELECT next_notification_id(batch.identity, 'result', CAST(members AS integer[])) AS notification_id
FROM batch, unnest(CAST(:members AS text[])) WITH ORDINALITY AS planned (members, place) ORDER BY place

-- name: insert_notifications
-- The planned notifications; each waits for its orders to be final.
INSERT INTO notifications (notification_id, batch_id, customer_code, channel)
SELECT notification_id, :batch_id, customer_code, channel
FROM unnest(CAST(:notification_ids AS uuid[]), CAST(:customer_codes AS text[]), CAST(:channels AS text[]))
     AS planned (notification_id, customer_code, channel)

-- name: insert_notification_orders
-- Which orders each one is about.
INSERT INTO notification_orders (notification_id, order_id)
SELECT * FROM unnest(CAST(:notification_ids AS uuid[]), CAST(:order_ids AS bigint[]))

-- name: lock_waiting_notifications
-- The waiting notifications that payments belong to, so that two workers do not each leave the last word to the other.
SELECT notification_id FROM notifications
WHERE status = 'waiting' AND notification_id = ANY(ARRAY(
    SELECT DISTINCT member.notification_id
    FROM payment_orders AS share JOIN notification_orders AS member USING (order_id)
    WHERE share.payment_id = ANY(CAST(:payment_ids AS uuid[]))))
ORDER BY notification_id FOR UPDATE

-- name: ready_notifications
-- Those of them whose orders are all final.
UPDATE notifications SET status = 'ready', next_attempt_at = now()
WHERE notification_id = ANY(CAST(:notification_ids AS uuid[])) AND status = 'waiting' AND NOT EXISTS (
    SELECT FROM notification_orders AS member JOIN orders USING (order_id)
    WHERE member.notification_id = notifications.notification_id
      AND orders.status IN ('pending', 'paying', 'unknown'))

-- name: ready_notifications_of_batch
-- The same over a whole batch.
UPDATE notifications SET status = 'ready', next_attempt_at = now()
WHERE batch_id = :batch_id AND status = 'waiting' AND NOT EXISTS (
    SELECT FROM notification_orders AS member JOIN orders USING (order_id)
    WHERE member.notification_id = notifications.notification_id
      AND orders.status IN ('pending', 'paying', 'unknown'))

-- name: release_notifications_of_lost_workers
-- What a lost worker was sending may or may not have arrived, nor what the caller itself holds and knows nothing of.
UPDATE notifications SET status = 'unknown', claimed_by = NULL, outcome_code = 'worker-lost', next_attempt_at = now()
FROM workers
WHERE notifications.batch_id = :batch_id AND status IN ('sending', 'unknown') AND workers.worker_id = claimed_by
  AND (workers.ended_at IS NOT NULL OR (claimed_by = :caller_id AND kind = ANY(CAST(:kinds AS text[]))))

-- name: renew_notification_attempts
-- A new drain tries everything again.
UPDATE notifications SET attempts = 0, next_attempt_at = now()
WHERE batch_id = :batch_id AND kind = ANY(CAST(:kinds AS text[])) AND status IN ('ready', 'unknown') AND claimed_by IS NULL
  AND (attempts > 0 OR next_attempt_at > now())

-- name: claim_notifications
-- Take due notifications for a worker, those first that were tried before, then by kind, oldest first.
WITH again AS (
    SELECT found.* FROM unnest(CAST(:kinds AS text[])) AS wanted (kind) CROSS JOIN LATERAL (
        SELECT notification_id, status AS was FROM notifications
        WHERE batch_id = :batch_id AND kind = wanted.kind AND claimed_by IS NULL AND attempts > 0 AND attempts < :max_attempts
          AND status IN ('ready', 'unknown') AND next_attempt_at <= statement_timestamp()
        ORDER BY next_attempt_at LIMIT CAST(:limit AS integer)
        FOR UPDATE SKIP LOCKED
    ) AS found LIMIT CASE WHEN :retries THEN CAST(:limit AS integer) ELSE 0 END
), first AS (
    SELECT found.* FROM unnest(CAST(:kinds AS text[])) AS wanted (kind) CROSS JOIN LATERAL (
        SELECT notification_id, status AS was FROM notifications
        WHERE batch_id = :batch_id AND kind = wanted.kind AND claimed_by IS NULL AND attempts = 0
          AND status IN ('ready', 'unknown') AND next_attempt_at <= statement_timestamp()
        ORDER BY next_attempt_at LIMIT CAST(:limit AS integer)
        FOR UPDATE SKIP LOCKED
    ) AS found LIMIT :limit - (SELECT count(*) FROM again)
), due AS (
    SELECT * FROM again UNION ALL SELECT * FROM first
)
UPDATE notifications SET status = CASE due.was WHEN 'ready' THEN 'sending' ELSE 'unknown' END,
                         claimed_by = :worker_id, attempts = attempts + 1
FROM due WHERE notifications.notification_id = due.notification_id
RETURNING notifications.notification_id

-- name: claim_doubtful_notifications
-- Take what may have been sent for a worker that looks it up and sends nothing.
UPDATE notifications SET claimed_by = :worker_id, attempts = attempts + 1
WHERE batch_id = :batch_id AND kind = 'result' AND status = 'unknown' AND claimed_by IS NULL
RETURNING notification_id

-- name: cancel_notifications
-- Nobody is told of results any more.
UPDATE notifications SET status = 'cancelled'
WHERE batch_id = :batch_id AND kind = 'result' AND status IN ('waiting', 'ready')

-- name: claimed_notifications
-- What claimed notifications are to say, as their orders are now.
SELECT claimed.notification_id, claimed.kind, claimed.customer_code, claimed.channel, claimed.status, claimed.attempts,
       members.order_refs, members.refs, members.amounts, members.order_statuses, first.import_row_number, first.personal
FROM notifications AS claimed
CROSS JOIN LATERAL (
    SELECT array_agg(order_reference(batch_id, import_row_number) ORDER BY import_row_number) AS order_refs,
           array_agg(client_order_ref ORDER BY import_row_number) AS refs,
           array_agg(amount ORDER BY import_row_number)           AS amounts,
           array_agg(status ORDER BY import_row_number)           AS order_statuses,
           (array_agg(order_id ORDER BY import_row_number))[1]    AS first_id
    FROM orders WHERE order_id = ANY(ARRAY(
        SELECT order_id FROM notification_orders AS told WHERE told.notification_id = claimed.notification_id
        UNION ALL
        SELECT order_id FROM refund_orders AS given WHERE given.correction_id = claimed.notification_id))
) AS members
JOIN orders AS first ON first.order_id = members.first_id
WHERE claimed.notification_id = ANY(CAST(:notification_ids AS uuid[]))
ORDER BY claimed.next_attempt_at

-- name: record_notifications
-- What came of claims, if they are still this worker's.
UPDATE notifications SET status = result.status, claimed_by = NULL, outcome_code = result.code,
                         attempts = attempts - CASE WHEN result.code = :called_off THEN 1 ELSE 0 END,
                         service_notification_id = coalesce(result.service_notification_id,
                                                            notifications.service_notification_id),
                         next_attempt_at = clock_timestamp() + make_interval(secs => result.delay_s),
                         sent_at = CASE WHEN result.status = 'sent' THEN clock_timestamp() END
FROM unnest(CAST(:notification_ids AS uuid[]), CAST(:statuses AS text[]), CAST(:service_notification_ids AS text[]),
            CAST(:codes AS text[]), CAST(:delays_s AS double precision[]))
     AS result (notification_id, status, service_notification_id, code, delay_s)
WHERE notifications.notification_id = result.notification_id AND notifications.claimed_by = :worker_id

-- name: seconds_to_next_notification
-- How long until a notification of this batch may be tried, or what others hold of them is looked at again.
SELECT extract(epoch FROM least(
    (SELECT min(next_attempt_at) FROM notifications
     WHERE batch_id = :batch_id AND kind = ANY(CAST(:kinds AS text[])) AND status IN ('ready', 'unknown')
       AND claimed_by IS NULL AND attempts < :max_attempts),
    (SELECT clock_timestamp() + interval '1 second' FROM notifications
     WHERE batch_id = :batch_id AND kind = ANY(CAST(:kinds AS text[])) AND claimed_by IS NOT NULL LIMIT 1)
) - clock_timestamp())
