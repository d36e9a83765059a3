-- Batches: one uploaded file each, from its arrival to its end; what the landing has shown; and who is at work on a batch.
-- What is counted from a batch's rows is in V13.

CREATE TABLE batches (
    batch_id          text COLLATE "C" CONSTRAINT batches_pkey PRIMARY KEY,
    client_code       text COLLATE "C" NOT NULL,
    csv_source        text NOT NULL,
    landing_key       text COLLATE "C",
    landing_version   text COLLATE "C",
    source_sha256     text COLLATE "C",
    source_bytes      bigint,
    again_no          integer NOT NULL DEFAULT 0,
    duplicate_of      text COLLATE "C" CONSTRAINT batches_duplicate_of_fkey REFERENCES batches,
    bulk_import_group text COLLATE "C" NOT NULL,
    status            text COLLATE "C" NOT NULL DEFAULT 'received',
    status_code       text COLLATE "C",
    status_detail     jsonb NOT NULL DEFAULT '{}',
    encoding          text COLLATE "C",
    source_layout     jsonb,
    rows_total        integer,
    rows_blank        integer,
    rows_accepted     integer,
    rows_rejected     integer,
    amount_accepted   bigint,
    cells_normalised  jsonb NOT NULL DEFAULT '{}',
    run_requests      integer NOT NULL DEFAULT 0,
    run_requested_at  timestamptz,
    received_at       timestamptz NOT NULL DEFAULT now(),
    finished_at       timestamptz,
    corrects          text COLLATE "C" CONSTRAINT batches_corrects_fkey REFERENCES batches,
    manifest          jsonb,
    sequence_series   text COLLATE "C",
    sequence_number   bigint,
    idle_since        timestamptz,
    stopped_from      text COLLATE "C",
    stopped_by        text,
    stopped_at        timestamptz,
    cancelled_by      text,
    cancelled_why     text,
    cancelled_at      timestamptz,
    file_sha256       jsonb NOT NULL DEFAULT '{}'
                      CONSTRAINT batches_file_sha256_by_name CHECK (jsonb_typeof(file_sha256) = 'object'),
    CONSTRAINT batches_status_known CHECK (status IN (
        'received', 'staged', 'validated', 'loaded', 'paying', 'paused', 'stopped',
        'completed', 'completed_with_errors', 'rejected', 'cancelling', 'cancelled')),
    CONSTRAINT batches_rows_add_up CHECK (rows_total = rows_accepted + rows_rejected + rows_blank),
    CONSTRAINT batches_landing_key UNIQUE (landing_key, landing_version),
    CONSTRAINT batches_sequence_complete CHECK (num_nulls(sequence_series, sequence_number) IN (0, 2)),
    CONSTRAINT batches_stopped_by_somebody CHECK
        (num_nonnulls(stopped_from, nullif(stopped_by, ''), stopped_at) IN (0, 3)
         AND (status <> 'stopped' OR stopped_at IS NOT NULL)),
    CONSTRAINT batches_cancelled_by_somebody CHECK
        (num_nonnulls(nullif(cancelled_by, ''), nullif(cancelled_why, ''), cancelled_at) IN (0, 3))
);

-- The same bytes of a client are one batch, unless repeated on purpose. Bytes of which nothing was loaded may come again, once
-- the manifest, limit or profile that refused them is mended.
CREATE UNIQUE INDEX batches_same_bytes ON batches (source_sha256, client_code, again_no)
    WHERE duplicate_of IS NULL AND status <> 'rejected';
CREATE INDEX batches_unfinished ON batches (received_at) WHERE finished_at IS NULL;
CREATE INDEX batches_received ON batches (received_at, batch_id);
CREATE INDEX batches_bulk_import_group ON batches (bulk_import_group);
CREATE INDEX batches_sequence ON batches (client_code, sequence_series, sequence_number)
    WHERE sequence_number IS NOT NULL;
COMMENT ON TABLE batches IS 'One uploaded file each, from its arrival to its end. Batches are never deleted.';
COMMENT ON COLUMN batches.batch_id IS 'YYYYMMDD- (the day in Japan) and 12 hex digits that follow from the file.';
COMMENT ON COLUMN batches.csv_source IS 'The file''s name as the client chose it: data, never a path.';
COMMENT ON COLUMN batches.landing_key IS 'Where it landed; null for a file imported by hand.';
COMMENT ON COLUMN batches.landing_version IS
    'What makes the landed file another one: its own version, its manifest''s and how often it came again; null for a file '
    'imported by hand.';
COMMENT ON COLUMN batches.source_sha256 IS 'Of the bytes; null until they are archived.';
COMMENT ON COLUMN batches.source_bytes IS 'Size of the file; null until it is archived.';
COMMENT ON COLUMN batches.again_no IS 'n-th deliberate repeat of the same bytes; 0 for the first.';
COMMENT ON COLUMN batches.duplicate_of IS 'The batch that has the same bytes already; null: none, or a repeat on purpose.';
COMMENT ON COLUMN batches.bulk_import_group IS
    'The first batch of a file and the files that correct it; its own id otherwise.';
COMMENT ON COLUMN batches.status IS
    'received -> staged -> validated -> loaded -> paying -> completed | completed_with_errors; rejected: nothing of the file '
    'was taken; paused: waits for a service or a person; stopped, cancelling -> cancelled: a person said so.';
COMMENT ON COLUMN batches.status_code IS
    'Why it was rejected or paused, or a step failed that is tried again; null otherwise.';
COMMENT ON COLUMN batches.status_detail IS 'Safe parameters of that code''s message.';
COMMENT ON COLUMN batches.encoding IS 'Of the text, as found; null until staged.';
COMMENT ON COLUMN batches.source_layout IS
    'Where the header lies in the bytes, delimiter, line ending, BOM, names of columns; null until staged.';
COMMENT ON COLUMN batches.rows_total IS 'Rows below the header, blank ones among them; null until staged.';
COMMENT ON COLUMN batches.rows_accepted IS 'Rows that are or become orders; null, as rows_rejected, until validated.';
COMMENT ON COLUMN batches.amount_accepted IS 'Yen of the accepted rows; null until validated.';
COMMENT ON COLUMN batches.cells_normalised IS 'By column, how many cells were changed to their normal form.';
COMMENT ON COLUMN batches.run_requests IS 'How often a run was asked for; the wait for the next grows with it.';
COMMENT ON COLUMN batches.run_requested_at IS
    'The last time; null: never, or a worker was lost and a run may be asked for at once.';
COMMENT ON COLUMN batches.finished_at IS 'Null until it is completed, completed_with_errors, rejected or cancelled.';
COMMENT ON COLUMN batches.corrects IS 'The batch whose rejected rows this file corrects, as it names it itself; null: none.';
COMMENT ON COLUMN batches.manifest IS
    'Control totals as the client sent them: sha256, row_count, amount_total; null: none came.';
COMMENT ON COLUMN batches.sequence_series IS
    'What the file''s name says: numbers count within a series. Null where the client''s names have no number.';
COMMENT ON COLUMN batches.idle_since IS
    'Since when nobody works on it, as far as was looked; null: somebody does, or nobody looked yet.';
COMMENT ON COLUMN batches.stopped_from IS
    'The state it goes on from when a person says so; null, as stopped_by and stopped_at, unless stopped.';
COMMENT ON COLUMN batches.cancelled_at IS
    'Nothing is sent from then on; null, as cancelled_by and cancelled_why, unless a person cancelled it.';
COMMENT ON COLUMN batches.file_sha256 IS
    'By name, the SHA-256 of the files that its steps leave in the storage for the next ones: whoever may write there cannot '
    'put others in their place. The original''s is source_sha256.';
SELECT audit_watch('batches', 'administrative', '{csv_source,landing_key,cancelled_why}');

CREATE FUNCTION batch_identity(which text) RETURNS text STABLE LANGUAGE sql AS $$
    SELECT concat_ws('|', installation_id, client_code, coalesce(source_sha256, batch_id), again_no)
    FROM batches CROSS JOIN installation WHERE batch_id = which
$$;
COMMENT ON FUNCTION batch_identity(text) IS
    'What a batch is in this installation, on whatever day and wherever its bytes come from: ids of payments and '
    'notifications follow from it.';

CREATE TABLE batch_stages (
    batch_id text COLLATE "C" NOT NULL CONSTRAINT batch_stages_batch_id_fkey REFERENCES batches,
    stage    text COLLATE "C" NOT NULL CONSTRAINT batch_stages_stage_known
             CHECK (stage IN ('stage', 'validate', 'load', 'pay', 'notify', 'report')),
    seconds  double precision NOT NULL,
    CONSTRAINT batch_stages_pkey PRIMARY KEY (batch_id, stage)
);
COMMENT ON TABLE batch_stages IS 'How long each stage of a batch took.';
COMMENT ON COLUMN batch_stages.seconds IS 'Over all runs of the stage.';

CREATE TABLE landing_files (
    key           text COLLATE "C" NOT NULL,
    version       text COLLATE "C" NOT NULL,
    size          bigint NOT NULL,
    first_seen_at timestamptz NOT NULL DEFAULT now(),
    batch_id      text COLLATE "C" CONSTRAINT landing_files_batch_id_fkey REFERENCES batches,
    CONSTRAINT landing_files_pkey PRIMARY KEY (key, version)
);
CREATE INDEX landing_files_waiting ON landing_files (key, version) WHERE batch_id IS NULL;
COMMENT ON TABLE landing_files IS
    'The landing ledger: every version of every order file seen. A version becomes a batch once it has stopped changing; one '
    'that was replaced or removed before that is forgotten.';
COMMENT ON COLUMN landing_files.key IS 'The file''s name in the landing, which nobody else is shown.';
COMMENT ON COLUMN landing_files.version IS 'Of the file''s bytes and of its manifest.';
COMMENT ON COLUMN landing_files.size IS 'Bytes.';
COMMENT ON COLUMN landing_files.batch_id IS 'Null while it waits.';

CREATE TABLE landing_position (
    one       boolean CONSTRAINT landing_position_pkey PRIMARY KEY DEFAULT true,
    after_key text COLLATE "C" NOT NULL
);
COMMENT ON TABLE landing_position IS
    'Where the last look at the landing stopped; one row. A position in the listing, not in time: without it the next look '
    'begins at the first key.';
COMMENT ON COLUMN landing_position.one IS 'Always true: there is one row.';
COMMENT ON COLUMN landing_position.after_key IS 'A file''s name, which nobody else is shown; empty: the look came to the end.';

CREATE TABLE landing_left_alone (
    key        text COLLATE "C" CONSTRAINT landing_left_alone_pkey PRIMARY KEY,
    seen_again boolean NOT NULL DEFAULT false,
    is_refused boolean NOT NULL DEFAULT false
);
COMMENT ON TABLE landing_left_alone IS 'What lies in the landing and becomes no batch, so that people can be told of it.';
COMMENT ON COLUMN landing_left_alone.key IS 'A file''s name, which nobody else is shown.';
COMMENT ON COLUMN landing_left_alone.seen_again IS 'By a second look: it is no upload that only has another name first.';
COMMENT ON COLUMN landing_left_alone.is_refused IS
    'An order file of which nothing came, until what refused it is over; false: it is none.';

CREATE TABLE workers (
    worker_id   bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT workers_pkey PRIMARY KEY,
    batch_id    text COLLATE "C" NOT NULL CONSTRAINT workers_batch_id_fkey REFERENCES batches,
    run_id      text COLLATE "C",
    lease_until timestamptz NOT NULL,
    started_at  timestamptz NOT NULL DEFAULT now(),
    ended_at    timestamptz
);
CREATE INDEX workers_unended ON workers (batch_id) WHERE ended_at IS NULL;
COMMENT ON TABLE workers IS
    'A worker is a process (or its run) at work on a batch. It is alive while its lease runs and its session holds the '
    'advisory lock of its number.';
COMMENT ON COLUMN workers.worker_id IS 'Never used twice, so it also fences off a worker that was given up.';
COMMENT ON COLUMN workers.run_id IS 'Dagster''s run; null for a command.';
COMMENT ON COLUMN workers.lease_until IS 'Renewed by the worker while it is there.';
COMMENT ON COLUMN workers.ended_at IS 'It left, or others gave it up; null: it is at work.';

CREATE TABLE batch_locks (
    batch_id text COLLATE "C" CONSTRAINT batch_locks_pkey PRIMARY KEY,
    lock_no  bigint NOT NULL
);
COMMENT ON TABLE batch_locks IS
    'Who stages, validates or loads a batch: each who begins takes the next number, and who has an older one records nothing.';
COMMENT ON COLUMN batch_locks.lock_no IS 'Of who began last.';
