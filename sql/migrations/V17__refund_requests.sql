-- Refunds in the order in which people and programs asked for them: each request has the refunds that were written for it.

CREATE TABLE refund_requests (
    request_id   uuid CONSTRAINT refund_requests_pkey PRIMARY KEY DEFAULT gen_random_uuid(),
    batch_id     text COLLATE "C" NOT NULL CONSTRAINT refund_requests_batch_id_fkey REFERENCES batches,
    requested_by text NOT NULL CONSTRAINT refund_requests_requested_by_given CHECK (requested_by <> ''),
    created_at   timestamptz NOT NULL DEFAULT now(),
    finished_at  timestamptz
);
CREATE INDEX refund_requests_batch ON refund_requests (batch_id);
COMMENT ON TABLE refund_requests IS
    'What was asked for at once, by a command or through the batch API; written with its refunds.';
COMMENT ON COLUMN refund_requests.requested_by IS 'The person, or the client and token.';
COMMENT ON COLUMN refund_requests.finished_at IS
    'When the last of its refunds was made or declined; null: one is open. Corrections may follow.';
SELECT audit_watch('refund_requests', 'phi_modification');

ALTER TABLE refunds ADD COLUMN request_id uuid CONSTRAINT refunds_request_id_fkey REFERENCES refund_requests;
CREATE INDEX refunds_request ON refunds (request_id) WHERE request_id IS NOT NULL;
COMMENT ON COLUMN refunds.request_id IS 'With which others it was asked for; null: before that was kept.';
SELECT audit_watch('refunds', 'phi_modification', '{reason}');

ALTER TABLE api_requests ADD COLUMN request_id uuid CONSTRAINT api_requests_request_id_fkey REFERENCES refund_requests;
CREATE INDEX api_requests_refund ON api_requests (request_id) WHERE request_id IS NOT NULL;
COMMENT ON TABLE api_requests IS
    'Requests that made a batch or asked for a refund, by their idempotency key; written with it, and forgotten after 30 days.';
COMMENT ON COLUMN api_requests.batch_id IS 'What was made of it, or what the refund is of.';
COMMENT ON COLUMN api_requests.request_id IS 'The refund that it asked for; null: it made a batch.';
