-- name: orders_to_choose
-- A batch's orders, or those of some references (in lower case) and what an open refund takes along with them.
SELECT orders.order_id, lower(client_order_ref) AS ref, orders.amount, orders.status, share.payment_id,
       refunds.refund_id IS NOT NULL AND refunds.settled_at IS NULL AS is_under_way,
       coalesce(result.status IN ('sending', 'unknown', 'sent'), false) AS was_notified
FROM orders
LEFT JOIN payment_orders AS share ON share.order_id = orders.order_id AND share.live
LEFT JOIN refund_orders AS refund_share ON refund_share.order_id = orders.order_id AND refund_share.live
LEFT JOIN refunds ON refunds.refund_id = refund_share.refund_id
LEFT JOIN notification_orders AS member ON member.order_id = orders.order_id
LEFT JOIN notifications AS result ON result.notification_id = member.notification_id
WHERE orders.batch_id = :batch_id
  AND (CAST(:refs AS text[]) IS NULL OR lower(client_order_ref) = ANY(CAST(:refs AS text[]))
       OR (refunds.refund_id IS NOT NULL AND refunds.settled_at IS NULL AND EXISTS (
               SELECT FROM refund_orders AS beside JOIN orders AS named ON named.order_id = beside.order_id
               WHERE beside.refund_id = refunds.refund_id
                 AND lower(named.client_order_ref) = ANY(CAST(:refs AS text[])))))
ORDER BY import_row_number

-- name: orders_to_refund
-- Those of some orders that are paid and have no refund, each with its payment.
SELECT share.payment_id, next_refund_id(share.payment_id, array_agg(import_row_number ORDER BY import_row_number)) AS refund_id,
       array_agg(order_id ORDER BY import_row_number) AS order_ids,
       array_agg(share.amount ORDER BY import_row_number) AS amounts
FROM orders JOIN payment_orders AS share USING (order_id)
WHERE order_id = ANY(CAST(:order_ids AS bigint[])) AND status = 'paid' AND live
  AND NOT EXISTS (SELECT FROM refund_orders AS refund_share WHERE refund_share.order_id = orders.order_id AND refund_share.live)
GROUP BY share.payment_id ORDER BY share.payment_id

-- name: insert_refund_request
-- Somebody asks for refunds, which are written in this transaction.
INSERT INTO refund_requests (batch_id, requested_by) VALUES (:batch_id, :requested_by) RETURNING request_id

-- name: insert_refunds
-- The planned refunds of a request, one for each payment, with who asked for them and why.
INSERT INTO refunds (refund_id, payment_id, batch_id, amount, requested_by, reason, request_id)
SELECT refund_id, payment_id, :batch_id, amount, :requested_by, :reason, CAST(:request_id AS uuid)
FROM unnest(CAST(:refund_ids AS uuid[]), CAST(:payment_ids AS uuid[]), CAST(:amounts AS integer[]))
     AS planned (refund_id, payment_id, amount)

-- name: insert_refund_orders
-- What is refunded for which order, all at once: the schema checks that it adds up.
INSERT INTO refund_orders (refund_id, order_id, amount)
SELECT * FROM unnest(CAST(:refund_ids AS uuid[]), CAST(:order_ids AS bigint[]), CAST(:amounts AS integer[]))

-- name: open_refunds
-- The refunds of some orders that are not settled.
SELECT DISTINCT refund_id FROM refunds JOIN refund_orders AS refund_share USING (refund_id)
WHERE order_id = ANY(CAST(:order_ids AS bigint[])) AND live AND settled_at IS NULL

-- name: claimed_refunds
-- What is to be sent of claimed refunds, and what speaks against it.
SELECT claimed.refund_id, claimed.amount, claimed.reason, claimed.status, claimed.attempts, claimed.outcome_code,
       payments.service_payment_id,
       NOT decided.is_so AND EXISTS (
               SELECT FROM reconciliation_findings AS finding
               WHERE finding.payment_id = claimed.payment_id AND closed_at IS NULL AND accepted_at IS NULL
                 AND (code = 'C_REFUND_MISSING_HERE'
                      OR (code = 'C_STATE_DIFFERS' AND detail -> 'theirs' ->> 'status' = 'refunded'))) AS may_be_made,
       decided.is_so AS is_decided,
       installation.generation > 1 OR payments.settled_at < installation.seen_since AS may_be_forgotten,
       claimed.created_at < clock_timestamp() - make_interval(secs => :keys_kept_s) AS is_old
FROM refunds AS claimed JOIN payments USING (payment_id) CROSS JOIN installation
CROSS JOIN LATERAL (
    -- a database that was put back since may have carried it out
    SELECT EXISTS (SELECT FROM resolutions WHERE resolutions.refund_id = claimed.refund_id
                                             AND decided_at >= installation.seen_since) AS is_so) AS decided
WHERE claimed.refund_id = ANY(CAST(:refund_ids AS uuid[]))
ORDER BY claimed.next_attempt_at

-- name: refunded_beside
-- What our ledger has refunded, or may have, of a refund's payment without this refund.
SELECT coalesce(sum(amount), 0) FROM refunds
WHERE payment_id = (SELECT payment_id FROM refunds WHERE refund_id = CAST(:refund_id AS uuid))
  AND refund_id <> CAST(:refund_id AS uuid) AND status IN ('sending', 'unknown', 'succeeded')

-- name: lock_payments_of_refunds
-- The payments refunds are of, so that of two workers the second sees that the first has refunded the rest.
SELECT payment_id FROM payments
WHERE payment_id = ANY(ARRAY(SELECT payment_id FROM refunds WHERE refund_id = ANY(CAST(:refund_ids AS uuid[]))))
ORDER BY payment_id FOR NO KEY UPDATE

-- name: orders_follow_refunds
-- An order is refunded once its refund succeeded.
UPDATE orders SET status = 'refunded', status_changed_at = now()
FROM refunds JOIN refund_orders AS refund_share USING (refund_id)
WHERE refunds.refund_id = ANY(CAST(:refund_ids AS uuid[])) AND refunds.status = 'succeeded'
  AND orders.order_id = refund_share.order_id

-- name: payments_follow_refunds
-- A payment all of whose orders are refunded is refunded too.
UPDATE payments SET status = 'refunded' FROM refunds
WHERE refunds.refund_id = ANY(CAST(:refund_ids AS uuid[])) AND refunds.status = 'succeeded'
  AND payments.payment_id = refunds.payment_id AND NOT EXISTS (
      SELECT FROM payment_orders AS share JOIN orders USING (order_id)
      WHERE share.payment_id = payments.payment_id AND orders.status <> 'refunded')

-- name: lock_requests_of_refunds
-- The requests refunds are of, so that of two workers the second sees that the first has settled the rest.
SELECT request_id FROM refund_requests
WHERE request_id = ANY(ARRAY(SELECT request_id FROM refunds WHERE refund_id = ANY(CAST(:refund_ids AS uuid[]))))
ORDER BY request_id FOR UPDATE

-- name: finish_refund_requests
-- A request of which no refund is open is finished.
UPDATE refund_requests SET finished_at = clock_timestamp()
WHERE request_id = ANY(CAST(:request_ids AS uuid[])) AND finished_at IS NULL
  AND NOT EXISTS (SELECT FROM refunds WHERE refunds.request_id = refund_requests.request_id AND settled_at IS NULL)

-- name: retire_declined_refunds
-- Declined refunds no longer cover their orders.
UPDATE refund_orders SET live = false FROM refunds
WHERE refunds.refund_id = refund_orders.refund_id AND refunds.status = 'declined' AND live
  AND refunds.refund_id = ANY(CAST(:refund_ids AS uuid[]))

-- name: lock_notifications_of_refunds
-- Notifications of refunded orders, so that each customer is notified of the refund or known to have been notified otherwise.
SELECT notification_id FROM notifications
WHERE notification_id = ANY(ARRAY(
    SELECT notification_id FROM refund_orders JOIN notification_orders USING (order_id)
    WHERE refund_id = ANY(CAST(:refund_ids AS uuid[]))))
ORDER BY notification_id FOR UPDATE

-- name: note_who_was_notified
-- Customers who were or may have been notified before the refund; others are notified of the refund at once.
UPDATE refund_orders SET was_told = true
FROM refunds, notification_orders AS member JOIN notifications AS result USING (notification_id)
WHERE refunds.refund_id = refund_orders.refund_id AND refunds.status = 'succeeded'
  AND refunds.refund_id = ANY(CAST(:refund_ids AS uuid[]))
  AND member.order_id = refund_orders.order_id AND result.status IN ('sending', 'unknown', 'sent')

-- name: refund_to_resolve
-- A refund that a person wants to decide about.
SELECT refund_id, batch_id, status, claimed_by
FROM refunds WHERE refund_id = CAST(:refund_id AS uuid) FOR UPDATE

-- name: resolve_as_refunded
-- A person has found the refund at the service.
UPDATE refunds SET status = 'succeeded', settled_at = clock_timestamp(), service_refund_id = :service_refund_id,
                   outcome_code = 'resolved', claimed_by = NULL
WHERE refund_id = CAST(:refund_id AS uuid)

-- name: resolve_as_not_refunded
-- A person is certain that nothing was refunded: it may be sent as if for the first time.
UPDATE refunds SET status = 'planned', attempts = 0, next_attempt_at = clock_timestamp(), outcome_code = 'resolved',
                   claimed_by = NULL
WHERE refund_id = CAST(:refund_id AS uuid)

-- name: unsettled_refunds
-- What is open of a batch's refunds, each with the references of its orders.
SELECT refund_id, status, amount, outcome_code, created_at, refs, next_attempt_at > now() + interval '1 day' AS needs_a_person
FROM refunds
CROSS JOIN LATERAL (
    SELECT array_agg(client_order_ref ORDER BY import_row_number) AS refs
    FROM refund_orders AS refund_share JOIN orders USING (order_id) WHERE refund_share.refund_id = refunds.refund_id
) AS members
WHERE refunds.batch_id = :batch_id AND settled_at IS NULL ORDER BY created_at, refund_id

-- name: batches_with_open_refunds
-- Which batches have refunds that are not settled, those first that came first, and how many of these a person has to decide.
SELECT batch_id, client_code, csv_source, status, received_at, refunds, amount, undecided
FROM (SELECT batch_id, count(*) AS refunds, CAST(sum(amount) AS bigint) AS amount,
             count(*) FILTER (WHERE next_attempt_at > now() + interval '1 day') AS undecided
      FROM refunds WHERE settled_at IS NULL GROUP BY batch_id) AS open_refunds JOIN batches USING (batch_id)
WHERE CAST(:client_code AS text) IS NULL OR client_code = :client_code
ORDER BY received_at, batch_id LIMIT :limit

-- name: want_refund_run
-- Refunds are written: a run is asked for at once if that is said, and none was a moment ago; else by the sensor's next look.
WITH wanted AS (
    SELECT batch_id, :at_once AND coalesce(run_requested_at < now() - make_interval(secs => :patience_s), true) AS is_now
    FROM batches WHERE batch_id = :batch_id
)
UPDATE batches SET run_requests = run_requests + is_now::int, run_requested_at = CASE WHEN is_now THEN now() END
FROM wanted WHERE batches.batch_id = wanted.batch_id
RETURNING is_now, source_bytes, run_requests

-- name: is_refunding
-- Whether refunds of a batch, or the corrections that follow them, are open.
SELECT EXISTS (SELECT FROM refunds WHERE refunds.batch_id = CAST(:batch_id AS text) AND settled_at IS NULL)
    OR EXISTS (SELECT FROM notifications WHERE notifications.batch_id = CAST(:batch_id AS text) AND kind = 'correction'
               AND status NOT IN ('sent', 'failed'))

-- name: batches_refunding
-- Batches that ended, or stand still, with refunds or corrections that were begun, and without a worker.
-- Where a refund was asked for since a run was, that was the run that the batch API asked for, and it may be lost.
WITH due AS (
    SELECT batch_id, true AS is_refund FROM refunds
    WHERE settled_at IS NULL AND next_attempt_at <= now() AND NOT is_held(batch_id, 'refund')
    UNION
    SELECT batch_id, false FROM notifications
    WHERE kind = 'correction' AND status NOT IN ('sent', 'failed') AND next_attempt_at <= now()
      AND NOT is_held(batch_id, 'notification')
)
SELECT batches.batch_id, client_code, csv_source, source_bytes, run_requests,
       bool_or(is_refund) AS payments_due, bool_or(NOT is_refund) AS notifications_due, true AS is_refunding
FROM due JOIN batches USING (batch_id)
WHERE (finished_at IS NOT NULL OR status IN ('paused', 'stopped', 'cancelling'))
  AND NOT EXISTS (SELECT FROM workers WHERE workers.batch_id = batches.batch_id AND ended_at IS NULL)
  AND (run_requested_at IS NULL OR run_requested_at
       < now() - make_interval(secs => CASE
           WHEN EXISTS (SELECT FROM refund_requests AS request WHERE request.batch_id = batches.batch_id
                        AND request.finished_at IS NULL AND created_at >= run_requested_at) THEN :api_patience_s
           ELSE least(:patience_s * 2 ^ least(run_requests, 10), :longest_s) END))
GROUP BY batches.batch_id ORDER BY received_at, batches.batch_id LIMIT :limit

-- name: refund_totals
-- What became of a batch's refunds and of the corrections that follow them.
SELECT refunds.*, corrections.*
FROM (
    SELECT count(*)                                     AS planned,
           count(*) FILTER (WHERE status = 'succeeded') AS succeeded,
           count(*) FILTER (WHERE status = 'declined')  AS declined,
           count(*) FILTER (WHERE settled_at IS NULL)   AS open
    FROM refunds WHERE batch_id = :batch_id
) AS refunds
CROSS JOIN (
    SELECT count(*)                                                 AS corrections_planned,
           count(*) FILTER (WHERE status = 'sent')                  AS corrections_sent,
           count(*) FILTER (WHERE status = 'failed')                AS corrections_failed,
           count(*) FILTER (WHERE status NOT IN ('sent', 'failed')) AS corrections_open
    FROM notifications WHERE batch_id = :batch_id AND kind = 'correction'
) AS corrections

-- name: plan_corrections
-- Who was notified of refunded orders gets a correction; one that nobody has begun to send takes later ones along.
WITH uncorrected AS (
    SELECT refund_id, order_id, import_row_number, member.notification_id AS notified_by
    FROM refund_orders JOIN notification_orders AS member USING (order_id) JOIN orders USING (order_id)
    WHERE refund_id = ANY(CAST(:refund_ids AS uuid[])) AND live AND was_told AND correction_id IS NULL
), begun AS (
    SELECT notification_id FROM notifications
    WHERE kind = 'correction' AND status = 'ready' AND attempts = 0 AND claimed_by IS NULL AND notification_id IN (
        SELECT before.correction_id FROM uncorrected
        JOIN notification_orders AS member ON member.notification_id = notified_by
        JOIN refund_orders AS before ON before.order_id = member.order_id AND before.live)
    FOR UPDATE SKIP LOCKED
), planned AS MATERIALIZED (
    SELECT notified_by, coalesce((
        SELECT before.correction_id FROM notification_orders AS member
        JOIN refund_orders AS before ON before.order_id = member.order_id AND before.live
        JOIN begun ON begun.notification_id = before.correction_id
        WHERE member.notification_id = notified_by LIMIT 1),
        next_notification_id(CAST(notified_by AS text), 'correction', array_agg(import_row_number ORDER BY import_row_number))
        ) AS correction_id
    FROM uncorrected GROUP BY notified_by
), written AS (
    INSERT INTO notifications (notification_id, batch_id, customer_code, channel, kind, status)
    SELECT correction_id, batch_id, customer_code, channel, 'correction', 'ready'
    FROM planned JOIN notifications ON notification_id = notified_by
    WHERE correction_id NOT IN (SELECT notification_id FROM begun)
)
UPDATE refund_orders SET correction_id = planned.correction_id FROM uncorrected JOIN planned USING (notified_by)
WHERE refund_orders.refund_id = uncorrected.refund_id AND refund_orders.order_id = uncorrected.order_id

-- name: refunds_of_orders
-- The live refunds of some orders, and those of this run that were declined, with the references of their orders.
SELECT refund_id, status, amount, outcome_code, refs,
       settled_at IS NULL AND next_attempt_at > now() + interval '1 day' AS needs_a_person
FROM refunds
CROSS JOIN LATERAL (
    SELECT array_agg(client_order_ref ORDER BY import_row_number) AS refs
    FROM refund_orders AS refund_share JOIN orders USING (order_id) WHERE refund_share.refund_id = refunds.refund_id
) AS members
WHERE refund_id = ANY(CAST(:refund_ids AS uuid[]) || ARRAY(
    SELECT refund_share.refund_id FROM refund_orders AS refund_share
    WHERE refund_share.order_id = ANY(CAST(:order_ids AS bigint[])) AND refund_share.live))
ORDER BY created_at, refund_id

-- name: corrections_of_orders
-- How many corrections go out for some orders, and what became of them.
SELECT count(*) AS planned,
       count(*) FILTER (WHERE status = 'sent') AS sent,
       count(*) FILTER (WHERE status = 'failed') AS failed
FROM notifications WHERE notification_id IN (
    SELECT correction_id FROM refund_orders AS refund_share
    WHERE refund_share.order_id = ANY(CAST(:order_ids AS bigint[])) AND refund_share.live)
