//! Prepared statements of one connection, bounded: the one used longest ago goes first.

use std::collections::HashMap;

use bb8_postgres::tokio_postgres::Statement;
use foldhash::fast::RandomState;

#[derive(Debug)]
struct Cached<S> {
    statement: S,
    used: u64,
}

/// The statements. Dropping one closes it on the server. Generic for the test only.
#[derive(Debug)]
pub(super) struct Statements<S = Statement> {
    by_text: HashMap<Box<str>, Cached<S>, RandomState>,
    limit: usize,
    uses: u64,
}

impl<S: Clone> Statements<S> {
    /// Keeps at most `limit`; 0 keeps none.
    pub(super) fn new(limit: u32) -> Self {
        Self { by_text: HashMap::default(), limit: limit as usize, uses: 0 }
    }

    pub(super) fn get(&mut self, text: &str) -> Option<S> {
        let cached = self.by_text.get_mut(text)?;
        self.uses += 1;
        cached.used = self.uses;
        Some(cached.statement.clone())
    }

    pub(super) fn put(&mut self, text: &str, statement: S) {
        if self.limit == 0 {
            return;
        }
        if self.by_text.len() >= self.limit && !self.by_text.contains_key(text) {
            let oldest = self.by_text.iter().min_by_key(|(_, cached)| cached.used);
            if let Some(oldest) = oldest.map(|(text, _)| text.clone()) {
                self.by_text.remove(&oldest);
            }
        }
        self.uses += 1;
        self.by_text.insert(text.into(), Cached { statement, used: self.uses });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_statement_used_longest_ago_makes_room() {
        let mut statements = Statements::new(2);
        statements.put("a", 1);
        statements.put("b", 2);
        assert_eq!(statements.get("a"), Some(1));
        statements.put("c", 3);
        assert_eq!((statements.get("a"), statements.get("b"), statements.get("c")), (Some(1), None, Some(3)));
    }
}
