-- Webhooks: what clients' own servers are told of batches and refunds, planned by the database whenever these change.

CREATE TABLE webhook_deliveries (
    delivery_id     uuid CONSTRAINT webhook_deliveries_pkey PRIMARY KEY DEFAULT gen_random_uuid(),
    client_code     text COLLATE "C" NOT NULL,
    type            text COLLATE "C" NOT NULL,
    batch_id        text COLLATE "C" NOT NULL CONSTRAINT webhook_deliveries_batch_id_fkey REFERENCES batches,
    request_id      uuid CONSTRAINT webhook_deliveries_request_id_fkey REFERENCES refund_requests,
    status_then     text COLLATE "C" NOT NULL,
    status          text COLLATE "C" NOT NULL DEFAULT 'planned',
    attempts        integer NOT NULL DEFAULT 0,
    claim_no        bigint NOT NULL DEFAULT 0,
    leased_until    timestamptz,
    next_attempt_at timestamptz NOT NULL DEFAULT now(),
    outcome_code    text COLLATE "C",
    created_at      timestamptz NOT NULL DEFAULT now(),
    settled_at      timestamptz,
    CONSTRAINT webhook_deliveries_status_known CHECK (status IN ('planned', 'delivered', 'failed')),
    CONSTRAINT webhook_deliveries_settled_has_time CHECK ((status = 'planned') = (settled_at IS NULL)),
    CONSTRAINT webhook_deliveries_settled_is_unleased CHECK (status = 'planned' OR leased_until IS NULL)
);
CREATE INDEX webhook_deliveries_open ON webhook_deliveries (next_attempt_at) WHERE status = 'planned';
CREATE INDEX webhook_deliveries_undelivered ON webhook_deliveries (client_code) WHERE status <> 'delivered';
CREATE INDEX webhook_deliveries_of_batch ON webhook_deliveries (batch_id, created_at);
CREATE INDEX webhook_deliveries_of_request ON webhook_deliveries (request_id) WHERE request_id IS NOT NULL;
CREATE INDEX webhook_deliveries_created ON webhook_deliveries (created_at);
COMMENT ON TABLE webhook_deliveries IS
    'What clients'' servers are told, once a row however often it is tried; planned with the change that it is about, and '
    'forgotten after 30 days.';
COMMENT ON COLUMN webhook_deliveries.delivery_id IS 'Also the webhook-id, by which a receiver knows what it was told before.';
COMMENT ON COLUMN webhook_deliveries.type IS 'What happened, such as batch.completed.';
COMMENT ON COLUMN webhook_deliveries.request_id IS 'The refund that it is about; null: the batch.';
COMMENT ON COLUMN webhook_deliveries.status_then IS 'The state that the batch or refund came to.';
COMMENT ON COLUMN webhook_deliveries.status IS 'planned -> delivered | failed (given up); failed -> planned by a person.';
COMMENT ON COLUMN webhook_deliveries.attempts IS 'Tries since it was planned, or since a person had it tried again.';
COMMENT ON COLUMN webhook_deliveries.claim_no IS 'Which claim is the last: what an older one came to is dropped.';
COMMENT ON COLUMN webhook_deliveries.leased_until IS 'So long a process is sending it; null: none is.';
COMMENT ON COLUMN webhook_deliveries.next_attempt_at IS 'Not tried before.';
COMMENT ON COLUMN webhook_deliveries.outcome_code IS 'What the last try came to; null: it went well, or there was none.';
COMMENT ON COLUMN webhook_deliveries.settled_at IS 'When it was delivered or given up; null: it is open.';

CREATE TABLE webhooks_off (
    client_code     text COLLATE "C" CONSTRAINT webhooks_off_pkey PRIMARY KEY,
    webhook_url     text NOT NULL,
    switched_off_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE webhooks_off IS
    'Addresses whose server has said that it wants no more (410): nothing is sent there until the profile has another, or a '
    'person has it tried again.';
SELECT audit_watch('webhooks_off', 'administrative', batch => 'NULL::text');

CREATE FUNCTION webhook_url(client text) RETURNS text STABLE LANGUAGE sql AS $$
    SELECT profile ->> 'webhook_url' FROM known_profiles
    WHERE client_code = client AND NOT EXISTS (
        SELECT FROM webhooks_off
        WHERE webhooks_off.client_code = client AND webhooks_off.webhook_url = profile ->> 'webhook_url')
$$;
COMMENT ON FUNCTION webhook_url(text) IS 'Where a client wants to be told; null: nowhere, or its server wants no more.';

CREATE FUNCTION webhooks_follow_batches() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO webhook_deliveries (client_code, type, batch_id, status_then)
    SELECT NEW.client_code, event.type, NEW.batch_id, NEW.status
    FROM (VALUES
        ('batch.checked', (OLD.status, NEW.status) = ('validated', 'loaded')),
        ('batch.awaiting_approval', (OLD.status, NEW.status) = ('loaded', 'awaiting_approval')),
        -- once, however often it is resumed and paused again meanwhile
        ('batch.paused', NEW.status = 'paused' AND 'batch.paused' IS DISTINCT FROM (
            SELECT type FROM webhook_deliveries WHERE batch_id = NEW.batch_id ORDER BY created_at DESC LIMIT 1)),
        ('batch.completed', NEW.status IN ('completed', 'completed_with_errors')),
        ('batch.rejected', NEW.status = 'rejected'),
        ('batch.cancelled', NEW.status = 'cancelled')
    ) AS event (type, has_happened)
    WHERE has_happened AND webhook_url(NEW.client_code) IS NOT NULL;
    RETURN NULL;
END $$;

CREATE TRIGGER webhooks_follow_batches AFTER UPDATE OF status ON batches
    FOR EACH ROW WHEN (OLD.status IS DISTINCT FROM NEW.status) EXECUTE FUNCTION webhooks_follow_batches();

CREATE FUNCTION webhooks_follow_refunds() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO webhook_deliveries (client_code, type, batch_id, request_id, status_then)
    SELECT client_code, 'refund.completed', batch_id, NEW.request_id, CASE
        WHEN EXISTS (SELECT FROM refunds WHERE request_id = NEW.request_id AND status = 'declined')
        THEN 'completed_with_errors' ELSE 'completed' END
    FROM batches WHERE batch_id = NEW.batch_id AND webhook_url(client_code) IS NOT NULL;
    RETURN NULL;
END $$;

CREATE TRIGGER webhooks_follow_refunds AFTER UPDATE OF finished_at ON refund_requests
    FOR EACH ROW WHEN (OLD.finished_at IS NULL AND NEW.finished_at IS NOT NULL) EXECUTE FUNCTION webhooks_follow_refunds();
