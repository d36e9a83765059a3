-- Orders: the accepted rows of batches. Rejections: the rows (or whole files) given back, each with its codes. Corrections:
-- which rows of which batch a row that was sent again corrects.

CREATE TABLE orders (
    order_id          bigint GENERATED ALWAYS AS IDENTITY,
    batch_id          text COLLATE "C" NOT NULL,
    import_row_number integer NOT NULL,
    csv_source        text NOT NULL,
    bulk_import_group text COLLATE "C" NOT NULL,
    client_code       text COLLATE "C" NOT NULL,
    client_order_ref  text COLLATE "C" NOT NULL,
    order_date        date,
    customer_code     text COLLATE "C" NOT NULL,
    item_code         text COLLATE "C",
    quantity          integer,
    unit_price        bigint,
    amount            integer NOT NULL,
    payment_method    text COLLATE "C" NOT NULL,
    notify_channel    text COLLATE "C" NOT NULL,
    personal          bytea NOT NULL,
    status            text COLLATE "C" NOT NULL DEFAULT 'pending',
    created_at        timestamptz NOT NULL DEFAULT now(),
    status_changed_at timestamptz NOT NULL DEFAULT now(),
    is_nobodys        boolean NOT NULL DEFAULT false,
    is_cancelled      boolean NOT NULL GENERATED ALWAYS AS (status = 'cancelled') STORED,
    CONSTRAINT orders_pkey PRIMARY KEY (order_id),
    CONSTRAINT orders_batch_row_key UNIQUE (batch_id, import_row_number),
    CONSTRAINT orders_batch_id_fkey FOREIGN KEY (batch_id) REFERENCES batches,
    CONSTRAINT orders_import_row_number_positive CHECK (import_row_number > 0),
    CONSTRAINT orders_client_order_ref_format CHECK (client_order_ref ~ '^[A-Za-z0-9_./-]{1,64}$'),
    CONSTRAINT orders_amount_in_range CHECK (amount BETWEEN 1 AND 1000000),
    CONSTRAINT orders_item_complete CHECK (num_nulls(item_code, quantity, unit_price) IN (0, 3)),
    CONSTRAINT orders_item_amount CHECK (quantity * unit_price = amount),
    CONSTRAINT orders_payment_method_known CHECK (payment_method IN ('invoice', 'card_on_file', 'bank_transfer')),
    CONSTRAINT orders_notify_channel_known CHECK (notify_channel IN ('email', 'sms', 'none')),
    CONSTRAINT orders_status_known CHECK (status IN
        ('pending', 'paying', 'paid', 'declined', 'unknown', 'refunded', 'cancelled'))
);

-- A reference is used once per client for ever, whatever its case, unless its order was cancelled. The selective column first:
-- see the load benchmark.
CREATE UNIQUE INDEX orders_client_order_ref_key ON orders (lower(client_order_ref), client_code) WHERE NOT is_cancelled;
COMMENT ON TABLE orders IS 'One accepted row of a file each, written when its batch is loaded.';
COMMENT ON COLUMN orders.import_row_number IS 'The row in the file, the first below the header being 1.';
COMMENT ON COLUMN orders.csv_source IS 'As in batches, as bulk_import_group and client_code are.';
COMMENT ON COLUMN orders.client_order_ref IS 'The client''s own number of the order.';
COMMENT ON COLUMN orders.order_date IS 'As in the file; null where it was left out.';
COMMENT ON COLUMN orders.item_code IS 'Null, as quantity and unit_price, where the file gives only the amount.';
COMMENT ON COLUMN orders.unit_price IS 'Yen.';
COMMENT ON COLUMN orders.amount IS 'Yen.';
COMMENT ON COLUMN orders.notify_channel IS 'How the customer is told; none: not at all.';
COMMENT ON COLUMN orders.personal IS
    'The row''s personal columns, encrypted together for this row; its first bytes name the key.';
COMMENT ON COLUMN orders.status IS
    'Follows its payment: pending -> paying -> paid -> refunded; declined; unknown: it may have been charged; cancelled: '
    'never sent.';
COMMENT ON COLUMN orders.is_nobodys IS
    'Its customer is what the client''s profile gives to an empty cell. It is paid and told of by itself: nobody knows '
    'whether two of them are one person''s.';
COMMENT ON COLUMN orders.is_cancelled IS
    'For the index on references alone, so that other changes of the status touch no index.';
SELECT audit_watch('orders', 'phi_modification', '{csv_source}', bulk => true);

CREATE FUNCTION order_reference(batch_id text, import_row_number integer) RETURNS text IMMUTABLE LANGUAGE sql AS $$
    SELECT batch_id || '-' || CAST(import_row_number AS text)
$$;
COMMENT ON FUNCTION order_reference(text, integer) IS
    'What an order is called at the services: its number in our table would name another one after a restore.';

CREATE FUNCTION is_paid_in_part(which_batch text) RETURNS boolean STABLE LANGUAGE sql AS $$
    SELECT EXISTS (SELECT FROM orders WHERE orders.batch_id = which_batch AND orders.status IN ('paid', 'refunded'))
$$;
COMMENT ON FUNCTION is_paid_in_part(text) IS
    'Whether money of a batch moved. Where none did before it was cancelled, its bytes may come again.';

CREATE TABLE rejections (
    rejection_id      bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT rejections_pkey PRIMARY KEY,
    batch_id          text COLLATE "C" NOT NULL,
    import_row_number integer,
    line              integer,
    column_name       text COLLATE "C",
    code              text COLLATE "C" NOT NULL,
    detail            jsonb NOT NULL DEFAULT '{}',
    CONSTRAINT rejections_code_format CHECK (code ~ '^[FRW]_[A-Z_]+$')
);
CREATE INDEX rejections_batch_row ON rejections (batch_id, import_row_number);
COMMENT ON TABLE rejections IS 'Why rows and files were given back, and warnings: one row for each code.';
COMMENT ON COLUMN rejections.import_row_number IS 'As in orders; null: the whole file.';
COMMENT ON COLUMN rejections.line IS 'Where the row begins in the text, the first line being 1; null where no line is meant.';
COMMENT ON COLUMN rejections.column_name IS 'Null: no column in particular.';
COMMENT ON COLUMN rejections.code IS 'F_ of a file, R_ of a row, W_ a warning.';
COMMENT ON COLUMN rejections.detail IS 'Safe parameters of the code''s message, never a cell''s value.';

-- That rejections are of a batch that exists is looked up once for all that are written together: a foreign key does it row
-- by row, which took two fifths of the time. Batches stay, so nothing has to keep them from being deleted.
CREATE FUNCTION rejections_have_batches() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM (SELECT DISTINCT batch_id FROM after) AS written
               WHERE NOT EXISTS (SELECT FROM batches WHERE batches.batch_id = written.batch_id)) THEN
        RAISE EXCEPTION USING ERRCODE = 'foreign_key_violation', CONSTRAINT = TG_NAME,
            MESSAGE = 'a rejection is of a batch that does not exist';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER rejections_have_batches_insert AFTER INSERT ON rejections REFERENCING NEW TABLE AS after
    FOR EACH STATEMENT EXECUTE FUNCTION rejections_have_batches();
CREATE TRIGGER rejections_have_batches_update AFTER UPDATE ON rejections REFERENCING NEW TABLE AS after
    FOR EACH STATEMENT EXECUTE FUNCTION rejections_have_batches();
SELECT audit_watch('rejections', 'phi_modification', bulk => true);

CREATE TABLE loaded_chunks (
    batch_id text COLLATE "C" NOT NULL CONSTRAINT loaded_chunks_batch_id_fkey REFERENCES batches,
    chunk_no integer NOT NULL,
    rows     integer NOT NULL,
    CONSTRAINT loaded_chunks_pkey PRIMARY KEY (batch_id, chunk_no)
);
COMMENT ON TABLE loaded_chunks IS
    'Which chunks of a batch are loaded, committed with their rows: a rerun loads nothing twice.';

-- A row of the batch that a correcting file names answers that batch's row, whatever becomes of the new one.
CREATE TABLE corrections (
    batch_id          text COLLATE "C" NOT NULL CONSTRAINT corrections_batch_id_fkey REFERENCES batches,
    import_row_number integer NOT NULL,
    corrects          text COLLATE "C" NOT NULL CONSTRAINT corrections_corrects_fkey REFERENCES batches,
    corrects_row      integer NOT NULL,
    first_batch       text COLLATE "C",
    first_row         integer,
    CONSTRAINT corrections_pkey PRIMARY KEY (batch_id, import_row_number),
    CONSTRAINT corrections_of_another_batch CHECK (batch_id <> corrects)
);
CREATE INDEX corrections_corrects ON corrections (corrects, corrects_row);
CREATE INDEX corrections_first ON corrections (first_batch, first_row);
COMMENT ON TABLE corrections IS 'Which rows of which batch the rows of a correcting file answer, written when it is loaded.';
COMMENT ON COLUMN corrections.corrects IS 'The batch, and corrects_row its row, that the row answers.';
COMMENT ON COLUMN corrections.first_batch IS
    'The batch, and first_row its row, where it came first: however often a row is corrected, it is one order.';
SELECT audit_watch('corrections', 'phi_modification');

CREATE TABLE given_up_references (
    batch_id          text COLLATE "C" NOT NULL,
    import_row_number integer NOT NULL,
    client_code       text COLLATE "C" NOT NULL,
    reference         text COLLATE "C" NOT NULL,
    held_by           text COLLATE "C",
    CONSTRAINT given_up_references_pkey PRIMARY KEY (batch_id, import_row_number, reference),
    CONSTRAINT given_up_references_batch_id_fkey FOREIGN KEY (batch_id) REFERENCES batches
);
CREATE INDEX given_up_references_reference ON given_up_references (client_code, reference);
COMMENT ON TABLE given_up_references IS
    'References that rows had before they were corrected into orders with others: nobody else may come by them.';
COMMENT ON COLUMN given_up_references.batch_id IS 'The batch, and import_row_number its row, that has another reference now.';
COMMENT ON COLUMN given_up_references.reference IS 'In lower case.';
COMMENT ON COLUMN given_up_references.held_by IS 'The batch that had an order of this reference already; null: none had.';
SELECT audit_watch('given_up_references', 'phi_modification', bulk => true);
