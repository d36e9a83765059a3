-- Orders: the accepted rows of batches. Rejections: the rows (or whole files) given back, each with its codes.

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
    amount            integer NOT NULL,            -- yen
    payment_method    text COLLATE "C" NOT NULL,
    notify_channel    text COLLATE "C" NOT NULL,
    personal          bytea NOT NULL,              -- the row's personal columns, sealed together for this row
    status            text COLLATE "C" NOT NULL DEFAULT 'pending',
    created_at        timestamptz NOT NULL DEFAULT now(),
    status_changed_at timestamptz NOT NULL DEFAULT now(),
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
    CONSTRAINT orders_status_known CHECK (status IN ('pending', 'paying', 'paid', 'declined', 'unknown', 'refunded'))
);

-- A reference is used once per client for ever, whatever its case. The selective column first: see the load benchmark.
CREATE UNIQUE INDEX orders_client_order_ref_key ON orders (lower(client_order_ref), client_code);

CREATE TABLE rejections (
    rejection_id      bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT rejections_pkey PRIMARY KEY,
    batch_id          text COLLATE "C" NOT NULL CONSTRAINT rejections_batch_id_fkey REFERENCES batches,
    import_row_number integer,                     -- null: the whole file
    line              integer,
    column_name       text COLLATE "C",
    code              text COLLATE "C" NOT NULL,
    detail            jsonb NOT NULL DEFAULT '{}', -- safe parameters of the code's message, never a cell's value
    CONSTRAINT rejections_code_format CHECK (code ~ '^[FRW]_[A-Z_]+$')
);
CREATE INDEX rejections_batch_row ON rejections (batch_id, import_row_number);

-- Which chunks of a batch are loaded, committed with their rows: a rerun loads nothing twice.
CREATE TABLE loaded_chunks (
    batch_id text COLLATE "C" NOT NULL CONSTRAINT loaded_chunks_batch_id_fkey REFERENCES batches,
    chunk_no integer NOT NULL,
    rows     integer NOT NULL,
    CONSTRAINT loaded_chunks_pkey PRIMARY KEY (batch_id, chunk_no)
);
