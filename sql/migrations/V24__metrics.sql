-- Metrics: what all finished batches came to together, so that nobody adds up again and again what only grows; and tokens
-- that read this and nothing else.

ALTER TABLE api_tokens
    DROP CONSTRAINT api_tokens_scopes_known,
    ADD CONSTRAINT api_tokens_scopes_known CHECK (scopes = '{metrics}' OR scopes <> '{}' AND scopes <@ ARRAY[
        'batches:read', 'batches:write', 'batches:control', 'batches:approve', 'rejected:read', 'refunds:write', 'page',
        'operator']),
    DROP CONSTRAINT api_tokens_of_a_client_or_an_operator,
    ADD CONSTRAINT api_tokens_of_a_client_or_an_operator CHECK
        ((client_code IS NULL) = (scopes && ARRAY['operator', 'metrics']));
COMMENT ON COLUMN api_tokens.client_code IS
    'Whose batches it is for, and no others; null: an operator''s, for all, or one that reads metrics, for none.';

-- Of a batch that has not finished, rows may still move from accepted to rejected, and what is open may settle: what only ever
-- grows has a measure of its own.
CREATE FUNCTION batch_figures(which text) RETURNS TABLE (measure text, state text, amount bigint) LANGUAGE sql STABLE AS $$
    SELECT figure.measure, figure.state, figure.amount
    FROM batches CROSS JOIN LATERAL (VALUES
        ('batches', status, 1), ('rows', 'accepted', rows_accepted), ('rows', 'rejected', rows_rejected),
        ('rows', 'blank', rows_blank), ('rows', 'skipped', rows_skipped)
    ) AS figure (measure, state, amount)
    WHERE batch_id = which AND finished_at IS NOT NULL AND figure.amount > 0
    UNION ALL
    SELECT figure.measure, counted.state, figure.amount
    FROM (
        SELECT CASE status WHEN 'refunded' THEN 'succeeded' ELSE status END AS state, settled_at IS NULL AS is_open,
               count(*) AS payments, sum(amount) AS yen
        FROM payments WHERE batch_id = which GROUP BY 1, 2
    ) AS counted CROSS JOIN LATERAL (VALUES
        (CASE WHEN is_open THEN 'open payments' ELSE 'payments' END, payments),
        (CASE WHEN is_open THEN 'open yen' ELSE 'yen' END, yen)
    ) AS figure (measure, amount)
    UNION ALL
    SELECT CASE WHEN settled_at IS NULL THEN 'open notifications' ELSE 'notifications' END, status, count(*)
    FROM notifications WHERE batch_id = which AND kind = 'result' GROUP BY settled_at IS NULL, status
$$;
COMMENT ON FUNCTION batch_figures(text) IS
    'What a batch came to so far: rows once it has finished, payments with their yen, and notifications of results. What was '
    'paid and refunded later is still paid here.';

CREATE TABLE totals (
    measure text COLLATE "C" NOT NULL,
    state   text COLLATE "C" NOT NULL,
    amount  bigint NOT NULL,
    CONSTRAINT totals_pkey PRIMARY KEY (measure, state)
);
COMMENT ON TABLE totals IS 'batch_figures of all finished batches together, added up when each finished; for metrics alone.';
COMMENT ON COLUMN totals.measure IS 'What is counted: batches, rows, payments, yen (of payments), notifications.';
COMMENT ON COLUMN totals.state IS 'What these came to.';
INSERT INTO totals (measure, state, amount)
SELECT figure.measure, figure.state, sum(figure.amount) FROM batches CROSS JOIN LATERAL batch_figures(batch_id) AS figure
WHERE finished_at IS NOT NULL AND figure.measure NOT LIKE 'open %' GROUP BY 1, 2;

-- Last of all in its transaction: who finishes another batch waits for that alone.
CREATE FUNCTION totals_follow_batches() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO totals (measure, state, amount)
    SELECT figure.measure, figure.state, figure.amount FROM batch_figures(NEW.batch_id) AS figure
    WHERE figure.measure NOT LIKE 'open %' ORDER BY 1, 2  -- in one order, so that two do not wait for each other in a circle
    ON CONFLICT (measure, state) DO UPDATE SET amount = totals.amount + excluded.amount;
    RETURN NULL;
END $$;

CREATE CONSTRAINT TRIGGER totals_follow_batches AFTER UPDATE OF status ON batches DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (OLD.finished_at IS NULL AND NEW.finished_at IS NOT NULL) EXECUTE FUNCTION totals_follow_batches();
