-- Refusals: items that a service would not take, for a reason that its contract does not name. Whether such an answer is the
-- item's or the service's is told by what the service takes of the same kind meanwhile; until that is known, the batch is held.

CREATE TABLE refusals (
    item_id       uuid CONSTRAINT refusals_pkey PRIMARY KEY,  -- the payment, refund or notification
    batch_id      text COLLATE "C" NOT NULL CONSTRAINT refusals_batch_id_fkey REFERENCES batches,
    service       text COLLATE "C" NOT NULL,                  -- payment, refund or notification
    kind          text COLLATE "C" NOT NULL,                  -- of request: what is taken of one says nothing of another
    customer_code text COLLATE "C" NOT NULL,
    code          text COLLATE "C" NOT NULL,                  -- of the last refusal
    times         integer NOT NULL DEFAULT 1,
    first_at      timestamptz NOT NULL DEFAULT now(),
    before_at     timestamptz,                                -- of the refusal before the last one
    last_at       timestamptz NOT NULL DEFAULT now(),
    is_settled    boolean NOT NULL DEFAULT false,             -- it is the item's, and was dealt with
    held_until    timestamptz                                 -- so long its batch waits for the service to take something
);
CREATE INDEX refusals_of_batch ON refusals (batch_id, kind, first_at);
CREATE INDEX refusals_of_kind ON refusals (kind, last_at);

-- When that was sent which the service last took of a kind from a batch; kept to the moment only while there are refusals.
CREATE TABLE acceptances (
    kind     text COLLATE "C" NOT NULL,
    batch_id text COLLATE "C" NOT NULL CONSTRAINT acceptances_batch_id_fkey REFERENCES batches,
    asked_at timestamptz NOT NULL,
    CONSTRAINT acceptances_pkey PRIMARY KEY (kind, batch_id)
);
CREATE INDEX acceptances_lately ON acceptances (kind, asked_at);

CREATE FUNCTION is_held(which_batch text, which_service text) RETURNS boolean STABLE LANGUAGE sql AS $$
    SELECT EXISTS (SELECT FROM refusals
                   WHERE batch_id = which_batch AND service = which_service AND held_until > now() AND last_at >
                         coalesce((SELECT max(asked_at) FROM acceptances WHERE acceptances.kind = refusals.kind),
                                  '-infinity'))
$$;
