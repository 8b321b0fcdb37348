//! Looks up roles and their verifiers with the configured query: on the primary, else on a replica.

use super::control_pools::{ControlError, ControlPools, control_host};
use super::snapshot::Fleet;
use crate::config::AuthSettings;
use crate::types::Secret;
use arc_swap::ArcSwap;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;

/// Roles remembered, per cluster.
const REMEMBERED_MAX: usize = 10_000;

/// Look-ups under way at once, per cluster. Names come from clients that nobody has identified yet.
const UNDER_WAY_MAX: usize = 500;

/// A role that does not exist is asked for again after this, or after `lookup_cache` if that is shorter.
const UNKNOWN_ROLE_CACHE: Duration = Duration::from_secs(1);

/// What to do when the control role may not read verifiers.
pub const LOOKUP_RECIPE: &str = "create, as a superuser, a function that may: \
CREATE FUNCTION pgyard_lookup(text, text, OUT name text, OUT verifier text, OUT may_log_in bool, OUT expired bool, OUT may_connect bool) \
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog AS $$ SELECT rolname, rolpassword, rolcanlogin, \
coalesce(rolvaliduntil < now(), false), has_database_privilege(oid, $2, 'CONNECT') FROM pg_authid WHERE rolname = $1 $$; \
REVOKE ALL ON FUNCTION pgyard_lookup(text, text) FROM PUBLIC; GRANT EXECUTE ON FUNCTION pgyard_lookup(text, text) TO the control role; \
and set auth.lookup_query = \"SELECT * FROM pgyard_lookup($1, $2)\" (the function must exist in the control role's database)";

/// A role as the servers know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundRole {
    /// Its name.
    pub name: String,
    /// SCRAM verifier or MD5 hash; `None` if it has no password.
    pub verifier: Option<Secret>,
    /// `rolcanlogin`.
    pub may_log_in: bool,
    /// Whether `rolvaliduntil` has passed.
    pub expired: bool,
    /// Whether it may CONNECT to the database.
    pub may_connect: bool,
}

/// The answer for a role: `None` if there is no such role.
pub type LookupAnswer = Result<Option<Arc<FoundRole>>, LookupError>;

/// Why a role could not be looked up. The texts are for the log; a client learns only that it could not log in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    /// `auth.lookup_query` is turned off.
    #[error("look-up of roles is turned off (auth.lookup_query), and the user is not listed under users")]
    Off,
    /// The control role may not read what the query reads.
    #[error("the control role \"{role}\" may not run auth.lookup_query ({reason}); {LOOKUP_RECIPE}")]
    PermissionDenied {
        /// The control role.
        role: String,
        /// What the server said.
        reason: String,
    },
    /// The database that the client names does not exist.
    #[error("{0}")]
    NoSuchDatabase(String),
    /// The query does not do what it should.
    #[error(
        "auth.lookup_query must take one or two parameters (role, database) and return the columns \
             name, verifier, may log in, expired, may connect: {0}"
    )]
    WrongShape(String),
    /// No host, no connection, no answer in time.
    #[error("{0}")]
    Unavailable(String),
    /// Too many look-ups at once.
    #[error("too many look-ups are under way")]
    Busy,
}

type LookupKey = (String, String);
type Flight = watch::Receiver<Option<LookupAnswer>>;

/// The roles of a cluster: looked up once at a time for each, and remembered for `lookup_cache`.
pub struct RoleLookup {
    settings: ArcSwap<AuthSettings>,
    fleet: Arc<ArcSwap<Fleet>>,
    pools: Arc<ControlPools>,
    control: tokio::runtime::Handle,
    time_limit: Duration,
    book: Mutex<LookupBook>,
}

/// What is remembered and what is under way.
#[derive(Default)]
struct LookupBook {
    remembered: HashMap<LookupKey, (Instant, Option<Arc<FoundRole>>)>,
    under_way: HashMap<LookupKey, Flight>,
}

impl RoleLookup {
    pub(super) fn new(
        settings: AuthSettings,
        fleet: Arc<ArcSwap<Fleet>>,
        pools: Arc<ControlPools>,
        control: tokio::runtime::Handle,
        time_limit: Duration,
    ) -> Self {
        RoleLookup { settings: ArcSwap::from_pointee(settings), fleet, pools, control, time_limit, book: Mutex::default() }
    }

    /// The role, from memory if that is young enough. May be called on any run-time.
    ///
    /// # Errors
    /// [`LookupError`]; errors are not remembered.
    ///
    /// # Cancel safety
    /// Safe: the look-up goes on for those who wait for the same.
    pub async fn find(self: &Arc<Self>, role: &str, database: &str) -> LookupAnswer {
        let key = (role.to_owned(), database.to_owned());
        let cache = self.settings.load().lookup_cache;
        if let Some(known) = self.book().recall(&key, Instant::now(), cache) {
            return Ok(known);
        }
        self.ask(key).await
    }

    /// The role as it is now: for a client whose proof does not fit what was remembered. Its password may have been changed.
    ///
    /// # Errors
    /// As [`RoleLookup::find`].
    pub async fn find_anew(self: &Arc<Self>, role: &str, database: &str) -> LookupAnswer {
        self.ask((role.to_owned(), database.to_owned())).await
    }

    /// Forgets everything: after a reload, or when a password is known to have changed.
    pub fn forget(&self) {
        self.book().remembered.clear();
    }

    pub(super) fn configure(&self, settings: AuthSettings) {
        self.settings.store(Arc::new(settings));
        self.forget();
    }

    fn book(&self) -> std::sync::MutexGuard<'_, LookupBook> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn ask(self: &Arc<Self>, key: LookupKey) -> LookupAnswer {
        let mut flight = self.board(key)?;
        let landed = flight.wait_for(Option::is_some).await;
        let answer = landed.ok().and_then(|answer| answer.clone());
        answer.unwrap_or_else(|| Err(LookupError::Unavailable("the control run-time has ended".to_owned())))
    }

    /// Joins the look-up that is under way for this key, or begins one.
    fn board(self: &Arc<Self>, key: LookupKey) -> Result<Flight, LookupError> {
        let mut book = self.book();
        // One whose sender is gone without an answer has crashed; it is replaced below.
        if let Some(flight) = book.under_way.get(&key).filter(|flight| flight.has_changed().is_ok()) {
            return Ok(flight.clone());
        }
        if book.under_way.len() >= UNDER_WAY_MAX {
            return Err(LookupError::Busy);
        }
        let (land, flight) = watch::channel(None);
        book.under_way.insert(key.clone(), flight.clone());
        let this = self.clone();
        self.control.spawn(async move {
            let answer = this.query(&key).await;
            let mut book = this.book();
            book.under_way.remove(&key);
            if let Ok(found) = &answer {
                book.remember(key, Instant::now(), found.clone());
            }
            drop(book);
            land.send_replace(Some(answer));
        });
        Ok(flight)
    }

    async fn query(&self, key: &LookupKey) -> LookupAnswer {
        let query = self.settings.load().lookup_query.clone().ok_or(LookupError::Off)?;
        let fleet = self.fleet.load_full();
        let Some((host, _)) = control_host(&fleet) else {
            return Err(LookupError::Unavailable(ControlError::NoHost.to_string()));
        };
        let asking = async {
            let connection = self.pools.connection(&host, None, self.time_limit).await?;
            let statement = connection.prepare_cached(&query).await?;
            let (role, database): (&(dyn ToSql + Sync), &(dyn ToSql + Sync)) = (&key.0, &key.1);
            let parameters = match statement.params().len() {
                1 => vec![role],
                2 => vec![role, database],
                other => return Ok(Err(LookupError::WrongShape(format!("it takes {other} parameters")))),
            };
            Ok(match connection.query_opt(&statement, &parameters).await? {
                Some(row) => read_role(&row).map(|role| Some(Arc::new(role))),
                None => Ok(None),
            })
        };
        let answered = timeout(self.time_limit, asking).await.unwrap_or(Err(ControlError::Timeout(self.time_limit)));
        answered.unwrap_or_else(|error| Err(explain(&error, &host.settings.control.user)))
    }
}

impl LookupBook {
    /// What is remembered and still young.
    fn recall(&self, key: &LookupKey, now: Instant, cache: Duration) -> Option<Option<Arc<FoundRole>>> {
        let (at, found) = self.remembered.get(key)?;
        let lifetime = if found.is_some() { cache } else { cache.min(UNKNOWN_ROLE_CACHE) };
        (now.saturating_duration_since(*at) < lifetime).then(|| found.clone())
    }

    /// When full, unknown roles go first, then everything: names are cheap to invent, and asking again is cheap too.
    fn remember(&mut self, key: LookupKey, now: Instant, found: Option<Arc<FoundRole>>) {
        if self.remembered.len() >= REMEMBERED_MAX && !self.remembered.contains_key(&key) {
            self.remembered.retain(|_, (_, found)| found.is_some());
            if self.remembered.len() >= REMEMBERED_MAX {
                self.remembered.clear();
            }
        }
        self.remembered.insert(key, (now, found));
    }
}

fn read_role(row: &tokio_postgres::Row) -> Result<FoundRole, LookupError> {
    let shape = |error: tokio_postgres::Error| LookupError::WrongShape(super::control::describe_error(&error));
    if row.len() != 5 {
        return Err(LookupError::WrongShape(format!("it returns {} columns", row.len())));
    }
    let flag = |column: usize| row.try_get::<_, Option<bool>>(column).map_err(shape);
    Ok(FoundRole {
        name: row.try_get(0).map_err(shape)?,
        verifier: row.try_get::<_, Option<String>>(1).map_err(shape)?.map(Secret::new),
        may_log_in: flag(2)?.unwrap_or(false),
        expired: flag(3)?.unwrap_or(false),
        may_connect: flag(4)?.unwrap_or(false),
    })
}

fn explain(error: &ControlError, role: &str) -> LookupError {
    let Some(said) = error.database_error() else { return LookupError::Unavailable(error.to_string()) };
    let reason = said.message().to_owned();
    let code = said.code();
    if *code == SqlState::INSUFFICIENT_PRIVILEGE {
        LookupError::PermissionDenied { role: role.to_owned(), reason }
    } else if *code == SqlState::UNDEFINED_DATABASE || *code == SqlState::INVALID_CATALOG_NAME {
        LookupError::NoSuchDatabase(reason)
    } else if code.code().starts_with("42") {
        LookupError::WrongShape(reason)
    } else {
        LookupError::Unavailable(reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> LookupKey {
        (name.to_owned(), "app".to_owned())
    }

    fn role(name: &str) -> Option<Arc<FoundRole>> {
        let verifier = Some(Secret::new("md5..."));
        Some(Arc::new(FoundRole { name: name.to_owned(), verifier, may_log_in: true, expired: false, may_connect: true }))
    }

    #[test]
    fn remembers_found_roles_longer_than_unknown_ones() {
        let (now, mut book) = (Instant::now(), LookupBook::default());
        book.remember(key("alice"), now, role("alice"));
        book.remember(key("nobody"), now, None);
        let check = |name, after, cache, expect| {
            let known = book.recall(&key(name), now + Duration::from_millis(after), Duration::from_millis(cache));
            assert_eq!(known, expect, "{name} {after} {cache}");
        };
        check("alice", 9_999, 10_000, Some(role("alice")));
        check("alice", 10_000, 10_000, None);
        check("nobody", 999, 10_000, Some(None));
        check("nobody", 1_000, 10_000, None);
        check("nobody", 500, 400, None);
        check("alice", 0, 0, None);
        check("bob", 0, 10_000, None);
    }

    #[test]
    fn invented_names_do_not_push_out_real_ones_nor_grow_the_book() {
        let (now, mut book) = (Instant::now(), LookupBook::default());
        book.remember(key("alice"), now, role("alice"));
        for n in 0..3 * REMEMBERED_MAX {
            book.remember(key(&format!("x{n}")), now, None);
            assert!(book.remembered.len() <= REMEMBERED_MAX);
        }
        assert_eq!(book.recall(&key("alice"), now, Duration::from_secs(1)), Some(role("alice")));
        for n in 0..2 * REMEMBERED_MAX {
            book.remember(key(&format!("y{n}")), now, role("y"));
            assert!(book.remembered.len() <= REMEMBERED_MAX);
        }
    }

    #[test]
    fn secrets_are_not_in_the_debug_text() {
        let shown = format!("{:?}", role("alice"));
        assert!(shown.contains("alice") && !shown.contains("md5"), "{shown}");
    }
}
