-- Refunds: yen given back of a payment for some or all of its orders, and the corrections that customers are sent then.

CREATE TABLE refunds (
    refund_id         uuid CONSTRAINT refunds_pkey PRIMARY KEY,   -- also the idempotency key
    payment_id        uuid NOT NULL CONSTRAINT refunds_payment_id_fkey REFERENCES payments,
    batch_id          text COLLATE "C" NOT NULL CONSTRAINT refunds_batch_id_fkey REFERENCES batches,
    amount            integer NOT NULL,                           -- yen
    status            text COLLATE "C" NOT NULL DEFAULT 'planned',
    attempts          integer NOT NULL DEFAULT 0,                 -- in the present drain
    next_attempt_at   timestamptz NOT NULL DEFAULT now(),
    claimed_by        bigint CONSTRAINT refunds_claimed_by_fkey REFERENCES workers,
    sent_at           timestamptz,                                -- when the last intent was written
    settled_at        timestamptz,
    service_refund_id text COLLATE "C",
    outcome_code      text COLLATE "C",
    requested_by      text NOT NULL,
    reason            text NOT NULL,                              -- sent to the service too
    created_at        timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT refunds_amount_within_cap CHECK (amount BETWEEN 1 AND 1000000),
    -- planned -> sending -> succeeded | declined | unknown; sending -> planned once it is certain that nothing was given back
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
    amount        integer NOT NULL,                -- yen; all that was paid for the order
    live          boolean NOT NULL DEFAULT true,   -- false once the refund is declined
    was_told      boolean NOT NULL DEFAULT false,  -- before it was refunded, the customer was or may have been told of it
    correction_id uuid CONSTRAINT refund_orders_correction_id_fkey REFERENCES notifications,
    CONSTRAINT refund_orders_pkey PRIMARY KEY (refund_id, order_id)
);
CREATE UNIQUE INDEX refund_orders_one_live_refund ON refund_orders (order_id) WHERE live;
CREATE INDEX refund_orders_correction ON refund_orders (correction_id) WHERE correction_id IS NOT NULL;

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

-- A correction says to a customer who was told of a payment that it was given back; its orders are in refund_orders.
ALTER TABLE notifications
    ADD kind text COLLATE "C" NOT NULL DEFAULT 'result',
    ADD CONSTRAINT notifications_kind_known CHECK (kind IN ('result', 'correction'));
