-- Notifications: what customers are told, of results and of refunds. What keeps us inside the service's rate is in V11.

CREATE TABLE notifications (
    notification_id         uuid CONSTRAINT notifications_pkey PRIMARY KEY,
    batch_id                text COLLATE "C" NOT NULL CONSTRAINT notifications_batch_id_fkey REFERENCES batches,
    customer_code           text COLLATE "C" NOT NULL,
    channel                 text COLLATE "C" NOT NULL,
    status                  text COLLATE "C" NOT NULL DEFAULT 'waiting',
    attempts                integer NOT NULL DEFAULT 0,
    next_attempt_at         timestamptz NOT NULL DEFAULT now(),
    claimed_by              bigint CONSTRAINT notifications_claimed_by_fkey REFERENCES workers,
    sent_at                 timestamptz,
    service_notification_id text COLLATE "C",
    outcome_code            text COLLATE "C",
    created_at              timestamptz NOT NULL DEFAULT now(),
    kind                    text COLLATE "C" NOT NULL DEFAULT 'result',
    CONSTRAINT notifications_channel_known CHECK (channel IN ('email', 'sms')),
    CONSTRAINT notifications_status_known CHECK (status IN
        ('waiting', 'ready', 'sending', 'unknown', 'sent', 'failed', 'cancelled')),
    CONSTRAINT notifications_sent_has_id CHECK (status <> 'sent' OR service_notification_id IS NOT NULL),
    CONSTRAINT notifications_kind_known CHECK (kind IN ('result', 'correction'))
);
CREATE INDEX notifications_batch ON notifications (batch_id);
CREATE INDEX notifications_open ON notifications (batch_id, next_attempt_at)
    WHERE status IN ('ready', 'sending', 'unknown');
CREATE INDEX notifications_open_corrections ON notifications (batch_id)
    WHERE kind = 'correction' AND status NOT IN ('sent', 'failed');
CREATE INDEX notifications_claimed ON notifications (claimed_by) WHERE claimed_by IS NOT NULL;

-- What a claim reads in its own order and no further.
CREATE INDEX notifications_first_tries ON notifications (batch_id, kind, next_attempt_at)
    WHERE claimed_by IS NULL AND attempts = 0 AND status IN ('ready', 'unknown');
CREATE INDEX notifications_later_tries ON notifications (batch_id, kind, next_attempt_at)
    WHERE claimed_by IS NULL AND attempts > 0 AND status IN ('ready', 'unknown');
COMMENT ON TABLE notifications IS 'One message to a customer each, about one or several orders; written before it is sent.';
COMMENT ON COLUMN notifications.notification_id IS 'Also the dedupe key at the service.';
COMMENT ON COLUMN notifications.status IS
    'waiting (an order is not final) -> ready -> sending -> sent | failed | unknown (it may have been sent); sending | '
    'unknown -> ready; waiting | ready -> cancelled.';
COMMENT ON COLUMN notifications.attempts IS 'Tries since a drain last began with the batch.';
COMMENT ON COLUMN notifications.next_attempt_at IS 'Not tried before.';
COMMENT ON COLUMN notifications.claimed_by IS 'The worker that has it in hand; null: nobody.';
COMMENT ON COLUMN notifications.sent_at IS 'When the service had taken it; null until then.';
COMMENT ON COLUMN notifications.service_notification_id IS 'Of the message at the service; null until it is known.';
COMMENT ON COLUMN notifications.outcome_code IS
    'What the last try came to, in the service''s code or ours; null: it went well, or there was none.';
COMMENT ON COLUMN notifications.kind IS
    'result: what became of orders (notification_orders); correction: what a customer was told before was given back '
    '(refund_orders).';
SELECT audit_watch('notifications', 'phi_modification');

CREATE TABLE notification_orders (
    notification_id uuid NOT NULL CONSTRAINT notification_orders_notification_id_fkey REFERENCES notifications,
    order_id        bigint NOT NULL CONSTRAINT notification_orders_order_id_fkey REFERENCES orders,
    CONSTRAINT notification_orders_pkey PRIMARY KEY (notification_id, order_id),
    CONSTRAINT notification_orders_one_notification UNIQUE (order_id)
);
COMMENT ON TABLE notification_orders IS 'Which orders a notification of a result is about.';
SELECT audit_watch('notification_orders', 'phi_modification',
    batch => '(SELECT batch_id FROM notifications WHERE notifications.notification_id = %1$s.notification_id)');

CREATE FUNCTION next_notification_id(identity text, kind text, row_numbers integer[]) RETURNS uuid STABLE LANGUAGE plpgsql AS $$
DECLARE
    next_id uuid;
BEGIN
    FOR try IN 0..2147483646 LOOP
        next_id := stable_id(concat_ws('|', 'notification', identity, kind, row_numbers, try));
        EXIT WHEN NOT EXISTS (SELECT FROM notifications WHERE notification_id = next_id);
    END LOOP;
    RETURN next_id;
END $$;
COMMENT ON FUNCTION next_notification_id(text, text, integer[]) IS
    'The id of the next notification of a kind about some rows: it follows from whose they are, the rows and the number of '
    'the try, which is the first that is not taken.';
