-- Finds what expired without a match, oldest first, so that it can be removed.
CREATE INDEX loan_requests_expiry ON loan_requests (expires_at) WHERE match_id IS NULL;
CREATE INDEX lending_offers_expiry ON lending_offers (expires_at) WHERE match_id IS NULL;
