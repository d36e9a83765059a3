-- Approval: a batch of a client whose profile says so waits, once it is loaded, until somebody else than who sent it approves
-- it. Nothing of it can be claimed before, and what is approved is what was asked for.

ALTER TABLE api_tokens
    DROP CONSTRAINT api_tokens_scopes_known,
    ADD CONSTRAINT api_tokens_scopes_known CHECK (scopes <> '{}' AND scopes <@ ARRAY[
        'batches:read', 'batches:write', 'batches:control', 'batches:approve', 'rejected:read', 'refunds:write', 'page',
        'operator']);

ALTER TABLE batches
    DROP CONSTRAINT batches_status_known,
    ADD CONSTRAINT batches_status_known CHECK (status IN (
        'received', 'staged', 'validated', 'loaded', 'awaiting_approval', 'paying', 'paused', 'stopped',
        'completed', 'completed_with_errors', 'rejected', 'cancelling', 'cancelled')),
    ADD COLUMN approval_above bigint CONSTRAINT batches_approval_above_some_yen CHECK (approval_above >= 0),
    ADD COLUMN approval_requested_at timestamptz,
    ADD COLUMN approval_decision text COLLATE "C"
        CONSTRAINT batches_approval_decision_known CHECK (approval_decision IN ('approved', 'refused')),
    ADD COLUMN approval_decided_by text,
    ADD COLUMN approval_decided_at timestamptz,
    ADD CONSTRAINT batches_approval_decided_by_somebody CHECK
        (num_nonnulls(approval_decision, nullif(approval_decided_by, ''), approval_decided_at) IN (0, 3)
         AND (approval_decision IS NULL OR approval_requested_at IS NOT NULL)),
    ADD CONSTRAINT batches_approval_by_another CHECK (approval_decided_by <> submitted_by);
ALTER TABLE batches
    ADD COLUMN is_approved boolean NOT NULL GENERATED ALWAYS AS (
        approval_above IS NULL OR coalesce(amount_accepted <= approval_above, false)
        OR coalesce(approval_decision = 'approved', false)) STORED;
ALTER TABLE batches
    ADD CONSTRAINT batches_approval_awaited CHECK
        (status <> 'awaiting_approval' OR (approval_requested_at IS NOT NULL AND approval_decision IS NULL AND NOT is_approved)),
    ADD CONSTRAINT batches_settled_once_approved CHECK
        (is_approved OR status NOT IN ('paying', 'paused', 'completed', 'completed_with_errors'));
COMMENT ON COLUMN batches.status IS
    'received -> staged -> validated -> loaded -> paying -> completed | completed_with_errors; loaded -> awaiting_approval -> '
    'loaded, where somebody must approve it; rejected: nothing of the file was taken; paused: waits for a service or a '
    'person; stopped, cancelling -> cancelled: a person said so.';
COMMENT ON COLUMN batches.submitted_by IS
    'Who sent it: the client and token (or user) of the API, or the user who gave the command; null where no such is known.';
COMMENT ON COLUMN batches.approval_above IS
    'Above so many yen of the accepted rows somebody must approve it, as the profile said when it was validated; 0: always; '
    'null: nobody must.';
COMMENT ON COLUMN batches.approval_requested_at IS
    'When it first waited for approval; its rows and yen stay from then on. Null: it did not.';
COMMENT ON COLUMN batches.approval_decision IS
    'What somebody else than who sent it said; null, as approval_decided_by and approval_decided_at: nobody did.';
COMMENT ON COLUMN batches.is_approved IS 'Nobody must approve it, or somebody did: it may be paid.';
SELECT audit_watch('batches', 'administrative', '{csv_source,landing_key,cancelled_why}');

CREATE FUNCTION batches_approval_is_bound() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION USING ERRCODE = 'check_violation', CONSTRAINT = 'batches_approval_is_bound',
        MESSAGE = 'what was to be approved, or what somebody said of it, never changes';
END $$;

CREATE TRIGGER batches_approval_is_bound BEFORE UPDATE ON batches FOR EACH ROW WHEN (
    (OLD.approval_requested_at IS NOT NULL
     AND (NEW.rows_accepted, NEW.rows_rejected, NEW.amount_accepted, NEW.approval_above, NEW.approval_requested_at,
          NEW.submitted_by)
         IS DISTINCT FROM
         (OLD.rows_accepted, OLD.rows_rejected, OLD.amount_accepted, OLD.approval_above, OLD.approval_requested_at,
          OLD.submitted_by))
    OR (OLD.approval_decision IS NOT NULL
        AND (NEW.approval_decision, NEW.approval_decided_by, NEW.approval_decided_at)
            IS DISTINCT FROM (OLD.approval_decision, OLD.approval_decided_by, OLD.approval_decided_at)))
    EXECUTE FUNCTION batches_approval_is_bound();

-- What may have been charged is looked up all the same, once the batch is being cancelled.
CREATE FUNCTION payments_claimed_are_approved() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM after JOIN batches USING (batch_id)
               WHERE claimed_by IS NOT NULL AND NOT is_approved
                 AND (batches.status <> 'cancelling' OR after.status = 'sending')) THEN
        RAISE EXCEPTION USING ERRCODE = 'check_violation', CONSTRAINT = 'payments_claimed_are_approved',
            MESSAGE = 'a payment of a batch that nobody has approved is not sent';
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER payments_claimed_are_approved AFTER UPDATE ON payments
    REFERENCING NEW TABLE AS after FOR EACH STATEMENT EXECUTE FUNCTION payments_claimed_are_approved();

CREATE FUNCTION payments_are_of_what_was_approved() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM batches CROSS JOIN LATERAL (
                   SELECT count(*) AS rows, coalesce(sum(amount), 0) AS yen FROM orders WHERE orders.batch_id = batches.batch_id
               ) AS loaded
               WHERE batch_id IN (SELECT batch_id FROM after) AND approval_decision = 'approved'
                 AND (rows, yen) IS DISTINCT FROM (rows_accepted, amount_accepted)) THEN
        RAISE EXCEPTION USING ERRCODE = 'check_violation', CONSTRAINT = 'payments_are_of_what_was_approved',
            MESSAGE = 'the orders of a batch are not those that were approved';
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER payments_are_of_what_was_approved AFTER INSERT ON payments
    REFERENCING NEW TABLE AS after FOR EACH STATEMENT EXECUTE FUNCTION payments_are_of_what_was_approved();

-- The same as before, with the columns that batches have got since.
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
COMMENT ON VIEW batch_progress IS
    'Each batch with the numbers of its orders, payments and notifications by state and their yen, as of now.';
COMMENT ON COLUMN batch_progress.amount_loaded IS 'Yen of all its orders, in whatever state.';
COMMENT ON COLUMN batch_progress.ledgers_differ IS 'Nothing of it is paid meanwhile: see the function.';
