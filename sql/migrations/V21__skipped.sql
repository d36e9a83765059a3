-- Rows that the client's profile says are no orders: skipped, and counted.

ALTER TABLE batches
    ADD COLUMN rows_skipped integer NOT NULL DEFAULT 0 CONSTRAINT batches_rows_skipped_some CHECK (rows_skipped >= 0),
    DROP CONSTRAINT batches_rows_add_up,
    ADD CONSTRAINT batches_rows_add_up CHECK (rows_total = rows_accepted + rows_rejected + rows_blank + rows_skipped);
COMMENT ON COLUMN batches.rows_total IS 'Rows below the header, blank and skipped ones among them; null until staged.';
COMMENT ON COLUMN batches.rows_skipped IS 'Rows that are no orders, as the client''s profile said.';
SELECT audit_watch('batches', 'administrative', '{csv_source,landing_key,cancelled_why}');

ALTER TABLE batch_closings ADD COLUMN rows_skipped integer NOT NULL DEFAULT 0;
SELECT audit_watch('batch_closings', 'administrative');

-- The columns of batches are joined where they are read, so that a new one need not be said here.
DROP VIEW batch_progress;
CREATE VIEW batch_counts AS
SELECT b.batch_id,
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
COMMENT ON VIEW batch_counts IS
    'The numbers of each batch''s orders, payments and notifications by state and their yen, as of now.';
COMMENT ON COLUMN batch_counts.amount_loaded IS 'Yen of all its orders, in whatever state.';
COMMENT ON COLUMN batch_counts.ledgers_differ IS 'Nothing of it is paid meanwhile: see the function.';
