//! What only looks: the gateway as a whole, miners, templates and verdicts, the gate, the ledger, reasons.

use super::{
    Surface,
    answer::{Error, records},
};
use crate::{
    event::{Event, schema::TemplateJudged},
    metrics,
    miner::view::ConnectionView,
    reason::{Fault, Reason, Severity},
    swap::{GateView, Status},
    view::{LedgerView, Overview, Readiness, Sample, sources::SourcesView},
};
use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Records on a page unless another number is asked for.
const PAGE: usize = 50;
/// Most records on a page.
const MAX_PAGE: usize = 500;

pub(super) type Asked = State<Arc<Surface>>;

/// The process answers.
#[derive(Serialize, JsonSchema)]
pub(super) struct Health {
    /// `ok`.
    status: &'static str,
    /// Version of the gateway.
    version: &'static str,
}

pub(super) async fn health() -> Json<Health> {
    Json(Health { status: "ok", version: env!("CARGO_PKG_VERSION") })
}

/// 503 when the gateway does not do its work: what a load balancer looks at.
pub(super) async fn ready(State(surface): Asked) -> (StatusCode, Json<Readiness>) {
    let readiness = surface.view.readiness();
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(readiness))
}

pub(super) async fn overview(State(surface): Asked) -> Json<Overview> {
    Json(surface.view.overview())
}

pub(super) async fn history(State(surface): Asked) -> Json<Vec<Sample>> {
    Json(surface.view.history())
}

pub(super) async fn policies(State(surface): Asked) -> Json<Status> {
    Json(surface.swaps.status())
}

pub(super) async fn gate(State(surface): Asked) -> Json<GateView> {
    Json(surface.swaps.gate())
}

pub(super) async fn sources(State(surface): Asked) -> Json<SourcesView> {
    Json(surface.view.sources.look())
}

pub(super) async fn ledger(State(surface): Asked) -> Json<LedgerView> {
    Json(surface.view.ledger())
}

pub(super) async fn text_metrics(State(surface): Asked) -> Response {
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], surface.metrics.text()).into_response()
}

/// A page of records by their number.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Before {
    before: Option<u64>,
    limit: Option<usize>,
}

/// Records, newest first.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "only its schema is used: the records are JSON already")]
pub(super) struct Templates {
    /// Judged templates with their verdicts, as their events.
    records: Vec<TemplateJudged>,
    /// To be given as `before` for the next page; none after the last.
    next: Option<u64>,
}

/// Records, newest first.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "only its schema is used: the records are JSON already")]
pub(super) struct Timeline {
    /// Steps of gate, source, policies and forwarding, as their events.
    records: Vec<Event>,
    /// To be given as `before` for the next page; none after the last.
    next: Option<u64>,
}

type Page<T> = Result<Query<T>, QueryRejection>;

pub(super) async fn templates(State(surface): Asked, page: Page<Before>) -> Result<Response, Error> {
    paged(page, |before, limit| surface.view.board.templates(before, limit))
}

pub(super) async fn timeline(State(surface): Asked, page: Page<Before>) -> Result<Response, Error> {
    paged(page, |before, limit| surface.view.board.steps(before, limit))
}

type Found = Vec<(u64, Arc<str>)>;

fn paged(page: Page<Before>, read: impl FnOnce(Option<u64>, usize) -> Found) -> Result<Response, Error> {
    let Query(Before { before, limit }) = page.map_err(wrong_query)?;
    let limit = limit_of(limit)?;
    let mut found = read(before, limit + 1);
    let next = (found.len() > limit).then(|| found.get(limit - 1).map(|(seq, _)| *seq)).flatten();
    found.truncate(limit);
    Ok(records(&found, next))
}

fn limit_of(limit: Option<usize>) -> Result<usize, Error> {
    match limit.unwrap_or(PAGE) {
        limit if (1..=MAX_PAGE).contains(&limit) => Ok(limit),
        limit => Err(Error::invalid(format!("limit={limit} is not between 1 and {MAX_PAGE}"))),
    }
}

fn wrong_query(error: QueryRejection) -> Error {
    Error::invalid(error.body_text())
}

/// A page of connections by their number.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct After {
    after: Option<u64>,
    limit: Option<usize>,
}

/// Connections, oldest first.
#[derive(Serialize, JsonSchema)]
pub(super) struct Miners {
    /// Open connections.
    connections_total: usize,
    /// Open channels.
    channels_total: u64,
    /// Those on this page, with their channels.
    connections: Vec<ConnectionView>,
    /// To be given as `after` for the next page; none after the last.
    next: Option<u64>,
}

pub(super) async fn miners(State(surface): Asked, page: Page<After>) -> Result<Json<Miners>, Error> {
    let Query(After { after, limit }) = page.map_err(wrong_query)?;
    let limit = limit_of(limit)?;
    let miners = &surface.view.miners;
    let mut connections = miners.page(after.unwrap_or(0), limit + 1);
    let next = (connections.len() > limit).then(|| connections[limit - 1].connection);
    connections.truncate(limit);
    let (connections_total, channels_total) = (miners.connections(), miners.channels());
    Ok(Json(Miners { connections_total, channels_total, connections, next }))
}

/// A reason code of the gateway.
#[derive(Serialize, JsonSchema)]
pub(super) struct ReasonView {
    /// The code.
    code: Reason,
    /// The stage of the flow it belongs to.
    category: &'static str,
    /// Who has to act.
    fault: Fault,
    /// How much attention it deserves.
    severity: Severity,
    /// The error code that miners see, where they see one.
    sv2_code: Option<&'static str>,
    /// One sentence for people.
    meaning: &'static str,
}

pub(super) async fn reasons() -> Json<Vec<ReasonView>> {
    let view = |reason: &Reason| ReasonView {
        code: *reason,
        category: reason.category(),
        fault: reason.fault(),
        severity: reason.severity(),
        sv2_code: reason.sv2_code(),
        meaning: reason.meaning(),
    };
    Json(Reason::ALL.iter().map(view).collect())
}

pub(super) async fn unknown() -> Error {
    let detail = "there is nothing under this address; GET /v1/openapi.json lists what there is";
    Error::new(StatusCode::NOT_FOUND, Reason::ApiRequestInvalid, detail)
}

pub(super) async fn wrong_method() -> Error {
    let detail = "this address is asked with another method: GET to look, POST to change";
    Error::new(StatusCode::METHOD_NOT_ALLOWED, Reason::ApiRequestInvalid, detail)
}
