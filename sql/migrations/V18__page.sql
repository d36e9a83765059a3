-- The page: tokens of operators, sessions of browsers, and the rows that wait for a correction.

ALTER TABLE api_tokens ALTER COLUMN client_code DROP NOT NULL;
ALTER TABLE api_tokens
    DROP CONSTRAINT api_tokens_scopes_known,
    ADD CONSTRAINT api_tokens_scopes_known CHECK (scopes <> '{}' AND scopes <@ ARRAY[
        'batches:read', 'batches:write', 'batches:control', 'rejected:read', 'refunds:write', 'page', 'operator']),
    ADD CONSTRAINT api_tokens_of_a_client_or_an_operator CHECK ((client_code IS NULL) = ('operator' = ANY (scopes)));
COMMENT ON COLUMN api_tokens.client_code IS 'Whose batches it is for, and no others; null: an operator''s, for all.';
SELECT audit_watch('api_tokens', 'security', batch => 'NULL::text');

CREATE TABLE api_sessions (
    session_sha256 bytea CONSTRAINT api_sessions_pkey PRIMARY KEY
        CONSTRAINT api_sessions_secret_hashed CHECK (length(session_sha256) = 32),
    token_id       text COLLATE "C" CONSTRAINT api_sessions_token_id_fkey REFERENCES api_tokens,
    client_code    text COLLATE "C",
    actor          text NOT NULL,
    scopes         text[] NOT NULL CONSTRAINT api_sessions_scopes_some CHECK (scopes <> '{}'),
    created_at     timestamptz NOT NULL DEFAULT now(),
    last_used_at   timestamptz NOT NULL DEFAULT now(),
    ended_at       timestamptz,
    CONSTRAINT api_sessions_of_a_client_or_an_operator CHECK ((client_code IS NULL) = ('operator' = ANY (scopes)))
);
CREATE INDEX api_sessions_created ON api_sessions (created_at);
COMMENT ON TABLE api_sessions IS 'Browsers that are signed in to the page; forgotten after 30 days.';
COMMENT ON COLUMN api_sessions.session_sha256 IS 'Of what the browser''s cookie says, 256 random bits that are kept nowhere.';
COMMENT ON COLUMN api_sessions.token_id IS 'The token that was signed in with, and without which it ends; null: the link that `up` shows.';
COMMENT ON COLUMN api_sessions.client_code IS 'Whose batches are shown; null: an operator''s session, for all.';
COMMENT ON COLUMN api_sessions.actor IS 'Who it is, for the audit.';
COMMENT ON COLUMN api_sessions.scopes IS 'What may be done in it.';
COMMENT ON COLUMN api_sessions.last_used_at IS 'Its last use, to some minutes; it ends 8 hours after that, and 24 hours after it began.';
COMMENT ON COLUMN api_sessions.ended_at IS 'When somebody signed out; null: nobody did.';
SELECT audit_watch('api_sessions', 'authentication', batch => 'NULL::text');

CREATE FUNCTION rows_to_correct(of_group text) RETURNS TABLE (batch_id text, import_row_number integer)
LANGUAGE sql STABLE AS $$
    WITH members AS (
        SELECT batches.batch_id, received_at, status = 'cancelled' AS is_cancelled FROM batches
        WHERE bulk_import_group = of_group
          AND CASE status WHEN 'stopped' THEN stopped_from ELSE status END NOT IN ('received', 'staged', 'validated')
          AND (status <> 'rejected' OR coalesce(status_code, '') NOT LIKE 'F\_%')
    ), rejected AS (
        SELECT rejections.batch_id, rejections.import_row_number,
               bool_and(code IN ('R_REF_DUP_IN_FILE', 'R_REF_EXISTS'))
               OR bool_or(code IN ('R_REF_SPENT', 'R_CORRECTED_BEFORE', 'R_CORRECTED_ROW')) AS repeats,
               bool_or(code IN ('R_EXAMPLE_ROW', 'R_TOTAL_ROW')) AS is_none
        FROM rejections JOIN members USING (batch_id)
        WHERE rejections.import_row_number IS NOT NULL AND NOT is_cancelled
        GROUP BY rejections.batch_id, rejections.import_row_number
    ), corrected AS (
        SELECT corrections.batch_id, corrections.import_row_number, coalesce(first_batch, corrects) AS first_batch,
               coalesce(first_row, corrects_row) AS first_row
        FROM corrections JOIN members USING (batch_id)
        WHERE NOT is_cancelled
           OR EXISTS (SELECT FROM orders WHERE orders.batch_id = corrections.batch_id
                      AND orders.import_row_number = corrections.import_row_number AND orders.status <> 'cancelled')
    ), tries AS (
        SELECT batch_id, import_row_number, coalesce(first_batch, batch_id) AS first_batch,
               coalesce(first_row, import_row_number) AS first_row, received_at, coalesce(is_none, false) AS is_none,
               coalesce(repeats, true) AS is_answered, repeats IS NULL AS is_order
        FROM rejected FULL JOIN corrected USING (batch_id, import_row_number) JOIN members USING (batch_id)
    )
    SELECT (array_agg(tries.batch_id ORDER BY received_at DESC, tries.batch_id DESC))[1],
           (array_agg(tries.import_row_number ORDER BY received_at DESC, tries.batch_id DESC))[1]
    FROM tries
    GROUP BY first_batch, first_row
    HAVING NOT bool_or(is_order OR is_none)
       AND NOT (array_agg(is_answered ORDER BY received_at DESC, tries.batch_id DESC))[1]
$$;
COMMENT ON FUNCTION rows_to_correct(text) IS
    'The rejected rows of a file and its corrections that wait for a correction. However often it was tried, a row is one, '
    'named by where it came first, and waits in the newest try. It waits no more when it became an order, when it repeats '
    'one that was received, or when it is none.';
