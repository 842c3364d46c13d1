//! Orders, and what they lead to.

use serde_json::{Value, json};

use super::{
    client::{BookClient, orders},
    error::MatchingError,
    model::{
        BasisPoints, Book, BookId, Breakdown, LendingOffer, Loan, LoanRequest, Pair, Recommendation,
        TokenType, recommend,
    },
};

/// How often the book is looked at again after somebody was faster.
const ROUNDS: u32 = 3;

/// The matching book with its rules. Clones share everything.
#[derive(Clone, Debug)]
pub struct MatchingService(BookClient);

/// Which side of a pair an order is.
enum Own<'a> {
    Request(&'a BookId),
    Offer(&'a BookId),
}

impl Own<'_> {
    fn is_in(&self, pair: &Pair) -> bool {
        match self {
            Self::Request(id) => pair.loan_id == **id,
            Self::Offer(id) => pair.offer_id == **id,
        }
    }
}

impl MatchingService {
    /// On this book.
    pub fn new(book: BookClient) -> Self {
        Self(book)
    }

    /// Records a request and looks for its offer: ml-api's message, and the match if there is one.
    ///
    /// # Errors
    /// [`MatchingError`].
    pub async fn request(&self, request: &LoanRequest) -> Result<(Value, Option<Value>), MatchingError> {
        let said = self.0.put_request(request).await?;
        let found = self.settle(&request.token_type, &Own::Request(&request.loan_id)).await?;
        Ok((said["message"].clone(), found))
    }

    /// Records an offer and looks for its request: ml-api's message, and the match if there is one.
    ///
    /// # Errors
    /// [`MatchingError`].
    pub async fn offer(&self, offer: &LendingOffer) -> Result<(Value, Option<Value>), MatchingError> {
        let said = self.0.put_offer(offer).await?;
        let found = self.settle(&offer.token_type, &Own::Offer(&offer.offer_id)).await?;
        Ok((said["message"].clone(), found))
    }

    /// Takes every pair of a token; the match of the own order, if it found one.
    async fn settle(&self, token: &TokenType, own: &Own<'_>) -> Result<Option<Value>, MatchingError> {
        let mut found = None;
        for _ in 0..ROUNDS {
            let mut is_stale = false;
            for pair in self.book().await?.pairs(token) {
                match self.0.take(&pair).await? {
                    Some(made) if own.is_in(&pair) => found = Some(made),
                    Some(_of_others) => {}
                    None => is_stale = true,
                }
            }
            if !is_stale || found.is_some() {
                break;
            }
        }
        Ok(found)
    }

    /// What a loan would cost now.
    ///
    /// # Errors
    /// [`MatchingError`].
    pub async fn rate(&self, loan: &Loan) -> Result<Breakdown, MatchingError> {
        Ok(Breakdown::of(loan, &self.book().await?.market(&loan.token_type)))
    }

    /// What a borrower may expect who pays `most`.
    ///
    /// # Errors
    /// [`MatchingError`].
    pub async fn recommendation(
        &self,
        loan: &Loan,
        most: BasisPoints,
    ) -> Result<Recommendation, MatchingError> {
        Ok(recommend(&self.book().await?, loan, most))
    }

    /// The book in numbers.
    ///
    /// # Errors
    /// [`MatchingError`].
    pub async fn stats(&self) -> Result<Value, MatchingError> {
        let (book, (total, _)) = tokio::try_join!(self.book(), self.0.matches())?;
        let shown = |sums: std::collections::BTreeMap<TokenType, pools_core::chain::U256>| -> Value {
            sums.into_iter().map(|(token, sum)| (token.to_string(), json!(sum.to_string()))).collect()
        };
        let rates: Value =
            book.average_rates().into_iter().map(|(token, rate)| (token.to_string(), json!(rate))).collect();
        Ok(json!({
            "activeRequests": book.requests.len(),
            "activeOffers": book.offers.len(),
            "totalMatches": total,
            "supplyByToken": shown(book.supply()),
            "demandByToken": shown(book.demand()),
            "averageRates": rates,
        }))
    }

    /// The book itself.
    ///
    /// # Errors
    /// [`MatchingError`].
    pub async fn pools(&self) -> Result<Value, MatchingError> {
        let (requests, offers, (_, matches)) =
            tokio::try_join!(self.0.requests(), self.0.offers(), self.0.matches())?;
        Ok(json!({ "loanRequests": requests, "lendingOffers": offers, "recentMatches": matches }))
    }

    async fn book(&self) -> Result<Book, MatchingError> {
        let (requests, offers) = tokio::try_join!(self.0.requests(), self.0.offers())?;
        Ok(Book { requests: orders(&requests)?, offers: orders(&offers)? })
    }
}
