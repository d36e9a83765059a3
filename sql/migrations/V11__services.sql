-- Services: what all processes know of the Payment and the Notification service together, so that they call them as one: which
-- fails, how much may be sent, and what was refused.

CREATE TABLE service_breakers (
    service      text COLLATE "C" CONSTRAINT service_breakers_pkey PRIMARY KEY,
    failures     integer NOT NULL DEFAULT 0,
    opened_at    timestamptz,
    probe_at     timestamptz,
    reason       text COLLATE "C",
    retries_left double precision NOT NULL DEFAULT 100,
    retries_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    rest_until   timestamptz,
    CONSTRAINT service_breakers_open_has_probe CHECK ((opened_at IS NULL) = (probe_at IS NULL))
);
COMMENT ON TABLE service_breakers IS
    'Breakers: while one is open, claims pause and single calls probe. And the retry budget: each failed call takes from it, '
    'answers and time give back; while it is used up, only first tries are made.';
COMMENT ON COLUMN service_breakers.failures IS 'Calls in a row that the service failed.';
COMMENT ON COLUMN service_breakers.opened_at IS 'Null: closed.';
COMMENT ON COLUMN service_breakers.probe_at IS 'From when on the next single call may be tried; null: closed.';
COMMENT ON COLUMN service_breakers.reason IS 'Code of the last failure; null: the last call went well.';
COMMENT ON COLUMN service_breakers.retries_left IS 'The budget, in calls, as of retries_at; it may be below zero.';
COMMENT ON COLUMN service_breakers.rest_until IS 'The service asked to be left alone until then; null: it never asked.';

CREATE TABLE rate_tokens (
    service text COLLATE "C" NOT NULL,
    slot    integer NOT NULL,
    free_at timestamptz NOT NULL,
    lent    boolean NOT NULL DEFAULT false,
    CONSTRAINT rate_tokens_pkey PRIMARY KEY (service, slot)
);
COMMENT ON TABLE rate_tokens IS
    'What keeps us inside a service''s rate: as many rows as calls a second are allowed, each for one call at a time.';
COMMENT ON COLUMN rate_tokens.free_at IS
    'When it may be used again: a while after the reply to its last use, or when its call must be over.';
COMMENT ON COLUMN rate_tokens.lent IS
    'A call has it, and nobody knows yet when that ends. False: it was given back, and may be taken before it may be used.';

CREATE TABLE service_shares (
    worker_id    bigint CONSTRAINT service_shares_pkey PRIMARY KEY
                 CONSTRAINT service_shares_worker_id_fkey REFERENCES workers,
    service      text COLLATE "C" NOT NULL,
    wanted       integer NOT NULL,
    held         integer NOT NULL,
    unseen_since timestamptz,
    CONSTRAINT service_shares_held_positive CHECK (held >= 0)
);
COMMENT ON TABLE service_shares IS
    'How many calls each worker may have under way at a service; what those that are there hold is never above the bound in '
    'the settings.';
COMMENT ON COLUMN service_shares.wanted IS 'How many calls the worker wants to have under way.';
COMMENT ON COLUMN service_shares.held IS 'How many it may have under way.';
COMMENT ON COLUMN service_shares.unseen_since IS
    'Since when the worker is not to be seen, as others first noticed: its calls may still be under way for a while. Null: '
    'it is there.';

-- Refusals: items that a service would not take, for a reason that its contract does not name. Whether such an answer is the
-- item's or the service's is told by what the service takes of the same kind meanwhile; until that is known, the batch is held.
CREATE TABLE refusals (
    item_id       uuid CONSTRAINT refusals_pkey PRIMARY KEY,
    batch_id      text COLLATE "C" NOT NULL CONSTRAINT refusals_batch_id_fkey REFERENCES batches,
    service       text COLLATE "C" NOT NULL,
    kind          text COLLATE "C" NOT NULL,
    customer_code text COLLATE "C" NOT NULL,
    code          text COLLATE "C" NOT NULL,
    times         integer NOT NULL DEFAULT 1,
    first_at      timestamptz NOT NULL DEFAULT now(),
    before_at     timestamptz,
    last_at       timestamptz NOT NULL DEFAULT now(),
    is_settled    boolean NOT NULL DEFAULT false,
    held_until    timestamptz
);
CREATE INDEX refusals_of_batch ON refusals (batch_id, kind, first_at);
CREATE INDEX refusals_of_kind ON refusals (kind, last_at);
COMMENT ON TABLE refusals IS
    'Items that a service would not take, one row an item; removed some time after their batch is finished '
    '(dagster_retention).';
COMMENT ON COLUMN refusals.item_id IS 'The payment, refund or notification.';
COMMENT ON COLUMN refusals.service IS 'payment, refund or notification.';
COMMENT ON COLUMN refusals.kind IS 'Of request: what is taken of one says nothing of another.';
COMMENT ON COLUMN refusals.code IS 'Of the last refusal.';
COMMENT ON COLUMN refusals.times IS 'How often it was refused.';
COMMENT ON COLUMN refusals.before_at IS 'Of the refusal before the last one; null: there was one only.';
COMMENT ON COLUMN refusals.is_settled IS 'The refusal is the item''s, and was dealt with.';
COMMENT ON COLUMN refusals.held_until IS
    'So long its batch waits for the service to take something of the kind; null: it does not.';

CREATE TABLE acceptances (
    kind     text COLLATE "C" NOT NULL,
    batch_id text COLLATE "C" NOT NULL CONSTRAINT acceptances_batch_id_fkey REFERENCES batches,
    asked_at timestamptz NOT NULL,
    CONSTRAINT acceptances_pkey PRIMARY KEY (kind, batch_id)
);
CREATE INDEX acceptances_lately ON acceptances (kind, asked_at);
COMMENT ON TABLE acceptances IS 'What a service last took of each kind of request from a batch; removed as refusals are.';
COMMENT ON COLUMN acceptances.asked_at IS
    'When that was sent; to the moment only while there are refusals, to the minute otherwise.';

CREATE FUNCTION is_held(which_batch text, which_service text) RETURNS boolean STABLE LANGUAGE sql AS $$
    SELECT EXISTS (SELECT FROM refusals
                   WHERE batch_id = which_batch AND service = which_service AND held_until > now() AND last_at >
                         coalesce((SELECT max(asked_at) FROM acceptances WHERE acceptances.kind = refusals.kind),
                                  '-infinity'))
$$;
COMMENT ON FUNCTION is_held(text, text) IS
    'Whether a batch waits for a service to take something of a kind of which it refused items.';
