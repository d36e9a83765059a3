-- name: note_acceptances
-- Requests of these kinds were taken, sent so long ago; written down when there were refusals since, or else once a minute.
INSERT INTO acceptances (kind, batch_id, asked_at)
SELECT kind, :batch_id, now() - make_interval(secs => age_s)
FROM unnest(CAST(:kinds AS text[]), CAST(:ages_s AS double precision[])) AS taken (kind, age_s)
WHERE NOT EXISTS (SELECT FROM acceptances AS known
                  WHERE known.kind = taken.kind AND known.batch_id = :batch_id
                    AND known.asked_at > now() - interval '1 minute'
                    AND NOT EXISTS (SELECT FROM refusals
                                    WHERE refusals.kind = taken.kind AND last_at >= known.asked_at))
ORDER BY kind
ON CONFLICT (kind, batch_id) DO UPDATE SET asked_at = greatest(acceptances.asked_at, excluded.asked_at)

-- name: count_refusals
-- Items were refused once more.
INSERT INTO refusals (item_id, batch_id, service, kind, customer_code, code)
SELECT item_id, :batch_id, :service, kind, customer_code, code
FROM unnest(CAST(:item_ids AS uuid[]), CAST(:kinds AS text[]), CAST(:customer_codes AS text[]), CAST(:codes AS text[]))
     AS refused (item_id, kind, customer_code, code)
ORDER BY item_id
ON CONFLICT (item_id) DO UPDATE SET code = excluded.code, times = refusals.times + 1,
                                    before_at = refusals.last_at, last_at = excluded.last_at

-- name: refusals_and_others
-- How often items were refused, and how others of their kind fared meanwhile; no more than `several` are counted of all.
WITH counted AS (
    SELECT * FROM refusals WHERE item_id = ANY(CAST(:item_ids AS uuid[]))
), others AS (
    SELECT kinds.kind, last.asked_at, of_batch.asked_at AS asked_of_batch_at, since.items AS refused_since
    FROM (SELECT DISTINCT kind FROM counted) AS kinds
    CROSS JOIN LATERAL (SELECT coalesce(max(asked_at), '-infinity') AS asked_at FROM acceptances
                        WHERE acceptances.kind = kinds.kind) AS last
    LEFT JOIN acceptances AS of_batch ON of_batch.kind = kinds.kind AND of_batch.batch_id = :batch_id
    CROSS JOIN LATERAL (SELECT count(*) AS items
                        FROM (SELECT FROM refusals WHERE refusals.kind = kinds.kind AND last_at > last.asked_at
                              AND first_at > last.asked_at LIMIT :several) AS capped) AS since
), alike AS (
    SELECT kind, count(*) AS items, count(DISTINCT customer_code) AS customers,
           extract(epoch FROM now() - min(first_at)) AS for_s
    FROM others JOIN refusals USING (kind)
    WHERE batch_id = :batch_id AND first_at > asked_at
    GROUP BY kind
), settled AS (
    SELECT codes.*, alike.items
    FROM (SELECT DISTINCT kind, code FROM counted) AS codes
    CROSS JOIN LATERAL (SELECT count(*) AS items
                        FROM (SELECT FROM refusals WHERE batch_id = :batch_id AND refusals.kind = codes.kind
                              AND refusals.code = codes.code AND is_settled LIMIT :several) AS capped) AS alike
)
SELECT item_id, times, coalesce(extract(epoch FROM last_at - before_at), 0) AS waited_s,
       coalesce(asked_at > before_at, false) AS taken_since_last, asked_at >= first_at AS taken_since_first,
       coalesce(asked_of_batch_at > first_at - make_interval(secs => :lately_s), false) AS taken_before,
       extract(epoch FROM now() - first_at) AS refused_for_s, refused_since,
       settled.items AS settled_alike, coalesce(alike.items, 0) AS items_alike,
       coalesce(customers, 0) AS customers_alike, coalesce(for_s, 0) AS for_s
FROM counted JOIN others USING (kind) JOIN settled USING (kind, code) LEFT JOIN alike USING (kind)

-- name: settle_refusals
-- What is decided about refused items: those that were dealt with, and those whose batch waits.
UPDATE refusals SET is_settled = judged.hold_s IS NULL, held_until = now() + make_interval(secs => judged.hold_s)
FROM unnest(CAST(:item_ids AS uuid[]), CAST(:holds_s AS double precision[])) AS judged (item_id, hold_s)
WHERE refusals.item_id = judged.item_id

-- name: is_held
-- Whether a batch waits for a service to take something.
SELECT is_held(:batch_id, :service)

-- name: end_hold
-- A new drain tries everything again.
UPDATE refusals SET held_until = NULL WHERE batch_id = :batch_id AND service = :service AND held_until IS NOT NULL

-- name: held_refusals
-- What a batch waits for: what was refused of it, why, since when, and when it is tried again.
SELECT service, code, count(*) AS items, min(first_at) AS since, max(last_at) AS last_at,
       (SELECT max(held_until) FROM refusals AS hold WHERE hold.batch_id = :batch_id AND hold.service = refusals.service)
       AS next_try
FROM refusals
WHERE batch_id = :batch_id AND NOT is_settled AND is_held(:batch_id, service)
GROUP BY service, code ORDER BY service, code

-- name: purge_refusals
-- What was refused of batches that ended long ago, but for what is not decided yet.
DELETE FROM refusals USING batches, dagster_retention
WHERE batches.batch_id = refusals.batch_id AND finished_at < now() - events AND last_at < now() - events
  AND (held_until IS NULL OR held_until < now())

-- name: purge_acceptances
-- When something was taken from batches that ended long ago, but for the last time of each kind.
DELETE FROM acceptances USING batches, dagster_retention
WHERE batches.batch_id = acceptances.batch_id AND finished_at < now() - events AND asked_at < now() - events
  AND asked_at < (SELECT max(asked_at) FROM acceptances AS others WHERE others.kind = acceptances.kind)
