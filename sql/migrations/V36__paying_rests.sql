-- Why paying rests: besides what is known to differ, another database may be at work over the same storage, and a list that
-- cannot be read does not tell whether our ledger is whole.

ALTER TABLE installation
    ADD COLUMN unread_since timestamptz,            -- the service's list could not be read when it had to be compared
    ADD COLUMN unread_why   text COLLATE "C",
    ADD COLUMN seen_since   timestamptz NOT NULL DEFAULT now(),  -- since when the running database has been the same
    ADD CONSTRAINT installation_unread_for_a_reason CHECK ((unread_since IS NULL) = (unread_why IS NULL)),
    DROP CONSTRAINT installation_stopped_by_known,
    ADD CONSTRAINT installation_stopped_by_known CHECK (stopped_by IN ('storage', 'service', 'another'));
SELECT audit_watch('installation', 'security', '{resumed_why}', batch => 'NULL::text');

-- As before, and nothing is paid while a list that had to be read was not.
CREATE OR REPLACE FUNCTION ledgers_differ(which text) RETURNS boolean STABLE LANGUAGE sql AS $$
    SELECT EXISTS (SELECT FROM installation WHERE num_nonnulls(stopped_at, unread_since) > 0)
        OR EXISTS (SELECT FROM reconciliation_findings
                   WHERE closed_at IS NULL AND accepted_at IS NULL AND code IN ('C_MISSING_HERE', 'C_CHARGED_TWICE')
                     AND (batch_id = which OR (payment_id IS NOT NULL AND detail -> 'ours' = 'null')))
$$;

-- What a person has found out about a refund is asked for with each claim.
CREATE INDEX resolutions_refund ON resolutions (refund_id) WHERE refund_id IS NOT NULL;
