-- Corrections: which batch, and which of its rows, a row that was sent again corrects; and a client's own control of
-- what it sends: the manifest beside a file and the sequence number in its name.

ALTER TABLE batches
    ADD corrects        text COLLATE "C" CONSTRAINT batches_corrects_fkey REFERENCES batches,
    ADD manifest        jsonb,                     -- control totals as sent: sha256, row_count, amount_total
    ADD sequence_series text COLLATE "C",          -- what the name says: numbers count within a series
    ADD sequence_number bigint,
    ADD CONSTRAINT batches_sequence_complete CHECK (num_nulls(sequence_series, sequence_number) IN (0, 2));
CREATE INDEX batches_sequence ON batches (client_code, sequence_series, sequence_number)
    WHERE sequence_number IS NOT NULL;

-- A row of the batch that a correcting file names answers that batch's row, whatever becomes of the new one.
CREATE TABLE corrections (
    batch_id          text COLLATE "C" NOT NULL CONSTRAINT corrections_batch_id_fkey REFERENCES batches,
    import_row_number integer NOT NULL,
    corrects          text COLLATE "C" NOT NULL CONSTRAINT corrections_corrects_fkey REFERENCES batches,
    corrects_row      integer NOT NULL,
    CONSTRAINT corrections_pkey PRIMARY KEY (batch_id, import_row_number),
    CONSTRAINT corrections_of_another_batch CHECK (batch_id <> corrects)
);
CREATE INDEX corrections_corrects ON corrections (corrects, corrects_row);

-- The view of before, which now has the new columns of batches.
DROP VIEW batch_progress;
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
