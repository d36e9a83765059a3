-- The batch API: tokens of clients, requests that made a batch, and how each batch came in.

CREATE TABLE api_tokens (
    token_id      text COLLATE "C" CONSTRAINT api_tokens_pkey PRIMARY KEY,
    client_code   text COLLATE "C" NOT NULL,
    name          text NOT NULL,
    scopes        text[] NOT NULL,
    secret_sha256 bytea NOT NULL CONSTRAINT api_tokens_secret_hashed CHECK (length(secret_sha256) = 32),
    created_by    text NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now(),
    expires_at    timestamptz NOT NULL,
    revoked_at    timestamptz,
    last_used_at  timestamptz,
    CONSTRAINT api_tokens_scopes_known CHECK (scopes <> '{}' AND scopes <@ ARRAY[
        'batches:read', 'batches:write', 'batches:control', 'rejected:read', 'refunds:write', 'page']),
    CONSTRAINT api_tokens_expire_in_time CHECK (expires_at <= created_at + interval '401 days')
);
COMMENT ON TABLE api_tokens IS 'What clients'' programs are known by at the batch API. Tokens are revoked, never deleted.';
COMMENT ON COLUMN api_tokens.token_id IS 'The token''s public part, by which it is looked up.';
COMMENT ON COLUMN api_tokens.client_code IS 'Whose batches it is for, and no others.';
COMMENT ON COLUMN api_tokens.name IS 'What people call it.';
COMMENT ON COLUMN api_tokens.scopes IS 'What may be done with it.';
COMMENT ON COLUMN api_tokens.secret_sha256 IS 'Of its secret part, 256 random bits that are kept nowhere.';
COMMENT ON COLUMN api_tokens.created_by IS 'Who made it.';
COMMENT ON COLUMN api_tokens.expires_at IS 'It is worth nothing from then on.';
COMMENT ON COLUMN api_tokens.revoked_at IS 'It is worth nothing from then on; null: nobody revoked it.';
COMMENT ON COLUMN api_tokens.last_used_at IS 'The hour of its last use; null: never.';
SELECT audit_watch('api_tokens', 'security', batch => 'NULL::text');

CREATE TABLE api_requests (
    client_code text COLLATE "C" NOT NULL,
    key_sha256  bytea NOT NULL,
    fingerprint bytea NOT NULL,
    batch_id    text COLLATE "C" NOT NULL CONSTRAINT api_requests_batch_id_fkey REFERENCES batches,
    created_at  timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT api_requests_pkey PRIMARY KEY (client_code, key_sha256)
);
CREATE INDEX api_requests_created ON api_requests (created_at);
COMMENT ON TABLE api_requests IS
    'Requests that made a batch, by their idempotency key; written with the batch, and forgotten after 30 days.';
COMMENT ON COLUMN api_requests.key_sha256 IS 'Of the Idempotency-Key: what clients put into it is none of ours.';
COMMENT ON COLUMN api_requests.fingerprint IS 'SHA-256 of all that makes the request the one it is.';
COMMENT ON COLUMN api_requests.batch_id IS 'What was made of it.';

ALTER TABLE batches
    ADD COLUMN via text COLLATE "C" NOT NULL DEFAULT 'landing'
        CONSTRAINT batches_via_known CHECK (via IN ('landing', 'command', 'api')),
    ADD COLUMN submitted_by text,
    ADD CONSTRAINT batches_submitted_by_somebody CHECK (via <> 'api' OR coalesce(submitted_by, '') <> '');
UPDATE batches SET via = 'command' WHERE landing_key IS NULL;
CREATE INDEX batches_of_client ON batches (client_code, received_at, batch_id);
COMMENT ON COLUMN batches.via IS 'How it came in: from the landing, by a command, or through the batch API.';
COMMENT ON COLUMN batches.submitted_by IS 'The client and token (or user) that sent it; null where no such is known.';
SELECT audit_watch('batches', 'administrative', '{csv_source,landing_key,cancelled_why}');
