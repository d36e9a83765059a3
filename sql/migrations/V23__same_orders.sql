-- Rows that are the same as orders received before may be skipped too, as the client's profile says.

COMMENT ON COLUMN batches.rows_skipped IS
    'Rows that the client''s profile said to skip: they are no orders, or the same as orders received before.';
