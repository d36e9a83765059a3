-- name: claim_webhooks
-- Take what is due, of each client so many at once, over all processes; nobody else sends it before the lease is over.
WITH waiting AS (
    SELECT delivery_id, client_code, next_attempt_at, coalesce(leased_until > clock_timestamp(), false) AS is_leased
    FROM webhook_deliveries
    WHERE status = 'planned' AND next_attempt_at <= clock_timestamp()
), turns AS (
    SELECT delivery_id, is_leased,
           row_number() OVER (PARTITION BY client_code ORDER BY is_leased DESC, next_attempt_at, delivery_id) AS turn
    FROM waiting
), due AS (
    SELECT delivery_id FROM webhook_deliveries JOIN turns USING (delivery_id)
    WHERE status = 'planned' AND coalesce(leased_until < clock_timestamp(), true) AND NOT is_leased AND turn <= :of_client
    ORDER BY next_attempt_at LIMIT :limit
    FOR UPDATE OF webhook_deliveries SKIP LOCKED
)
UPDATE webhook_deliveries SET attempts = attempts + 1, claim_no = claim_no + 1,
                              leased_until = clock_timestamp() + make_interval(secs => :lease_s)
FROM due WHERE webhook_deliveries.delivery_id = due.delivery_id
RETURNING webhook_deliveries.delivery_id, client_code, type, batch_id, request_id, status_then, attempts, claim_no, created_at

-- name: record_webhook
-- What a try came to, unless somebody else has claimed it since.
UPDATE webhook_deliveries SET status = :status, outcome_code = :code, leased_until = NULL,
                              next_attempt_at = clock_timestamp() + make_interval(secs => :delay_s),
                              settled_at = CASE WHEN :status <> 'planned' THEN clock_timestamp() END
WHERE delivery_id = CAST(:delivery_id AS uuid) AND claim_no = :claim_no AND status = 'planned'

-- name: switch_webhooks_off
-- A client's server wants no more.
INSERT INTO webhooks_off (client_code, webhook_url) VALUES (:client_code, :webhook_url)
ON CONFLICT (client_code) DO UPDATE SET webhook_url = excluded.webhook_url, switched_off_at = now()

-- name: give_webhooks_up
-- What is open for a client whose server wants no more is not sent.
UPDATE webhook_deliveries SET status = 'failed', outcome_code = :code, leased_until = NULL, settled_at = clock_timestamp()
WHERE client_code = :client_code AND status = 'planned'

-- name: switch_webhooks_on
-- A person has some clients' servers asked again.
DELETE FROM webhooks_off WHERE client_code = ANY(CAST(:client_codes AS text[]))

-- name: retry_webhooks
-- What was given up or waits is tried again, as if for the first time: one, or all of a client.
UPDATE webhook_deliveries SET status = 'planned', attempts = 0, next_attempt_at = clock_timestamp(), settled_at = NULL
WHERE status <> 'delivered' AND coalesce(leased_until < clock_timestamp(), true)
  AND (delivery_id = ANY(CAST(:delivery_ids AS uuid[])) OR client_code = :client_code)
RETURNING delivery_id, client_code

-- name: webhooks
-- The newest deliveries, of one client or all, and of all or only those that did not arrive.
SELECT delivery_id, client_code, type, batch_id, request_id, status, attempts, outcome_code, created_at, settled_at,
       CASE WHEN status = 'planned' THEN next_attempt_at END AS next_attempt_at
FROM webhook_deliveries
WHERE (CAST(:client_code AS text) IS NULL OR client_code = :client_code)
  AND (NOT :is_open OR status <> 'delivered')
  AND (CAST(:delivery_ids AS uuid[]) IS NULL OR delivery_id = ANY(CAST(:delivery_ids AS uuid[])))
ORDER BY created_at DESC, delivery_id LIMIT :limit

-- name: webhook_troubles
-- The clients whose webhooks do not arrive: what failed this week or is late, since when and why last, and who wants no more.
SELECT client_code, waiting, failed, since, code, switched_off_at
FROM (
    SELECT client_code, count(*) FILTER (WHERE status = 'planned') AS waiting, count(*) FILTER (WHERE status = 'failed') AS failed,
           min(created_at) AS since, (array_agg(outcome_code ORDER BY coalesce(settled_at, next_attempt_at) DESC))[1] AS code
    FROM webhook_deliveries
    WHERE (status = 'failed' AND settled_at > now() - interval '7 days')
       OR (status = 'planned' AND (attempts > 1 OR next_attempt_at < now() - make_interval(secs => :late_s)))
    GROUP BY client_code
) AS troubled
FULL JOIN (SELECT client_code, switched_off_at FROM webhooks_off JOIN known_profiles USING (client_code)
           WHERE webhooks_off.webhook_url = profile ->> 'webhook_url') AS off USING (client_code)
ORDER BY client_code

-- name: purge_webhooks
-- Deliveries are forgotten after 30 days.
DELETE FROM webhook_deliveries WHERE created_at < now() - interval '30 days'
