-- Stopped: a person made a batch stand still; it goes on from where it was only when a person says so. Cancelled: what was
-- not sent never is, and the references of those orders are free again.

ALTER TABLE batches
    ADD stopped_from  text COLLATE "C",            -- the state it goes on from
    ADD stopped_by    text,
    ADD stopped_at    timestamptz,
    ADD cancelled_by  text,
    ADD cancelled_why text,
    ADD cancelled_at  timestamptz,                 -- nothing is sent from then on
    DROP CONSTRAINT batches_status_known,
    ADD CONSTRAINT batches_status_known CHECK (status IN (
        'received', 'staged', 'validated', 'loaded', 'paying', 'paused', 'stopped',
        'completed', 'completed_with_errors', 'rejected', 'cancelling', 'cancelled')),
    ADD CONSTRAINT batches_stopped_by_somebody CHECK
        (num_nonnulls(stopped_from, nullif(stopped_by, ''), stopped_at) IN (0, 3)
         AND (status <> 'stopped' OR stopped_at IS NOT NULL)),
    ADD CONSTRAINT batches_cancelled_by_somebody CHECK
        (num_nonnulls(nullif(cancelled_by, ''), nullif(cancelled_why, ''), cancelled_at) IN (0, 3));
SELECT audit_watch('batches', 'administrative', '{csv_source,landing_key,cancelled_why}');

-- A column of its own for the index, so that other changes of the status touch no index.
ALTER TABLE orders
    DROP CONSTRAINT orders_status_known,
    ADD CONSTRAINT orders_status_known CHECK (status IN
        ('pending', 'paying', 'paid', 'declined', 'unknown', 'refunded', 'cancelled')),
    ADD is_cancelled boolean NOT NULL GENERATED ALWAYS AS (status = 'cancelled') STORED;
DROP INDEX orders_client_order_ref_key;
CREATE UNIQUE INDEX orders_client_order_ref_key ON orders (lower(client_order_ref), client_code) WHERE NOT is_cancelled;
SELECT audit_watch('orders', 'phi_modification', '{csv_source}', bulk => true,
                   moving => '{status,status_changed_at,is_cancelled}');

ALTER TABLE payments
    DROP CONSTRAINT payments_status_known,
    ADD CONSTRAINT payments_status_known CHECK (status IN
        ('planned', 'sending', 'unknown', 'succeeded', 'declined', 'refunded', 'cancelled')),
    DROP CONSTRAINT payments_settled_has_time,
    ADD CONSTRAINT payments_settled_has_time CHECK
        ((status IN ('succeeded', 'declined', 'refunded', 'cancelled')) = (settled_at IS NOT NULL));

ALTER TABLE notifications
    DROP CONSTRAINT notifications_status_known,
    ADD CONSTRAINT notifications_status_known CHECK (status IN
        ('waiting', 'ready', 'sending', 'unknown', 'sent', 'failed', 'cancelled'));

DROP VIEW batch_progress;
CREATE VIEW batch_progress AS
SELECT b.*,
       o.orders_pending, o.orders_paying, o.orders_paid, o.orders_declined, o.orders_unknown, o.orders_refunded,
       o.orders_cancelled,
       o.amount_paid, o.amount_declined, o.amount_unknown, o.amount_refunded, o.amount_cancelled, o.amount_loaded,
       p.payments_planned, p.payments_succeeded, p.payments_declined, p.payments_unknown, p.payments_refunded,
       p.payments_cancelled,
       n.notifications_planned, n.notifications_sent, n.notifications_failed, n.notifications_cancelled,
       ledgers_differ(b.batch_id) AS ledgers_differ
FROM batches AS b
CROSS JOIN LATERAL (
    SELECT count(*) FILTER (WHERE status = 'pending')   AS orders_pending,
           count(*) FILTER (WHERE status = 'paying')    AS orders_paying,
           count(*) FILTER (WHERE status = 'paid')      AS orders_paid,
           count(*) FILTER (WHERE status = 'declined')  AS orders_declined,
           count(*) FILTER (WHERE status = 'unknown')   AS orders_unknown,
           count(*) FILTER (WHERE status = 'refunded')  AS orders_refunded,
           count(*) FILTER (WHERE status = 'cancelled') AS orders_cancelled,
           coalesce(sum(amount) FILTER (WHERE status = 'paid'), 0)      AS amount_paid,
           coalesce(sum(amount) FILTER (WHERE status = 'declined'), 0)  AS amount_declined,
           coalesce(sum(amount) FILTER (WHERE status = 'unknown'), 0)   AS amount_unknown,
           coalesce(sum(amount) FILTER (WHERE status = 'refunded'), 0)  AS amount_refunded,
           coalesce(sum(amount) FILTER (WHERE status = 'cancelled'), 0) AS amount_cancelled,
           coalesce(sum(amount), 0)                                     AS amount_loaded
    FROM orders WHERE orders.batch_id = b.batch_id
) AS o
CROSS JOIN LATERAL (
    SELECT count(*)                                     AS payments_planned,
           count(*) FILTER (WHERE status = 'succeeded') AS payments_succeeded,
           count(*) FILTER (WHERE status = 'declined')  AS payments_declined,
           count(*) FILTER (WHERE status = 'unknown')   AS payments_unknown,
           count(*) FILTER (WHERE status = 'refunded')  AS payments_refunded,
           count(*) FILTER (WHERE status = 'cancelled') AS payments_cancelled
    FROM payments WHERE payments.batch_id = b.batch_id
) AS p
CROSS JOIN LATERAL (
    SELECT count(*)                                     AS notifications_planned,
           count(*) FILTER (WHERE status = 'sent')      AS notifications_sent,
           count(*) FILTER (WHERE status = 'failed')    AS notifications_failed,
           count(*) FILTER (WHERE status = 'cancelled') AS notifications_cancelled
    FROM notifications WHERE notifications.batch_id = b.batch_id
) AS n;
