//! Whether a name and a password belong together.
//!
//! Promise: bcrypt is slow on purpose, so outcomes are remembered and at most one password is
//! computed at a time, whoever asks; an unknown name takes as long as a known one.

use std::collections::{BTreeMap, VecDeque};
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};

use bcrypt::HashParts;

use crate::config::Secret;

/// How many outcomes are remembered.
const REMEMBERED_MAX: usize = 100;
/// Of a password that nobody has: what unknown names are compared with.
const NOBODYS: &str = "$2y$10$QOauhQNbBCuQDKes6eFzPeMqBSjb7Mr5DUmpZ/VcEd00UAV/LDeSi";
/// Go's library names this before anything else.
const HASH_BYTES_MIN: usize = 59;

/// Whether a text is a bcrypt hash; else what is wrong, as Go's library says it.
pub fn check_hash(hash: &str) -> Result<(), String> {
    if hash.len() < HASH_BYTES_MIN {
        let text = "crypto/bcrypt: hashedSecret too short to be a bcrypted password";
        return Err(text.to_owned());
    }
    match HashParts::from_str(hash) {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("crypto/bcrypt: {error}")),
    }
}

/// Outcomes of comparisons. The passwords are kept as they came: not printed, and gone with the
/// process.
#[derive(Default)]
pub struct Passwords {
    remembered: Mutex<VecDeque<(Tried, bool)>>,
    computing: tokio::sync::Mutex<()>,
}

/// The hash is part of it, so that a changed password is another attempt.
#[derive(PartialEq, Eq)]
struct Tried {
    name: String,
    hash: Secret,
    password: Secret,
}

impl Passwords {
    /// Whether `name` is one of `users`, and `password` its password.
    pub async fn fit(&self, users: &BTreeMap<String, Secret>, name: &str, password: &str) -> bool {
        let (hash, known) = match users.get(name) {
            Some(hash) => (hash.clone(), true),
            None => (Secret::new(NOBODYS), false),
        };
        let tried = Tried {
            name: name.to_owned(),
            hash,
            password: Secret::new(password),
        };
        if let Some(fits) = self.recall(&tried) {
            return fits;
        }
        let _one = self.computing.lock().await;
        if let Some(fits) = self.recall(&tried) {
            return fits;
        }
        let fits = bcrypt::verify(password, tried.hash.expose()).unwrap_or(false) && known;
        let mut remembered = self
            .remembered
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if remembered.len() >= REMEMBERED_MAX {
            remembered.pop_front();
        }
        remembered.push_back((tried, fits));
        fits
    }

    fn recall(&self, tried: &Tried) -> Option<bool> {
        let remembered = self
            .remembered
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let found = remembered.iter().find(|(before, _)| before == tried);
        found.map(|(_, fits)| *fits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn passwords_fit_their_users_alone() {
        let hash = bcrypt::hash("secret", 4).unwrap();
        check_hash(&hash).unwrap();
        let users = BTreeMap::from([("alice".to_owned(), Secret::new(hash))]);
        let passwords = Passwords::default();
        for _ in 0..2 {
            assert!(passwords.fit(&users, "alice", "secret").await);
            assert!(!passwords.fit(&users, "alice", "Secret").await);
            assert!(!passwords.fit(&users, "bob", "secret").await);
        }
        let changed = bcrypt::hash("other", 4).unwrap();
        let users = BTreeMap::from([("alice".to_owned(), Secret::new(changed))]);
        assert!(!passwords.fit(&users, "alice", "secret").await);
        for i in 0..REMEMBERED_MAX {
            passwords.fit(&users, "alice", &i.to_string()).await;
        }
        assert_eq!(passwords.remembered.lock().unwrap().len(), REMEMBERED_MAX);
    }

    #[test]
    fn what_is_no_hash_is_refused() {
        check_hash(NOBODYS).unwrap();
        for text in ["", "plain", &"x".repeat(60), &NOBODYS.replace("2y", "9y")] {
            assert!(check_hash(text).is_err(), "{text}");
        }
    }
}
