-- Whether the ledger is whole: a database that was put back to an earlier time does not know what was paid since. How far the
-- ledger was is kept in the storage as well; and where another database runs than at the last look, the service's list is asked.

ALTER TABLE installation
    ADD COLUMN mark       bigint NOT NULL DEFAULT 0,                       -- goes up with all that is paid and refunded
    ADD COLUMN seen_as    text COLLATE "C",                                -- the running database that was found whole; null: none
    ADD COLUMN written_by xid8,                                            -- not the row's own transaction: it was copied here
    ADD COLUMN whole_at   timestamptz NOT NULL DEFAULT now(),              -- nothing is missing that was paid before
    ADD COLUMN stopped_at timestamptz,                                     -- nothing is paid or refunded until it is reconciled
    ADD COLUMN stopped_by text COLLATE "C",
    ADD COLUMN resumed_by text,                                            -- who answered for it where nothing could be compared
    ADD COLUMN resumed_why text,
    ADD CONSTRAINT installation_stopped_by_known CHECK (stopped_by IN ('storage', 'service')),
    ADD CONSTRAINT installation_stopped_by_something CHECK ((stopped_at IS NULL) = (stopped_by IS NULL));
SELECT audit_watch('installation', 'security', '{resumed_why}', batch => 'NULL::text');

CREATE FUNCTION installation_is_written() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.written_by := pg_current_xact_id();
    RETURN NEW;
END $$;
CREATE TRIGGER installation_is_written BEFORE UPDATE ON installation
    FOR EACH ROW EXECUTE FUNCTION installation_is_written();

-- Which database this is, since its server was started: whoever restores one makes another, or starts the server anew.
CREATE FUNCTION running_database() RETURNS text STABLE LANGUAGE sql AS $$
    SELECT concat_ws('|', oid, extract(epoch FROM pg_postmaster_start_time())) FROM pg_database WHERE datname = current_database()
$$;

-- As before, and nothing is paid while it is not certain that the ledger is whole.
CREATE OR REPLACE FUNCTION ledgers_differ(which text) RETURNS boolean STABLE LANGUAGE sql AS $$
    SELECT EXISTS (SELECT FROM installation WHERE stopped_at IS NOT NULL)
        OR EXISTS (SELECT FROM reconciliation_findings
                   WHERE closed_at IS NULL AND accepted_at IS NULL AND code IN ('C_MISSING_HERE', 'C_CHARGED_TWICE')
                     AND (batch_id = which OR (payment_id IS NOT NULL AND detail -> 'ours' = 'null')))
$$;
