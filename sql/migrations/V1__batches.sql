-- Batches: one uploaded file each, from its arrival to its end; and what the landing has shown us.

CREATE TABLE batches (
    batch_id          text COLLATE "C" CONSTRAINT batches_pkey PRIMARY KEY,
    client_code       text COLLATE "C" NOT NULL,
    csv_source        text NOT NULL,               -- the file's name as the client chose it: data, never a path
    landing_key       text COLLATE "C",            -- where it landed; null for a file imported by hand
    landing_version   text COLLATE "C",
    source_sha256     text COLLATE "C",            -- known once the bytes are archived
    source_bytes      bigint,
    again_no          integer NOT NULL DEFAULT 0,  -- n-th deliberate repeat of the same bytes
    duplicate_of      text COLLATE "C" CONSTRAINT batches_duplicate_of_fkey REFERENCES batches,
    bulk_import_group text COLLATE "C" NOT NULL,   -- the batch a corrected file belongs to; its own id otherwise
    status            text COLLATE "C" NOT NULL DEFAULT 'received',
    status_code       text COLLATE "C",            -- why it was rejected, paused or failed
    status_detail     jsonb NOT NULL DEFAULT '{}', -- safe parameters of that code's message
    encoding          text COLLATE "C",
    source_layout     jsonb,                       -- where the header lies in the bytes, line ending, BOM
    rows_total        integer,
    rows_blank        integer,
    rows_accepted     integer,
    rows_rejected     integer,
    amount_accepted   bigint,                      -- yen
    cells_normalised  jsonb NOT NULL DEFAULT '{}', -- how many cells of each column were changed to their normal form
    run_requests      integer NOT NULL DEFAULT 0,
    run_requested_at  timestamptz,
    received_at       timestamptz NOT NULL DEFAULT now(),
    finished_at       timestamptz,
    CONSTRAINT batches_status_known CHECK (status IN (
        'received', 'staged', 'validated', 'loaded', 'paying', 'paused',
        'completed', 'completed_with_errors', 'rejected', 'failed', 'cancelled')),
    CONSTRAINT batches_rows_add_up CHECK (rows_total = rows_accepted + rows_rejected + rows_blank),
    CONSTRAINT batches_landing_key UNIQUE (landing_key, landing_version)
);

-- The same bytes of a client are one batch, unless repeated on purpose.
CREATE UNIQUE INDEX batches_same_bytes ON batches (source_sha256, client_code, again_no) WHERE duplicate_of IS NULL;
CREATE INDEX batches_unfinished ON batches (received_at) WHERE finished_at IS NULL;
CREATE INDEX batches_bulk_import_group ON batches (bulk_import_group);

CREATE TABLE batch_stages (
    batch_id text COLLATE "C" NOT NULL CONSTRAINT batch_stages_batch_id_fkey REFERENCES batches,
    stage    text COLLATE "C" NOT NULL CONSTRAINT batch_stages_stage_known
             CHECK (stage IN ('stage', 'validate', 'load', 'pay', 'notify', 'report')),
    seconds  double precision NOT NULL,            -- over all runs of the stage
    CONSTRAINT batch_stages_pkey PRIMARY KEY (batch_id, stage)
);

-- The landing ledger: every version of every file seen. A version becomes a batch once it has stopped changing.
CREATE TABLE landing_files (
    key           text COLLATE "C" NOT NULL,
    version       text COLLATE "C" NOT NULL,
    size          bigint NOT NULL,
    first_seen_at timestamptz NOT NULL DEFAULT now(),
    batch_id      text COLLATE "C" CONSTRAINT landing_files_batch_id_fkey REFERENCES batches,
    CONSTRAINT landing_files_pkey PRIMARY KEY (key, version)
);

-- A worker is a process (or its run) at work on a batch. It is alive while its lease runs and its session holds
-- the advisory lock of its number; numbers are never used twice, so they also fence off a worker that was given up.
CREATE TABLE workers (
    worker_id   bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT workers_pkey PRIMARY KEY,
    batch_id    text COLLATE "C" NOT NULL CONSTRAINT workers_batch_id_fkey REFERENCES batches,
    run_id      text COLLATE "C",
    lease_until timestamptz NOT NULL,
    started_at  timestamptz NOT NULL DEFAULT now(),
    ended_at    timestamptz
);
CREATE INDEX workers_unended ON workers (batch_id) WHERE ended_at IS NULL;
