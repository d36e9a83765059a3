-- Shipping: how far sealed audit records were sent to a system outside, where who writes to this database has no say.

CREATE TABLE audit_shipping (
    one        boolean CONSTRAINT audit_shipping_pkey PRIMARY KEY DEFAULT true CONSTRAINT audit_shipping_one CHECK (one),
    is_wanted  boolean NOT NULL DEFAULT true,
    block_no   bigint NOT NULL,
    event_id   bigint NOT NULL DEFAULT 0,
    head       bytea NOT NULL,
    shipped_at timestamptz
);
COMMENT ON TABLE audit_shipping IS
    'How far the audit was sent to the system outside; no row before that was wanted for the first time, and one from then on.';
COMMENT ON COLUMN audit_shipping.one IS 'Always true: there is one row.';
COMMENT ON COLUMN audit_shipping.is_wanted IS 'Whether the settings say so; while they do, what was not sent stays in the database.';
COMMENT ON COLUMN audit_shipping.block_no IS 'All blocks up to this one were sent, or had left the database before sending began.';
COMMENT ON COLUMN audit_shipping.event_id IS 'The last record sent of the next block; 0: none.';
COMMENT ON COLUMN audit_shipping.head IS 'Of that block: where it is another one later, the chain was made anew. Empty: of no block.';
COMMENT ON COLUMN audit_shipping.shipped_at IS 'When something was sent last; null: never.';
GRANT SELECT ON audit_shipping TO orders_audit;

CREATE OR REPLACE VIEW audit_due AS
SELECT block_no, due.category, day, place, key, next_place,
       (day + warm_until)::date AS cold_from, (day + gone_after)::date AS kept_until
FROM (
    SELECT block.*, 'warm' AS next_place, hot_until, warm_until, gone_after FROM retention_limits AS limits
    JOIN audit_blocks AS block ON block.category = limits.category AND block.place = 'hot'
                              AND block.day <= ((now() AT TIME ZONE 'UTC')::date - hot_until)::date + 3
                              AND block.block_no <= coalesce((SELECT shipped.block_no FROM audit_shipping AS shipped
                                                              WHERE is_wanted), block.block_no)
    UNION ALL
    SELECT block.*, 'cold', hot_until, warm_until, gone_after FROM retention_limits AS limits
    JOIN audit_blocks AS block ON block.category = limits.category AND block.place = 'warm'
                              AND block.day <= ((now() AT TIME ZONE 'UTC')::date - warm_until)::date + 3
    UNION ALL
    SELECT block.*, 'gone', hot_until, warm_until, gone_after FROM retention_limits AS limits
    JOIN audit_blocks AS block ON block.category = limits.category AND block.place = 'cold'
                              AND block.day <= ((now() AT TIME ZONE 'UTC')::date - gone_after)::date + 3
) AS due
WHERE array_position('{hot,warm,cold,gone}', place) < array_position('{hot,warm,cold,gone}', retention_place(
          day, (now() AT TIME ZONE 'UTC')::date, hot_until, warm_until, gone_after))
  AND NOT EXISTS (SELECT FROM audit_held WHERE audit_held.block_no = due.block_no);
COMMENT ON VIEW audit_due IS
    'Blocks that are due in their next place and not held; from the database none that is still to be sent outside.';
