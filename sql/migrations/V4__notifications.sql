-- Notifications: what customers are told, and the tokens that keep us inside the Notification service's rate.

CREATE TABLE notifications (
    notification_id         uuid CONSTRAINT notifications_pkey PRIMARY KEY,  -- also the dedupe key
    batch_id                text COLLATE "C" NOT NULL CONSTRAINT notifications_batch_id_fkey REFERENCES batches,
    customer_code           text COLLATE "C" NOT NULL,
    channel                 text COLLATE "C" NOT NULL,
    status                  text COLLATE "C" NOT NULL DEFAULT 'waiting',
    attempts                integer NOT NULL DEFAULT 0,                      -- in the present drain
    next_attempt_at         timestamptz NOT NULL DEFAULT now(),
    claimed_by              bigint CONSTRAINT notifications_claimed_by_fkey REFERENCES workers,
    sent_at                 timestamptz,
    service_notification_id text COLLATE "C",
    outcome_code            text COLLATE "C",
    created_at              timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT notifications_channel_known CHECK (channel IN ('email', 'sms')),
    -- waiting (an order is not final) -> ready -> sending -> sent | failed | unknown; sending | unknown -> ready
    CONSTRAINT notifications_status_known CHECK (status IN
        ('waiting', 'ready', 'sending', 'unknown', 'sent', 'failed')),
    CONSTRAINT notifications_sent_has_id CHECK (status <> 'sent' OR service_notification_id IS NOT NULL)
);
CREATE INDEX notifications_batch ON notifications (batch_id);
CREATE INDEX notifications_open ON notifications (batch_id, next_attempt_at)
    WHERE status IN ('ready', 'sending', 'unknown');
CREATE INDEX notifications_claimed ON notifications (claimed_by) WHERE claimed_by IS NOT NULL;

CREATE TABLE notification_orders (
    notification_id uuid NOT NULL CONSTRAINT notification_orders_notification_id_fkey REFERENCES notifications,
    order_id        bigint NOT NULL CONSTRAINT notification_orders_order_id_fkey REFERENCES orders,
    CONSTRAINT notification_orders_pkey PRIMARY KEY (notification_id, order_id),
    CONSTRAINT notification_orders_one_notification UNIQUE (order_id)
);

-- A token may be used again one second after the reply to its last use; as many rows as calls a second are allowed.
CREATE TABLE rate_tokens (
    service text COLLATE "C" NOT NULL,
    slot    integer NOT NULL,
    free_at timestamptz NOT NULL,
    CONSTRAINT rate_tokens_pkey PRIMARY KEY (service, slot)
);
