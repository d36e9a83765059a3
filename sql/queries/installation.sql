-- name: installation
-- Which installation this is, how far its ledger is, and whether it is whole as far as is known.
SELECT installation_id, generation, mark, whole_at, created_at, seen_as, stopped_at, stopped_by, unread_since, unread_why,
       unlisted_since,
       clock_timestamp() AS asked_at, running_database() AS running,
       (seen_as = running_database() AND CAST(xmin AS text) = CAST(CAST(written_by AS xid) AS text)) IS TRUE AS is_same
FROM installation

-- name: is_database_gone
-- Whether a running database is none of this server any more, as far as this server can tell.
SELECT split_part(:database, '|', 2) = split_part(running_database(), '|', 2)
   AND NOT EXISTS (SELECT FROM pg_database WHERE CAST(oid AS text) = split_part(:database, '|', 1))

-- name: standing
-- Whether nothing may be paid for a batch, and whether another database runs than the one that was found whole.
SELECT ledgers_differ(:batch_id) AS is_held, stopped_at IS NOT NULL AS is_stopped, unlisted_since,
       seen_as IS NOT NULL AND (seen_as = running_database() AND CAST(xmin AS text) = CAST(CAST(written_by AS xid) AS text))
       IS NOT TRUE AS is_other
FROM installation

-- name: see_whole
-- The ledger is whole up to a moment, as this running database has it; without a list, nobody knows up to when.
UPDATE installation SET whole_at = CASE WHEN CAST(:is_listed AS boolean)
                                   THEN greatest(whole_at, CAST(:whole_at AS timestamptz)) ELSE whole_at END,
                        seen_as = running_database(),
                        unlisted_since = CASE WHEN NOT CAST(:is_listed AS boolean) THEN clock_timestamp() END,
                        seen_since = CASE WHEN seen_as = running_database()
                                           AND CAST(xmin AS text) = CAST(CAST(written_by AS xid) AS text)
                                     THEN seen_since ELSE clock_timestamp() END,
                        unread_since = NULL, unread_why = NULL
WHERE stopped_at IS NULL

-- name: note_unread
-- The list that was to be compared could not be read, so this running database was not found whole.
UPDATE installation SET unread_since = coalesce(unread_since, clock_timestamp()), unread_why = :why, seen_as = 'not compared'
WHERE unread_why IS DISTINCT FROM :why

-- name: raise_mark
-- The ledger is whole up to a moment, and its mark is raised.
UPDATE installation SET mark = mark + 1, seen_as = running_database(),
                        whole_at = CASE WHEN unlisted_since IS NULL
                                   THEN greatest(whole_at, CAST(:whole_at AS timestamptz)) ELSE whole_at END
WHERE stopped_at IS NULL RETURNING mark

-- name: stop_paying
-- Nothing is paid or refunded any more.
UPDATE installation SET stopped_at = coalesce(stopped_at, clock_timestamp()), stopped_by = :stopped_by
WHERE stopped_at IS NULL OR (stopped_by = 'another' AND :stopped_by <> 'another')

-- name: storage_is_its_own
-- No other database uses the storage any more.
UPDATE installation SET stopped_at = NULL, stopped_by = NULL WHERE stopped_by = 'another'

-- name: take_installation
-- A database in which nothing was ever paid takes over the installation whose storage it has.
UPDATE installation SET installation_id = :installation_id, generation = :generation, whole_at = least(
    CAST(:whole_at AS timestamptz), (SELECT min(created_at) FROM payments))
WHERE mark = 0

-- name: count_unknown_charges
-- How many of some payments have a charge, or refunded yen (-1: unreadable), that neither our ledger nor a finding has.
SELECT count(*)
FROM unnest(CAST(:payment_ids AS uuid[]), CAST(:refunded AS bigint[])) AS charged (payment_id, refunded)
LEFT JOIN payments USING (payment_id)
CROSS JOIN LATERAL (
    SELECT coalesce(sum(amount), 0) AS yen FROM refunds
    WHERE refunds.payment_id = charged.payment_id AND refunds.status IN ('sending', 'unknown', 'succeeded')
) AS ours
WHERE (payments.payment_id IS NULL OR payments.status IN ('planned', 'declined', 'cancelled') OR refunded > ours.yen)
  AND NOT EXISTS (
      SELECT FROM reconciliation_findings AS finding
      WHERE closed_at IS NULL AND finding.payment_id = charged.payment_id
        AND code IN ('C_MISSING_HERE', 'C_STATE_DIFFERS', 'C_REFUND_MISSING_HERE', 'C_UNREADABLE')
        AND coalesce(CAST(detail -> 'theirs' ->> 'refunded' AS bigint), refunded) >= refunded)

-- name: lift_stop
-- The ledger was compared from its last whole moment on.
UPDATE installation SET stopped_at = NULL, stopped_by = NULL, unread_since = NULL, unread_why = NULL,
                        unlisted_since = CASE WHEN NOT CAST(:is_listed AS boolean) THEN clock_timestamp() END,
                        resumed_by = :who, resumed_why = :why, generation = greatest(generation, :generation) + 1,
                        mark = mark + 1, seen_as = running_database(), seen_since = clock_timestamp(),
                        whole_at = CASE WHEN CAST(:is_listed AS boolean) THEN CAST(:whole_at AS timestamptz) ELSE whole_at END
WHERE num_nonnulls(stopped_at, unread_since) > 0
