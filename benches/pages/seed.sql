-- A ledger with :reversals debts of the last 90 days, in all states, as a busy marketplace's would be. Run after `migrate up`.
-- Each id begins with its row's time, as Clawback's do: kind is one hex digit, so ids of different tables differ.
CREATE FUNCTION pg_temp.id(at timestamptz, kind text, n bigint) RETURNS uuid LANGUAGE sql IMMUTABLE AS $$
  SELECT (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || '7' || kind || '00' || '8' || lpad(to_hex(n), 15, '0'))::uuid
$$;

-- status: of 1,000 debts 5 are pending, 2 of them short of balance, 15 failed permanently, 3 are closed; the newest 2,000 are pending.
CREATE UNLOGGED TABLE seed AS
SELECT n, at, pg_temp.id(at, '1', n) AS payment, pg_temp.id(at, '2', n) AS transfer, pg_temp.id(at, '3', n) AS claim,
  pg_temp.id(at, '4', n) AS reversal,
  (ARRAY['eur', 'eur', 'eur', 'eur', 'eur', 'eur', 'usd', 'usd', 'gbp', 'jpy'])[1 + n % 10] AS currency, 1000 + n % 9000 AS amount,
  CASE WHEN n >= :reversals - 2000 OR n % 1000 < 5 THEN 'pending' WHEN n % 1000 < 20 THEN 'permanently_failed'
    WHEN n % 1000 < 23 THEN 'closed' ELSE 'reversed' END AS status
FROM (SELECT n, now() - (:reversals - n) * interval '90 days' / :reversals AS at FROM generate_series(0, :reversals - 1) n) numbered;

INSERT INTO payments (id, payment_ref, amount, currency, created_at)
SELECT payment, 'pi_' || n, amount, currency, at FROM seed;

INSERT INTO seller_transfers (id, payment_id, position, seller_id, stripe_transfer_id, destination, amount, amount_reversed, currency, status,
  created_by_us, created_at, updated_at)
SELECT transfer, payment, 0, 'seller-' || n % 5000, 'tr_' || n, 'acct_' || n % 5000, amount,
  CASE WHEN status IN ('reversed', 'closed') THEN amount ELSE 0 END, currency,
  CASE status WHEN 'pending' THEN 'reversal_pending' WHEN 'closed' THEN 'reversed' ELSE status END, FALSE, at, at FROM seed;

INSERT INTO claims (id, kind, source, reference, payment_ref, payment_id, amount, currency, status, status_reason, attention, stage, created_at,
  matched_at)
SELECT claim, CASE WHEN n % 100 = 7 THEN 'dispute' ELSE 'refund' END, 'stripe', CASE WHEN n % 100 = 7 THEN 'du_' ELSE 're_' END || n, 'pi_' || n, payment,
  amount, currency, 'matched', 'matched to payment pi_' || n, CASE WHEN n % 2000 = 1 THEN 'failed after it had succeeded' END,
  CASE WHEN n % 100 = 7 THEN 'lost' END, at, at FROM seed;

-- Those that take nothing yet.
INSERT INTO claims (id, kind, source, reference, payment_ref, amount, currency, status, status_reason, created_at)
SELECT pg_temp.id(at, '5', n), 'refund', 'stripe', 're_alone_' || n, 'pi_alone_' || n, amount, currency,
  (ARRAY['unmatched', 'held', 'conflicting', 'nothing_to_reverse', 'failed'])[1 + n / 200 % 5], 'for the measurement', at
FROM seed WHERE n % 200 = 11;

INSERT INTO reversals (id, claim_id, transfer_id, seller_id, amount, currency, status, stripe_reversal_id, created_at, updated_at)
SELECT reversal, claim, transfer, 'seller-' || n % 5000, amount, currency, status, CASE status WHEN 'reversed' THEN 'trr_' || n END, at, at + interval '3 seconds' FROM seed;

INSERT INTO calls (id, kind, version, state, attempts, next_attempt_at, generation_started_at, requested_at, refused_since, failure_code,
  failure_message, sweep_after, created_at, updated_at)
SELECT reversal, 'reverse', 3,
  CASE status WHEN 'pending' THEN 'open' WHEN 'reversed' THEN 'done' WHEN 'closed' THEN 'called_off' ELSE 'failed' END, 1,
  CASE WHEN status = 'pending' THEN now() + interval '1 day' END, at, at, CASE WHEN status = 'pending' AND n % 5 < 2 THEN at END,
  CASE WHEN status = 'permanently_failed' THEN (ARRAY['resource_missing', 'more_than_left', 'balance_insufficient'])[1 + n % 3] END,
  CASE WHEN status = 'permanently_failed' THEN (ARRAY['No such transfer: ''tr_', 'Less is left of tr_', 'Short of balance: tr_'])[1 + n % 3] || n END,
  now() + interval '30 days', at, at + interval '3 seconds' FROM seed;

INSERT INTO history (id, entity, entity_id, from_status, to_status, at, actor, reason)
SELECT pg_temp.id(at, '6', n), 'refund', claim, NULL, 'matched', at, 'ingress', 'event evt_' || n FROM seed
UNION ALL SELECT pg_temp.id(at, '7', n), 'reversal', reversal, NULL, 'pending', at, 'ingress', 'asked by re_' || n FROM seed
UNION ALL SELECT pg_temp.id(at + interval '3 seconds', '8', n), 'reversal', reversal, 'pending', status, at + interval '3 seconds',
  CASE WHEN n % 5000 = 20 THEN 'ada' ELSE 'worker' END, 'done' FROM seed WHERE status <> 'pending';

INSERT INTO webhook_events (id, source, event_id, event_type, object_id, outcome, received_at)
SELECT pg_temp.id(at, '9', n), 'stripe', 'evt_' || n, 'refund.created', 're_' || n, 'accepted', at FROM seed;

-- Published jobs are kept for 7 days.
INSERT INTO outbox (id, kind, payload, entity_id, created_at, published_at, attempts)
SELECT pg_temp.id(at, 'a', n), 'clawback.reverse_transfer', '{}', reversal, at, at, 1 FROM seed WHERE at > now() - interval '7 days';

-- Operations of 1,000 rows each that are over.
INSERT INTO operations (id, action, filter, state, items, matching, checked, refusals, operator, reason, created_at, started_at, finished_at)
SELECT pg_temp.id(at, 'b', n), 'replay_reversals', '{"currency":"eur"}', 'done', 1000, 1000, 1000, '[]', 'ada', 'Stripe is back', at, at, at
FROM seed WHERE n % (:reversals / 100) = 0;
INSERT INTO operation_items (id, operation_id, position, target_id, amount, currency, state, done_at)
SELECT gen_random_uuid(), o.id, position, gen_random_uuid(), 1000, 'eur', 'done', o.created_at FROM operations o, generate_series(0, 999) position;

DROP TABLE seed;
