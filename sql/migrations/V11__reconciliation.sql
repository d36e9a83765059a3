-- Reconciliation: where the Payment service's ledger and ours differ, and what a finished batch came to in both.

CREATE TABLE reconciliation_findings (
    finding_id         bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT reconciliation_findings_pkey PRIMARY KEY,
    code               text COLLATE "C" NOT NULL,
    batch_id           text COLLATE "C" CONSTRAINT reconciliation_findings_batch_id_fkey REFERENCES batches,
    payment_id         uuid,                       -- of ours; no foreign key: a row that is lost is a finding too
    service_payment_id text COLLATE "C",
    detail             jsonb NOT NULL,             -- amounts, states and ids of both sides, never a personal value
    compared_from      timestamptz NOT NULL,       -- the times between which everything lies that must be compared
    compared_to        timestamptz NOT NULL,       -- again before the finding can be closed
    first_seen_at      timestamptz NOT NULL,
    last_seen_at       timestamptz NOT NULL,
    closed_at          timestamptz,
    closed_how         text COLLATE "C",
    CONSTRAINT reconciliation_findings_code_known CHECK (code IN
        ('C_MISSING_THERE', 'C_MISSING_HERE', 'C_AMOUNT_DIFFERS', 'C_STATE_DIFFERS', 'C_CHARGED_TWICE')),
    CONSTRAINT reconciliation_findings_about_a_payment CHECK (num_nonnulls(payment_id, service_payment_id) > 0),
    -- gone: a later comparison found no difference; healed: ours was unknown and has taken over what the service says
    CONSTRAINT reconciliation_findings_closed_how_known CHECK (closed_how IN ('gone', 'healed')),
    CONSTRAINT reconciliation_findings_closed_somehow CHECK ((closed_at IS NULL) = (closed_how IS NULL))
);

-- However often a difference is seen, it is one open finding.
CREATE UNIQUE INDEX reconciliation_findings_one_open
    ON reconciliation_findings (code, payment_id, service_payment_id) NULLS NOT DISTINCT WHERE closed_at IS NULL;
CREATE INDEX reconciliation_findings_open ON reconciliation_findings (batch_id) WHERE closed_at IS NULL;

-- The newest record of a batch is what it came to; another one follows when a later comparison says something else.
CREATE TABLE batch_closings (
    closing_id        bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT batch_closings_pkey PRIMARY KEY,
    batch_id          text COLLATE "C" NOT NULL CONSTRAINT batch_closings_batch_id_fkey REFERENCES batches,
    source_sha256     text COLLATE "C",
    rows_total        integer,                     -- null, like the others, for a file that could not be read
    rows_accepted     integer,
    rows_rejected     integer,
    rows_blank        integer,
    orders_paid       integer NOT NULL,
    orders_declined   integer NOT NULL,
    amount_accepted   bigint,                      -- yen
    amount_paid       bigint NOT NULL,
    amount_declined   bigint NOT NULL,
    amount_at_service bigint NOT NULL,             -- charged there for the batch and not given back
    differences       text[] COLLATE "C" NOT NULL, -- the codes of its findings that are open
    figures_sha256    text COLLATE "C" NOT NULL,   -- over all of the above as canonical JSON
    closed_at         timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT batch_closings_agree CHECK (differences <> '{}' OR amount_at_service = amount_paid)
);
CREATE INDEX batch_closings_batch ON batch_closings (batch_id, closing_id);
