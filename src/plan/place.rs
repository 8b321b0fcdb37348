//! Where a query can be answered: whole on any shard, by each shard for its own rows, or neither.

use super::from::is_whole;
use super::model::{BodyModel, DistinctModel, FromModel, JoinKind, NodeId, OutputColumn, QueryModel, SelectModel};
use super::scope::Reader;
use crate::shard::TablePlace;
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};

/// Columns whose values say on which shard a row is.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct KeyTuple {
    /// One for each column of the key.
    pub(super) nodes: Vec<NodeId>,
    /// Of which group of tables.
    pub(super) group: usize,
    /// No outer join has made it NULL, so that rows of equal values, NULL too, are on one shard.
    pub(super) strict: bool,
}

/// Where the rows of a query are.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Spread {
    /// Every shard has them all.
    Whole {
        /// Each shard may answer otherwise: LIMIT without a total order, `array_agg` without ORDER BY.
        fickle: bool,
    },
    /// Each row is on one shard, which finds it without the others.
    Shards(Vec<KeyTuple>),
}

/// Why a query is neither.
pub(super) type Unfit = &'static str;

/// Works out places.
pub(super) struct Places<'r> {
    reader: &'r Reader<'r>,
    reached: RefCell<HashMap<NodeId, HashSet<NodeId>>>,
    withs_under_way: RefCell<HashSet<usize>>,
}

impl<'r> Places<'r> {
    pub(super) fn new(reader: &'r Reader<'r>) -> Self {
        Places { reader, reached: RefCell::default(), withs_under_way: RefCell::default() }
    }

    /// Whether `to` equals `from` in every row that matters.
    fn reaches(&self, from: NodeId, to: NodeId) -> bool {
        let mut reached = self.reached.borrow_mut();
        let set = reached.entry(from).or_insert_with(|| {
            let mut set = HashSet::from([from]);
            let mut todo = vec![from];
            while let Some(at) = todo.pop() {
                for (_, next) in self.reader.edges.iter().filter(|(start, _)| *start == at) {
                    if set.insert(*next) {
                        todo.push(*next);
                    }
                }
            }
            set
        });
        set.contains(&to)
    }

    fn flows(&self, from: &KeyTuple, to: &KeyTuple) -> bool {
        from.group == to.group
            && from.nodes.len() == to.nodes.len()
            && from.nodes.iter().zip(&to.nodes).all(|(from, to)| self.reaches(*from, *to))
    }

    fn together(&self, left: &[KeyTuple], right: &[KeyTuple]) -> bool {
        left.iter().any(|left| right.iter().any(|right| self.flows(left, right) || self.flows(right, left)))
    }

    /// A query, for one row of the queries around it whose place `outer` says.
    pub(super) fn query(&self, query: &QueryModel, outer: &[KeyTuple]) -> Result<Spread, Unfit> {
        let mut spread = match &query.body {
            BodyModel::Select(select) => self.select(select, outer)?,
            BodyModel::Set { union_all, sides } => self.set(query, *union_all, sides, outer)?,
            BodyModel::Values(subqueries) => {
                let fickle = self.all_whole(subqueries, outer)?;
                Spread::Whole { fickle }
            }
        };
        let fickle = self.all_whole(&query.subqueries, outer)?;
        match &mut spread {
            Spread::Whole { fickle: known } => *known |= fickle || query.limited,
            Spread::Shards(_) if fickle => return Err(FICKLE),
            Spread::Shards(_) if query.limited => return Err("LIMIT below the top needs rows of several shards"),
            Spread::Shards(_) => {}
        }
        Ok(spread)
    }

    /// Whether some of them may be answered otherwise by each shard; all have to be whole.
    pub(super) fn all_whole(&self, queries: &[QueryModel], outer: &[KeyTuple]) -> Result<bool, Unfit> {
        let mut any = false;
        for query in queries {
            match self.query(query, outer)? {
                Spread::Whole { fickle } => any |= fickle,
                Spread::Shards(_) => return Err("a subquery needs rows of other shards than the rows around it"),
            }
        }
        Ok(any)
    }

    /// The FROM of a SELECT.
    pub(super) fn tables_of(&self, select: &SelectModel, outer: &[KeyTuple]) -> Result<Spread, Unfit> {
        let mut all = Spread::Whole { fickle: false };
        for item in &select.from {
            let mut around = outer.to_vec();
            if let Spread::Shards(tuples) = &all {
                around.extend(tuples.iter().cloned());
            }
            let next = self.item(item, &around)?;
            all = self.join(JoinKind::Inner, all, next)?;
        }
        Ok(all)
    }

    fn select(&self, select: &SelectModel, outer: &[KeyTuple]) -> Result<Spread, Unfit> {
        let from = self.tables_of(select, outer)?;
        let tuples = match from {
            Spread::Whole { fickle } => {
                let inside = self.all_whole(&select.subqueries, outer)?;
                let fickle = fickle || inside || select.order_sensitive || select.distinct == DistinctModel::On;
                return Ok(Spread::Whole { fickle });
            }
            Spread::Shards(tuples) => tuples,
        };
        let around: Vec<KeyTuple> = outer.iter().chain(&tuples).cloned().collect();
        if self.all_whole(&select.subqueries, &around)? {
            return Err(FICKLE);
        }
        if outer.iter().any(|outer| tuples.iter().any(|tuple| self.flows(outer, tuple))) {
            return Ok(Spread::Whole { fickle: false });
        }
        self.local(select, &tuples)?;
        let outputs: HashSet<NodeId> = select.outputs.iter().flatten().filter_map(|column| column.node).collect();
        let kept = |tuple: &KeyTuple| !select.aggregated || tuple.nodes.iter().all(|node| outputs.contains(node));
        Ok(Spread::Shards(tuples.into_iter().filter(kept).collect()))
    }

    /// Whether groups, distinct rows and windows never have rows of two shards.
    pub(super) fn local(&self, select: &SelectModel, tuples: &[KeyTuple]) -> Result<(), Unfit> {
        let inside =
            |columns: &[NodeId]| tuples.iter().any(|tuple| tuple.strict && tuple.nodes.iter().all(|node| columns.contains(node)));
        if select.distinct == DistinctModel::On {
            return Err("DISTINCT ON over several shards");
        }
        if !select.windows.iter().all(|partition| inside(partition)) {
            return Err("a window over rows of several shards");
        }
        if select.aggregated && !select.group.as_deref().is_some_and(inside) {
            return Err("groups with rows of several shards");
        }
        let outputs: Vec<NodeId> = select.outputs.iter().flatten().filter_map(|column| column.node).collect();
        if select.distinct == DistinctModel::All && !inside(&outputs) {
            return Err("DISTINCT over rows of several shards");
        }
        Ok(())
    }

    fn item(&self, item: &FromModel, outer: &[KeyTuple]) -> Result<Spread, Unfit> {
        match item {
            FromModel::Table(number) => {
                let instance = &self.reader.instances[*number];
                match (&instance.place, instance.key()) {
                    (place, _) if is_whole(place) => Ok(Spread::Whole { fickle: false }),
                    (TablePlace::Sharded(table), Some(nodes)) => {
                        Ok(Spread::Shards(vec![KeyTuple { nodes, group: table.group, strict: true }]))
                    }
                    (TablePlace::Sharded(_), None) => Err("the table lacks its key"),
                    _ => Err("a table that only one shard has"),
                }
            }
            FromModel::Derived(query) => self.query(query, outer),
            FromModel::With(number) => self.with(*number),
            FromModel::Function(subqueries) => Ok(Spread::Whole { fickle: self.all_whole(subqueries, outer)? }),
            FromModel::Join { kind, sides, subqueries } => {
                let left = self.item(&sides.0, outer)?;
                let mut around = outer.to_vec();
                if let Spread::Shards(tuples) = &left {
                    around.extend(tuples.iter().cloned());
                }
                let right = self.item(&sides.1, &around)?;
                if let Spread::Shards(tuples) = &right {
                    around.extend(tuples.iter().cloned());
                }
                let fickle = self.all_whole(subqueries, &around)?;
                match self.join(*kind, left, right)? {
                    Spread::Shards(_) if fickle => Err(FICKLE),
                    Spread::Whole { fickle: known } => Ok(Spread::Whole { fickle: known || fickle }),
                    spread => Ok(spread),
                }
            }
        }
    }

    fn with(&self, number: usize) -> Result<Spread, Unfit> {
        let with = &self.reader.withs[number];
        let Some(query) = &with.query else { return Ok(Spread::Whole { fickle: false }) };
        if !self.withs_under_way.borrow_mut().insert(number) {
            return Ok(Spread::Whole { fickle: false });
        }
        let spread = self.query(query, &[]);
        self.withs_under_way.borrow_mut().remove(&number);
        match spread? {
            Spread::Shards(_) if with.recursive => Err("WITH RECURSIVE over rows of several shards"),
            spread => Ok(spread),
        }
    }

    fn join(&self, kind: JoinKind, left: Spread, right: Spread) -> Result<Spread, Unfit> {
        const PRESERVED: Unfit = "an outer join keeps rows that every shard has";
        match (left, right) {
            (Spread::Whole { fickle: left }, Spread::Whole { fickle: right }) => Ok(Spread::Whole { fickle: left || right }),
            (Spread::Whole { fickle: true }, Spread::Shards(_)) | (Spread::Shards(_), Spread::Whole { fickle: true }) => {
                Err(FICKLE)
            }
            (Spread::Whole { .. }, Spread::Shards(tuples)) => match kind {
                JoinKind::Inner | JoinKind::Right => Ok(Spread::Shards(tuples)),
                JoinKind::Left | JoinKind::Full => Err(PRESERVED),
            },
            (Spread::Shards(tuples), Spread::Whole { .. }) => match kind {
                JoinKind::Inner | JoinKind::Left => Ok(Spread::Shards(tuples)),
                JoinKind::Right | JoinKind::Full => Err(PRESERVED),
            },
            (Spread::Shards(left), Spread::Shards(right)) => {
                if !self.together(&left, &right) {
                    return Err("a join whose condition is not the equality of the keys");
                }
                let (left_strict, right_strict) = match kind {
                    JoinKind::Inner => (true, true),
                    JoinKind::Left => (true, false),
                    JoinKind::Right => (false, true),
                    JoinKind::Full => (false, false),
                };
                let keep = |tuples: Vec<KeyTuple>, strict: bool| {
                    tuples.into_iter().map(move |tuple| KeyTuple { strict: tuple.strict && strict, ..tuple })
                };
                Ok(Spread::Shards(keep(left, left_strict).chain(keep(right, right_strict)).collect()))
            }
        }
    }

    fn set(
        &self,
        query: &QueryModel,
        union_all: bool,
        sides: &(QueryModel, QueryModel),
        outer: &[KeyTuple],
    ) -> Result<Spread, Unfit> {
        match (self.query(&sides.0, outer)?, self.query(&sides.1, outer)?) {
            (Spread::Whole { fickle: left }, Spread::Whole { fickle: right }) => Ok(Spread::Whole { fickle: left || right }),
            (Spread::Shards(left), Spread::Shards(right)) => {
                let tuples = common_tuples(query, (&left, &sides.0), (&right, &sides.1));
                if union_all || tuples.iter().any(|tuple| tuple.strict) {
                    Ok(Spread::Shards(tuples))
                } else {
                    Err("a set operation over rows of several shards")
                }
            }
            _ => Err("a set operation over rows of one shard and rows that every shard has"),
        }
    }
}

const FICKLE: Unfit = "a subquery over reference tables may have another result on each shard";

/// Keys that stand in the same columns on both sides of a set operation.
fn common_tuples(
    query: &QueryModel,
    (left, left_query): (&[KeyTuple], &QueryModel),
    (right, right_query): (&[KeyTuple], &QueryModel),
) -> Vec<KeyTuple> {
    let places = |tuple: &KeyTuple, outputs: &Option<Vec<OutputColumn>>| -> Option<Vec<usize>> {
        let outputs = outputs.as_ref()?;
        tuple.nodes.iter().map(|node| outputs.iter().position(|column| column.node == Some(*node))).collect()
    };
    let mut found = Vec::new();
    for left in left {
        for right in right.iter().filter(|right| right.group == left.group) {
            let Some(at) = places(left, &left_query.outputs) else { continue };
            if places(right, &right_query.outputs) != Some(at.clone()) {
                continue;
            }
            let nodes: Option<Vec<NodeId>> = at.iter().map(|place| query.outputs.as_ref()?.get(*place)?.node).collect();
            if let Some(nodes) = nodes {
                found.push(KeyTuple { nodes, group: left.group, strict: left.strict && right.strict });
            }
        }
    }
    found
}
