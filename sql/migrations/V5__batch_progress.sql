-- Progress of a batch, counted from rows and never from counters; and the rule that only a closed batch is completed.

CREATE VIEW batch_progress AS
SELECT b.*,
       o.orders_pending, o.orders_paying, o.orders_paid, o.orders_declined, o.orders_unknown, o.orders_refunded,
       o.amount_paid, o.amount_declined, o.amount_unknown, o.amount_loaded,
       p.payments_planned, p.payments_succeeded, p.payments_declined, p.payments_unknown,
       n.notifications_planned, n.notifications_sent, n.notifications_failed
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
           coalesce(sum(amount), 0)                                    AS amount_loaded
    FROM orders WHERE orders.batch_id = b.batch_id
) AS o
CROSS JOIN LATERAL (
    SELECT count(*)                                     AS payments_planned,
           count(*) FILTER (WHERE status = 'succeeded') AS payments_succeeded,
           count(*) FILTER (WHERE status = 'declined')  AS payments_declined,
           count(*) FILTER (WHERE status = 'unknown')   AS payments_unknown
    FROM payments WHERE payments.batch_id = b.batch_id
) AS p
CROSS JOIN LATERAL (
    SELECT count(*)                                  AS notifications_planned,
           count(*) FILTER (WHERE status = 'sent')   AS notifications_sent,
           count(*) FILTER (WHERE status = 'failed') AS notifications_failed
    FROM notifications WHERE notifications.batch_id = b.batch_id
) AS n;

CREATE FUNCTION batches_completed_are_closed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.rows_total IS NULL
       OR EXISTS (SELECT FROM orders WHERE batch_id = NEW.batch_id AND status IN ('pending', 'paying', 'unknown'))
       OR EXISTS (SELECT FROM notifications WHERE batch_id = NEW.batch_id AND status NOT IN ('sent', 'failed'))
       OR NEW.rows_accepted <> (SELECT count(*) FROM orders WHERE batch_id = NEW.batch_id) THEN
        RAISE EXCEPTION USING ERRCODE = 'check_violation', CONSTRAINT = 'batches_completed_are_closed',
            MESSAGE = 'a batch with open rows is not completed';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER batches_completed_are_closed BEFORE INSERT OR UPDATE OF status ON batches
    FOR EACH ROW WHEN (NEW.status IN ('completed', 'completed_with_errors'))
    EXECUTE FUNCTION batches_completed_are_closed();
