-- Payments: one transaction at the Payment service each, and which order has which share of it.

CREATE TABLE payments (
    payment_id         uuid CONSTRAINT payments_pkey PRIMARY KEY,  -- also the idempotency key and our reference there
    batch_id           text COLLATE "C" NOT NULL CONSTRAINT payments_batch_id_fkey REFERENCES batches,
    customer_code      text COLLATE "C" NOT NULL,
    payment_method     text COLLATE "C" NOT NULL,
    amount             integer NOT NULL,                           -- yen
    status             text COLLATE "C" NOT NULL DEFAULT 'planned',
    attempts           integer NOT NULL DEFAULT 0,                 -- in the present drain
    next_attempt_at    timestamptz NOT NULL DEFAULT now(),
    claimed_by         bigint CONSTRAINT payments_claimed_by_fkey REFERENCES workers,
    sent_at            timestamptz,                                -- when the last intent was written
    settled_at         timestamptz,
    service_payment_id text COLLATE "C",
    outcome_code       text COLLATE "C",
    created_at         timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT payments_amount_within_cap CHECK (amount BETWEEN 1 AND 1000000),
    CONSTRAINT payments_method_known CHECK (payment_method IN ('invoice', 'card_on_file', 'bank_transfer')),
    -- planned -> sending -> succeeded | declined | unknown; sending | unknown -> planned once a non-charge is proven
    CONSTRAINT payments_status_known CHECK (status IN
        ('planned', 'sending', 'unknown', 'succeeded', 'declined', 'refunded')),
    CONSTRAINT payments_settled_has_time CHECK
        ((status IN ('succeeded', 'declined', 'refunded')) = (settled_at IS NOT NULL)),
    CONSTRAINT payments_settled_is_unclaimed CHECK (settled_at IS NULL OR claimed_by IS NULL),
    CONSTRAINT payments_succeeded_has_id CHECK (status <> 'succeeded' OR service_payment_id IS NOT NULL)
);
CREATE INDEX payments_batch ON payments (batch_id);
CREATE INDEX payments_open ON payments (batch_id, next_attempt_at) WHERE settled_at IS NULL;
CREATE INDEX payments_claimed ON payments (claimed_by) WHERE claimed_by IS NOT NULL;

CREATE TABLE payment_orders (
    payment_id uuid NOT NULL CONSTRAINT payment_orders_payment_id_fkey REFERENCES payments,
    order_id   bigint NOT NULL CONSTRAINT payment_orders_order_id_fkey REFERENCES orders,
    amount     integer NOT NULL CONSTRAINT payment_orders_amount_positive CHECK (amount > 0),  -- yen
    live       boolean NOT NULL DEFAULT true,      -- false once the payment is declined
    CONSTRAINT payment_orders_pkey PRIMARY KEY (payment_id, order_id)
);
CREATE UNIQUE INDEX payment_orders_one_live_payment ON payment_orders (order_id) WHERE live;

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
