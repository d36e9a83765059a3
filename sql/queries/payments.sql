-- name: lock_batch
-- One planner at a time; statements that only refer to the batch do not wait.
SELECT batch_id FROM batches WHERE batch_id = :batch_id FOR NO KEY UPDATE

-- name: orders_to_plan
-- Orders that no live payment covers; personal values only where a card is needed.
SELECT order_id, customer_code, is_nobodys, payment_method, amount, import_row_number,
       CASE WHEN payment_method = 'card_on_file' THEN personal END AS personal
FROM orders
WHERE batch_id = :batch_id AND status = 'pending'
  AND NOT EXISTS (SELECT FROM payment_orders AS share WHERE share.order_id = orders.order_id AND share.live)
ORDER BY import_row_number

-- name: next_payment_ids
-- The ids of the next payments for some rows of a batch each, in order.
WITH batch AS MATERIALIZED (SELECT batch_identity(:batch_id) AS identity)
SELECT next_payment_id(batch.identity, CAST(members AS integer[]), yen) AS payment_id
FROM batch, unnest(CAST(:members AS text[]), CAST(:amounts AS integer[])) WITH ORDINALITY AS planned (members, yen, place)
ORDER BY place

-- name: insert_payments
-- The planned transactions.
INSERT INTO payments (payment_id, batch_id, customer_code, payment_method, amount)
SELECT payment_id, :batch_id, customer_code, payment_method, amount
FROM unnest(CAST(:payment_ids AS uuid[]), CAST(:customer_codes AS text[]), CAST(:payment_methods AS text[]),
            CAST(:amounts AS integer[])) AS planned (payment_id, customer_code, payment_method, amount)

-- name: insert_allocations
-- Which order has which share, all at once: the schema checks that shares add up.
INSERT INTO payment_orders (payment_id, order_id, amount)
SELECT * FROM unnest(CAST(:payment_ids AS uuid[]), CAST(:order_ids AS bigint[]), CAST(:amounts AS integer[]))

-- name: doubt_what_may_be_charged
-- What is planned may have been charged by a database that is lost, and is looked up before it is sent.
-- That it was has been found in the list, with a key of then, and somebody answers for it; or no list was compared since. Without
-- a key, what that database sent last may still be under way.
UPDATE payments SET status = 'unknown', outcome_code = 'database-replaced', sent_at = clock_timestamp(),
                    created_at = least(payments.created_at, (
                        SELECT min(compared_from) FROM reconciliation_findings AS finding
                        WHERE closed_at IS NULL AND code = 'C_MISSING_HERE' AND finding.payment_id = payments.payment_id)),
                    next_attempt_at = CASE WHEN payments.created_at > clock_timestamp() - make_interval(secs => :keys_kept_s)
                                      THEN next_attempt_at
                                      ELSE greatest(next_attempt_at, unlisted_since + make_interval(secs => :look_up_wait_s)) END
FROM installation
WHERE batch_id = :batch_id AND status = 'planned' AND claimed_by IS NULL
  AND (coalesce(sent_at, '-infinity') < unlisted_since
       OR sent_at IS NULL AND EXISTS (
           SELECT FROM reconciliation_findings AS finding
           WHERE closed_at IS NULL AND code = 'C_MISSING_HERE' AND finding.payment_id = payments.payment_id))
RETURNING payment_id

-- name: claimed_payments
-- What is to be sent, or looked up, of claimed payments; `with_cards`, the personal values of an order with one.
SELECT claimed.payment_id, claimed.customer_code, claimed.payment_method, claimed.amount, claimed.status,
       claimed.attempts, claimed.outcome_code, shares.order_refs, shares.order_amounts,
       reference_of(claimed.payment_id) AS reference,
       claimed.created_at < clock_timestamp() - make_interval(secs => :keys_kept_s) AS is_old,
       extract(epoch FROM claimed.next_attempt_at - clock_timestamp()) AS young_s,
       card.import_row_number, card.personal
FROM payments AS claimed
CROSS JOIN LATERAL (
    SELECT array_agg(order_reference(orders.batch_id, import_row_number) ORDER BY import_row_number) AS order_refs,
           array_agg(share.amount ORDER BY import_row_number) AS order_amounts,
           (array_agg(order_id ORDER BY import_row_number))[1] AS first_id
    FROM payment_orders AS share JOIN orders USING (order_id) WHERE share.payment_id = claimed.payment_id
) AS shares
LEFT JOIN orders AS card ON card.order_id = shares.first_id AND claimed.payment_method = 'card_on_file' AND :with_cards
WHERE claimed.payment_id = ANY(CAST(:payment_ids AS uuid[]))
ORDER BY claimed.next_attempt_at

-- name: distrust_look_ups
-- Without keys, a request may still be on its way: that nothing is found proves nothing until later.
UPDATE payments SET next_attempt_at = clock_timestamp() + make_interval(secs => :look_up_wait_s)
WHERE batch_id = :batch_id AND status = 'unknown' AND claimed_by IS NULL AND next_attempt_at < now() + interval '1 day'
  AND coalesce(outcome_code, '') <> ALL(CAST(:waiting AS text[]))

-- name: renew_doubtful_attempts
-- What may have been charged is looked up at once, whenever that nothing is found is believed; not what a person decides.
UPDATE payments SET attempts = 0
WHERE batch_id = :batch_id AND status = 'unknown' AND claimed_by IS NULL AND attempts > 0
  AND next_attempt_at < now() + interval '1 day'

-- name: claim_doubtful_payments
-- Take what may have been charged for a worker that looks it up and sends nothing: when it was sent stays.
WITH again AS (
    SELECT payment_id FROM payments
    WHERE batch_id = :batch_id AND claimed_by IS NULL AND attempts > 0 AND status = 'unknown'
      AND next_attempt_at <= statement_timestamp() AND attempts < :max_attempts
    ORDER BY next_attempt_at LIMIT CAST(:limit AS integer)
    FOR UPDATE SKIP LOCKED
), first AS (
    SELECT payment_id FROM payments
    WHERE batch_id = :batch_id AND claimed_by IS NULL AND attempts = 0 AND status = 'unknown'
      AND next_attempt_at < statement_timestamp() + interval '1 day'
    ORDER BY next_attempt_at LIMIT CAST(:limit AS integer) - (SELECT count(*) FROM again)
    FOR UPDATE SKIP LOCKED
), due AS (
    SELECT * FROM again UNION ALL SELECT * FROM first
)
UPDATE payments SET claimed_by = :worker_id, attempts = attempts + 1
FROM due WHERE payments.payment_id = due.payment_id
RETURNING payments.payment_id

-- name: seconds_to_next_look_up
-- How long until what may have been charged may be looked up.
SELECT extract(epoch FROM least(
    (SELECT min(next_attempt_at) FROM payments
     WHERE batch_id = :batch_id AND claimed_by IS NULL AND attempts = 0 AND status = 'unknown'
       AND next_attempt_at < now() + interval '1 day'),
    (SELECT min(next_attempt_at) FROM payments
     WHERE batch_id = :batch_id AND claimed_by IS NULL AND attempts > 0 AND status = 'unknown' AND attempts < :max_attempts
       AND next_attempt_at < now() + interval '1 day')
) - clock_timestamp())

-- name: is_in_doubt
-- Whether anything of a batch may have been charged that we do not know of.
SELECT EXISTS (SELECT FROM payments WHERE batch_id = :batch_id AND status IN ('sending', 'unknown'))

-- name: cancel_payments
-- What was planned is never sent.
UPDATE payments SET status = 'cancelled', settled_at = clock_timestamp()
WHERE batch_id = :batch_id AND status = 'planned'

-- name: retire_cancelled
-- Cancelled payments no longer cover their orders.
UPDATE payment_orders SET live = false FROM payments
WHERE payments.payment_id = payment_orders.payment_id AND payments.batch_id = :batch_id
  AND payments.status = 'cancelled' AND live

-- name: orders_follow_payments
-- An order's state is its live payment's; back to pending only when that was certainly not charged.
UPDATE orders SET status = followed.status, status_changed_at = now()
FROM (
    SELECT order_id, CASE payments.status WHEN 'planned' THEN 'pending' WHEN 'sending' THEN 'paying' WHEN 'succeeded' THEN 'paid'
                     ELSE payments.status END AS status
    FROM payments JOIN payment_orders AS share USING (payment_id)
    WHERE payments.payment_id = ANY(CAST(:payment_ids AS uuid[])) AND share.live
) AS followed
WHERE orders.order_id = followed.order_id AND orders.status <> followed.status

-- name: retire_allocations
-- Declined payments no longer cover their orders.
UPDATE payment_orders SET live = false WHERE live AND payment_id = ANY(CAST(:payment_ids AS uuid[]))

-- name: plan_declined_orders_singly
-- Orders of a declined payment for several are planned again, each alone, so that one bad order does not hold the others.
WITH parts AS (
    SELECT next_payment_id(batch_identity(payments.batch_id), ARRAY[import_row_number], share.amount) AS payment_id,
           payments.batch_id, payments.customer_code, payments.payment_method, order_id, share.amount
    FROM payments JOIN payment_orders AS share USING (payment_id) JOIN orders USING (order_id)
    WHERE payments.payment_id = ANY(CAST(:payment_ids AS uuid[])) AND payments.status = 'declined'
      AND share.amount < payments.amount
), planned AS (
    INSERT INTO payments (payment_id, batch_id, customer_code, payment_method, amount)
    SELECT payment_id, batch_id, customer_code, payment_method, amount FROM parts
), allocated AS (
    INSERT INTO payment_orders (payment_id, order_id, amount) SELECT payment_id, order_id, amount FROM parts
)
UPDATE orders SET status = 'pending', status_changed_at = now() FROM parts WHERE orders.order_id = parts.order_id

-- name: payment_to_resolve
-- A payment that a person wants to decide about.
SELECT payment_id, batch_id, status, claimed_by FROM payments
WHERE payment_id = CAST(:payment_id AS uuid) FOR UPDATE

-- name: is_charge_of_another
-- Whether another payment of the same batch has a charge already.
SELECT EXISTS (
    SELECT FROM payments AS mine JOIN payments AS other USING (batch_id)
    WHERE mine.payment_id = CAST(:payment_id AS uuid) AND other.payment_id <> mine.payment_id
      AND other.service_payment_id = :service_payment_id)

-- name: resolve_as_paid
-- A person has found the charge at the service.
UPDATE payments SET status = 'succeeded', settled_at = clock_timestamp(), service_payment_id = :service_payment_id,
                    outcome_code = 'resolved', claimed_by = NULL
WHERE payment_id = CAST(:payment_id AS uuid)

-- name: resolve_as_not_paid
-- A person is certain that nothing was charged: it may be sent as if for the first time.
UPDATE payments SET status = 'planned', attempts = 0, next_attempt_at = clock_timestamp(), outcome_code = 'resolved',
                    claimed_by = NULL
WHERE payment_id = CAST(:payment_id AS uuid)

-- name: insert_resolution
-- Who decided what about a payment or refund, and why.
INSERT INTO resolutions (payment_id, refund_id, decision, decided_by, reason)
VALUES (CAST(:payment_id AS uuid), CAST(:refund_id AS uuid), :decision, :decided_by, :reason)

-- name: unknown_payments
-- Payments of a batch whose result nobody knows, oldest first.
SELECT payment_id, customer_code, payment_method, amount, outcome_code, sent_at,
       next_attempt_at > now() + interval '1 day' AS needs_a_person
FROM payments WHERE batch_id = :batch_id AND status = 'unknown' ORDER BY sent_at, payment_id

-- name: payment_totals
-- What the checks compare: live payments, less what was refunded of them, and the orders under them.
SELECT count(*) AS payments,
       coalesce(sum(amount), 0) AS amount,
       coalesce(sum(amount) FILTER (WHERE status = 'succeeded'), 0)
       - (SELECT coalesce(sum(refunds.amount), 0) FROM refunds JOIN payments AS partly USING (payment_id)
          WHERE partly.batch_id = :batch_id AND partly.status = 'succeeded' AND refunds.status = 'succeeded') AS succeeded,
       coalesce(max(amount), 0) AS largest
FROM payments WHERE batch_id = :batch_id

-- name: orders_paid_twice
-- Orders of a batch in more than one live payment.
SELECT count(*) FROM (
    SELECT order_id FROM payment_orders JOIN payments USING (payment_id)
    WHERE batch_id = :batch_id AND live GROUP BY order_id HAVING count(*) > 1
) AS in_several
