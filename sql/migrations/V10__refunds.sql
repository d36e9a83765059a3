-- Refunds: yen given back of a payment for some or all of its orders. Resolutions: what a person decided about a payment or a
-- refund of which nobody can find out whether it was made.

CREATE TABLE refunds (
    refund_id         uuid CONSTRAINT refunds_pkey PRIMARY KEY,
    payment_id        uuid NOT NULL CONSTRAINT refunds_payment_id_fkey REFERENCES payments,
    batch_id          text COLLATE "C" NOT NULL CONSTRAINT refunds_batch_id_fkey REFERENCES batches,
    amount            integer NOT NULL,
    status            text COLLATE "C" NOT NULL DEFAULT 'planned',
    attempts          integer NOT NULL DEFAULT 0,
    next_attempt_at   timestamptz NOT NULL DEFAULT now(),
    claimed_by        bigint CONSTRAINT refunds_claimed_by_fkey REFERENCES workers,
    sent_at           timestamptz,
    settled_at        timestamptz,
    service_refund_id text COLLATE "C",
    outcome_code      text COLLATE "C",
    requested_by      text NOT NULL,
    reason            text NOT NULL,
    created_at        timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT refunds_amount_within_cap CHECK (amount BETWEEN 1 AND 1000000),
    CONSTRAINT refunds_status_known CHECK (status IN ('planned', 'sending', 'unknown', 'succeeded', 'declined')),
    CONSTRAINT refunds_settled_has_time CHECK ((status IN ('succeeded', 'declined')) = (settled_at IS NOT NULL)),
    CONSTRAINT refunds_settled_is_unclaimed CHECK (settled_at IS NULL OR claimed_by IS NULL),
    CONSTRAINT refunds_succeeded_has_id CHECK (status <> 'succeeded' OR service_refund_id IS NOT NULL),
    CONSTRAINT refunds_requested_by_given CHECK (requested_by <> ''),
    CONSTRAINT refunds_reason_fits CHECK (length(reason) BETWEEN 1 AND 500)
);
CREATE INDEX refunds_payment ON refunds (payment_id);
CREATE INDEX refunds_batch ON refunds (batch_id);
CREATE INDEX refunds_claimed ON refunds (claimed_by) WHERE claimed_by IS NOT NULL;
CREATE INDEX refunds_open ON refunds (batch_id) WHERE settled_at IS NULL;

-- What a claim reads in its own order and no further.
CREATE INDEX refunds_first_tries ON refunds (batch_id, next_attempt_at)
    WHERE claimed_by IS NULL AND attempts = 0 AND status IN ('planned', 'unknown');
CREATE INDEX refunds_later_tries ON refunds (batch_id, next_attempt_at)
    WHERE claimed_by IS NULL AND attempts > 0 AND status IN ('planned', 'unknown');
COMMENT ON TABLE refunds IS 'One refund at the Payment service each, written before it is sent.';
COMMENT ON COLUMN refunds.refund_id IS 'Also the idempotency key.';
COMMENT ON COLUMN refunds.amount IS 'Yen; the sum of its shares in refund_orders.';
COMMENT ON COLUMN refunds.status IS
    'planned -> sending -> succeeded | declined | unknown (it may have been given back); sending -> planned once it is '
    'certain that nothing was given back.';
COMMENT ON COLUMN refunds.attempts IS 'Tries since a drain last began with the batch.';
COMMENT ON COLUMN refunds.next_attempt_at IS 'Not tried before; more than a day ahead: a person has to decide.';
COMMENT ON COLUMN refunds.claimed_by IS 'The worker that has it in hand; null: nobody.';
COMMENT ON COLUMN refunds.sent_at IS 'When the last intent to send it was written; null: none was.';
COMMENT ON COLUMN refunds.settled_at IS 'Null while it is planned, sending or unknown.';
COMMENT ON COLUMN refunds.service_refund_id IS 'Of the refund at the service; null until it is known.';
COMMENT ON COLUMN refunds.outcome_code IS
    'What the last try came to, in the service''s code or ours; null: it went well, or there was none.';
COMMENT ON COLUMN refunds.requested_by IS 'The person who asked for it.';
COMMENT ON COLUMN refunds.reason IS 'As the person gave it; sent to the service too.';
SELECT audit_watch('refunds', 'phi_modification', '{reason}');

-- A refund is of a payment of its batch that was charged, and all of them together are never above it.
CREATE FUNCTION refunds_within_payment() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    paid payments;
BEGIN
    -- locked, so that two transactions do not each look past the other's refund
    SELECT * INTO paid FROM payments WHERE payment_id = NEW.payment_id FOR NO KEY UPDATE;
    IF paid.batch_id <> NEW.batch_id OR paid.status NOT IN ('succeeded', 'refunded') OR paid.amount
       < (SELECT sum(amount) FROM refunds WHERE payment_id = NEW.payment_id AND status <> 'declined') THEN
        RAISE EXCEPTION USING ERRCODE = 'check_violation', CONSTRAINT = 'refunds_within_payment',
            MESSAGE = 'more would be given back than was paid';
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER refunds_within_payment AFTER INSERT OR UPDATE OF payment_id, batch_id, amount, status ON refunds
    FOR EACH ROW EXECUTE FUNCTION refunds_within_payment();

CREATE TABLE refund_orders (
    refund_id     uuid NOT NULL CONSTRAINT refund_orders_refund_id_fkey REFERENCES refunds,
    order_id      bigint NOT NULL CONSTRAINT refund_orders_order_id_fkey REFERENCES orders,
    amount        integer NOT NULL,
    live          boolean NOT NULL DEFAULT true,
    was_told      boolean NOT NULL DEFAULT false,
    correction_id uuid CONSTRAINT refund_orders_correction_id_fkey REFERENCES notifications,
    CONSTRAINT refund_orders_pkey PRIMARY KEY (refund_id, order_id)
);
CREATE UNIQUE INDEX refund_orders_one_live_refund ON refund_orders (order_id) WHERE live;
CREATE INDEX refund_orders_correction ON refund_orders (correction_id) WHERE correction_id IS NOT NULL;
COMMENT ON TABLE refund_orders IS 'Which orders a refund is for.';
COMMENT ON COLUMN refund_orders.amount IS 'Yen; all that was paid for the order.';
COMMENT ON COLUMN refund_orders.live IS 'False once the refund is declined.';
COMMENT ON COLUMN refund_orders.was_told IS 'Before it was refunded, the customer was or may have been told of the order.';
COMMENT ON COLUMN refund_orders.correction_id IS
    'The notification that tells so to a customer who was told otherwise; null: none is planned.';
SELECT audit_watch('refund_orders', 'phi_modification',
                   batch => '(SELECT batch_id FROM refunds WHERE refunds.refund_id = %1$s.refund_id)');

-- Shares add up and are those of the payment: a refund's are written in one statement and never change afterwards.
CREATE FUNCTION refund_orders_add_up() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (
        SELECT FROM (SELECT DISTINCT refund_id FROM written) AS touched
        JOIN refunds USING (refund_id)
        WHERE refunds.amount <> (SELECT sum(amount) FROM refund_orders WHERE refund_id = touched.refund_id)
    ) OR EXISTS (
        SELECT FROM written
        JOIN refunds USING (refund_id)
        LEFT JOIN payment_orders AS paid ON paid.payment_id = refunds.payment_id AND paid.order_id = written.order_id
        WHERE paid.amount IS DISTINCT FROM written.amount
    ) THEN
        RAISE EXCEPTION USING ERRCODE = 'check_violation', CONSTRAINT = 'refund_orders_add_up',
            MESSAGE = 'what is given back for orders does not add up to their refund, or was not paid for them';
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER refund_orders_add_up AFTER INSERT ON refund_orders
    REFERENCING NEW TABLE AS written FOR EACH STATEMENT EXECUTE FUNCTION refund_orders_add_up();

CREATE FUNCTION refund_orders_stay() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION USING ERRCODE = 'check_violation', CONSTRAINT = 'refund_orders_stay',
        MESSAGE = 'which orders a refund is for never changes';
END $$;

CREATE TRIGGER refund_orders_stay BEFORE DELETE OR TRUNCATE OR UPDATE OF refund_id, order_id, amount ON refund_orders
    FOR EACH STATEMENT EXECUTE FUNCTION refund_orders_stay();

CREATE FUNCTION refunds_are_allocated() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.amount IS DISTINCT FROM (SELECT sum(amount) FROM refund_orders WHERE refund_id = NEW.refund_id) THEN
        RAISE EXCEPTION USING ERRCODE = 'check_violation', CONSTRAINT = 'refunds_are_allocated',
            MESSAGE = 'a refund is not fully allocated to orders';
    END IF;
    RETURN NULL;
END $$;

CREATE CONSTRAINT TRIGGER refunds_are_allocated AFTER INSERT OR UPDATE OF amount ON refunds
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refunds_are_allocated();

CREATE FUNCTION next_refund_id(payment_id uuid, row_numbers integer[]) RETURNS uuid STABLE LANGUAGE plpgsql AS $$
DECLARE
    next_id uuid;
BEGIN
    FOR try IN 0..2147483646 LOOP
        next_id := stable_id(concat_ws('|', 'refund', payment_id, row_numbers, try));
        EXIT WHEN NOT EXISTS (SELECT FROM refunds WHERE refund_id = next_id);
    END LOOP;
    RETURN next_id;
END $$;
COMMENT ON FUNCTION next_refund_id(uuid, integer[]) IS
    'The id of the next refund of some rows of a payment: it follows from the payment, the rows and the number of the try, '
    'which is the first that is not taken.';

CREATE TABLE resolutions (
    resolution_id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT resolutions_pkey PRIMARY KEY,
    payment_id    uuid CONSTRAINT resolutions_payment_id_fkey REFERENCES payments,
    decision      text COLLATE "C" NOT NULL CONSTRAINT resolutions_decision_known
                  CHECK (decision IN ('paid', 'not_paid', 'refunded', 'not_refunded')),
    decided_by    text NOT NULL CONSTRAINT resolutions_decided_by_given CHECK (decided_by <> ''),
    reason        text NOT NULL CONSTRAINT resolutions_reason_given CHECK (reason <> ''),
    decided_at    timestamptz NOT NULL DEFAULT now(),
    refund_id     uuid CONSTRAINT resolutions_refund_id_fkey REFERENCES refunds,
    CONSTRAINT resolutions_of_what_is_decided CHECK (
        num_nonnulls(payment_id, refund_id) = 1 AND (refund_id IS NULL) = (decision IN ('paid', 'not_paid')))
);
-- What a person has found out about a refund is asked for with each claim.
CREATE INDEX resolutions_refund ON resolutions (refund_id) WHERE refund_id IS NOT NULL;
COMMENT ON TABLE resolutions IS
    'What a person decided about a payment or a refund that no look-up could settle; added to and never changed.';
COMMENT ON COLUMN resolutions.payment_id IS 'Null where it is about a refund.';
COMMENT ON COLUMN resolutions.refund_id IS 'Null where it is about a payment.';
SELECT audit_watch('resolutions', 'phi_modification', '{reason}', batch =>
    'coalesce((SELECT batch_id FROM payments WHERE payments.payment_id = %1$s.payment_id),'
    ' (SELECT batch_id FROM refunds WHERE refunds.refund_id = %1$s.refund_id))');
REVOKE UPDATE, DELETE ON resolutions FROM orders_app;
