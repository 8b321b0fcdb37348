//! Brings a coordinator into step with the shards, in one transaction.

use super::definitions::{COLLATION, EXTENSIONS, FUNCTIONS, GRANTS, MADE_BEFORE, SCHEMAS, TABLES, TYPES, VIEWS};
use super::layout::{CoordinatorLayout, MARK, ShardServer, quote_text};
use crate::shard::{QualifiedName, ShardMap};
use tokio_postgres::{Client, SimpleQueryMessage};

/// What a synchronisation did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SyncReport {
    /// Tables that the coordinator shows now.
    pub tables: usize,
    /// Views and functions that it has now.
    pub views: usize,
    /// Functions that it has now.
    pub functions: usize,
    /// What it does not have, a sentence each.
    pub left_out: Vec<String>,
}

/// Why a coordinator could not be brought into step: it is as it was before.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// The first shard does not answer.
    #[error("the first shard can't be read")]
    Shard(#[source] tokio_postgres::Error),
    /// The coordinator refuses a statement.
    #[error("the coordinator refuses `{statement}`")]
    Coordinator {
        /// The statement.
        statement: String,
        /// What it says.
        source: tokio_postgres::Error,
    },
    /// Texts are not compared alike.
    #[error(
        "the coordinator's database has encoding and locale {coordinator}, the shards have {shard}: make it with theirs, or texts would be ordered otherwise"
    )]
    Collation {
        /// The coordinator's.
        coordinator: String,
        /// The first shard's.
        shard: String,
    },
}

type TextRow = Vec<String>;

async fn rows(client: &Client, query: &str) -> Result<Vec<TextRow>, tokio_postgres::Error> {
    let messages = client.simple_query(query).await?;
    let text = |message: SimpleQueryMessage| match message {
        SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|place| row.get(place).unwrap_or_default().to_owned()).collect()),
        _ => None,
    };
    Ok(messages.into_iter().filter_map(text).collect())
}

/// Rows whose columns are looked at by place.
fn column(row: &[String], place: usize) -> &str {
    row.get(place).map_or("", String::as_str)
}

/// The coordinator's connection within the transaction.
struct Target<'a> {
    client: &'a Client,
}

impl Target<'_> {
    async fn execute(&self, statement: &str) -> Result<(), SyncError> {
        self.client.batch_execute(statement).await.map_err(|source| SyncError::Coordinator {
            // A statement with a password in it is not shown whole.
            statement: statement.split(" OPTIONS ").next().unwrap_or_default().to_owned(),
            source,
        })
    }

    /// Whether it did; what fails leaves the transaction usable.
    async fn attempt(&self, statement: &str) -> Result<Option<String>, SyncError> {
        self.execute("SAVEPOINT attempt").await?;
        match self.client.batch_execute(statement).await {
            Ok(()) => {
                self.execute("RELEASE SAVEPOINT attempt").await?;
                Ok(None)
            }
            Err(error) => {
                self.execute("ROLLBACK TO SAVEPOINT attempt").await?;
                Ok(Some(crate::cluster::describe_error(&error)))
            }
        }
    }

    async fn rows(&self, query: &str) -> Result<Vec<TextRow>, SyncError> {
        rows(self.client, query).await.map_err(|source| SyncError::Coordinator { statement: query.to_owned(), source })
    }
}

/// What is read from the first shard.
struct Definitions {
    collation: String,
    tables: Vec<TextRow>,
    schemas: Vec<TextRow>,
    extensions: Vec<TextRow>,
    types: Vec<TextRow>,
    functions: Vec<TextRow>,
    views: Vec<TextRow>,
    grants: Vec<TextRow>,
}

impl Definitions {
    async fn read(client: &Client) -> Result<Self, SyncError> {
        let read = async |query: &str| rows(client, query).await.map_err(SyncError::Shard);
        client.batch_execute("SET search_path = pg_catalog").await.map_err(SyncError::Shard)?;
        Ok(Definitions {
            collation: read(COLLATION).await?.first().map(|row| column(row, 0).to_owned()).unwrap_or_default(),
            tables: read(TABLES).await?,
            schemas: read(SCHEMAS).await?,
            extensions: read(EXTENSIONS).await?,
            types: read(TYPES).await?,
            functions: read(FUNCTIONS).await?,
            views: read(VIEWS).await?,
            grants: read(GRANTS).await?,
        })
    }
}

/// Makes the coordinator show what the shards have. `shard` is a connection to the first shard's database, `coordinator` one to the
/// coordinator's as a role that may make extensions, foreign servers and schemas.
///
/// # Errors
/// See [`SyncError`]; the coordinator is then as it was.
pub async fn sync(
    shard: &Client,
    coordinator: &Client,
    servers: &[ShardServer],
    map: &ShardMap,
) -> Result<SyncReport, SyncError> {
    let definitions = Definitions::read(shard).await?;
    let target = Target { client: coordinator };
    target.execute("BEGIN").await?;
    let outcome = rebuild(&target, &definitions, servers, map).await;
    let end = if outcome.is_ok() { "COMMIT" } else { "ROLLBACK" };
    match (target.execute(end).await, outcome) {
        (Err(error), Ok(_)) => Err(error),
        (_, outcome) => outcome,
    }
}

async fn rebuild(
    target: &Target<'_>,
    definitions: &Definitions,
    servers: &[ShardServer],
    map: &ShardMap,
) -> Result<SyncReport, SyncError> {
    let own = target.rows(COLLATION).await?.first().map(|row| column(row, 0).to_owned()).unwrap_or_default();
    if own != definitions.collation {
        return Err(SyncError::Collation { coordinator: own, shard: definitions.collation.clone() });
    }
    let mut report = SyncReport::default();
    target
        .execute(
            "SET LOCAL search_path = pg_catalog; SET LOCAL check_function_bodies = off; SET LOCAL client_min_messages = warning",
        )
        .await?;
    // One synchronisation at a time.
    target.execute("SELECT pg_catalog.pg_advisory_xact_lock(8098724219)").await?;
    for row in target.rows(MADE_BEFORE).await? {
        target.execute(column(&row, 0)).await?;
    }
    for row in definitions.schemas.iter() {
        target.execute(column(row, 0)).await?;
    }
    for row in definitions.extensions.iter() {
        if let Some(error) = target.attempt(column(row, 0)).await? {
            report.left_out.push(format!("`{}`: {error}", column(row, 0)));
        }
    }
    make_types(target, definitions, &mut report).await?;
    let tables = tables(definitions, map, &mut report);
    let layout = CoordinatorLayout { shards: servers, map, tables: &tables };
    for statement in layout.servers().iter().chain(&layout.foreign_tables()) {
        target.execute(statement).await?;
    }
    report.tables = tables.len();
    make_functions_and_views(target, definitions, &mut report).await?;
    for row in &definitions.grants {
        // A role that the coordinator's server does not have can't read there; a table that was left out can't be granted.
        let _ = target.attempt(column(row, 1)).await?;
    }
    Ok(report)
}

async fn make_types(target: &Target<'_>, definitions: &Definitions, report: &mut SyncReport) -> Result<(), SyncError> {
    for row in &definitions.types {
        let (name, make, renew) = (column(row, 0), column(row, 1), column(row, 2));
        let known = target.rows(&format!("SELECT pg_catalog.to_regtype({}) IS NOT NULL", quote_text(name))).await?;
        let statement = if known.first().is_some_and(|row| column(row, 0) == "t") { renew } else { make };
        if statement.is_empty() {
            continue;
        }
        if let Some(error) = target.attempt(statement).await? {
            report.left_out.push(format!("type {name}: {error}"));
        }
    }
    Ok(())
}

/// The tables that the coordinator shows.
fn tables(definitions: &Definitions, map: &ShardMap, report: &mut SyncReport) -> Vec<QualifiedName> {
    let mut tables = Vec::new();
    for row in &definitions.tables {
        let table = QualifiedName { schema: column(row, 0).to_owned(), name: column(row, 1).to_owned() };
        let shown = format!("{}.{}", table.schema, table.name);
        if column(row, 2) == "t" {
            report.left_out.push(format!("table {shown}: row security would not hold through the coordinator"));
        } else if map.place(&table).is_none() {
            report.left_out.push(format!("table {shown}: the configuration does not say where its rows are"));
        } else {
            tables.push(table);
        }
    }
    tables
}

/// Views may rest on functions and the other way round: what fails is tried again as long as something else succeeds.
async fn make_functions_and_views(
    target: &Target<'_>,
    definitions: &Definitions,
    report: &mut SyncReport,
) -> Result<(), SyncError> {
    let functions = definitions.functions.iter().map(|row| (false, row));
    let mut left: Vec<(bool, &TextRow)> = functions.chain(definitions.views.iter().map(|row| (true, row))).collect();
    loop {
        let (mut failed, mut errors) = (Vec::new(), Vec::new());
        let before = left.len();
        for (is_view, row) in left {
            let (name, make) = (column(row, 0), column(row, 1));
            let statement = if is_view { format!("{make}; COMMENT ON VIEW {name} IS '{MARK}'") } else { make.to_owned() };
            match target.attempt(&statement).await? {
                None if is_view => report.views += 1,
                None => report.functions += 1,
                Some(error) => {
                    failed.push((is_view, row));
                    errors.push(format!("{} {name}: {error}", if is_view { "view" } else { "function" }));
                }
            }
        }
        if failed.is_empty() || failed.len() == before {
            report.left_out.extend(errors);
            return Ok(());
        }
        left = failed;
    }
}
