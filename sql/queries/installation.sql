-- name: installation
-- Which installation this is, how far its ledger is, and whether it is whole as far as is known.
SELECT installation_id, generation, mark, whole_at, created_at, seen_as, stopped_at, stopped_by,
       clock_timestamp() AS asked_at,
       (seen_as = running_database() AND CAST(xmin AS text) = CAST(CAST(written_by AS xid) AS text)) IS TRUE AS is_same
FROM installation

-- name: standing
-- Whether nothing may be paid for a batch, and whether another database runs than the one that was found whole.
SELECT ledgers_differ(:batch_id) AS is_held, stopped_at IS NOT NULL AS is_stopped,
       seen_as IS NOT NULL AND (seen_as = running_database() AND CAST(xmin AS text) = CAST(CAST(written_by AS xid) AS text))
       IS NOT TRUE AS is_other
FROM installation

-- name: see_whole
-- The ledger is whole up to a moment, as this running database has it.
UPDATE installation SET whole_at = greatest(whole_at, CAST(:whole_at AS timestamptz)), seen_as = running_database()
WHERE stopped_at IS NULL

-- name: raise_mark
-- The same, and it goes on.
UPDATE installation SET mark = mark + 1, whole_at = greatest(whole_at, CAST(:whole_at AS timestamptz)), seen_as = running_database()
WHERE stopped_at IS NULL RETURNING mark

-- name: stop_paying
-- Nothing is paid or refunded any more.
UPDATE installation SET stopped_at = clock_timestamp(), stopped_by = :stopped_by WHERE stopped_at IS NULL

-- name: take_installation
-- A database in which nothing was ever paid takes over the installation whose storage it has.
UPDATE installation SET installation_id = :installation_id, generation = :generation, whole_at = least(
    CAST(:whole_at AS timestamptz), (SELECT min(created_at) FROM payments))
WHERE mark = 0

-- name: count_unknown_charges
-- How many of some payments that the service has charged are not charged in our ledger.
SELECT count(*) FROM unnest(CAST(:payment_ids AS uuid[])) AS charged (payment_id) LEFT JOIN payments USING (payment_id)
WHERE payments.payment_id IS NULL OR status IN ('planned', 'declined', 'cancelled')

-- name: lift_stop
-- The ledger was compared from its last whole moment on.
UPDATE installation SET stopped_at = NULL, stopped_by = NULL, resumed_by = :who, resumed_why = :why, generation = greatest(generation, :generation) + 1,
                        mark = mark + 1, whole_at = CAST(:whole_at AS timestamptz), seen_as = running_database()
WHERE stopped_at IS NOT NULL

-- name: put_planned_in_doubt
-- What is planned and not settled may have been sent by the database that this one was put back from.
WITH doubted AS (
    UPDATE payments SET status = 'unknown', outcome_code = 'database-replaced', sent_at = clock_timestamp()
    WHERE status = 'planned' AND claimed_by IS NULL
    RETURNING payment_id
)
UPDATE orders SET status = 'unknown', status_changed_at = now()
FROM doubted JOIN payment_orders AS share USING (payment_id)
WHERE share.live AND orders.order_id = share.order_id
