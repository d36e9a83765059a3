-- The retry budget of a service: each failed call takes from it, answers and time give back; while it is used up, only first
-- tries are made. What was given back of a batch, beside what was paid. And charges that our ledger does not know, as after
-- it was restored from a backup: nothing more is paid until they are gone or a person has accepted them.

ALTER TABLE service_breakers
    ADD COLUMN retries_left double precision NOT NULL DEFAULT 100,     -- as of retries_at
    ADD COLUMN retries_at   timestamptz NOT NULL DEFAULT clock_timestamp();

ALTER TABLE reconciliation_findings
    ADD COLUMN accepted_at timestamptz,
    ADD COLUMN accepted_by text,
    ADD COLUMN accepted_why text,
    ADD CONSTRAINT reconciliation_findings_accepted_by_somebody
        CHECK (num_nonnulls(accepted_at, nullif(accepted_by, ''), nullif(accepted_why, '')) IN (0, 3));

SELECT audit_watch('reconciliation_findings', 'administrative', '{accepted_why}');

-- Whether paying a batch could charge what is charged already: one of its own charges is not in our ledger or there twice, or
-- there are charges of ours of which nobody knows the batch any more.
CREATE FUNCTION ledgers_differ(which text) RETURNS boolean STABLE LANGUAGE sql AS $$
    SELECT EXISTS (SELECT FROM reconciliation_findings
                   WHERE closed_at IS NULL AND accepted_at IS NULL AND code IN ('C_MISSING_HERE', 'C_CHARGED_TWICE')
                     AND (batch_id = which OR (payment_id IS NOT NULL AND detail -> 'ours' = 'null')))
$$;

DROP VIEW batch_progress;
CREATE VIEW batch_progress AS
SELECT b.*,
       o.orders_pending, o.orders_paying, o.orders_paid, o.orders_declined, o.orders_unknown, o.orders_refunded,
       o.amount_paid, o.amount_declined, o.amount_unknown, o.amount_refunded, o.amount_loaded,
       p.payments_planned, p.payments_succeeded, p.payments_declined, p.payments_unknown, p.payments_refunded,
       n.notifications_planned, n.notifications_sent, n.notifications_failed,
       ledgers_differ(b.batch_id) AS ledgers_differ
FROM batches AS b
CROSS JOIN LATERAL (
    SELECT count(*) FILTER (WHERE status = 'pending')  AS orders_pending,
           count(*) FILTER (WHERE status = 'paying')   AS orders_paying,
           count(*) FILTER (WHERE status = 'paid')     AS orders_paid,
           count(*) FILTER (WHERE status = 'declined') AS orders_declined,
           count(*) FILTER (WHERE status = 'unknown')  AS orders_unknown,
           count(*) FILTER (WHERE status = 'refunded') AS orders_refunded,
           coalesce(sum(amount) FILTER (WHERE status = 'paid'), 0)     AS amount_paid,
           coalesce(sum(amount) FILTER (WHERE status = 'declined'), 0) AS amount_declined,
           coalesce(sum(amount) FILTER (WHERE status = 'unknown'), 0)  AS amount_unknown,
           coalesce(sum(amount) FILTER (WHERE status = 'refunded'), 0) AS amount_refunded,
           coalesce(sum(amount), 0)                                    AS amount_loaded
    FROM orders WHERE orders.batch_id = b.batch_id
) AS o
CROSS JOIN LATERAL (
    SELECT count(*)                                     AS payments_planned,
           count(*) FILTER (WHERE status = 'succeeded') AS payments_succeeded,
           count(*) FILTER (WHERE status = 'declined')  AS payments_declined,
           count(*) FILTER (WHERE status = 'unknown')   AS payments_unknown,
           count(*) FILTER (WHERE status = 'refunded')  AS payments_refunded
    FROM payments WHERE payments.batch_id = b.batch_id
) AS p
CROSS JOIN LATERAL (
    SELECT count(*)                                  AS notifications_planned,
           count(*) FILTER (WHERE status = 'sent')   AS notifications_sent,
           count(*) FILTER (WHERE status = 'failed') AS notifications_failed
    FROM notifications WHERE notifications.batch_id = b.batch_id
) AS n;