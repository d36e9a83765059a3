-- The installation: what tells our payments at the service from everybody else's, and lets a repeated intent be the same one.
-- Ids follow from what they are for, so that a database restored from a backup sends what the service has already under the
-- same key, and gets the answer of then.

CREATE TABLE installation (
    one             boolean CONSTRAINT installation_pkey PRIMARY KEY DEFAULT true CONSTRAINT installation_one CHECK (one),
    installation_id uuid NOT NULL DEFAULT gen_random_uuid(),
    generation      integer NOT NULL DEFAULT 1,  -- how often it was restored, and reconciled afterwards, plus one
    created_at      timestamptz NOT NULL DEFAULT now()
);
INSERT INTO installation DEFAULT VALUES;
GRANT SELECT, UPDATE ON installation TO orders_app;
SELECT audit_watch('installation', 'security', batch => 'NULL::text');

-- An id that is always the same for the same text (RFC 9562, version 8).
CREATE FUNCTION stable_id(name text) RETURNS uuid IMMUTABLE LANGUAGE sql AS $$
    SELECT CAST(overlay(overlay(encode(substring(sha256(convert_to(name, 'UTF8')) FOR 16), 'hex')
                                PLACING '8' FROM 13) PLACING '8' FROM 17) AS uuid)
$$;

-- What a batch is in this installation, on whatever day and wherever its bytes come from.
CREATE FUNCTION batch_identity(which text) RETURNS text STABLE LANGUAGE sql AS $$
    SELECT concat_ws('|', installation_id, client_code, coalesce(source_sha256, batch_id), again_no)
    FROM batches CROSS JOIN installation WHERE batch_id = which
$$;

-- Ids follow from whose they are, from the rows they are about and from the number of the try, which is the first that is not
-- taken: of the next payment for exactly these rows of a batch, ...
CREATE FUNCTION next_payment_id(identity text, row_numbers integer[]) RETURNS uuid STABLE LANGUAGE plpgsql AS $$
DECLARE
    next_id uuid;
BEGIN
    FOR try IN 0..2147483646 LOOP
        next_id := stable_id(concat_ws('|', 'payment', identity, row_numbers, try));
        EXIT WHEN NOT EXISTS (SELECT FROM payments WHERE payment_id = next_id);
    END LOOP;
    RETURN next_id;
END $$;

-- ... of the next refund of some rows of a payment, ...
CREATE FUNCTION next_refund_id(payment_id uuid, row_numbers integer[]) RETURNS uuid STABLE LANGUAGE plpgsql AS $$
DECLARE
    next_id uuid;
BEGIN
    FOR try IN 0..2147483646 LOOP
        next_id := stable_id(concat_ws('|', 'refund', payment_id, row_numbers, try));
        EXIT WHEN NOT EXISTS (SELECT FROM refunds WHERE refund_id = next_id);
    END LOOP;
    RETURN next_id;
END $$;

-- ... and of the next notification of a kind about some rows of a batch.
CREATE FUNCTION next_notification_id(identity text, kind text, row_numbers integer[]) RETURNS uuid STABLE LANGUAGE plpgsql AS $$
DECLARE
    next_id uuid;
BEGIN
    FOR try IN 0..2147483646 LOOP
        next_id := stable_id(concat_ws('|', 'notification', identity, kind, row_numbers, try));
        EXIT WHEN NOT EXISTS (SELECT FROM notifications WHERE notification_id = next_id);
    END LOOP;
    RETURN next_id;
END $$;

-- Payments that may have been sent before the installation had an id are looked up by the reference they had then.
ALTER TABLE payments ADD COLUMN old_reference text COLLATE "C";
SELECT audit_watch('payments', 'phi_modification');
UPDATE payments SET old_reference = CAST(payment_id AS text) WHERE settled_at IS NULL;

-- Our reference of a payment at the service.
CREATE FUNCTION reference_of(payment_id uuid, old_reference text) RETURNS text STABLE LANGUAGE sql AS $$
    SELECT coalesce(old_reference, left(replace(CAST(installation_id AS text), '-', ''), 12) || '-' || CAST(payment_id AS text))
    FROM installation
$$;

-- What an order is called at the services: its number in our table would name another one after a restore.
CREATE FUNCTION order_reference(batch_id text, import_row_number integer) RETURNS text IMMUTABLE LANGUAGE sql AS $$
    SELECT batch_id || '-' || CAST(import_row_number AS text)
$$;
