//! One statement: its text, its `$N` arguments, its rows; the same for both drivers.
//!
//! Invariant: only whole numbers (64 bits), reals and texts cross this seam, so that no driver's idea of a type shows.
//! What a column means is for the files of the resources.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::str::FromStr;

use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, Row as _};
use uuid::Uuid;

use crate::domain::time::Timestamp;
use crate::store::StoreError;
use crate::store::tx::{Conn, Tx};

/// An argument, or the lack of one of its type.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Int(Option<i64>),
    Real(Option<f64>),
    Text(Option<String>),
}

macro_rules! value_from {
    ($($from:ty, $variant:ident, |$x:ident| $make:expr;)+) => {$(
        impl From<$from> for Value {
            fn from($x: $from) -> Self {
                Self::$variant(Some($make))
            }
        }
        impl From<Option<$from>> for Value {
            fn from(value: Option<$from>) -> Self {
                Self::$variant(value.map(|$x| $make))
            }
        }
    )+};
}

value_from! {
    i64, Int, |x| x;
    u32, Int, |x| i64::from(x);
    bool, Int, |x| i64::from(x);
    Timestamp, Int, |x| x.0;
    f64, Real, |x| x;
    String, Text, |x| storable(x);
    &str, Text, |x| storable(x.to_owned());
    &String, Text, |x| storable(x.clone());
    Uuid, Text, |x| x.to_string();
}

/// Postgres has no U+0000 in texts, and programs do print it.
fn storable(text: String) -> String {
    if text.contains('\0') { text.replace('\0', "\u{fffd}") } else { text }
}

/// A byte offset or length as the database keeps it; those past `i64::MAX` do not occur.
pub(super) fn from_u64(value: u64) -> Value {
    Value::Int(Some(i64::try_from(value).unwrap_or(i64::MAX)))
}

/// A document as JSON text.
pub(super) fn json<T: Serialize>(value: &T) -> Result<Value, StoreError> {
    match serde_json::to_string(value) {
        Ok(text) => Ok(Value::Text(Some(text))),
        Err(source) => Err(StoreError::Unstorable { source }),
    }
}

/// A statement of a fixed text; `doing` completes "the database failed while …".
pub(super) fn sql(doing: &'static str, text: &'static str) -> Query {
    Query { doing, text: Cow::Borrowed(text), args: Vec::new() }
}

/// A statement put together from fixed parts; everything that varies is an argument.
pub(super) fn assembled(doing: &'static str, text: String, args: Vec<Value>) -> Query {
    Query { doing, text: Cow::Owned(text), args }
}

/// A statement with its arguments so far.
#[derive(Debug)]
pub(super) struct Query {
    doing: &'static str,
    text: Cow<'static, str>,
    args: Vec<Value>,
}

/// Runs `$run` with the driver's own query and connection.
macro_rules! on_driver {
    ($self:ident, $tx:ident, |$query:ident, $conn:ident| $run:expr) => {{
        let Query { doing, text, args } = $self;
        let outcome = match &mut $tx.conn {
            Conn::Sqlite($conn) => {
                let $query = bound(sqlx::query::<sqlx::Sqlite>(AssertSqlSafe(text)), args);
                $run
            }
            Conn::Postgres($conn) => {
                let $query = bound(sqlx::query::<sqlx::Postgres>(AssertSqlSafe(text)), args);
                $run
            }
        };
        outcome.map_err(|source| $tx.failed(doing, source))
    }};
}

impl Query {
    /// Adds the next argument.
    pub(super) fn bind(mut self, value: impl Into<Value>) -> Self {
        self.args.push(value.into());
        self
    }

    /// Lets it begin the transaction where that has not begun.
    fn open(&mut self, tx: &mut Tx<'_>) {
        if let Some(opening) = tx.opening.take() {
            self.text = Cow::Owned(format!("{opening}; {}", self.text));
        }
    }

    /// Runs it and returns how many rows it changed.
    pub(super) async fn execute(self, tx: &mut Tx<'_>) -> Result<u64, StoreError> {
        tx.begin().await?;
        on_driver!(self, tx, |query, conn| query.execute(&mut **conn).await.map(|done| done.rows_affected()))
    }

    /// Every row.
    pub(super) async fn all(mut self, tx: &mut Tx<'_>) -> Result<Vec<Row>, StoreError> {
        self.open(tx);
        on_driver!(self, tx, |query, conn| query
            .fetch_all(&mut **conn)
            .await
            .map(|rows| rows.into_iter().map(Row::from).collect()))
    }

    /// The first row, if there is one.
    pub(super) async fn optional(mut self, tx: &mut Tx<'_>) -> Result<Option<Row>, StoreError> {
        self.open(tx);
        on_driver!(self, tx, |query, conn| query.fetch_optional(&mut **conn).await.map(|row| row.map(Row::from)))
    }
}

type DriverQuery<D> = sqlx::query::Query<'static, D, <D as sqlx::Database>::Arguments>;

fn bound<D>(mut query: DriverQuery<D>, args: Vec<Value>) -> DriverQuery<D>
where
    D: sqlx::Database,
    Option<i64>: sqlx::Encode<'static, D> + sqlx::Type<D>,
    Option<f64>: sqlx::Encode<'static, D> + sqlx::Type<D>,
    Option<String>: sqlx::Encode<'static, D> + sqlx::Type<D>,
{
    for value in args {
        query = match value {
            Value::Int(x) => query.bind(x),
            Value::Real(x) => query.bind(x),
            Value::Text(x) => query.bind(x),
        };
    }
    query
}

/// A row of either driver.
pub(super) enum Row {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

impl From<SqliteRow> for Row {
    fn from(row: SqliteRow) -> Self {
        Self::Sqlite(row)
    }
}

impl From<PgRow> for Row {
    fn from(row: PgRow) -> Self {
        Self::Postgres(row)
    }
}

impl Row {
    /// Reads the columns from the first on; the first one names the row in errors.
    pub(super) fn reader(&self, table: &'static str, columns: &'static str) -> Reader<'_> {
        Reader { row: self, table, columns, at: 0 }
    }

    fn int(&self, at: usize) -> Result<Option<i64>, sqlx::Error> {
        match self {
            Self::Sqlite(row) => row.try_get(at),
            Self::Postgres(row) => row.try_get(at),
        }
    }

    fn real(&self, at: usize) -> Result<Option<f64>, sqlx::Error> {
        match self {
            Self::Sqlite(row) => row.try_get(at),
            Self::Postgres(row) => row.try_get(at),
        }
    }

    fn text(&self, at: usize) -> Result<Option<String>, sqlx::Error> {
        match self {
            Self::Sqlite(row) => row.try_get(at),
            Self::Postgres(row) => row.try_get(at),
        }
    }
}

/// Reads a row column by column, in the order of the statement's list.
pub(super) struct Reader<'r> {
    row: &'r Row,
    table: &'static str,
    columns: &'static str,
    at: usize,
}

impl Reader<'_> {
    /// The column just read cannot be what it says.
    fn inconsistent(&self, at: usize) -> StoreError {
        StoreError::Inconsistent {
            table: self.table,
            column: self.columns.split(',').nth(at).map_or("?", str::trim),
            row: self.row.text(0).ok().flatten().unwrap_or_default(),
        }
    }

    fn next<T>(&mut self, value: impl FnOnce(&Row, usize) -> Option<T>) -> Result<T, StoreError> {
        let at = self.at;
        self.at += 1;
        value(self.row, at).ok_or_else(|| self.inconsistent(at))
    }

    pub(super) fn int(&mut self) -> Result<i64, StoreError> {
        self.next(|row, at| row.int(at).ok()?)
    }

    pub(super) fn opt_int(&mut self) -> Result<Option<i64>, StoreError> {
        self.next(|row, at| row.int(at).ok())
    }

    pub(super) fn u32(&mut self) -> Result<u32, StoreError> {
        self.next(|row, at| u32::try_from(row.int(at).ok()??).ok())
    }

    pub(super) fn opt_u32(&mut self) -> Result<Option<u32>, StoreError> {
        self.next(|row, at| match row.int(at).ok()? {
            None => Some(None),
            Some(x) => u32::try_from(x).ok().map(Some),
        })
    }

    pub(super) fn u64(&mut self) -> Result<u64, StoreError> {
        self.next(|row, at| u64::try_from(row.int(at).ok()??).ok())
    }

    pub(super) fn flag(&mut self) -> Result<bool, StoreError> {
        self.int().map(|x| x != 0)
    }

    pub(super) fn time(&mut self) -> Result<Timestamp, StoreError> {
        self.int().map(Timestamp)
    }

    pub(super) fn opt_time(&mut self) -> Result<Option<Timestamp>, StoreError> {
        self.opt_int().map(|x| x.map(Timestamp))
    }

    pub(super) fn real(&mut self) -> Result<f64, StoreError> {
        self.next(|row, at| row.real(at).ok()?)
    }

    pub(super) fn opt_real(&mut self) -> Result<Option<f64>, StoreError> {
        self.next(|row, at| row.real(at).ok())
    }

    pub(super) fn text(&mut self) -> Result<String, StoreError> {
        self.next(|row, at| row.text(at).ok()?)
    }

    pub(super) fn opt_text(&mut self) -> Result<Option<String>, StoreError> {
        self.next(|row, at| row.text(at).ok())
    }

    /// A text that spells a value: an enum's variant, an id.
    pub(super) fn parsed<T: FromStr>(&mut self) -> Result<T, StoreError> {
        self.next(|row, at| row.text(at).ok()??.parse().ok())
    }

    pub(super) fn opt_parsed<T: FromStr>(&mut self) -> Result<Option<T>, StoreError> {
        self.next(|row, at| match row.text(at).ok()? {
            None => Some(None),
            Some(text) => text.parse().ok().map(Some),
        })
    }

    /// A JSON document.
    pub(super) fn json<T: DeserializeOwned>(&mut self) -> Result<T, StoreError> {
        self.next(|row, at| serde_json::from_str(&row.text(at).ok()??).ok())
    }

    pub(super) fn opt_json<T: DeserializeOwned>(&mut self) -> Result<Option<T>, StoreError> {
        self.next(|row, at| match row.text(at).ok()? {
            None => Some(None),
            Some(text) => serde_json::from_str(&text).ok().map(Some),
        })
    }
}

/// Splits rows into pieces of 64, 32 or 16, and one of the up to 16 that are left: few rows make one statement, and
/// statements of many rows have few different texts and stay in the statement cache.
pub(super) fn pieces<T>(mut rows: &[T]) -> impl Iterator<Item = &[T]> {
    std::iter::from_fn(move || {
        let size = match rows.len() {
            0 => return None,
            few @ 1..=16 => few,
            some => 1 << some.min(64).ilog2(),
        };
        let (piece, rest) = rows.split_at(size);
        rows = rest;
        Some(piece)
    })
}

/// `($1, $2), ($3, $4)`: placeholders of `rows` rows of `width` columns.
pub(super) fn placeholders(rows: usize, width: usize) -> String {
    placeholders_after(0, rows, width)
}

/// The same for a statement that has `taken` other arguments before them.
pub(super) fn placeholders_after(taken: usize, rows: usize, width: usize) -> String {
    let mut text = String::with_capacity(rows * width * 6);
    for at in 0..rows * width {
        text.push_str(match at % width {
            0 if at == 0 => "($",
            0 => "), ($",
            _ => ", $",
        });
        let _ = write!(text, "{}", taken + at + 1);
    }
    text.push_str(if text.is_empty() { "" } else { ")" });
    text
}
