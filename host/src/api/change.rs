//! What changes something: the policy set, and the mode. Each is handed to [`Swaps`](crate::swap::Swaps).

use super::{Surface, answer::Error};
use crate::{
    event::schema::Trigger,
    gate::Mode,
    reason::Reason,
    swap::{ModeReport, RollbackReport, SwapReport},
    words::printable,
};
use axum::{
    Json,
    body::Bytes,
    extract::{State, rejection::BytesRejection},
    http::Uri,
};
use serde::Deserialize;
use std::sync::Arc;

/// Characters of a wrong mode that are shown.
const MAX_SHOWN: usize = 40;

/// A request's body, or why it cannot be taken.
type Body = Result<Bytes, BytesRejection>;

pub(super) async fn swap(
    State(surface): State<Arc<Surface>>,
    uri: Uri,
    body: Body,
) -> Result<Json<SwapReport>, Error> {
    no_body(body)?;
    let dry_run = match uri.query() {
        None | Some("" | "dry_run=false") => false,
        Some("dry_run=true") => true,
        Some(_) => {
            return Err(Error::invalid("the query may be dry_run=true or dry_run=false and nothing else"));
        }
    };
    Ok(Json(surface.swaps.reload(Trigger::Http, dry_run).await?))
}

pub(super) async fn rollback(
    State(surface): State<Arc<Surface>>,
    uri: Uri,
    body: Body,
) -> Result<Json<RollbackReport>, Error> {
    no_body(body)?;
    if uri.query().is_some_and(|query| !query.is_empty()) {
        return Err(Error::invalid("a rollback has no query"));
    }
    Ok(Json(surface.swaps.rollback(Trigger::Http)?))
}

/// The body that asks for a mode.
#[derive(Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct WantedMode {
    /// "observe" or "inline".
    mode: String,
}

pub(super) async fn mode(
    State(surface): State<Arc<Surface>>,
    uri: Uri,
    body: Body,
) -> Result<Json<ModeReport>, Error> {
    if uri.query().is_some_and(|query| !query.is_empty()) {
        return Err(Error::invalid("a change of the mode has no query: the mode is in the body"));
    }
    let body = body.map_err(unread)?;
    let wanted: WantedMode = serde_json::from_slice(&body).map_err(|error| {
        Error::invalid(format!("the body must be like {{\"mode\":\"observe\"}}: {error}"))
    })?;
    let wanted: Mode = wanted.mode.parse().map_err(|error| {
        Error::invalid(format!("\"{}\" {error}", printable(wanted.mode.as_bytes(), MAX_SHOWN)))
    })?;
    Ok(Json(surface.swaps.set_mode(Trigger::Http, wanted).await?))
}

fn no_body(body: Body) -> Result<(), Error> {
    match body {
        Ok(body) if body.is_empty() => Ok(()),
        Ok(_) => Err(Error::invalid(
            "the request must have no body: the policies are those of the configuration file",
        )),
        Err(error) => Err(unread(error)),
    }
}

fn unread(error: BytesRejection) -> Error {
    Error::new(error.status(), Reason::ApiRequestInvalid, error.body_text())
}
