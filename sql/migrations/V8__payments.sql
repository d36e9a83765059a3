-- Payments: one transaction at the Payment service each, and which order has which share of it. What people decide about them
-- is in V10, and how the ids of new ones are found in V12.

CREATE TABLE payments (
    payment_id         uuid CONSTRAINT payments_pkey PRIMARY KEY,
    batch_id           text COLLATE "C" NOT NULL CONSTRAINT payments_batch_id_fkey REFERENCES batches,
    customer_code      text COLLATE "C" NOT NULL,
    payment_method     text COLLATE "C" NOT NULL,
    amount             integer NOT NULL,
    status             text COLLATE "C" NOT NULL DEFAULT 'planned',
    attempts           integer NOT NULL DEFAULT 0,
    next_attempt_at    timestamptz NOT NULL DEFAULT now(),
    claimed_by         bigint CONSTRAINT payments_claimed_by_fkey REFERENCES workers,
    sent_at            timestamptz,
    settled_at         timestamptz,
    service_payment_id text COLLATE "C",
    outcome_code       text COLLATE "C",
    created_at         timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT payments_amount_within_cap CHECK (amount BETWEEN 1 AND 1000000),
    CONSTRAINT payments_method_known CHECK (payment_method IN ('invoice', 'card_on_file', 'bank_transfer')),
    CONSTRAINT payments_status_known CHECK (status IN
        ('planned', 'sending', 'unknown', 'succeeded', 'declined', 'refunded', 'cancelled')),
    CONSTRAINT payments_settled_has_time CHECK
        ((status IN ('succeeded', 'declined', 'refunded', 'cancelled')) = (settled_at IS NOT NULL)),
    CONSTRAINT payments_settled_is_unclaimed CHECK (settled_at IS NULL OR claimed_by IS NULL),
    CONSTRAINT payments_succeeded_has_id CHECK (status <> 'succeeded' OR service_payment_id IS NOT NULL)
);
CREATE INDEX payments_batch ON payments (batch_id);
CREATE INDEX payments_open ON payments (batch_id, next_attempt_at) WHERE settled_at IS NULL;
CREATE INDEX payments_claimed ON payments (claimed_by) WHERE claimed_by IS NOT NULL;

-- What a claim reads in its own order and no further: what is due, first tries and later ones apart; and what may have been
-- charged, among however many that were only planned.
CREATE INDEX payments_first_tries ON payments (batch_id, next_attempt_at)
    WHERE claimed_by IS NULL AND attempts = 0 AND status IN ('planned', 'unknown');
CREATE INDEX payments_later_tries ON payments (batch_id, next_attempt_at)
    WHERE claimed_by IS NULL AND attempts > 0 AND status IN ('planned', 'unknown');
CREATE INDEX payments_first_look_ups ON payments (batch_id, next_attempt_at)
    WHERE claimed_by IS NULL AND attempts = 0 AND status = 'unknown';
CREATE INDEX payments_later_look_ups ON payments (batch_id, next_attempt_at)
    WHERE claimed_by IS NULL AND attempts > 0 AND status = 'unknown';
COMMENT ON TABLE payments IS 'One transaction at the Payment service each, written before it is sent.';
COMMENT ON COLUMN payments.payment_id IS 'Also the idempotency key, and the end of our reference there.';
COMMENT ON COLUMN payments.amount IS 'Yen; the sum of its shares in payment_orders.';
COMMENT ON COLUMN payments.status IS
    'planned -> sending -> succeeded | declined | unknown (it may have been charged); sending | unknown -> planned once a '
    'non-charge is proven; succeeded -> refunded once all of it was given back; planned -> cancelled.';
COMMENT ON COLUMN payments.attempts IS 'Tries since a drain last began with the batch.';
COMMENT ON COLUMN payments.next_attempt_at IS 'Not tried before; more than a day ahead: a person has to decide.';
COMMENT ON COLUMN payments.claimed_by IS 'The worker that has it in hand; null: nobody.';
COMMENT ON COLUMN payments.sent_at IS 'When the last intent to send it was written; null: none was.';
COMMENT ON COLUMN payments.settled_at IS 'Null while it is planned, sending or unknown.';
COMMENT ON COLUMN payments.service_payment_id IS 'Of the charge at the service; null until it is known.';
COMMENT ON COLUMN payments.outcome_code IS
    'What the last try came to, in the service''s code or ours; null: it went well, or there was none.';
SELECT audit_watch('payments', 'phi_modification');

CREATE TABLE payment_orders (
    payment_id uuid NOT NULL CONSTRAINT payment_orders_payment_id_fkey REFERENCES payments,
    order_id   bigint NOT NULL CONSTRAINT payment_orders_order_id_fkey REFERENCES orders,
    amount     integer NOT NULL CONSTRAINT payment_orders_amount_positive CHECK (amount > 0),
    live       boolean NOT NULL DEFAULT true,
    CONSTRAINT payment_orders_pkey PRIMARY KEY (payment_id, order_id)
);
CREATE UNIQUE INDEX payment_orders_one_live_payment ON payment_orders (order_id) WHERE live;
CREATE INDEX payment_orders_order ON payment_orders (order_id);
COMMENT ON TABLE payment_orders IS 'Which order has which share of a payment; only `live` ever changes.';
COMMENT ON COLUMN payment_orders.amount IS 'Yen; all of the order.';
COMMENT ON COLUMN payment_orders.live IS 'False once the payment is declined or cancelled.';
SELECT audit_watch('payment_orders', 'phi_modification',
                   batch => '(SELECT batch_id FROM payments WHERE payments.payment_id = %1$s.payment_id)');

-- Allocations add up: a payment's are written in one statement and never change afterwards.
CREATE FUNCTION payment_orders_add_up() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (
        SELECT FROM (SELECT DISTINCT payment_id FROM written) AS touched
        JOIN payments USING (payment_id)
        WHERE payments.amount <> (SELECT sum(amount) FROM payment_orders WHERE payment_id = touched.payment_id)
    ) OR EXISTS (
        SELECT FROM written JOIN orders USING (order_id) WHERE written.amount <> orders.amount
    ) THEN
        RAISE EXCEPTION USING ERRCODE = 'check_violation', CONSTRAINT = 'payment_orders_add_up',
            MESSAGE = 'allocations do not add up to their payment';
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER payment_orders_add_up AFTER INSERT ON payment_orders
    REFERENCING NEW TABLE AS written FOR EACH STATEMENT EXECUTE FUNCTION payment_orders_add_up();

CREATE FUNCTION payment_orders_stay() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION USING ERRCODE = 'check_violation', CONSTRAINT = 'payment_orders_stay',
        MESSAGE = 'an allocation never changes';
END $$;

CREATE TRIGGER payment_orders_stay BEFORE DELETE OR TRUNCATE OR UPDATE OF payment_id, order_id, amount ON payment_orders
    FOR EACH STATEMENT EXECUTE FUNCTION payment_orders_stay();

CREATE FUNCTION payments_are_allocated() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.amount IS DISTINCT FROM (SELECT sum(amount) FROM payment_orders WHERE payment_id = NEW.payment_id) THEN
        RAISE EXCEPTION USING ERRCODE = 'check_violation', CONSTRAINT = 'payments_are_allocated',
            MESSAGE = 'a payment is not fully allocated to orders';
    END IF;
    RETURN NULL;
END $$;

CREATE CONSTRAINT TRIGGER payments_are_allocated AFTER INSERT OR UPDATE OF amount ON payments
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION payments_are_allocated();

CREATE FUNCTION reference_of(payment_id uuid) RETURNS text STABLE LANGUAGE sql AS $$
    SELECT left(replace(CAST(installation_id AS text), '-', ''), 12) || '-' || CAST(payment_id AS text)
    FROM installation
$$;
COMMENT ON FUNCTION reference_of(uuid) IS 'Our reference of a payment at the service: what to look for there.';
