//! Who may connect: users with argon2id hashes, and a memory of passcodes that were proven before.
//!
//! Always true: at most [`HASHES_AT_ONCE`] hashes are computed at a time, on threads of their own, so a storm of
//! reconnects can't take the runtime; a passcode that was proven once costs one SHA-256 from then on; a user that does
//! not exist costs as much as one that does. No passcode is kept: the memory holds digests under a key of this process.
//! On failure: the answer is no, and never says whether it was the name or the passcode.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use argon2::{
    Argon2,
    password_hash::{self, PasswordVerifier, phc::PasswordHash},
};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::sync::Semaphore;

/// A hash takes tens of milliseconds of a core and 19 MiB by OWASP's settings; more at once would starve a small
/// machine.
const HASHES_AT_ONCE: usize = 2;

/// A user's hash is not one that can be verified.
#[derive(Debug, thiserror::Error)]
#[error("the password hash of user {user} is no argon2id hash; `batonmq passwd` makes one")]
pub struct UserError {
    /// The user.
    pub user: String,
}

/// See the module.
pub struct Authenticator {
    users: HashMap<String, Arc<PasswordHash>>,
    /// Verified in place of a user that does not exist.
    decoy: Option<Arc<PasswordHash>>,
    hashing: Arc<Semaphore>,
    /// The digest of the passcode that each user proved last; bounded by the number of users.
    proven: Mutex<HashMap<String, [u8; 32]>>,
    key: [u8; 16],
}

impl Authenticator {
    /// Knows these users, each with a hash in PHC form. None at all: everybody may connect, as nobody in particular.
    ///
    /// # Errors
    /// [`UserError`] names the first user whose hash is not argon2id in PHC form: fix the configuration.
    pub fn new(users: impl IntoIterator<Item = (String, String)>) -> Result<Self, UserError> {
        let mut known = HashMap::new();
        for (user, hash) in users {
            match PasswordHash::new(&hash) {
                Ok(hash) if hash.algorithm.as_str() == "argon2id" => known.insert(user, Arc::new(hash)),
                _ => return Err(UserError { user }),
            };
        }
        Ok(Self {
            decoy: known.values().next().cloned(),
            users: known,
            hashing: Arc::new(Semaphore::new(HASHES_AT_ONCE)),
            proven: Mutex::default(),
            key: password_hash::generate_salt(), // sixteen bytes from the system's random source
        })
    }

    /// Whether no users are configured.
    #[must_use]
    pub fn is_anonymous(&self) -> bool {
        self.users.is_empty()
    }

    /// Whether this user has this passcode. May wait for other verifications. Cancel safe.
    pub(super) async fn verify(&self, user: &str, passcode: &str) -> bool {
        let digest = self.digest(user, passcode);
        if self.was_proven(user, &digest) {
            return true;
        }
        let known = self.users.get(user);
        let Some(hash) = known.or(self.decoy.as_ref()).cloned() else { return false };
        let Ok(permit) = self.hashing.clone().acquire_owned().await else { return false };
        if self.was_proven(user, &digest) {
            return true; // by one that was ahead in the queue: ten thousand reconnects are one hash
        }
        let passcode = passcode.to_owned();
        let verified = tokio::task::spawn_blocking(move || {
            let matches = Argon2::default().verify_password(passcode.as_bytes(), &*hash).is_ok();
            drop(permit); // here and not in the caller, whose connection may be gone before
            matches
        });
        let accepted = verified.await.unwrap_or(false) && known.is_some();
        if accepted {
            self.proven.lock().unwrap_or_else(PoisonError::into_inner).insert(user.to_owned(), digest);
        }
        accepted
    }

    fn was_proven(&self, user: &str, digest: &[u8; 32]) -> bool {
        let proven = self.proven.lock().unwrap_or_else(PoisonError::into_inner);
        proven.get(user).is_some_and(|known| known.ct_eq(digest).into())
    }

    fn digest(&self, user: &str, passcode: &str) -> [u8; 32] {
        let mut sha = Sha256::new();
        sha.update(self.key);
        sha.update(user.len().to_le_bytes()); // so that "ab" + "c" is not "a" + "bc"
        sha.update(user);
        sha.update(passcode);
        sha.finalize().into()
    }
}

/// Names only: hashes are secrets too.
impl fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authenticator").field("users", &self.users.keys()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use argon2::{Algorithm, Params, PasswordHasher, Version};

    use super::*;

    fn hash(passcode: &str) -> String {
        let params = Params::new(8, 1, 1, None).unwrap(); // the least that argon2 takes: tests prove no strength
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let hash: PasswordHash = argon2.hash_password(passcode.as_bytes()).unwrap();
        hash.to_string()
    }

    fn alice() -> Authenticator {
        Authenticator::new([("alice".to_owned(), hash("secret"))]).unwrap()
    }

    #[tokio::test]
    async fn only_the_right_passcode_is_accepted() {
        let users = alice();
        assert!(!users.verify("alice", "wrong").await);
        assert!(users.verify("alice", "secret").await);
        assert!(!users.verify("alice", "wrong").await);
        assert!(!users.verify("mallory", "secret").await);
        assert!(!users.verify("alices", "ecret").await);
    }

    #[tokio::test]
    async fn a_proven_passcode_needs_no_second_hash() {
        let users = alice();
        assert!(users.verify("alice", "secret").await);
        users.hashing.close(); // from here on every hash fails
        assert!(users.verify("alice", "secret").await);
        assert!(!users.verify("alice", "wrong").await);
    }

    #[tokio::test]
    async fn what_was_refused_is_not_remembered() {
        let users = alice();
        assert!(!users.verify("mallory", "secret").await);
        assert!(users.proven.lock().unwrap().is_empty());
    }

    #[test]
    fn a_hash_of_another_kind_names_its_user() {
        let error = Authenticator::new([("bob".to_owned(), "plain text".to_owned())]).unwrap_err();
        assert!(error.to_string().contains("bob"));
        assert!(!error.to_string().contains("plain text"), "it may be the passcode itself");
    }

    #[test]
    fn no_secret_is_in_the_debug_output() {
        assert!(!format!("{:?}", alice()).contains("argon2"));
    }
}
