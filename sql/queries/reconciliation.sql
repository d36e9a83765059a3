-- name: reconciliation_window
-- From when to when must be compared for what was settled or finished in a time, or is a batch's.
SELECT clock_timestamp() AS started_at,
       coalesce(least(CAST(:created_from AS timestamptz), min(since)), clock_timestamp()) AS covered_from,
       least(greatest(CAST(:created_to AS timestamptz), max(until)), clock_timestamp()) AS covered_to
FROM (
    SELECT min(created_at) AS since, max(coalesce(settled_at, now())) + interval '1 hour' AS until FROM payments
    WHERE CASE WHEN CAST(:batch_id AS text) IS NOT NULL THEN batch_id = :batch_id
          ELSE settled_at >= :created_from AND settled_at < :created_to END
    UNION ALL
    SELECT min(payments.created_at), NULL FROM payments JOIN batches USING (batch_id)
    WHERE CAST(:batch_id AS text) IS NULL AND finished_at >= :created_from AND finished_at < :created_to
) AS concerned

-- name: findings_outside
-- Open findings that nobody has accepted and that are outside the window, the one that was seen longest ago first.
SELECT finding_id, payment_id, reference_of(payment_id) AS reference,
       array_remove(ARRAY[service_payment_id, detail ->> 'besides'], NULL) AS service_payment_ids
FROM reconciliation_findings
WHERE closed_at IS NULL AND accepted_at IS NULL AND (compared_from < :covered_from OR compared_to >= :covered_to)
  AND (CAST(:batch_id AS text) IS NULL OR batch_id = :batch_id)
ORDER BY last_seen_at, finding_id LIMIT :limit

-- name: create_listed_payments
-- What the service lists, for one comparison.
CREATE TEMPORARY TABLE listed_payments (
    service_payment_id text COLLATE "C" PRIMARY KEY,
    reference_mark     text COLLATE "C" NOT NULL,  -- a digest: the text itself may be anybody's
    payment_id         uuid,                       -- ours
    by_reference       boolean NOT NULL,
    amount             bigint NOT NULL,            -- yen
    status             text COLLATE "C" NOT NULL,
    created_at         timestamptz NOT NULL,
    refunded           bigint,                     -- yen refunded, where the list has them
    failure_code       text COLLATE "C",
    batch_id           text COLLATE "C",           -- as the service has it, if there is such a batch
    lost_payment_id    uuid,                       -- of our installation, and we have no such payment
    allocations        jsonb                       -- yen by order, where the list gives them
)

-- name: create_unreadable_payments
-- Ours, or what we have lost, that the service lists in a form that cannot be read.
CREATE TEMPORARY TABLE unreadable_payments (
    payment_id         uuid PRIMARY KEY,
    service_payment_id text COLLATE "C"
)

-- name: insert_unreadable_payments
-- Those of a page that have a reference or key of ours.
INSERT INTO unreadable_payments (payment_id, service_payment_id)
SELECT coalesce(named.payment_id, keyed.payment_id, page.reference), page.service_payment_id
FROM unnest(CAST(:service_payment_ids AS text[]), CAST(:references AS uuid[]), CAST(:are_ours AS boolean[]),
            CAST(:keys AS uuid[])) AS page (service_payment_id, reference, is_ours, key)
LEFT JOIN payments AS named ON named.payment_id = page.reference
LEFT JOIN payments AS keyed ON keyed.payment_id = page.key
WHERE page.is_ours OR num_nonnulls(named.payment_id, keyed.payment_id) > 0
ON CONFLICT DO NOTHING

-- name: insert_listed_payments
-- A page of the list, each with the payment of ours whose reference or else whose key it has.
INSERT INTO listed_payments (service_payment_id, reference_mark, payment_id, by_reference, amount, status, created_at,
                             refunded, failure_code, batch_id, lost_payment_id, allocations)
SELECT page.service_payment_id, page.reference_mark, coalesce(named.payment_id, keyed.payment_id),
       named.payment_id IS NOT NULL, page.amount, page.status, page.created_at, page.refunded,
       page.failure_code, batches.batch_id,
       CASE WHEN named.payment_id IS NULL AND page.is_ours THEN page.reference END,
       CAST(page.allocations AS jsonb)
FROM unnest(CAST(:service_payment_ids AS text[]), CAST(:reference_marks AS text[]), CAST(:references AS uuid[]),
            CAST(:are_ours AS boolean[]), CAST(:keys AS uuid[]), CAST(:amounts AS bigint[]), CAST(:statuses AS text[]),
            CAST(:times AS timestamptz[]), CAST(:refunded AS bigint[]), CAST(:failure_codes AS text[]),
            CAST(:batch_ids AS text[]), CAST(:allocations AS text[]))
     AS page (service_payment_id, reference_mark, reference, is_ours, key, amount, status, created_at, refunded, failure_code,
              batch_id, allocations)
LEFT JOIN payments AS named ON named.payment_id = page.reference
LEFT JOIN payments AS keyed ON keyed.payment_id = page.key
LEFT JOIN batches ON batches.batch_id = page.batch_id
ON CONFLICT DO NOTHING

-- name: batches_to_plan
-- Batches with orders that may be paid, or were, and that no payment is planned for; also those that a person has halted.
SELECT batch_id, client_code FROM batches
WHERE CASE status WHEN 'stopped' THEN stopped_from ELSE status END IN ('loaded', 'awaiting_approval', 'paying', 'paused', 'cancelling')
  AND finished_at IS NULL AND EXISTS (
    SELECT FROM orders WHERE orders.batch_id = batches.batch_id AND orders.status = 'pending'
    AND NOT EXISTS (SELECT FROM payment_orders AS share WHERE share.order_id = orders.order_id AND share.live))
ORDER BY batch_id

-- name: match_planned_since
-- What was lost may have been planned again since it was listed.
UPDATE listed_payments SET payment_id = lost_payment_id, lost_payment_id = NULL, by_reference = true
WHERE lost_payment_id IN (SELECT payment_id FROM payments)

-- name: match_listed_by_id
-- What has neither a reference nor a key of ours may have the id that a person found out.
UPDATE listed_payments SET payment_id = payments.payment_id FROM payments
WHERE listed_payments.payment_id IS NULL AND payments.service_payment_id = listed_payments.service_payment_id

-- name: orders_of_foreign_payments
-- What is not ours may be for an order of ours all the same, which the batch in its name makes unmistakable.
UPDATE listed_payments SET batch_id = (
    SELECT min(orders.batch_id) FROM jsonb_object_keys(allocations) AS name
    JOIN orders ON orders.batch_id = substring(name FROM '^(.*)-[0-9]{1,9}$')
               AND import_row_number = CAST(substring(name FROM '-([0-9]{1,9})$') AS integer))
WHERE payment_id IS NULL AND lost_payment_id IS NULL

-- name: set_foreign_payments_aside
-- What is for nothing of ours is somebody else's.
DELETE FROM listed_payments WHERE payment_id IS NULL AND lost_payment_id IS NULL AND batch_id IS NULL

-- name: analyze_listed_payments
-- So that the comparison knows how many there are.
ANALYZE listed_payments

-- name: payments_to_adopt
-- Ours is unknown and nobody's, or not known to have been sent, and the service has exactly that payment, in a final state.
-- One that failed there is as it should be where we have sent it: it may be sent once more.
SELECT ours.payment_id, ours.batch_id, batches.client_code, theirs.service_payment_id, theirs.status, theirs.failure_code,
       theirs.created_at
FROM listed_payments AS theirs
JOIN payments AS ours USING (payment_id)
JOIN batches ON batches.batch_id = ours.batch_id
WHERE ours.claimed_by IS NULL AND theirs.by_reference AND theirs.amount = ours.amount
  AND ((ours.status, theirs.status) IN (('unknown', 'succeeded'), ('unknown', 'failed'), ('planned', 'succeeded'), ('planned', 'refunded'))
       OR (ours.status, theirs.status) = ('planned', 'failed') AND ours.sent_at IS NULL)
  AND (theirs.allocations IS NULL OR shares_by_row(theirs.allocations) = (
          SELECT jsonb_object_agg(import_row_number, share.amount)
          FROM payment_orders AS share JOIN orders USING (order_id) WHERE share.payment_id = ours.payment_id))
  AND NOT EXISTS (SELECT FROM listed_payments AS other WHERE other.payment_id = theirs.payment_id
                  AND other.service_payment_id <> theirs.service_payment_id)
  AND greatest(theirs.created_at, ours.sent_at) < CAST(:started_at AS timestamptz) - make_interval(secs => :young_s)
  AND (CAST(:batch_id AS text) IS NULL OR ours.batch_id = :batch_id)
ORDER BY ours.batch_id, ours.payment_id

-- name: adopt_payments
-- Take over what the service says of them, if they are still unknown and nobody's; from when they are there they are compared.
UPDATE payments SET status = result.status, service_payment_id = result.service_payment_id,
                    outcome_code = result.code, settled_at = clock_timestamp(),
                    created_at = least(payments.created_at, result.created_at)
FROM unnest(CAST(:payment_ids AS uuid[]), CAST(:statuses AS text[]), CAST(:service_payment_ids AS text[]),
            CAST(:codes AS text[]), CAST(:times AS timestamptz[]))
     AS result (payment_id, status, service_payment_id, code, created_at)
WHERE payments.payment_id = result.payment_id AND payments.status IN ('unknown', 'planned') AND payments.claimed_by IS NULL
RETURNING payments.payment_id, payments.status

-- name: note_adopted_payments
-- Record that they were healed: in the open finding, or in one that is closed at once.
WITH closed AS (
    UPDATE reconciliation_findings SET closed_at = now(), closed_how = 'healed', last_seen_at = now()
    WHERE code = 'C_STATE_DIFFERS' AND payment_id = ANY(CAST(:payment_ids AS uuid[])) AND closed_at IS NULL
    RETURNING payment_id
)
INSERT INTO reconciliation_findings (code, batch_id, payment_id, service_payment_id, detail, compared_from, compared_to,
                                     first_seen_at, last_seen_at, closed_at, closed_how)
SELECT 'C_STATE_DIFFERS', batch_id, payment_id, service_payment_id,
       jsonb_build_object(
           'ours', jsonb_build_object('amount', amount, 'status', 'unknown'),
           'theirs', jsonb_build_object('amount', amount,
                                        'status', CASE status WHEN 'declined' THEN 'failed' ELSE status END)),
       created_at, settled_at, now(), now(), now(), 'healed'
FROM payments
WHERE payment_id = ANY(CAST(:payment_ids AS uuid[])) AND payment_id NOT IN (SELECT payment_id FROM closed)

-- name: create_payment_differences
-- What one comparison finds.
CREATE TEMPORARY TABLE payment_differences (
    code               text COLLATE "C" NOT NULL,
    batch_id           text COLLATE "C",
    payment_id         uuid,
    service_payment_id text COLLATE "C",
    detail             jsonb NOT NULL,
    compared_from      timestamptz NOT NULL,
    compared_to        timestamptz NOT NULL,
    is_young           boolean NOT NULL            -- an answer may be under way: no finding yet
)

-- name: empty_payment_differences
-- Remove what an earlier look of the same comparison has found: it is found again.
DELETE FROM payment_differences

-- name: compare_payments
-- Compare the list with our payments, both ways.
WITH pairs AS (  -- each payment of ours with what the service has for it: the one we know of, else the first charge
    SELECT DISTINCT ON (ours.payment_id)
           ours.payment_id, ours.batch_id, theirs.service_payment_id,
           ours.status AS our_status, theirs.status AS their_status,
           coalesce(theirs.refunded, CASE theirs.status WHEN 'refunded' THEN theirs.amount END) AS their_refunded,
           coalesce(ours_refunded.made, 0) AS refunded, coalesce(ours_refunded.in_doubt, 0) AS in_doubt,
           theirs.status <> 'failed' AND (theirs.amount <> ours.amount OR shares_by_row(theirs.allocations) <> (
               SELECT jsonb_object_agg(import_row_number, share.amount)
               FROM payment_orders AS share JOIN orders USING (order_id) WHERE share.payment_id = ours.payment_id))
           AS amount_differs,
           jsonb_build_object('ours', jsonb_build_object('amount', ours.amount, 'status', ours.status),
                              'theirs', jsonb_build_object('amount', theirs.amount, 'status', theirs.status)) AS detail,
           least(ours.created_at, theirs.created_at) AS compared_from,
           greatest(ours.settled_at, ours.sent_at, theirs.created_at) AS compared_to,
           greatest(ours.sent_at, theirs.created_at, ours_refunded.moved_at) AS moved_at
    FROM listed_payments AS theirs JOIN payments AS ours USING (payment_id)
    CROSS JOIN LATERAL (
        SELECT sum(amount) FILTER (WHERE status = 'succeeded') AS made,
               sum(amount) FILTER (WHERE status IN ('sending', 'unknown')) AS in_doubt,
               max(coalesce(settled_at, sent_at)) AS moved_at
        FROM refunds WHERE refunds.payment_id = ours.payment_id
    ) AS ours_refunded
    ORDER BY ours.payment_id, (theirs.service_payment_id = ours.service_payment_id) DESC NULLS LAST,
             theirs.status IN ('succeeded', 'processing') DESC, theirs.created_at, theirs.service_payment_id
), charges AS (  -- each charge with what may be charged once only: a reference or an order
    SELECT theirs.service_payment_id, theirs.payment_id, coalesce(ours.batch_id, theirs.batch_id) AS batch_id,
           theirs.created_at, least(ours.created_at, theirs.created_at) AS compared_from, charged.subject,
           coalesce(theirs.service_payment_id = ours.service_payment_id, false) AS is_known,
           jsonb_build_object('ours', CASE WHEN ours.status IS NOT NULL
                                      THEN jsonb_build_object('amount', ours.amount, 'status', ours.status) END,
                              'theirs', jsonb_build_object('amount', theirs.amount, 'status', theirs.status)) AS detail,
           CASE WHEN ours.status = 'succeeded' AND ours.service_payment_id <> theirs.service_payment_id
                THEN ours.service_payment_id END AS known_id
    FROM listed_payments AS theirs LEFT JOIN payments AS ours USING (payment_id)
    CROSS JOIN LATERAL (
        SELECT 'reference ' || theirs.reference_mark AS subject
        UNION SELECT 'order ' || order_reference(orders.batch_id, import_row_number)
              FROM payment_orders AS share JOIN orders USING (order_id) WHERE share.payment_id = theirs.payment_id
        UNION SELECT 'order ' || key FROM jsonb_each(theirs.allocations)
    ) AS charged
    WHERE theirs.status IN ('succeeded', 'processing')
), ranked AS (
    SELECT charges.*, row_number() OVER nth AS nth, first_value(service_payment_id) OVER nth AS first_id,
           max(batch_id) OVER whole AS any_batch_id, min(compared_from) OVER whole AS all_from,
           max(created_at) OVER whole AS all_to
    FROM charges
    WINDOW nth AS (PARTITION BY subject ORDER BY is_known DESC, created_at, service_payment_id),
           whole AS (PARTITION BY subject)
), twice AS (
    SELECT service_payment_id, payment_id, max(coalesce(batch_id, any_batch_id)) AS batch_id, min(all_from) AS all_from,
           max(all_to) AS all_to, max(created_at) AS created_at, detail,
           min(CASE WHEN nth > 1 THEN first_id ELSE known_id END) AS besides
    FROM ranked WHERE nth > 1 OR known_id IS NOT NULL
    GROUP BY service_payment_id, payment_id, detail
), differences AS (
    SELECT 'C_AMOUNT_DIFFERS' AS code, batch_id, payment_id, service_payment_id, detail, compared_from, compared_to, moved_at
    FROM pairs WHERE amount_differs
    UNION ALL
    SELECT CASE WHEN our_status IN ('planned', 'declined', 'cancelled') AND their_status IN ('succeeded', 'processing')
                THEN 'C_MISSING_HERE' ELSE 'C_STATE_DIFFERS' END,
           batch_id, payment_id, service_payment_id, detail, compared_from, compared_to, moved_at
    FROM pairs
    WHERE (our_status, their_status) NOT IN (
        ('succeeded', 'succeeded'), ('refunded', 'refunded'), ('declined', 'failed'),
        ('planned', 'failed'), ('cancelled', 'failed'), ('sending', 'processing'), ('unknown', 'processing'))
    UNION ALL
    SELECT CASE WHEN their_refunded > refunded THEN 'C_REFUND_MISSING_HERE' ELSE 'C_REFUND_MISSING_THERE' END,
           batch_id, payment_id, service_payment_id,
           jsonb_build_object('ours', detail -> 'ours' || jsonb_build_object('refunded', refunded),
                              'theirs', detail -> 'theirs' || jsonb_build_object('refunded', their_refunded)),
           compared_from, compared_to, moved_at
    FROM pairs
    WHERE our_status = their_status AND our_status IN ('succeeded', 'refunded')
      AND (their_refunded < refunded OR their_refunded > refunded + in_doubt)
    UNION ALL
    SELECT 'C_MISSING_HERE', batch_id, lost_payment_id, service_payment_id,
           jsonb_build_object('ours', NULL, 'theirs', jsonb_build_object('amount', amount, 'status', status)),
           created_at, created_at, created_at
    FROM listed_payments
    WHERE payment_id IS NULL AND status IN ('succeeded', 'processing')
      AND (lost_payment_id IS NOT NULL OR service_payment_id NOT IN (SELECT service_payment_id FROM twice))
    UNION ALL
    SELECT CASE WHEN ours.status IS NULL OR ours.status IN ('planned', 'declined', 'cancelled')
                THEN 'C_MISSING_HERE' ELSE 'C_UNREADABLE' END,
           ours.batch_id, theirs.payment_id, theirs.service_payment_id,
           jsonb_build_object('ours', CASE WHEN ours.status IS NOT NULL
                                      THEN jsonb_build_object('amount', ours.amount, 'status', ours.status) END,
                              'theirs', jsonb_build_object('amount', NULL, 'status', 'unreadable')),
           coalesce(ours.created_at, :started_at), coalesce(ours.settled_at, ours.sent_at, :started_at),
           coalesce(ours.sent_at, '-infinity')
    FROM unreadable_payments AS theirs LEFT JOIN payments AS ours USING (payment_id)
    UNION ALL
    SELECT 'C_MISSING_THERE', batch_id, payment_id, service_payment_id,
           jsonb_build_object('ours', jsonb_build_object('amount', amount, 'status', status), 'theirs', NULL),
           created_at, settled_at, coalesce(sent_at, settled_at)
    FROM payments
    WHERE status IN ('succeeded', 'refunded')
      AND ((created_at >= :covered_from AND settled_at < :covered_to) OR payment_id = ANY(CAST(:looked_up AS uuid[])))
      AND (CAST(:batch_id AS text) IS NULL OR batch_id = :batch_id)
      AND NOT EXISTS (SELECT FROM listed_payments WHERE listed_payments.payment_id = payments.payment_id)
      AND NOT EXISTS (SELECT FROM unreadable_payments WHERE unreadable_payments.payment_id = payments.payment_id)
    UNION ALL
    SELECT 'C_CHARGED_TWICE', batch_id, payment_id, service_payment_id,
           detail || jsonb_build_object('besides', besides), all_from, all_to, created_at
    FROM twice
)
INSERT INTO payment_differences
SELECT code, batch_id, payment_id, service_payment_id, detail, compared_from, compared_to,
       moved_at >= CAST(:started_at AS timestamptz) - make_interval(secs => :young_s)
FROM differences WHERE CAST(:batch_id AS text) IS NULL OR batch_id = :batch_id

-- name: close_changed_findings
-- Close accepted findings whose difference has changed: nobody has accepted the new one.
UPDATE reconciliation_findings AS finding SET closed_at = clock_timestamp(), closed_how = 'changed'
FROM payment_differences AS difference
WHERE closed_at IS NULL AND accepted_at IS NOT NULL AND NOT difference.is_young AND finding.code = difference.code
  AND finding.payment_id IS NOT DISTINCT FROM difference.payment_id
  AND finding.service_payment_id IS NOT DISTINCT FROM difference.service_payment_id
  AND finding.detail <> difference.detail

-- name: write_findings
-- Open a finding for each difference that has none, and note that the others are still there; how many are new.
WITH written AS (
    INSERT INTO reconciliation_findings (code, batch_id, payment_id, service_payment_id, detail, compared_from,
                                         compared_to, first_seen_at, last_seen_at)
    SELECT code, batch_id, payment_id, service_payment_id, detail, compared_from, compared_to, :started_at, :started_at
    FROM payment_differences WHERE NOT is_young
    ORDER BY code, payment_id, service_payment_id
    ON CONFLICT (code, payment_id, service_payment_id) WHERE closed_at IS NULL
    DO UPDATE SET batch_id = excluded.batch_id, detail = excluded.detail, last_seen_at = excluded.last_seen_at,
                  compared_from = excluded.compared_from, compared_to = excluded.compared_to
    RETURNING first_seen_at = last_seen_at AS is_new
)
SELECT count(*) FROM written WHERE is_new

-- name: close_gone_findings
-- Close the open findings that were compared again as a whole and are no difference any more.
UPDATE reconciliation_findings AS finding SET closed_at = clock_timestamp(), closed_how = 'gone'
WHERE closed_at IS NULL AND last_seen_at <= :started_at
  AND ((compared_from >= :covered_from AND compared_to < :covered_to) OR finding_id = ANY(CAST(:judged AS bigint[])))
  AND (CAST(:batch_id AS text) IS NULL OR batch_id = :batch_id)
  AND NOT EXISTS (SELECT FROM payment_differences AS still
                  WHERE still.code = finding.code AND still.payment_id IS NOT DISTINCT FROM finding.payment_id
                    AND still.service_payment_id IS NOT DISTINCT FROM finding.service_payment_id)

-- name: reconciliation_counts
-- How many payments were compared on either side, and how many differences are too young to say anything.
SELECT (SELECT count(*) FROM payments
        WHERE settled_at IS NOT NULL AND status <> 'cancelled' AND created_at >= :covered_from AND settled_at < :covered_to
          AND (CAST(:batch_id AS text) IS NULL OR batch_id = :batch_id)) AS here,
       (SELECT count(*) FROM listed_payments LEFT JOIN payments USING (payment_id)
        WHERE CAST(:batch_id AS text) IS NULL
           OR coalesce(payments.batch_id, listed_payments.batch_id) = :batch_id) AS there,
       (SELECT count(*) FROM payment_differences WHERE is_young) AS young

-- name: open_findings
-- The differences of a batch, or all, that nothing has settled yet: the oldest first, and those that are accepted last.
SELECT finding_id, code, batch_id, payment_id, service_payment_id, detail, first_seen_at, last_seen_at,
       accepted_at, accepted_by, accepted_why, extract(epoch FROM clock_timestamp() - first_seen_at) AS age_s
FROM reconciliation_findings
WHERE closed_at IS NULL AND (CAST(:batch_id AS text) IS NULL OR batch_id = :batch_id)
ORDER BY accepted_at IS NOT NULL, first_seen_at, finding_id LIMIT :limit

-- name: count_open_findings
-- How many open findings of each code nobody has accepted, and how many somebody has.
SELECT code, count(*) FILTER (WHERE accepted_at IS NULL) AS open, count(accepted_at) AS accepted FROM reconciliation_findings
WHERE closed_at IS NULL AND (CAST(:batch_id AS text) IS NULL OR batch_id = :batch_id)
GROUP BY code ORDER BY code

-- name: batches_to_close
-- Finished batches whose payments were all compared, with what they came to on both sides and their last record.
WITH there AS (
    SELECT coalesce(ours.batch_id, theirs.batch_id) AS batch_id,
           sum(theirs.amount - coalesce(
               theirs.refunded, CASE theirs.status WHEN 'refunded' THEN theirs.amount END,
               -- the list does not give it: our own word stands for it
               (SELECT sum(refunds.amount) FROM refunds
                WHERE refunds.payment_id = ours.payment_id AND refunds.status = 'succeeded'), 0)) AS amount
    FROM listed_payments AS theirs LEFT JOIN payments AS ours USING (payment_id)
    WHERE theirs.status IN ('succeeded', 'refunded') GROUP BY 1
), open AS (
    SELECT batch_id, array_agg(DISTINCT code ORDER BY code) AS codes
    FROM reconciliation_findings WHERE closed_at IS NULL GROUP BY batch_id
)
SELECT batch.batch_id, source_sha256, rows_total, rows_accepted, rows_rejected, rows_blank, rows_skipped, orders_paid,
       orders_declined, amount_accepted, amount_paid, amount_declined, coalesce(there.amount, 0) AS amount_at_service,
       coalesce(open.codes, '{}') AS differences,
       (SELECT figures_sha256 FROM batch_closings WHERE batch_closings.batch_id = batch.batch_id
        ORDER BY closing_id DESC LIMIT 1) AS last_sha256
FROM (SELECT * FROM batches JOIN batch_counts USING (batch_id)) AS batch LEFT JOIN there USING (batch_id) LEFT JOIN open USING (batch_id)
WHERE finished_at IS NOT NULL
  AND CASE WHEN CAST(:batch_id AS text) IS NOT NULL THEN batch_id = :batch_id
      ELSE finished_at >= :covered_from AND finished_at < :covered_to END
  AND NOT EXISTS (SELECT FROM payments WHERE payments.batch_id = batch.batch_id
                  AND (created_at < :covered_from OR settled_at >= :covered_to OR status IN ('sending', 'unknown')))
  AND NOT EXISTS (SELECT FROM refunds WHERE refunds.batch_id = batch.batch_id AND status IN ('sending', 'unknown'))
  AND NOT EXISTS (SELECT FROM payment_differences WHERE payment_differences.batch_id = batch.batch_id AND is_young)
  AND (open.codes IS NOT NULL OR coalesce(there.amount, 0) = amount_paid)

-- name: insert_closing
-- What a batch came to, as of now.
INSERT INTO batch_closings (batch_id, source_sha256, rows_total, rows_accepted, rows_rejected, rows_blank, rows_skipped,
                            orders_paid, orders_declined, amount_accepted, amount_paid, amount_declined, amount_at_service, differences,
                            figures_sha256)
VALUES (:batch_id, :source_sha256, :rows_total, :rows_accepted, :rows_rejected, :rows_blank, :rows_skipped,
        :orders_paid, :orders_declined, :amount_accepted, :amount_paid, :amount_declined, :amount_at_service,
        CAST(:differences AS text[]), :figures_sha256)

-- name: accept_finding
-- A person accepts an open difference: it no longer holds up payments.
UPDATE reconciliation_findings SET accepted_at = now(), accepted_by = :accepted_by, accepted_why = :accepted_why
WHERE finding_id = :finding_id AND closed_at IS NULL AND accepted_at IS NULL
