//! What a relay thread keeps at hand of a database: the last snapshots of what other threads replace, and the facts of texts.
//!
//! A look is one comparison of an address for each thing asked for: no lock, no shared counter, no allocation. Snapshots are
//! kept per thread and not per session, so that idle sessions do not hold old ones.

use super::directory::Database;
use super::statements::PreparedStatement;
use super::upstream::Upstream;
use crate::cluster::{Balancer, CatalogueSlot, Fleet};
use crate::config::DatabaseSettings;
use crate::sql::{Catalogue, Facts, FactsCache, Lexing, tables_used};
use arc_swap::{ArcSwap, ArcSwapOption, Cache};
use std::cell::RefCell;
use std::ops::Deref;
use std::sync::Arc;

/// Texts cached per thread and database.
const CACHE_TEXTS: usize = 4096;
/// Memory for them. Bytes.
const CACHE_BYTES: usize = 4 * 1024 * 1024;
/// Databases at hand, per thread.
const DATABASES_MAX: usize = 32;

thread_local! {
    static VIEWS: RefCell<Vec<DatabaseView>> = const { RefCell::new(Vec::new()) };
}

struct SettingsOf(Arc<Upstream>);
struct BalancerOf(Arc<Upstream>);
struct CatalogueOf(Arc<CatalogueSlot<Catalogue>>);

impl Deref for SettingsOf {
    type Target = ArcSwap<DatabaseSettings>;

    fn deref(&self) -> &Self::Target {
        self.0.settings_cell()
    }
}

impl Deref for BalancerOf {
    type Target = ArcSwap<Balancer>;

    fn deref(&self) -> &Self::Target {
        self.0.balancer_cell()
    }
}

impl Deref for CatalogueOf {
    type Target = ArcSwapOption<Catalogue>;

    fn deref(&self) -> &Self::Target {
        self.0.cell()
    }
}

/// One database as this thread sees it at the moment.
pub struct DatabaseView {
    id: u64,
    facts: FactsCache,
    catalogue: Cache<CatalogueOf, Option<Arc<Catalogue>>>,
    builtin: Arc<Catalogue>,
    fleet: Cache<Arc<ArcSwap<Fleet>>, Arc<Fleet>>,
    settings: Cache<SettingsOf, Arc<DatabaseSettings>>,
    balancer: Cache<BalancerOf, Arc<Balancer>>,
}

/// Runs `look` on this thread's view of the database. `look` must not call this function again.
#[inline]
pub fn with_view<T>(database: &Database, look: impl FnOnce(&mut DatabaseView) -> T) -> T {
    VIEWS.with(|views| {
        let mut views = views.borrow_mut();
        let place = match views.iter().position(|view| view.id == database.id) {
            Some(place) => place,
            None => add_view(&mut views, database),
        };
        look(&mut views[place])
    })
}

#[cold]
fn add_view(views: &mut Vec<DatabaseView>, database: &Database) -> usize {
    if views.len() == DATABASES_MAX {
        views.remove(0);
    }
    views.push(DatabaseView::new(database));
    views.len() - 1
}

impl DatabaseView {
    fn new(database: &Database) -> Self {
        let upstream = database.upstream();
        DatabaseView {
            id: database.id,
            facts: FactsCache::new(CACHE_TEXTS, CACHE_BYTES),
            catalogue: Cache::new(CatalogueOf(database.catalogue_slot().clone())),
            builtin: upstream.builtin(),
            fleet: Cache::new(upstream.cluster.fleet_cell().clone()),
            settings: Cache::new(SettingsOf(upstream.clone())),
            balancer: Cache::new(BalancerOf(upstream.clone())),
        }
    }

    /// The fleet and the balancer of now.
    #[inline]
    pub fn fleet(&mut self) -> (&Arc<Fleet>, &Balancer) {
        (self.fleet.load(), self.balancer.load())
    }

    /// The settings of now.
    #[inline]
    pub fn settings(&mut self) -> &Arc<DatabaseSettings> {
        self.settings.load()
    }

    /// The present catalogue's id: facts under another one mean nothing.
    #[inline]
    pub fn catalogue_id(&mut self) -> u64 {
        self.catalogue.load().as_ref().unwrap_or(&self.builtin).id
    }

    /// The facts of `text` under the present catalogue, and whether they were cached.
    #[inline]
    fn classify(&mut self, text: &[u8], lexing: Lexing) -> (Arc<Facts>, bool) {
        let catalogue = self.catalogue.load().as_ref().unwrap_or(&self.builtin);
        let misses = self.facts.misses;
        let facts = self.facts.get(text, catalogue, lexing);
        (facts, self.facts.misses == misses)
    }
}

/// The facts of `text` under the database's present catalogue.
pub fn classify(database: &Database, text: &[u8], lexing: Lexing) -> Arc<Facts> {
    let (facts, hit) = with_view(database, |view| view.classify(text, lexing));
    let metrics = &database.metrics;
    if hit { &metrics.facts_cache_hits } else { &metrics.facts_cache_misses }.increment();
    if database.counts_tables() {
        note_tables(database, &facts, text, lexing);
    }
    facts
}

/// The same of a prepared statement, which remembers them.
pub fn classify_prepared(database: &Database, statement: &PreparedStatement, lexing: Lexing) -> Arc<Facts> {
    let catalogue = with_view(database, DatabaseView::catalogue_id);
    let facts = statement.facts(catalogue, |text| classify(database, text, lexing));
    if database.counts_tables() {
        note_tables(database, &facts, statement.text(), lexing);
    }
    facts
}

/// Finds out, once, which tables a text uses.
fn note_tables(database: &Database, facts: &Facts, text: &[u8], lexing: Lexing) {
    if facts.tables.get().is_none() {
        let catalogue = database.catalogue();
        facts.tables.get_or_init(|| Box::new(tables_used(text, &catalogue, lexing)));
    }
}
