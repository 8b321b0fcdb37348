//! SCRAM's keys, their derivation from passwords, and a bounded cache of derived ones.

use crate::types::Secret;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use subtle::ConstantTimeEq;
use zeroize::Zeroize;

/// PostgreSQL's default `scram_iterations`.
pub const DEFAULT_ITERATIONS: u32 = 4096;

/// The most iterations pgyard computes: about a second of one core.
pub const MAX_ITERATIONS: u32 = 1_000_000;

/// PostgreSQL's `SCRAM_DEFAULT_SALT_LEN`, in bytes.
pub const SALT_LENGTH: usize = 16;

/// A key or hash of 32 bytes. Compared in constant time, hidden from `Debug`, wiped on drop.
#[derive(Clone)]
pub struct ScramKey([u8; 32]);

/// What SCRAM derives from a password, a salt and an iteration count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DerivedKeys {
    /// Proves a client's knowledge of the password.
    pub client_key: ScramKey,
    /// Proves a server's.
    pub server_key: ScramKey,
}

/// A derivation that is due. It takes milliseconds: see [`KeyRequest::derive`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRequest {
    /// The password as the user knows it.
    pub password: Secret,
    /// The salt. Not secret.
    pub salt: Vec<u8>,
    /// The number of PBKDF2 rounds.
    pub iterations: u32,
}

impl ScramKey {
    /// Takes 32 bytes as a key.
    pub fn new(bytes: [u8; 32]) -> Self {
        ScramKey(bytes)
    }

    /// Takes a slice as a key, if it has 32 bytes.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(ScramKey)
    }

    /// The bytes: for authentication code only.
    pub fn reveal(&self) -> &[u8; 32] {
        &self.0
    }

    /// SHA-256 of the key: StoredKey, when this is a ClientKey.
    pub fn hash(&self) -> ScramKey {
        ScramKey(Sha256::digest(self.0).into())
    }

    /// HMAC-SHA-256 of the parts, joined by commas, under this key.
    pub fn sign(&self, parts: &[&[u8]]) -> ScramKey {
        let mut mac = keyed(&self.0);
        for (i, part) in parts.iter().enumerate() {
            if i > 0 {
                mac.update(b",");
            }
            mac.update(part);
        }
        ScramKey(mac.finalize().into_bytes().into())
    }

    /// Bitwise exclusive or: a proof out of a key and a signature, and the key out of a proof and a signature.
    pub fn xor(&self, other: &ScramKey) -> ScramKey {
        let mut bytes = self.0;
        bytes.iter_mut().zip(other.0).for_each(|(byte, with)| *byte ^= with);
        ScramKey(bytes)
    }
}

impl PartialEq for ScramKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for ScramKey {}

impl fmt::Debug for ScramKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ScramKey(***)")
    }
}

impl Drop for ScramKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl KeyRequest {
    /// Derives the keys. Runs PBKDF2 for milliseconds (4096 rounds) up to a second ([`MAX_ITERATIONS`]) without a pause: call it where
    /// that may block.
    pub fn derive(&self) -> DerivedKeys {
        let prepared = saslprep(self.password.reveal());
        let salted = ScramKey(salted_password(prepared.as_bytes(), &self.salt, self.iterations));
        DerivedKeys { client_key: salted.sign(&[b"Client Key"]), server_key: salted.sign(&[b"Server Key"]) }
    }
}

/// SASLprep as PostgreSQL applies it: what can't be prepared (prohibited characters, an empty result) is used as it is.
///
/// Spec: RFC 4013; PostgreSQL `pg_saslprep`.
fn saslprep(password: &str) -> Cow<'_, str> {
    match stringprep::saslprep(password) {
        Ok(prepared) if !prepared.is_empty() => prepared,
        _ => Cow::Borrowed(password),
    }
}

/// PBKDF2-HMAC-SHA-256 with one block of output: SCRAM's `Hi()`.
fn salted_password(password: &[u8], salt: &[u8], iterations: u32) -> [u8; 32] {
    let keyed = keyed(password);
    let mut mac = keyed.clone();
    mac.update(salt);
    mac.update(&1u32.to_be_bytes());
    let mut round: [u8; 32] = mac.finalize().into_bytes().into();
    let mut result = round;
    for _ in 1..iterations {
        let mut mac = keyed.clone();
        mac.update(&round);
        round = mac.finalize().into_bytes().into();
        result.iter_mut().zip(round).for_each(|(byte, with)| *byte ^= with);
    }
    round.zeroize();
    result
}

/// HMAC-SHA-256 under a key of any length. The key is brought to the hash's block size here, which is HMAC's own first step, because the
/// constructor for that size can't fail.
fn keyed(key: &[u8]) -> Hmac<Sha256> {
    let mut block = [0u8; 64];
    if key.len() <= block.len() {
        block[..key.len()].copy_from_slice(key);
    } else {
        block[..32].copy_from_slice(&Sha256::digest(key));
    }
    let mac = Hmac::<Sha256>::new(&block.into());
    block.zeroize();
    mac
}

/// Keys that were derived before, under a keyed hash of (password, salt, iterations); the least recently used give way to new ones.
///
/// Also the source of the salts that unknown roles, and roles whose password is in the configuration, are shown: the same for a name as
/// long as the process lives, like those of stored verifiers.
pub struct KeyCache {
    secret: ScramKey,
    capacity: usize,
    entries: Mutex<CacheEntries>,
}

#[derive(Default)]
struct CacheEntries {
    keys: HashMap<[u8; 32], (DerivedKeys, u64)>,
    uses: u64,
}

impl KeyCache {
    /// An empty cache of at most `capacity` entries (about 150 bytes each), with a secret of its own.
    pub fn new(capacity: usize) -> Self {
        KeyCache { secret: ScramKey(rand::random()), capacity, entries: Mutex::default() }
    }

    /// The keys for a request, if they were remembered.
    pub fn get(&self, request: &KeyRequest) -> Option<DerivedKeys> {
        let index = self.index(request);
        let mut entries = self.entries();
        entries.uses += 1;
        let now = entries.uses;
        let (keys, used) = entries.keys.get_mut(&index)?;
        *used = now;
        Some(keys.clone())
    }

    /// Remembers the keys for a request. To be called only when the password has been found right: wrong ones, which anybody can send,
    /// would push out the useful entries.
    pub fn remember(&self, request: &KeyRequest, keys: DerivedKeys) {
        if self.capacity == 0 {
            return;
        }
        let index = self.index(request);
        let mut entries = self.entries();
        entries.uses += 1;
        let now = entries.uses;
        if entries.keys.len() >= self.capacity && !entries.keys.contains_key(&index) {
            // A scan of the whole map, but only after a derivation that cost a thousand times more.
            let oldest = entries.keys.iter().min_by_key(|(_, (_, used))| *used).map(|(index, _)| *index);
            oldest.and_then(|oldest| entries.keys.remove(&oldest));
        }
        entries.keys.insert(index, (keys, now));
    }

    /// The salt to show for a role that has no verifier of its own.
    ///
    /// Spec: PostgreSQL `scram_mock_salt`.
    pub fn salt_for(&self, user: &str) -> Vec<u8> {
        self.secret.sign(&[b"salt", user.as_bytes()]).reveal()[..SALT_LENGTH].to_vec()
    }

    /// Entries now.
    pub fn len(&self) -> usize {
        self.entries().keys.len()
    }

    /// Whether nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Password and salt are hashed apart, so that no two requests meet in one index.
    fn index(&self, request: &KeyRequest) -> [u8; 32] {
        let password = self.secret.sign(&[b"password", request.password.reveal().as_bytes()]);
        let salt = self.secret.sign(&[b"key salt", &request.salt]);
        *self.secret.sign(&[password.reveal(), salt.reveal(), &request.iterations.to_be_bytes()]).reveal()
    }

    /// A panic elsewhere can't leave the map half changed, so a poisoned lock is as good as any.
    fn entries(&self) -> MutexGuard<'_, CacheEntries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for KeyCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyCache").field("len", &self.len()).field("capacity", &self.capacity).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(password: &str, salt: &[u8], iterations: u32) -> KeyRequest {
        KeyRequest { password: Secret::new(password), salt: salt.to_vec(), iterations }
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    #[test]
    fn pbkdf2_gives_the_published_vectors() {
        // RFC 7914, section 11 (first block of each) and the widely used SHA-256 rendering of RFC 6070.
        for (password, salt, iterations, expect) in [
            ("passwd", "salt", 1, "55ac046e56e3089fec1691c22544b605f94185216dde0465e68b9d57c20dacbc"),
            ("Password", "NaCl", 80000, "4ddcd8f60b98be21830cee5ef22701f9641a4418d04c0414aeff08876b34ab56"),
            ("password", "salt", 4096, "c5e478d59288c841aa530db6845c4c8d962893a001ce4e11a4963873aa98134a"),
        ] {
            assert_eq!(hex(&salted_password(password.as_bytes(), salt.as_bytes(), iterations)), expect);
        }
    }

    #[test]
    fn keys_longer_than_a_block_are_hashed_first() {
        // RFC 4231, test case 6: 131 bytes of 0xaa.
        let mut mac = keyed(&[0xaa; 131]);
        mac.update(b"Test Using Larger Than Block-Size Key - Hash Key First");
        let expect = "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54";
        assert_eq!(hex(&mac.finalize().into_bytes()), expect);
    }

    #[test]
    fn passwords_are_prepared_where_they_can_be() {
        for (input, expect) in [
            ("pencil", "pencil"),
            ("I\u{ad}X", "IX"),
            ("\u{2168}", "IX"),
            ("\u{aa}", "a"),
            ("a\u{a0}b", "a b"),
            ("bell\u{7}", "bell\u{7}"),
            ("\u{627}1", "\u{627}1"),
            ("\u{ad}", "\u{ad}"),
            ("", ""),
        ] {
            assert_eq!(saslprep(input), expect, "{input:?}");
        }
    }

    #[test]
    fn secrets_are_not_printed() {
        let request = request("geheim", b"salt", 1);
        let text = format!("{request:?} {:?} {:?}", request.derive(), KeyCache::new(1));
        assert!(!text.contains("geheim"), "{text}");
        assert_eq!(text.matches("***").count(), 3, "{text}");
    }

    #[test]
    fn the_cache_keeps_what_is_used_and_stays_bounded() {
        let cache = KeyCache::new(2);
        let requests = ["a", "b", "c"].map(|password| request(password, b"salt", 1));
        for request in &requests[..2] {
            assert_eq!(cache.get(request), None);
            cache.remember(request, request.derive());
        }
        assert_eq!(cache.get(&requests[0]), Some(requests[0].derive()));
        cache.remember(&requests[2], requests[2].derive());
        assert_eq!(cache.len(), 2);
        assert_eq!(cache.get(&requests[0]), Some(requests[0].derive()));
        assert_eq!(cache.get(&requests[1]), None, "the least recently used went");
        for other in [request("a", b"salt", 2), request("a", b"sal", 1), request("as", b"alt", 1)] {
            assert_eq!(cache.get(&other), None, "{other:?}");
        }
        let none = KeyCache::new(0);
        none.remember(&requests[0], requests[0].derive());
        assert!(none.is_empty());
    }

    #[test]
    fn salts_depend_on_the_name_and_the_process_only() {
        let (one, two) = (KeyCache::new(1), KeyCache::new(1));
        assert_eq!(one.salt_for("alice"), one.salt_for("alice"));
        assert_ne!(one.salt_for("alice"), one.salt_for("bob"));
        assert_ne!(one.salt_for("alice"), two.salt_for("alice"));
        assert_eq!(one.salt_for("alice").len(), SALT_LENGTH);
    }
}
