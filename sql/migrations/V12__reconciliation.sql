-- Reconciliation: where the Payment service's ledger and ours differ, and what a finished batch came to in both. Whether the
-- ledger is whole at all is in V5.

CREATE TABLE reconciliation_findings (
    finding_id         bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT reconciliation_findings_pkey PRIMARY KEY,
    code               text COLLATE "C" NOT NULL,
    batch_id           text COLLATE "C" CONSTRAINT reconciliation_findings_batch_id_fkey REFERENCES batches,
    payment_id         uuid,                       -- no foreign key: a row that is lost is a finding too
    service_payment_id text COLLATE "C",
    detail             jsonb NOT NULL,
    compared_from      timestamptz NOT NULL,
    compared_to        timestamptz NOT NULL,
    first_seen_at      timestamptz NOT NULL,
    last_seen_at       timestamptz NOT NULL,
    closed_at          timestamptz,
    closed_how         text COLLATE "C",
    accepted_at        timestamptz,
    accepted_by        text,
    accepted_why       text,
    CONSTRAINT reconciliation_findings_code_known CHECK (code IN
        ('C_MISSING_THERE', 'C_MISSING_HERE', 'C_AMOUNT_DIFFERS', 'C_STATE_DIFFERS', 'C_CHARGED_TWICE',
         'C_REFUND_MISSING_THERE', 'C_REFUND_MISSING_HERE', 'C_UNREADABLE')),
    CONSTRAINT reconciliation_findings_about_a_payment CHECK (num_nonnulls(payment_id, service_payment_id) > 0),
    CONSTRAINT reconciliation_findings_closed_how_known CHECK (closed_how IN ('gone', 'healed', 'changed')),
    CONSTRAINT reconciliation_findings_closed_somehow CHECK ((closed_at IS NULL) = (closed_how IS NULL)),
    CONSTRAINT reconciliation_findings_accepted_by_somebody
        CHECK (num_nonnulls(accepted_at, nullif(accepted_by, ''), nullif(accepted_why, '')) IN (0, 3))
);

-- However often a difference is seen, it is one open finding.
CREATE UNIQUE INDEX reconciliation_findings_one_open
    ON reconciliation_findings (code, payment_id, service_payment_id) NULLS NOT DISTINCT WHERE closed_at IS NULL;
CREATE INDEX reconciliation_findings_open ON reconciliation_findings (batch_id) WHERE closed_at IS NULL;
COMMENT ON TABLE reconciliation_findings IS
    'Differences between the two ledgers, one row for each as long as it is there; written by each comparison.';
COMMENT ON COLUMN reconciliation_findings.batch_id IS 'Null where nobody knows the batch any more.';
COMMENT ON COLUMN reconciliation_findings.payment_id IS
    'Of ours, also one that our ledger has lost; null: the charge has no reference of ours.';
COMMENT ON COLUMN reconciliation_findings.service_payment_id IS 'Null: the service does not have it.';
COMMENT ON COLUMN reconciliation_findings.detail IS
    '{"ours": ..., "theirs": ...}: amounts (yen), states and ids of both sides, null where a side has nothing; never a '
    'personal value.';
COMMENT ON COLUMN reconciliation_findings.compared_from IS
    'The time between this and compared_to must be compared again as a whole before the finding can be closed.';
COMMENT ON COLUMN reconciliation_findings.closed_how IS
    'gone: a later comparison found no difference; healed: ours was unknown and has taken over what the service says; '
    'changed: it was accepted and is another difference now. Null, as closed_at, while it is open.';
COMMENT ON COLUMN reconciliation_findings.accepted_at IS
    'A person answered for it, as accepted_by and accepted_why say: it does not hold up payments any more. Null: nobody did.';
SELECT audit_watch('reconciliation_findings', 'administrative', '{accepted_why}');

CREATE FUNCTION ledgers_differ(which text) RETURNS boolean STABLE LANGUAGE sql AS $$
    SELECT EXISTS (SELECT FROM installation WHERE num_nonnulls(stopped_at, unread_since) > 0)
        OR EXISTS (SELECT FROM reconciliation_findings
                   WHERE closed_at IS NULL AND accepted_at IS NULL AND code IN ('C_MISSING_HERE', 'C_CHARGED_TWICE')
                     AND (batch_id = which OR (payment_id IS NOT NULL AND detail -> 'ours' = 'null')))
$$;
COMMENT ON FUNCTION ledgers_differ(text) IS
    'Whether paying a batch could charge what is charged already: the ledger may not be whole, one of the batch''s charges '
    'is not in it or there twice, or there are charges of ours of which nobody knows the batch any more.';

CREATE FUNCTION shares_by_row(allocations jsonb) RETURNS jsonb IMMUTABLE LANGUAGE sql AS $$
    SELECT jsonb_object_agg(coalesce(substring(key FROM '^[0-9]{8}-[0-9a-f]{12}-([0-9]{1,9})$'), key), value)
    FROM jsonb_each(allocations)
$$;
COMMENT ON FUNCTION shares_by_row(jsonb) IS
    'Yen by row, where a list gives them by the references of orders: those name a batch that had another id on another day.';

-- What a lost database has charged is found again under whichever repeat of the same bytes and try it was, since what was
-- refused or cancelled before it is lost too; and it is taken over by the rows that come to the same yen, and by no others: a
-- charge of other yen would be found under the name of what is planned for ever.
CREATE FUNCTION next_payment_id(identity text, row_numbers integer[], yen bigint) RETURNS uuid STABLE LANGUAGE plpgsql AS $$
DECLARE
    next_id uuid;
    own_no  integer := CAST(substring(identity FROM '[0-9]+$') AS integer);
    stem    text := regexp_replace(identity, '[0-9]+$', '');
BEGIN
    IF EXISTS (SELECT FROM reconciliation_findings
               WHERE closed_at IS NULL AND code = 'C_MISSING_HERE' AND detail -> 'ours' = 'null') THEN
        SELECT candidate INTO next_id
        FROM generate_series(greatest(own_no - 4, 0), own_no + 4) AS again_no CROSS JOIN generate_series(0, 4) AS try
        CROSS JOIN LATERAL stable_id(concat_ws('|', 'payment', stem || CAST(again_no AS text), row_numbers, try)) AS candidate
        WHERE (SELECT bool_or(CAST(detail -> 'theirs' ->> 'amount' AS bigint) = yen) FROM reconciliation_findings
               WHERE closed_at IS NULL AND code = 'C_MISSING_HERE' AND payment_id = candidate)
          AND NOT EXISTS (SELECT FROM payments WHERE payment_id = candidate)
        ORDER BY again_no <> own_no, again_no, try LIMIT 1;
        IF FOUND THEN
            RETURN next_id;
        END IF;
    END IF;
    FOR try IN 0..2147483646 LOOP
        next_id := stable_id(concat_ws('|', 'payment', identity, row_numbers, try));
        EXIT WHEN NOT EXISTS (SELECT FROM payments WHERE payment_id = next_id)
              AND NOT EXISTS (SELECT FROM reconciliation_findings
                              WHERE closed_at IS NULL AND code = 'C_MISSING_HERE' AND payment_id = next_id);
    END LOOP;
    RETURN next_id;
END $$;
COMMENT ON FUNCTION next_payment_id(text, integer[], bigint) IS
    'The id of the next payment for exactly these rows of a batch: it follows from batch_identity, the rows and the number '
    'of the try, which is the first that is not taken.';

CREATE TABLE batch_closings (
    closing_id        bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT batch_closings_pkey PRIMARY KEY,
    batch_id          text COLLATE "C" NOT NULL CONSTRAINT batch_closings_batch_id_fkey REFERENCES batches,
    source_sha256     text COLLATE "C",
    rows_total        integer,
    rows_accepted     integer,
    rows_rejected     integer,
    rows_blank        integer,
    orders_paid       integer NOT NULL,
    orders_declined   integer NOT NULL,
    amount_accepted   bigint,
    amount_paid       bigint NOT NULL,
    amount_declined   bigint NOT NULL,
    amount_at_service bigint NOT NULL,
    differences       text[] COLLATE "C" NOT NULL,
    figures_sha256    text COLLATE "C" NOT NULL,
    closed_at         timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT batch_closings_agree CHECK (differences <> '{}' OR amount_at_service = amount_paid)
);
CREATE INDEX batch_closings_batch ON batch_closings (batch_id, closing_id);
COMMENT ON TABLE batch_closings IS
    'What finished batches came to; added to and never changed. The newest record of a batch counts; another one follows '
    'when a later comparison says something else.';
COMMENT ON COLUMN batch_closings.rows_total IS
    'Null, like the other rows and amount_accepted, for a file that could not be read.';
COMMENT ON COLUMN batch_closings.amount_accepted IS 'Yen, as all amounts here.';
COMMENT ON COLUMN batch_closings.amount_at_service IS 'Charged there for the batch and not given back.';
COMMENT ON COLUMN batch_closings.differences IS 'The codes of its findings that are open.';
COMMENT ON COLUMN batch_closings.figures_sha256 IS 'Over all of the columns above but closing_id, as canonical JSON.';
SELECT audit_watch('batch_closings', 'administrative');
REVOKE UPDATE, DELETE ON batch_closings FROM orders_app;
