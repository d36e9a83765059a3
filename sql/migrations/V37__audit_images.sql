-- The audit keeps an image of every row: its key and a keyed hash of all its columns, whenever it is written. So a row that
-- is not as it was written last, one that is gone and one that nobody wrote are all found. One function records the changes
-- of all tables, and takes their columns as they are: a new one is recorded without further ado.

-- What an image begins with: the row's key, in as many bytes for every row of a table.
CREATE FUNCTION audit_key(watched regclass, side text) RETURNS text STABLE LANGUAGE sql AS $$
    SELECT string_agg(format(CASE atttypid WHEN 'bigint'::regtype THEN 'int8send(%1$s.%2$I)'
                                           WHEN 'integer'::regtype THEN 'int4send(%1$s.%2$I)'
                                           WHEN 'uuid'::regtype THEN 'uuid_send(%1$s.%2$I)'
                                           ELSE 'substring(sha256(convert_to(%1$s.%2$I::text, ''UTF8'')) FOR 16)' END,
                             side, attname), ' || ' ORDER BY array_position(indkey::smallint[], attnum))
    FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND attnum = ANY (indkey)
    WHERE indrelid = watched AND indisprimary
$$;

-- What it ends with: the keyed hash of the first so many columns. What it is keyed with is the statement's $1.
CREATE FUNCTION audit_digest(watched regclass, side text, columns integer) RETURNS text STABLE LANGUAGE sql AS $$
    SELECT format('substring(sha256($1 || record_send(ROW(%s))) FOR 16)',
                  string_agg(format('%s.%I', side, attname), ', ' ORDER BY attnum))
    FROM pg_attribute WHERE attrelid = watched AND attnum BETWEEN 1 AND columns AND NOT attisdropped
$$;

-- The statement that records a change of a table: one record a batch and 1,000 rows, with keys, changed fields and images.
-- `hashed` columns may hold personal values. Of rows inserted in `bulk`, as by COPY, the images alone are recorded.
CREATE FUNCTION audit_statement(watched regclass, operation text, category text, hashed text[], bulk boolean, batch text)
RETURNS text STABLE LANGUAGE plpgsql AS $$
DECLARE
    is_gone text := '''\x00000000000000000000000000000000''::bytea';
    keys text;          -- the columns of the primary key
    key_members text;   -- "name": value of each
    fields text;        -- "name": [before, after] of those that differ
    found text;         -- where the rows are
    key_side text := CASE operation WHEN 'DELETE' THEN 'o' ELSE 'n' END;
    image text;
    columns integer := (SELECT relnatts FROM pg_class WHERE oid = watched);
    detail json := json_build_object('columns', columns);
BEGIN
    IF operation = 'INSERT' AND bulk THEN
        RETURN format($query$
            INSERT INTO audit_events (category, action, entity, batch_id, rows, detail, digests)
            SELECT %L, 'insert', %L, %s, count(*), %L, string_agg(%s || %s, '') FROM after AS n GROUP BY 4
        $query$, category, watched, format(batch, 'n'), detail, audit_key(watched, 'n'), audit_digest(watched, 'n', columns));
    END IF;
    SELECT string_agg(format('%I', attname), ', ' ORDER BY array_position(indkey::smallint[], attnum)),
           string_agg(format('%L || to_json(%I)::text', to_json(attname::text) || ':', attname), ', '
                      ORDER BY array_position(indkey::smallint[], attnum))
    INTO keys, key_members
    FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND attnum = ANY (indkey)
    WHERE indrelid = watched AND indisprimary;

    SELECT string_agg(CASE operation
        WHEN 'INSERT' THEN format('%L || %s || %L', head || '[null,', format(value, 'n'), ']')
        WHEN 'DELETE' THEN format('%L || %s || %L', head || '[', format(value, 'o'), ',null]')
        ELSE format('CASE WHEN o.%1$I IS DISTINCT FROM n.%1$I THEN %2$L || coalesce(%3$s, %5$L) || %6$L || coalesce(%4$s, %5$L) || %7$L END',
                    attname, head || '[', format(value, 'o'), format(value, 'n'), 'null', ',', ']') END, ', ' ORDER BY attnum)
    INTO fields
    FROM (SELECT attnum, attname, to_json(attname::text) || ':' AS head,
                 CASE WHEN attname = ANY (hashed) THEN format('to_json(audit_hash(%%1$s.%I::text))::text', attname)
                      WHEN atttypid = 'bytea'::regtype
                      THEN format('to_json(''sha256:'' || encode(sha256(%%1$s.%I), ''hex''))::text', attname)
                      ELSE format('to_json(%%1$s.%I)::text', attname) END AS value
          FROM pg_attribute WHERE attrelid = watched AND attnum > 0 AND NOT attisdropped) AS each;

    CASE operation
        WHEN 'INSERT' THEN
            found := 'after AS n';
            image := audit_key(watched, 'n') || ' || ' || audit_digest(watched, 'n', columns);
        WHEN 'DELETE' THEN
            found := 'before AS o';
            image := audit_key(watched, 'o') || ' || ' || is_gone;
        ELSE  -- a key that is changed is a row that is gone and one that came
            found := format('before AS o FULL JOIN after AS n USING (%s)', keys);
            image := format('CASE WHEN n.%s IS NULL THEN %s ELSE %s END', split_part(keys, ', ', 1),
                            audit_key(watched, 'o') || ' || ' || is_gone,
                            audit_key(watched, 'n') || ' || ' || audit_digest(watched, 'n', columns));
            batch := format('coalesce(%s, %s)', format(batch, 'n'), format(batch, 'o'));
    END CASE;
    RETURN format($query$
        INSERT INTO audit_events (category, action, entity, batch_id, rows, detail, changes, digests)
        SELECT %L, %L, %L, batch, count(*), %L, ('[' || string_agg(change, ',') || ']')::json, string_agg(image, '')
        FROM (SELECT batch, (row_number() OVER () - 1) / 1000 AS part, image,
                     '{"key":{' || key || '},"fields":{' || fields || '}}' AS change
              FROM (SELECT %s AS batch, concat_ws(',', %s) AS key, concat_ws(',', %s) AS fields, %s AS image
                    FROM %s) AS row
              WHERE fields <> '') AS change
        GROUP BY batch, part
    $query$, category, lower(operation), watched, detail, format(batch, key_side), key_members, fields, image, found);
END $$;

-- Records the images of all rows of a table as they are: where it had none, or none that can still be compared.
CREATE FUNCTION audit_take_images(watched regclass) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    columns integer := (SELECT relnatts FROM pg_class WHERE oid = watched);
BEGIN
    PERFORM pg_current_xact_id();  -- before the record's number is drawn: sealing waits for older transactions
    EXECUTE format($query$
        INSERT INTO audit_events (category, action, entity, rows, detail, digests)
        SELECT split_part(encode(tgargs, 'escape'), '\000', 1), 'image', %L, images.rows, %L, images.digests
        FROM pg_trigger CROSS JOIN (
            SELECT count(*) AS rows, string_agg(image, '') AS digests
            FROM (SELECT %s || %s AS image, (row_number() OVER () - 1) / 10000 AS part FROM %s AS n) AS image GROUP BY part
        ) AS images
        WHERE tgrelid = %L::regclass AND tgname = 'audit_insert'
    $query$, watched, json_build_object('columns', columns), audit_key(watched, 'n'), audit_digest(watched, 'n', columns),
        watched, watched) USING (SELECT secret FROM audit_hash_key);
END $$;

-- The rows of a table as they are: key, name, and the digest of the first so many columns for each of `widths`.
CREATE FUNCTION audit_rows(watched text, widths integer[]) RETURNS TABLE (key bytea, name text, digests bytea[])
LANGUAGE plpgsql STABLE SECURITY DEFINER ROWS 1000000 SET search_path = public, pg_temp AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = watched::regclass AND tgname = 'audit_insert') THEN
        RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = 'this table is not audited';
    END IF;
    RETURN QUERY EXECUTE format('SELECT %s, concat_ws('' '', %s), ARRAY[%s] FROM %I AS n',
        audit_key(watched::regclass, 'n'),
        (SELECT string_agg(format('n.%I', attname), ', ' ORDER BY array_position(indkey::smallint[], attnum))
         FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND attnum = ANY (indkey)
         WHERE indrelid = watched::regclass AND indisprimary),
        (SELECT string_agg(audit_digest(watched::regclass, 'n', width), ', ' ORDER BY place)
         FROM unnest(widths) WITH ORDINALITY AS given (width, place)), watched) USING (SELECT secret FROM audit_hash_key);
END $$;

DROP FUNCTION audit_altered(text, text, text[], bytea);
DROP FUNCTION audit_watch(regclass, text, text[], boolean, text[], text);

-- Has every change of a table recorded from here on, and its rows as they are. Call it again in a migration that drops a
-- column of the table or changes the type of one. A new column needs nothing; it costs a millisecond a statement less if it
-- is called again.
CREATE FUNCTION audit_watch(watched regclass, category text, hashed text[] DEFAULT '{}', bulk boolean DEFAULT false,
                            batch text DEFAULT '%1$s.batch_id') RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    name text := 'audit_' || watched::text;
    event text;
BEGIN
    EXECUTE format($function$
        CREATE OR REPLACE FUNCTION %I() RETURNS trigger
        LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET timezone = 'UTC' AS $body$
        DECLARE
            hash_key bytea := (SELECT secret FROM audit_hash_key);
        BEGIN
            IF TG_OP = 'TRUNCATE' THEN
                INSERT INTO audit_events (category, action, entity) VALUES (%L, 'truncate', %L);
            ELSIF (SELECT relnatts FROM pg_class WHERE oid = TG_RELID) <> %s THEN  -- the table has got more columns
                EXECUTE audit_statement(TG_RELID, TG_OP, TG_ARGV[0], TG_ARGV[1]::text[], TG_ARGV[2]::boolean, TG_ARGV[3])
                USING hash_key;
            ELSIF TG_OP = 'INSERT' THEN %s;
            ELSIF TG_OP = 'UPDATE' THEN %s;
            ELSE %s;
            END IF;
            RETURN NULL;
        END $body$
    $function$, name, category, watched, (SELECT relnatts FROM pg_class WHERE oid = watched),
        replace(audit_statement(watched, 'INSERT', category, hashed, bulk, batch), '$1', 'hash_key'),
        replace(audit_statement(watched, 'UPDATE', category, hashed, bulk, batch), '$1', 'hash_key'),
        replace(audit_statement(watched, 'DELETE', category, hashed, bulk, batch), '$1', 'hash_key'));
    FOREACH event IN ARRAY '{insert,update,delete,truncate}'::text[] LOOP
        EXECUTE format('CREATE OR REPLACE TRIGGER audit_%s AFTER %1$s ON %s %s FOR EACH STATEMENT '
                       'EXECUTE FUNCTION %I(%L, %L, %L, %L)', event, watched,
            CASE event WHEN 'insert' THEN 'REFERENCING NEW TABLE AS after'
                       WHEN 'update' THEN 'REFERENCING OLD TABLE AS before NEW TABLE AS after'
                       WHEN 'delete' THEN 'REFERENCING OLD TABLE AS before' ELSE '' END, name, category, hashed, bulk, batch);
    END LOOP;
    EXECUTE format('ALTER FUNCTION %I() OWNER TO orders_audit', name);
    -- whoever may make it the trigger of a table of their own writes records of whatever they like
    EXECUTE format('REVOKE EXECUTE ON FUNCTION %I() FROM PUBLIC', name);
    EXECUTE format('GRANT SELECT ON %s TO orders_audit', watched);
    PERFORM audit_take_images(watched);
END $$;

ALTER FUNCTION audit_key(regclass, text) OWNER TO orders_audit;
ALTER FUNCTION audit_digest(regclass, text, integer) OWNER TO orders_audit;
ALTER FUNCTION audit_statement(regclass, text, text, text[], boolean, text) OWNER TO orders_audit;
ALTER FUNCTION audit_take_images(regclass) OWNER TO orders_audit;
ALTER FUNCTION audit_rows(text, integer[]) OWNER TO orders_audit;
REVOKE EXECUTE ON FUNCTION audit_take_images(regclass), audit_rows(text, integer[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION audit_take_images(regclass) TO CURRENT_USER;
GRANT EXECUTE ON FUNCTION audit_rows(text, integer[]) TO orders_app;

SELECT audit_watch('batches', 'administrative', '{csv_source,landing_key,cancelled_why}');
SELECT audit_watch('orders', 'phi_modification', '{csv_source}', bulk => true);
SELECT audit_watch('rejections', 'phi_modification', bulk => true);
SELECT audit_watch('corrections', 'phi_modification');
SELECT audit_watch('given_up_references', 'phi_modification', bulk => true);
SELECT audit_watch('payments', 'phi_modification');
SELECT audit_watch('payment_orders', 'phi_modification',
                   batch => '(SELECT batch_id FROM payments WHERE payments.payment_id = %1$s.payment_id)');
SELECT audit_watch('notifications', 'phi_modification');
SELECT audit_watch('notification_orders', 'phi_modification',
    batch => '(SELECT batch_id FROM notifications WHERE notifications.notification_id = %1$s.notification_id)');
SELECT audit_watch('refunds', 'phi_modification', '{reason}');
SELECT audit_watch('refund_orders', 'phi_modification',
                   batch => '(SELECT batch_id FROM refunds WHERE refunds.refund_id = %1$s.refund_id)');
SELECT audit_watch('resolutions', 'phi_modification', '{reason}', batch =>
    'coalesce((SELECT batch_id FROM payments WHERE payments.payment_id = %1$s.payment_id),'
    ' (SELECT batch_id FROM refunds WHERE refunds.refund_id = %1$s.refund_id))');
SELECT audit_watch('reconciliation_findings', 'administrative', '{accepted_why}');
SELECT audit_watch('batch_closings', 'administrative');
SELECT audit_watch('known_profiles', 'administrative', batch => 'NULL::text');
SELECT audit_watch('known_keys', 'security', batch => 'NULL::text');
SELECT audit_watch('installation', 'security', '{resumed_why}', batch => 'NULL::text');
SELECT audit_watch('retention_limits', 'administrative', batch => 'NULL::text');
SELECT audit_watch('dagster_retention', 'administrative', batch => 'NULL::text');
SELECT audit_watch('legal_holds', 'administrative', '{reason,release_reason}');
