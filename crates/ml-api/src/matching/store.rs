//! The tables `loan_requests`, `lending_offers` and `matches`: the only part of this feature that names the pool.
//!
//! A match is a transaction on a lease; everything else is one statement, and goes through the pipelined lane.

use chrono::{DateTime, Utc};
use pools_core::postgres::{PgError, Row, Transaction};
use serde::Serialize;

use super::{
    error::{MatchingError, Refusal, Side},
    model::{Amount, BookId, LendingOffer, LoanRequest, MatchOrder},
};
use crate::database::Database;

/// Rows in one list: 3 MB of JSON.
const MAX_LISTED: usize = 10_000;
/// Expired rows that one statement removes: some milliseconds, in which it holds their locks.
const TIDIED: i64 = 1_000;
/// Matches that are shown.
const RECENT: i64 = 10;

/// The book in Postgres. Clones share the pool.
#[derive(Clone, Debug)]
pub struct MatchingStore(Database);

/// One side, while it is open.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Open<T> {
    /// What was put.
    #[serde(flatten)]
    pub terms: T,
    /// When that was.
    pub created_at: DateTime<Utc>,
    /// Until when it can be matched.
    pub expires_at: DateTime<Utc>,
}

/// A list, cut where it is too long for one answer.
#[derive(Clone, Debug)]
pub struct Listed<T> {
    /// The first rows.
    pub rows: Vec<T>,
    /// Whether there are more.
    pub truncated: bool,
}

/// Who was matched with whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Match {
    /// The caller's name for it, or ours.
    pub match_id: String,
    /// Which request.
    pub loan_id: String,
    /// Which offer.
    pub offer_id: String,
    /// Basis points, where the caller named them.
    pub interest_rate: Option<i32>,
    /// When.
    pub matched_at: DateTime<Utc>,
}

/// The answer to an order.
#[derive(Clone, Debug)]
pub struct Made {
    /// The match.
    pub matched: Match,
    /// Whether this order made it, and not an earlier one with the same id.
    pub created: bool,
}

/// What is known of all matches.
#[derive(Clone, Debug)]
pub struct Recent {
    /// How many.
    pub total: i64,
    /// The latest first.
    pub matches: Vec<Match>,
}

/// One side, locked until the transaction ends.
struct Locked<T> {
    terms: T,
    match_id: Option<String>,
    expired: bool,
}

impl MatchingStore {
    /// A store in this database.
    pub fn new(database: Database) -> Self {
        Self(database)
    }

    /// Inserts a request, or replaces the terms of an open one. Returns whether it is new.
    ///
    /// # Errors
    /// It is matched, or see [`DatabaseError`](crate::database::DatabaseError).
    pub async fn put_request(&self, request: &LoanRequest) -> Result<bool, MatchingError> {
        let LoanRequest { loan_id, borrower, token_type, amount, max_interest_rate, duration, risk_score } =
            request;
        let (id, amount) = (loan_id.as_str(), amount.as_str());
        let lane = self.0.ready()?.lane();
        let row = lane
            .query_opt(
                PUT_REQUEST,
                &[&id, borrower, token_type, &amount, max_interest_rate, duration, risk_score],
            )
            .await
            .map_err(|cause| self.0.failed(cause))?;
        Ok(row.ok_or(Refusal::Matched(Side::Request))?.get(0))
    }

    /// Inserts an offer, or replaces the terms of an open one. Returns whether it is new.
    ///
    /// # Errors
    /// As [`put_request`](Self::put_request).
    pub async fn put_offer(&self, offer: &LendingOffer) -> Result<bool, MatchingError> {
        let (id, amount) = (offer.offer_id.as_str(), offer.amount.as_str());
        let LendingOffer { lender, token_type, min_interest_rate, max_interest_rate, .. } = offer;
        let LendingOffer { min_duration, max_duration, .. } = offer;
        let lane = self.0.ready()?.lane();
        let row = lane
            .query_opt(
                PUT_OFFER,
                &[
                    &id,
                    lender,
                    token_type,
                    &amount,
                    min_interest_rate,
                    max_interest_rate,
                    min_duration,
                    max_duration,
                ],
            )
            .await
            .map_err(|cause| self.0.failed(cause))?;
        Ok(row.ok_or(Refusal::Matched(Side::Offer))?.get(0))
    }

    /// Removes one side that has no match.
    ///
    /// # Errors
    /// It is unknown or matched, or see [`DatabaseError`](crate::database::DatabaseError).
    pub async fn remove(&self, side: Side, id: &BookId) -> Result<(), MatchingError> {
        let sql = match side {
            Side::Request => REMOVE_REQUEST,
            Side::Offer => REMOVE_OFFER,
        };
        let lane = self.0.ready()?.lane();
        let row = lane.query_one(sql, &[&id.as_str()]).await.map_err(|cause| self.0.failed(cause))?;
        match (row.get(0), row.get(1)) {
            (true, _) => Ok(()),
            (false, true) => Err(Refusal::Matched(side).into()),
            (false, false) => Err(Refusal::Unknown(side).into()),
        }
    }

    /// Removes sides that expired an hour ago without a match. Returns how many.
    ///
    /// # Errors
    /// See [`DatabaseError`](crate::database::DatabaseError).
    ///
    /// # Cancel safety
    /// Dropped, some are gone and the others are left to the next call.
    pub async fn tidy(&self) -> Result<u64, MatchingError> {
        let lane = self.0.ready()?.lane();
        let mut removed = 0;
        for sql in [TIDY_REQUESTS, TIDY_OFFERS] {
            loop {
                let some = lane.execute(sql, &[&TIDIED]).await.map_err(|cause| self.0.failed(cause))?;
                removed += some;
                if some < TIDIED.unsigned_abs() {
                    break;
                }
            }
        }
        Ok(removed)
    }

    /// Open requests, by ascending risk.
    ///
    /// # Errors
    /// See [`DatabaseError`](crate::database::DatabaseError).
    pub async fn requests(&self) -> Result<Listed<Open<LoanRequest>>, MatchingError> {
        self.list(REQUESTS, request).await
    }

    /// Open offers, the oldest first.
    ///
    /// # Errors
    /// See [`DatabaseError`](crate::database::DatabaseError).
    pub async fn offers(&self) -> Result<Listed<Open<LendingOffer>>, MatchingError> {
        self.list(OFFERS, offer).await
    }

    async fn list<T>(&self, sql: &str, terms: impl Fn(&Row) -> T) -> Result<Listed<Open<T>>, MatchingError> {
        let lane = self.0.ready()?.lane();
        let limit = MAX_LISTED as i64 + 1;
        let rows = lane.read(sql, &[&limit]).await.map_err(|cause| self.0.failed(cause))?;
        let open = |row: &Row| Open {
            terms: terms(row),
            created_at: row.get("created_at"),
            expires_at: row.get("expires_at"),
        };
        let truncated = rows.len() > MAX_LISTED;
        Ok(Listed { rows: rows.iter().take(MAX_LISTED).map(open).collect(), truncated })
    }

    /// How many matches there are, and the latest.
    ///
    /// # Errors
    /// See [`DatabaseError`](crate::database::DatabaseError).
    pub async fn recent(&self) -> Result<Recent, MatchingError> {
        let lane = self.0.ready()?.lane();
        let rows = lane.read(RECENT_MATCHES, &[&RECENT]).await.map_err(|cause| self.0.failed(cause))?;
        let total = rows.first().map_or(0, |row| row.get("total"));
        Ok(Recent { total, matches: rows.iter().map(matched).collect() })
    }

    /// Takes both sides in one transaction, or neither.
    ///
    /// # Errors
    /// The book does not allow it, or see [`DatabaseError`](crate::database::DatabaseError).
    ///
    /// # Cancel safety
    /// Dropped, nothing changes, unless the commit was on its way; repeating the order tells, if it has an id.
    pub async fn make(&self, order: &MatchOrder) -> Result<Made, MatchingError> {
        let pool = self.0.ready()?;
        let made = async {
            let mut lease = pool.acquire().await?;
            let transaction = lease.begin().await?;
            match take(&transaction, order).await? {
                Ok(made) => transaction.commit().await.map(|()| Ok(made)),
                Err(refusal) => transaction.rollback().await.map(|()| Err(refusal)),
            }
        };
        let made = made.await.map_err(|cause| self.0.failed(cause))?;
        Ok(made?)
    }
}

/// Locks the request before the offer: of two orders with a side in common, one waits here and then finds it matched.
async fn take(transaction: &Transaction<'_>, order: &MatchOrder) -> Result<Result<Made, Refusal>, PgError> {
    let (loan_id, offer_id) = (order.loan_id.as_str(), order.offer_id.as_str());
    let Some(request) = transaction.query_opt(LOCK_REQUEST, &[&loan_id]).await? else {
        return Ok(Err(Refusal::Unknown(Side::Request)));
    };
    let Some(offer) = transaction.query_opt(LOCK_OFFER, &[&offer_id]).await? else {
        return Ok(Err(Refusal::Unknown(Side::Offer)));
    };
    let request = locked(&request, self::request);
    let offer = locked(&offer, self::offer);
    let asked = order.match_id.as_ref().map(BookId::as_str);
    if asked.is_some() && request.match_id.as_deref() == asked && offer.match_id.as_deref() == asked {
        let row = transaction.query_one(MATCH, &[&asked]).await?;
        return Ok(Ok(Made { matched: matched(&row), created: false }));
    }
    if let Err(refusal) = check(&request, &offer, order.interest_rate) {
        return Ok(Err(refusal));
    }
    let made = transaction.query_opt(MAKE, &[&asked, &loan_id, &offer_id, &order.interest_rate]).await?;
    Ok(made.map(|row| Made { matched: matched(&row), created: true }).ok_or(Refusal::IdTaken))
}

fn check(
    request: &Locked<LoanRequest>,
    offer: &Locked<LendingOffer>,
    rate: Option<i32>,
) -> Result<(), Refusal> {
    let sides = [
        (Side::Request, request.match_id.is_some(), request.expired),
        (Side::Offer, offer.match_id.is_some(), offer.expired),
    ];
    for (side, matched, expired) in sides {
        if matched {
            return Err(Refusal::Matched(side));
        }
        if expired {
            return Err(Refusal::Expired(side));
        }
    }
    request.terms.fits(&offer.terms, rate)
}

fn locked<T>(row: &Row, terms: impl Fn(&Row) -> T) -> Locked<T> {
    Locked { terms: terms(row), match_id: row.get("match_id"), expired: row.get("expired") }
}

fn stored_id(row: &Row, column: &str) -> BookId {
    BookId::stored(row.get(column))
}

fn request(row: &Row) -> LoanRequest {
    LoanRequest {
        loan_id: stored_id(row, "loan_id"),
        borrower: row.get("borrower"),
        token_type: row.get("token_type"),
        amount: Amount::stored(row.get("digits")),
        max_interest_rate: row.get("max_interest_rate"),
        duration: row.get("duration"),
        risk_score: row.get("risk_score"),
    }
}

fn offer(row: &Row) -> LendingOffer {
    LendingOffer {
        offer_id: stored_id(row, "offer_id"),
        lender: row.get("lender"),
        token_type: row.get("token_type"),
        amount: Amount::stored(row.get("digits")),
        min_interest_rate: row.get("min_interest_rate"),
        max_interest_rate: row.get("max_interest_rate"),
        min_duration: row.get("min_duration"),
        max_duration: row.get("max_duration"),
    }
}

fn matched(row: &Row) -> Match {
    Match {
        match_id: row.get("match_id"),
        loan_id: row.get("loan_id"),
        offer_id: row.get("offer_id"),
        interest_rate: row.get("interest_rate"),
        matched_at: row.get("matched_at"),
    }
}

/// The condition is looked at again after a wait for the row, so that a match in the meantime is seen.
const PUT_REQUEST: &str = "INSERT INTO loan_requests \
    (loan_id, borrower, token_type, amount, max_interest_rate, duration, risk_score) \
    VALUES ($1, $2, $3, $4::text::numeric, $5, $6, $7) \
    ON CONFLICT (loan_id) DO UPDATE SET borrower = excluded.borrower, token_type = excluded.token_type, \
    amount = excluded.amount, max_interest_rate = excluded.max_interest_rate, \
    duration = excluded.duration, risk_score = excluded.risk_score, \
    created_at = excluded.created_at, expires_at = excluded.expires_at \
    WHERE loan_requests.match_id IS NULL RETURNING xmax = 0";

const PUT_OFFER: &str = "INSERT INTO lending_offers \
    (offer_id, lender, token_type, amount, min_interest_rate, max_interest_rate, min_duration, max_duration) \
    VALUES ($1, $2, $3, $4::text::numeric, $5, $6, $7, $8) \
    ON CONFLICT (offer_id) DO UPDATE SET lender = excluded.lender, token_type = excluded.token_type, \
    amount = excluded.amount, min_interest_rate = excluded.min_interest_rate, \
    max_interest_rate = excluded.max_interest_rate, min_duration = excluded.min_duration, \
    max_duration = excluded.max_duration, \
    created_at = excluded.created_at, expires_at = excluded.expires_at \
    WHERE lending_offers.match_id IS NULL RETURNING xmax = 0";

/// A row that is there and was not removed is matched. Locked first, so that a row that somebody else has removed
/// meanwhile is not there: the statement alone would still see it.
const REMOVE_REQUEST: &str = "WITH side AS (SELECT match_id FROM loan_requests WHERE loan_id = $1 FOR UPDATE), \
    gone AS (DELETE FROM loan_requests USING side \
    WHERE loan_id = $1 AND side.match_id IS NULL RETURNING 1) \
    SELECT EXISTS (SELECT FROM gone), EXISTS (SELECT FROM side)";
const REMOVE_OFFER: &str = "WITH side AS (SELECT match_id FROM lending_offers WHERE offer_id = $1 FOR UPDATE), \
    gone AS (DELETE FROM lending_offers USING side \
    WHERE offer_id = $1 AND side.match_id IS NULL RETURNING 1) \
    SELECT EXISTS (SELECT FROM gone), EXISTS (SELECT FROM side)";

/// So many at a time, the oldest first. What another replica is removing, or somebody puts again, is passed over.
const TIDY_REQUESTS: &str = "DELETE FROM loan_requests WHERE loan_id IN (SELECT loan_id FROM loan_requests \
    WHERE match_id IS NULL AND expires_at < now() - interval '1 hour' \
    ORDER BY expires_at LIMIT $1 FOR UPDATE SKIP LOCKED)";
const TIDY_OFFERS: &str = "DELETE FROM lending_offers WHERE offer_id IN (SELECT offer_id FROM lending_offers \
    WHERE match_id IS NULL AND expires_at < now() - interval '1 hour' \
    ORDER BY expires_at LIMIT $1 FOR UPDATE SKIP LOCKED)";

const REQUESTS: &str = "SELECT *, amount::text AS digits FROM loan_requests \
    WHERE match_id IS NULL AND expires_at > now() ORDER BY risk_score, created_at, loan_id LIMIT $1";
const OFFERS: &str = "SELECT *, amount::text AS digits FROM lending_offers \
    WHERE match_id IS NULL AND expires_at > now() ORDER BY created_at, offer_id LIMIT $1";

const LOCK_REQUEST: &str = "SELECT *, amount::text AS digits, expires_at <= now() AS expired \
    FROM loan_requests WHERE loan_id = $1 FOR UPDATE";
const LOCK_OFFER: &str = "SELECT *, amount::text AS digits, expires_at <= now() AS expired \
    FROM lending_offers WHERE offer_id = $1 FOR UPDATE";

const MATCH: &str = "SELECT * FROM matches WHERE match_id = $1";
const MAKE: &str = "WITH made AS (INSERT INTO matches (match_id, loan_id, offer_id, interest_rate) \
    VALUES (coalesce($1, gen_random_uuid()::text), $2, $3, $4) ON CONFLICT (match_id) DO NOTHING RETURNING *), \
    request AS (UPDATE loan_requests SET match_id = made.match_id FROM made \
    WHERE loan_requests.loan_id = made.loan_id), \
    offer AS (UPDATE lending_offers SET match_id = made.match_id FROM made \
    WHERE lending_offers.offer_id = made.offer_id) \
    SELECT * FROM made";
const RECENT_MATCHES: &str = "SELECT *, (SELECT count(*) FROM matches) AS total FROM matches \
    ORDER BY matched_at DESC, match_id LIMIT $1";
