-- name: insert_batch
-- Register a file that was seen for the first time.
INSERT INTO batches (batch_id, client_code, csv_source, landing_key, landing_version, source_sha256, source_bytes,
                     again_no, bulk_import_group, via, submitted_by)
VALUES (:batch_id, :client_code, :csv_source, :landing_key, :landing_version, :source_sha256, :source_bytes,
        :again_no, :batch_id, :via, :submitted_by)
ON CONFLICT DO NOTHING

-- name: moment
-- When this transaction began.
SELECT now()

-- name: is_batch
-- Whether there is a batch with this id.
SELECT EXISTS (SELECT FROM batches WHERE batch_id = :batch_id)

-- name: batch
-- One batch, by its key.
SELECT * FROM batches WHERE batch_id = :batch_id

-- name: batch_progress
-- One batch with the counts and yen of its orders, payments and notifications.
SELECT * FROM batches JOIN batch_counts USING (batch_id) WHERE batch_id = :batch_id

-- name: recent_batches
-- The newest batches, of one client, in some states or of some time, each with its kept summary where that is up to date.
SELECT newest.batch_id, newest.received_at, kept.summary
FROM (SELECT batch_id, received_at FROM batches
      WHERE (CAST(:client_code AS text) IS NULL OR client_code = :client_code)
        AND (CAST(:statuses AS text[]) IS NULL OR status = ANY (CAST(:statuses AS text[])))
        AND (CAST(:since AS timestamptz) IS NULL OR received_at >= CAST(:since AS timestamptz))
      ORDER BY received_at DESC, batch_id DESC LIMIT :limit) AS newest
LEFT JOIN batch_summaries AS kept ON kept.batch_id = newest.batch_id AND kept.schema_rank = batch_summaries_rank()
ORDER BY received_at DESC, newest.batch_id DESC

-- name: oldest_unfinished
-- The oldest batches that have not ended, without those that have just come.
SELECT batch_id, received_at, status FROM batches
WHERE finished_at IS NULL AND (CAST(:client_code AS text) IS NULL OR client_code = :client_code)
  AND (status <> 'received' OR received_at < now() - make_interval(secs => :patience_s))
ORDER BY received_at, batch_id LIMIT :limit

-- name: lock_summary
-- Lock a batch against all changes until this transaction is over; false where somebody has begun one.
SELECT pg_try_advisory_xact_lock(batch_summaries_lock_class(), hashtext(:batch_id))

-- name: keep_summary
-- What a finished batch came to, until something of it changes.
INSERT INTO batch_summaries (batch_id, schema_rank, summary)
SELECT batch_id, batch_summaries_rank(), CAST(:summary AS json) FROM batches
WHERE batch_id = :batch_id AND finished_at IS NOT NULL
ON CONFLICT (batch_id) DO UPDATE SET schema_rank = excluded.schema_rank, summary = excluded.summary

-- name: batch_of_landed_version
-- The batch that a version of a landed file is.
SELECT batch_id FROM batches WHERE landing_key = :landing_key AND landing_version = :landing_version

-- name: batch_with_same_bytes
-- A client's newest batch of the same bytes that was not refused; it counts unless it was cancelled unpaid.
SELECT batch_id, again_no, status <> 'cancelled' OR is_paid_in_part(batch_id) AS counts
FROM batches
WHERE client_code = :client_code AND source_sha256 = :source_sha256 AND duplicate_of IS NULL AND status <> 'rejected'
ORDER BY again_no DESC LIMIT 1

-- name: set_source
-- What the archived bytes are; whether they came before is looked up each time.
UPDATE batches SET source_sha256 = :source_sha256, source_bytes = :source_bytes, duplicate_of = NULL
WHERE batch_id = :batch_id

-- name: set_source_again
-- The same bytes came before, and the client may send them again: the next repeat.
UPDATE batches SET source_sha256 = :source_sha256, source_bytes = :source_bytes, duplicate_of = NULL, again_no = :again_no
WHERE batch_id = :batch_id

-- name: set_control
-- What the client says of its file: the manifest beside it and the sequence number in its name.
UPDATE batches SET manifest = CAST(:manifest AS jsonb), sequence_series = :series, sequence_number = :number
WHERE batch_id = :batch_id

-- name: latest_before
-- The highest number below this one in a client's series.
SELECT max(sequence_number) FROM batches
WHERE client_code = :client_code AND sequence_series = :series AND sequence_number < :number

-- name: set_duplicate
-- The same bytes came before, as another batch.
UPDATE batches SET source_sha256 = :source_sha256, source_bytes = :source_bytes, duplicate_of = :duplicate_of
WHERE batch_id = :batch_id

-- name: set_staged
-- What staging learned of the file.
UPDATE batches SET status = 'staged', status_code = NULL, encoding = :encoding,
                   source_layout = CAST(:source_layout AS jsonb), corrects = :corrects,
                   bulk_import_group = :bulk_import_group,
                   rows_total = :rows_total, rows_blank = :rows_blank, rows_skipped = :rows_skipped,
                   file_sha256 = CAST(:file_sha256 AS jsonb)
WHERE batch_id = :batch_id AND status = 'received'

-- name: note_correction
-- A batch that was just registered corrects rows of another one of its client.
UPDATE batches SET corrects = :corrects, bulk_import_group = corrected.bulk_import_group
FROM (SELECT client_code, bulk_import_group FROM batches WHERE batch_id = :corrects) AS corrected
WHERE batch_id = :batch_id AND batches.client_code = corrected.client_code

-- name: set_validated
-- What validation decided; the rows are not loaded yet. Those that were received before are skipped too.
UPDATE batches SET status = 'validated', status_code = NULL, rows_accepted = :rows_accepted,
                   rows_continuing = :rows_continuing, rows_rejected = :rows_rejected,
                   rows_skipped = rows_total - rows_blank - :rows_accepted - :rows_rejected,
                   amount_accepted = :amount_accepted, approval_above = :approval_above,
                   cells_normalised = CAST(:cells_normalised AS jsonb),
                   file_sha256 = file_sha256 || CAST(:file_sha256 AS jsonb)
WHERE batch_id = :batch_id AND status = 'staged'

-- name: file_sha256
-- What one of a batch's files was when it was left in the storage.
SELECT CASE :file WHEN 'original' THEN source_sha256 ELSE file_sha256 ->> :file END FROM batches WHERE batch_id = :batch_id

-- name: validate_again
-- Validate a batch again: what was loaded of it is removed, which is safe as nothing of it is planned yet.
WITH again AS (
    UPDATE batches SET status = 'staged' WHERE batch_id = :batch_id AND status = 'validated' RETURNING batch_id
), of_orders AS (
    DELETE FROM orders USING again WHERE orders.batch_id = again.batch_id
), of_rejections AS (
    DELETE FROM rejections USING again WHERE rejections.batch_id = again.batch_id AND import_row_number IS NOT NULL
), of_corrections AS (
    DELETE FROM corrections USING again WHERE corrections.batch_id = again.batch_id
), of_references AS (
    DELETE FROM given_up_references USING again WHERE given_up_references.batch_id = again.batch_id
)
DELETE FROM loaded_chunks USING again WHERE loaded_chunks.batch_id = again.batch_id

-- name: set_refused
-- A file is rejected as a whole: none of its rows is accepted.
UPDATE batches SET rows_accepted = 0, rows_continuing = 0, rows_rejected = rows_total - rows_blank - rows_skipped, amount_accepted = 0
WHERE batch_id = :batch_id AND status = 'staged'

-- name: set_loaded
-- The rows are orders now.
UPDATE batches SET status = 'loaded', status_code = NULL WHERE batch_id = :batch_id AND status = 'validated'

-- name: move_accepted_to_rejected
-- Rows that another batch loaded first, between validation and load.
UPDATE batches SET rows_accepted = rows_accepted - :rows, rows_continuing = rows_continuing - (:rows - :orders),
                   rows_rejected = rows_rejected + :rows, amount_accepted = amount_accepted - :amount
WHERE batch_id = :batch_id

-- name: set_status
-- Move a batch that is not finished to another state, with the reason if there is one.
-- What a person has decided stays, and what waits for approval.
UPDATE batches SET status = :status, status_code = :status_code, status_detail = CAST(:status_detail AS jsonb),
                   finished_at = CASE WHEN :status IN ('completed', 'completed_with_errors', 'rejected', 'cancelled')
                                      THEN coalesce(CAST(:at AS timestamptz), now()) END,
                   approval_requested_at = CASE WHEN :status = 'awaiting_approval'
                                           THEN coalesce(CAST(:at AS timestamptz), now()) ELSE approval_requested_at END
WHERE batch_id = :batch_id AND finished_at IS NULL
  AND (status NOT IN ('stopped', 'awaiting_approval', 'cancelling') OR (status, :status) = ('cancelling', 'cancelled'))

-- name: stop_batch
-- A person stops a batch; by a run that was terminated, unless it was resumed since that was made.
UPDATE batches SET stopped_from = status, status = 'stopped', stopped_by = :stopped_by, stopped_at = clock_timestamp()
WHERE batch_id = :batch_id AND finished_at IS NULL AND status NOT IN ('stopped', 'awaiting_approval', 'cancelling')
  AND coalesce(resumed_at < CAST(:run_made_at AS timestamptz), true)

-- name: restart_batch
-- A person resumes a batch, where it was if it is stopped; one who does so `by_run` has made that run already.
UPDATE batches SET status = coalesce(stopped_from, status), stopped_from = NULL, stopped_by = NULL, stopped_at = NULL,
                   resumed_at = CASE WHEN :by_run THEN resumed_at ELSE now() END
WHERE batch_id = :batch_id AND finished_at IS NULL AND status <> 'cancelling' AND (status = 'stopped' OR NOT :by_run)

-- name: begin_cancelling
-- Nothing of the batch is sent once this is committed, as each claim reads the state under a lock.
UPDATE batches SET status = 'cancelling', cancelled_by = :cancelled_by, cancelled_why = :cancelled_why,
                   cancelled_at = clock_timestamp(), status_code = NULL, status_detail = '{}',
                   stopped_from = NULL, stopped_by = NULL, stopped_at = NULL
WHERE batch_id = :batch_id AND finished_at IS NULL AND status <> 'cancelling'

-- name: approve_batch
-- Somebody approves a batch that waits for it: it may be paid. Runs that were asked for before do not do that.
UPDATE batches SET status = 'loaded', status_code = NULL, approval_decision = 'approved', approval_decided_by = :decided_by,
                   approval_decided_at = clock_timestamp(), resumed_at = now(), run_requested_at = NULL
WHERE batch_id = :batch_id AND status = 'awaiting_approval'

-- name: refuse_batch
-- Somebody refuses a batch that waits for approval: it is cancelled, by the next run.
UPDATE batches SET status = 'cancelling', status_code = NULL, approval_decision = 'refused',
                   approval_decided_by = :decided_by, approval_decided_at = clock_timestamp(), cancelled_by = :decided_by,
                   cancelled_why = :why, cancelled_at = clock_timestamp(), run_requested_at = NULL
WHERE batch_id = :batch_id AND status = 'awaiting_approval'

-- name: lock_halted
-- Whether a person has stopped or cancelled the batch; it stays so or not until the transaction ends.
SELECT status IN ('stopped', 'cancelling', 'cancelled') FROM batches WHERE batch_id = :batch_id FOR SHARE

-- name: is_halted
-- The same, at this moment.
SELECT status IN ('stopped', 'cancelling', 'cancelled') FROM batches WHERE batch_id = :batch_id

-- name: add_stage_seconds
-- Time spent in a stage, over all its runs.
INSERT INTO batch_stages (batch_id, stage, seconds) VALUES (:batch_id, :stage, :seconds)
ON CONFLICT (batch_id, stage) DO UPDATE SET seconds = batch_stages.seconds + excluded.seconds

-- name: stage_seconds
-- Time spent in each stage.
SELECT stage, seconds FROM batch_stages WHERE batch_id = :batch_id

-- name: group_of_batch
-- The group of a client's batch, for the file that corrects it.
SELECT bulk_import_group FROM batches WHERE batch_id = :batch_id AND client_code = :client_code

-- name: import_group
-- How many batches a file and its corrections are, how many of their rows still wait for a correction, and in which.
SELECT (SELECT count(*) FROM batches
        WHERE bulk_import_group = :bulk_import_group AND status <> 'cancelled'
          AND CASE status WHEN 'stopped' THEN stopped_from ELSE status END NOT IN ('received', 'staged', 'validated')
          AND (status <> 'rejected' OR coalesce(status_code, '') NOT LIKE 'F\_%')) AS batches,
       count(*) AS rows_open, coalesce(array_agg(DISTINCT batch_id ORDER BY batch_id), '{}') AS open_in
FROM rows_to_correct(:bulk_import_group)

-- name: rows_to_correct_in
-- The rows of one batch that wait for a correction.
SELECT import_row_number FROM rows_to_correct(:bulk_import_group) WHERE batch_id = :batch_id ORDER BY import_row_number

-- name: batches_without_run
-- Registered batches without a worker for which no run was requested lately; less often where runs fail again and again.
SELECT batch_id, client_code, csv_source, source_bytes, run_requests FROM batches
WHERE finished_at IS NULL AND status = 'received' AND (landing_key IS NOT NULL OR via = 'api')
  AND (run_requested_at IS NULL OR run_requested_at
       < now() - make_interval(secs => CASE WHEN run_requested_at <= resumed_at THEN 2 * :api_patience_s ELSE
           least(CAST(CASE via WHEN 'api' THEN :api_patience_s ELSE :patience_s END AS double precision)
                 * 2 ^ least(run_requests, 10), :longest_s) END))
  AND NOT EXISTS (SELECT FROM workers WHERE workers.batch_id = batches.batch_id AND ended_at IS NULL)
ORDER BY received_at, batch_id LIMIT :limit

-- name: stalled_batches
-- Unfinished batches without a worker that have something to do, except those that wait for a person or were stopped.
-- One that a person has resumed is offered whatever it waits for, until a run was asked for here or has begun to settle it.
SELECT batch_id, client_code, csv_source, source_bytes, run_requests, payments_due, notifications_due, false AS is_refunding
FROM batches
CROSS JOIN LATERAL (
    SELECT EXISTS (SELECT FROM payments WHERE payments.batch_id = batches.batch_id AND settled_at IS NULL
                   AND next_attempt_at <= now()) AND NOT ledgers_differ(batch_id)
           AND NOT is_held(batch_id, 'payment') AS payments_due,
           EXISTS (SELECT FROM notifications WHERE notifications.batch_id = batches.batch_id
                   AND notifications.status IN ('ready', 'sending', 'unknown')
                   AND next_attempt_at <= now()) AND NOT is_held(batch_id, 'notification') AS notifications_due,
           NOT EXISTS (SELECT FROM payments WHERE payments.batch_id = batches.batch_id AND settled_at IS NULL)
           AND NOT EXISTS (SELECT FROM notifications WHERE notifications.batch_id = batches.batch_id
                           AND notifications.status NOT IN ('sent', 'failed', 'cancelled')) AS nothing_open,
           EXISTS (SELECT FROM payments WHERE payments.batch_id = batches.batch_id AND payments.status = 'unknown'
                   AND next_attempt_at > now()) AS waits_for_look_up,
           resumed_at IS NOT NULL AND coalesce(run_requested_at <= resumed_at, true)
           AND NOT EXISTS (SELECT FROM workers WHERE workers.batch_id = batches.batch_id AND started_at >= resumed_at)
           AS is_resumed
) AS due
WHERE finished_at IS NULL AND status NOT IN ('stopped', 'awaiting_approval') AND (status <> 'received' OR (landing_key IS NULL AND via <> 'api'))
  AND idle_since < now() - make_interval(secs => CASE WHEN is_resumed THEN 0 ELSE :patience_s END)
  AND (status <> 'paused' OR is_resumed OR payments_due OR notifications_due OR nothing_open)
  AND (status <> 'cancelling' OR NOT waits_for_look_up)
  AND (run_requested_at IS NULL OR run_requested_at
       < now() - make_interval(secs => CASE WHEN is_resumed THEN :api_patience_s
                                       ELSE least(:patience_s * 2 ^ least(run_requests, 10), :longest_s) END))
ORDER BY received_at, batch_id LIMIT :limit

-- name: note_trouble
-- Why a step of a batch failed, until it succeeds.
UPDATE batches SET status_code = :code
WHERE batch_id = :batch_id AND finished_at IS NULL AND status_code IS DISTINCT FROM :code

-- name: next_try
-- When a run is requested again for a batch of which a step failed.
SELECT run_requested_at + make_interval(secs => least(:patience_s * 2 ^ least(run_requests, 10), :longest_s)) FROM batches
WHERE batch_id = :batch_id AND status IN ('received', 'staged', 'validated') AND status_code IS NOT NULL

-- name: count_run_request
-- Count a run that is requested.
UPDATE batches SET run_requests = run_requests + 1, run_requested_at = now() WHERE batch_id = :batch_id
RETURNING run_requests

-- name: forget_run_request
-- A run that was asked for was refused: none comes of it. One that was asked for since has the next number, and stays.
UPDATE batches SET run_requests = run_requests - 1, run_requested_at = NULL
WHERE batch_id = :batch_id AND run_requests = :number

-- name: client_days
-- What the files of a time came to, by client; of a file that is open, yen that are neither paid nor declined are open.
SELECT client_code, count(*) AS files, count(*) FILTER (WHERE status = 'rejected') AS files_rejected,
       coalesce(sum(rows_total), 0) AS rows, coalesce(sum(rows_rejected), 0) AS rows_rejected,
       sum(amount_paid) AS amount_paid, sum(amount_declined) AS amount_declined,
       sum(amount_loaded - amount_paid - amount_declined - amount_refunded - amount_cancelled) AS amount_open
FROM batches JOIN batch_counts USING (batch_id)
WHERE received_at >= CAST(:since AS timestamptz) AND received_at < CAST(:until AS timestamptz)
GROUP BY client_code ORDER BY amount_paid DESC, client_code

-- name: count_batches_of_client
-- How many files a client has sent.
SELECT count(*) FROM batches WHERE client_code = :client_code

-- name: plan_by_index
-- Plan this transaction's statements by index: they take few rows of many, whatever the statistics say.
SELECT set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true),
       set_config('enable_sort', 'off', true), set_config('enable_hashjoin', 'off', true),
       set_config('enable_mergejoin', 'off', true), set_config('jit', 'off', true)

-- name: server_version
-- Which PostgreSQL answers.
SELECT current_setting('server_version')

-- name: server_process
-- Which process of the server answers.
SELECT pg_backend_pid()

-- name: seconds_now
-- The database's clock.
SELECT CAST(extract(epoch FROM clock_timestamp()) AS double precision)

-- name: session_limit
-- How many sessions this login may have in this database at most: by the server, the database and the login itself.
SELECT least(
    current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
        - current_setting('reserved_connections')::int,
    (SELECT NULLIF(datconnlimit, -1) FROM pg_database WHERE datname = current_database()),
    (SELECT NULLIF(rolconnlimit, -1) FROM pg_roles WHERE rolname = session_user)
)
