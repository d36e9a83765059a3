-- Progress of a batch, counted from rows and never from counters; the rule that only a closed batch is completed; and what is
-- kept of finished ones.

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
COMMENT ON VIEW batch_progress IS
    'Each batch with the numbers of its orders, payments and notifications by state and their yen, as of now.';
COMMENT ON COLUMN batch_progress.amount_loaded IS 'Yen of all its orders, in whatever state.';
COMMENT ON COLUMN batch_progress.ledgers_differ IS 'Nothing of it is paid meanwhile: see the function.';

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

-- A list of batches need not count all their orders. Nothing is ever added up here: a change only lets the summary be forgotten.
CREATE TABLE batch_summaries (
    batch_id    text COLLATE "C" CONSTRAINT batch_summaries_pkey PRIMARY KEY
                CONSTRAINT batch_summaries_batch_id_fkey REFERENCES batches,
    schema_rank integer NOT NULL,
    summary     json NOT NULL
);
COMMENT ON TABLE batch_summaries IS
    'What finished batches came to, counted from rows once and kept until anything of them changes.';
COMMENT ON COLUMN batch_summaries.schema_rank IS 'The last migration by then: after another one there may be more to count.';
COMMENT ON COLUMN batch_summaries.summary IS 'As it is shown, in that order.';

CREATE FUNCTION batch_summaries_rank() RETURNS integer STABLE LANGUAGE sql AS $$
    SELECT max(installed_rank) FROM flyway_schema_history
$$;

CREATE FUNCTION batch_summaries_lock_class() RETURNS integer IMMUTABLE LANGUAGE sql AS $$ SELECT 4711007 $$;

-- Who changes something takes the lock shared, who counts takes it alone: nothing that changes meanwhile goes unnoticed.
CREATE FUNCTION forget_summaries() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(batch_summaries_lock_class(), hashtext(batch_id))
    FROM (SELECT DISTINCT batch_id FROM after ORDER BY batch_id) AS touched;
    DELETE FROM batch_summaries WHERE batch_id = ANY (ARRAY(SELECT DISTINCT batch_id FROM after));
    RETURN NULL;
END $$;

DO $$
DECLARE
    watched text;
BEGIN
    FOREACH watched IN ARRAY ARRAY['batches', 'batch_stages', 'orders', 'payments', 'notifications', 'refunds'] LOOP
        EXECUTE format('CREATE TRIGGER forget_summaries_update AFTER UPDATE ON %I REFERENCING NEW TABLE AS after
                        FOR EACH STATEMENT EXECUTE FUNCTION forget_summaries()', watched);
    END LOOP;
    FOREACH watched IN ARRAY ARRAY['batch_stages', 'payments', 'notifications', 'refunds'] LOOP
        EXECUTE format('CREATE TRIGGER forget_summaries_insert AFTER INSERT ON %I REFERENCING NEW TABLE AS after
                        FOR EACH STATEMENT EXECUTE FUNCTION forget_summaries()', watched);
    END LOOP;
END $$;
