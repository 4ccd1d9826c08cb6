//! Keyset pages over indexes, for every list of jobs.
//!
//! Invariant: a page costs its own length where one index serves both filter and order; otherwise it examines at most
//! [`EXAMINED`] rows and may come back short, even empty, with a cursor that goes on after the last row examined. Pages
//! put one after another are the full filtered list. Ties are broken by the name key, which is unique in every list.

use std::fmt::Display;

use crate::store::query::{Row, Value, assembled};
use crate::store::rows::{Cursor, ListQuery, Page, SortKey, SortValue};
use crate::store::{StoreError, Tx};

/// How many rows a page looks at where no index serves its filters.
const EXAMINED: u32 = 2_000;

/// The longest page.
const LONGEST: u32 = 1_000;

/// What a list is of.
pub(super) struct List {
    /// Completes "the database failed while …".
    pub(super) doing: &'static str,
    pub(super) table: &'static str,
    /// Every column of a row, in the reader's order.
    pub(super) columns: &'static str,
    /// What every row of the list has: columns that lead its indexes.
    pub(super) owner: Vec<(&'static str, Value)>,
    /// Whether an index serves (owner, status, creation time).
    pub(super) status_by_creation: bool,
    /// Whether an index serves (owner, objective value).
    pub(super) by_objective: bool,
}

/// A row of a list, as the cursor sees it.
pub(super) trait Listed: Sized {
    fn read(row: &Row) -> Result<Self, StoreError>;
    fn sort_value(&self, sort_by: SortKey) -> SortValue;
    fn name_key(&self) -> String;
}

/// A WHERE clause in the making.
#[derive(Default)]
struct Conditions {
    text: Vec<String>,
    args: Vec<Value>,
}

impl Conditions {
    /// Adds a condition; `$` in it stands for the value.
    fn add(&mut self, condition: &str, value: impl Into<Value>) {
        self.args.push(value.into());
        self.text.push(condition.replace('$', &format!("${}", self.args.len())));
    }
}

/// What a query is put together from.
struct Plan {
    /// Served by the index that gives the order.
    indexed: Vec<String>,
    /// To be looked at row by row.
    residual: Vec<String>,
    args: Vec<Value>,
    order: String,
}

/// One page.
pub(super) async fn page<T, S>(
    tx: &mut Tx<'_>,
    list: List,
    query: &ListQuery<S, SortKey>,
) -> Result<Page<T>, StoreError>
where
    T: Listed,
    S: Copy + Display,
{
    let limit = query.limit.clamp(1, LONGEST);
    let plan = plan(&list, query)?;
    let mut items = assembled(list.doing, plan.page(&list, limit + 1), plan.args.clone())
        .all(tx)
        .await?
        .iter()
        .map(T::read)
        .collect::<Result<Vec<T>, _>>()?;
    let full = items.len() > limit as usize;
    items.truncate(limit as usize);
    let next = if full {
        items.last().map(|last| Cursor { sort: last.sort_value(query.sort_by), id: last.name_key() })
    } else if plan.residual.is_empty() {
        None
    } else {
        last_examined(tx, &list, query.sort_by, &plan).await?
    };
    Ok(Page { items, next })
}

/// The row at the bound; none where the list ends before it.
async fn last_examined(
    tx: &mut Tx<'_>,
    list: &List,
    sort_by: SortKey,
    plan: &Plan,
) -> Result<Option<Cursor>, StoreError> {
    let row = assembled(list.doing, plan.bound(list, sort_by), plan.indexed_args().to_vec()).optional(tx).await?;
    let Some(row) = row else { return Ok(None) };
    let mut reader = row.reader(list.table, "name_key, sort column");
    let id = reader.text()?;
    let sort = match sort_by {
        SortKey::Name | SortKey::Status => SortValue::Text(reader.text()?),
        SortKey::CreationTime => SortValue::Int(reader.int()?),
        SortKey::FinalObjectiveMetricValue => SortValue::Real(reader.real()?),
    };
    Ok(Some(Cursor { sort, id }))
}

impl Plan {
    /// The statement of a page of `wanted` rows.
    fn page(&self, list: &List, wanted: u32) -> String {
        let (table, columns, order) = (list.table, list.columns, &self.order);
        let indexed = self.indexed.join(" AND ");
        if self.residual.is_empty() {
            return format!("SELECT {columns} FROM {table} WHERE {indexed} ORDER BY {order} LIMIT {wanted}");
        }
        // The inner query walks the index and stops at its bound; the outermost one fetches the page's rows alone.
        let residual = self.residual.join(" AND ");
        let objective = if list.by_objective { ", objective_value" } else { "" };
        format!(
            "SELECT {columns} FROM {table} WHERE id IN (SELECT id FROM (SELECT id, name_key, status, created_at, \
             modified_at{objective} FROM {table} WHERE {indexed} ORDER BY {order} LIMIT {EXAMINED}) examined \
             WHERE {residual} ORDER BY {order} LIMIT {wanted}) ORDER BY {order}"
        )
    }

    /// The statement that finds the row at the bound.
    fn bound(&self, list: &List, sort_by: SortKey) -> String {
        format!(
            "SELECT name_key, {column} FROM {table} WHERE {indexed} ORDER BY {order} LIMIT 1 OFFSET {offset}",
            column = column(sort_by),
            table = list.table,
            indexed = self.indexed.join(" AND "),
            order = self.order,
            offset = EXAMINED - 1
        )
    }

    /// Every residual condition has one argument, after those of the indexed ones.
    fn indexed_args(&self) -> &[Value] {
        &self.args[..self.args.len() - self.residual.len()]
    }
}

fn plan<S: Copy + Display>(list: &List, query: &ListQuery<S, SortKey>) -> Result<Plan, StoreError> {
    let sort_by = query.sort_by;
    if sort_by == SortKey::FinalObjectiveMetricValue && !list.by_objective {
        return Err(StoreError::WrongSort { sort_by: column(sort_by) });
    }
    let mut conditions = Conditions::default();
    for (column, value) in &list.owner {
        conditions.add(&format!("{column} = $"), value.clone());
    }
    if sort_by == SortKey::FinalObjectiveMetricValue {
        conditions.text.push("objective_value IS NOT NULL".into());
    }
    if let Some(after) = &query.after {
        keyset(&mut conditions, sort_by, query.descending, after)?;
    }
    let status_indexed = match sort_by {
        SortKey::Name | SortKey::Status => true,
        SortKey::CreationTime => list.status_by_creation,
        SortKey::FinalObjectiveMetricValue => false,
    };
    let mut residual = Vec::new();
    if let Some(status) = query.status {
        let condition = ("status = $", Value::from(status.to_string()));
        if status_indexed { conditions.add(condition.0, condition.1) } else { residual.push(condition) }
    }
    let times = [
        ("created_at > $", query.created_after),
        ("created_at < $", query.created_before),
        ("modified_at > $", query.modified_after),
        ("modified_at < $", query.modified_before),
    ];
    for (at, (condition, time)) in times.into_iter().enumerate() {
        let Some(time) = time else { continue };
        if at < 2 && sort_by == SortKey::CreationTime {
            conditions.add(condition, time);
        } else {
            residual.push((condition, Value::from(time)));
        }
    }
    if let Some(part) = &query.name_contains {
        residual.push(("name_key LIKE $ ESCAPE '\\'", Value::from(containing(part))));
    }
    let indexed = std::mem::take(&mut conditions.text);
    for (condition, value) in residual {
        conditions.add(condition, value);
    }
    Ok(Plan { indexed, residual: conditions.text, args: conditions.args, order: order(sort_by, query.descending) })
}

/// Rows after the cursor's, in the list's order.
fn keyset(conditions: &mut Conditions, sort_by: SortKey, descending: bool, after: &Cursor) -> Result<(), StoreError> {
    let compare = if descending { "<" } else { ">" };
    let column = column(sort_by);
    let value = match (sort_by, &after.sort) {
        (SortKey::Name, SortValue::Text(_)) => {
            conditions.add(&format!("name_key {compare} $"), &after.id);
            return Ok(());
        }
        (SortKey::Status, SortValue::Text(text)) => Value::from(text),
        (SortKey::CreationTime, SortValue::Int(time)) => Value::from(*time),
        (SortKey::FinalObjectiveMetricValue, SortValue::Real(value)) => Value::from(*value),
        // A whole objective value may come back from JSON as an integer.
        (SortKey::FinalObjectiveMetricValue, SortValue::Int(value)) => Value::from(*value as f64),
        _ => return Err(StoreError::WrongCursor { sort_by: column }),
    };
    conditions.args.push(value);
    conditions.args.push(Value::from(&after.id));
    let at = conditions.args.len();
    conditions.text.push(format!("({column}, name_key) {compare} (${}, ${at})", at - 1));
    Ok(())
}

fn column(sort_by: SortKey) -> &'static str {
    match sort_by {
        SortKey::Name => "name_key",
        SortKey::CreationTime => "created_at",
        SortKey::Status => "status",
        SortKey::FinalObjectiveMetricValue => "objective_value",
    }
}

fn order(sort_by: SortKey, descending: bool) -> String {
    let direction = if descending { "DESC" } else { "ASC" };
    match sort_by {
        SortKey::Name => format!("name_key {direction}"),
        other => format!("{} {direction}, name_key {direction}", column(other)),
    }
}

/// The LIKE pattern of names with `part` in them. Name keys are lower case.
fn containing(part: &str) -> String {
    let mut pattern = String::from("%");
    for c in part.to_ascii_lowercase().chars() {
        if matches!(c, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern.push('%');
    pattern
}

#[cfg(test)]
mod tests;
