-- Corrections keep references: where a corrected row came first, and which references rows gave up for others.

-- However often a row is corrected, it is one order: the row where it came first says which.
ALTER TABLE corrections
    ADD first_batch text COLLATE "C",
    ADD first_row   integer;
WITH RECURSIVE traced AS (
    SELECT batch_id, import_row_number, corrects, corrects_row, 1 AS depth FROM corrections
    UNION ALL
    SELECT traced.batch_id, traced.import_row_number, before.corrects, before.corrects_row, depth + 1
    FROM traced JOIN corrections AS before
      ON (before.batch_id, before.import_row_number) = (traced.corrects, traced.corrects_row)
)
UPDATE corrections SET first_batch = first.corrects, first_row = first.corrects_row
FROM (SELECT DISTINCT ON (batch_id, import_row_number) * FROM traced
      ORDER BY batch_id, import_row_number, depth DESC) AS first
WHERE (corrections.batch_id, corrections.import_row_number) = (first.batch_id, first.import_row_number);
CREATE INDEX corrections_first ON corrections (first_batch, first_row);
SELECT audit_watch('corrections', 'phi_modification');

-- References that rows had before they were corrected into orders with others: nobody else may come by them.
CREATE TABLE given_up_references (
    batch_id          text COLLATE "C" NOT NULL,
    import_row_number integer NOT NULL,
    client_code       text COLLATE "C" NOT NULL,
    reference         text COLLATE "C" NOT NULL,   -- in lower case
    held_by           text COLLATE "C",            -- the batch that had an order of this reference already
    CONSTRAINT given_up_references_pkey PRIMARY KEY (batch_id, import_row_number, reference),
    CONSTRAINT given_up_references_batch_id_fkey FOREIGN KEY (batch_id) REFERENCES batches
);
CREATE INDEX given_up_references_reference ON given_up_references (client_code, reference);
GRANT SELECT, INSERT, UPDATE, DELETE ON given_up_references TO orders_app;
