-- name: settled_totals
-- What all batches came to so far: finished ones as that was kept, the others counted from their rows.
SELECT measure, state, CAST(sum(amount) AS bigint) AS amount
FROM (
    SELECT measure, state, amount FROM totals
    UNION ALL
    SELECT figure.measure, figure.state, figure.amount
    FROM batches CROSS JOIN LATERAL batch_figures(batch_id) AS figure WHERE finished_at IS NULL
) AS figures GROUP BY measure, state

-- name: unfinished_batches
-- How many batches are in each state that is not the last, and for how long the oldest has been here.
SELECT status AS state, count(*) AS batches, extract(epoch FROM now() - min(received_at)) AS oldest_s
FROM batches WHERE finished_at IS NULL GROUP BY status

-- name: breakers
-- Whether each service's breaker is open.
SELECT service, opened_at IS NOT NULL AS is_open FROM service_breakers

-- name: rate_token_waits
-- How long whoever wants to call a service has to wait for its next token.
SELECT service, extract(epoch FROM greatest(min(free_at) - clock_timestamp(), '0')) AS wait_s FROM rate_tokens GROUP BY service

-- name: landing_waits
-- How many order files wait in the landing, and for how long the oldest does; how many were refused and still lie there.
SELECT count(*) AS files, coalesce(extract(epoch FROM now() - min(first_seen_at)), 0) AS oldest_s,
       (SELECT count(*) FROM landing_left_alone WHERE seen_again AND is_refused) AS refused
FROM landing_files WHERE batch_id IS NULL

-- name: count_findings
-- How many differences between the ledgers nobody has answered for.
SELECT code, count(*) AS findings FROM reconciliation_findings
WHERE closed_at IS NULL AND accepted_at IS NULL GROUP BY code

-- name: unfinished_webhooks
-- How many webhooks wait or were given up this week, and for how long the oldest has.
SELECT status, count(*) AS webhooks, extract(epoch FROM now() - min(created_at)) AS oldest_s FROM webhook_deliveries
WHERE status <> 'delivered' AND (status = 'planned' OR settled_at > now() - interval '7 days') GROUP BY status

-- name: unfinished_runs
-- How many of Dagster's runs wait or are under way, and for how long the oldest has.
SELECT status, count(*) AS runs, extract(epoch FROM (now() AT TIME ZONE 'UTC') - min(create_timestamp)) AS oldest_s
FROM dagster.runs WHERE status IN ('QUEUED', 'NOT_STARTED', 'STARTING', 'STARTED', 'CANCELING') GROUP BY status

-- name: daemon_heartbeats
-- How long ago each part of Dagster's daemon said that it lives.
SELECT daemon_type AS daemon, extract(epoch FROM (now() AT TIME ZONE 'UTC') - timestamp) AS age_s FROM dagster.daemon_heartbeats
