-- name: orders_by_key
-- How many orders are encrypted with each key: an envelope is a version byte, the length of the key's id, the id, and the rest.
SELECT encode(substring(personal FROM 3 FOR get_byte(personal, 1)), 'escape') AS key_id, count(*) AS orders
FROM orders GROUP BY key_id ORDER BY key_id

-- name: orders_to_reencrypt
-- Orders in their order whose envelope does not begin as those of the current key do.
SELECT order_id, batch_id, import_row_number, personal FROM orders
WHERE order_id > :after AND substring(personal FROM 1 FOR length(CAST(:prefix AS bytea))) <> CAST(:prefix AS bytea)
ORDER BY order_id LIMIT :limit

-- name: reencrypt_orders
-- New envelopes in place of those that were read, unless another rotation was first.
UPDATE orders SET personal = encrypted.personal
FROM unnest(CAST(:order_ids AS bigint[]), CAST(:old AS bytea[]), CAST(:new AS bytea[])) AS encrypted (order_id, old, personal)
WHERE orders.order_id = encrypted.order_id AND orders.personal = encrypted.old
