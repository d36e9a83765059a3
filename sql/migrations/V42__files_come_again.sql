-- Files of which nothing came are named as long as they lie in the landing, and come again once what refused them is over.

ALTER TABLE landing_left_alone ADD is_refused boolean NOT NULL DEFAULT false;

-- Whether money of a batch moved. Where none did before it was cancelled, its bytes may come again.
CREATE FUNCTION is_paid_in_part(which_batch text) RETURNS boolean STABLE LANGUAGE sql AS $$
    SELECT EXISTS (SELECT FROM orders WHERE orders.batch_id = which_batch AND orders.status IN ('paid', 'refunded'))
$$;
