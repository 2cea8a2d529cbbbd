//! Errors as they are answered, and answers that are JSON already.

use crate::{event::schema::SwapFault, reason::Reason, swap::Refused};
use axum::{
    Json,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use schemars::JsonSchema;
use serde::Serialize;
use std::sync::Arc;

/// What a request that cannot be answered gets.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(super) struct Error {
    #[serde(skip)]
    pub(super) status: StatusCode,
    /// The code.
    pub(super) reason_code: Reason,
    /// The same in words.
    pub(super) detail: String,
    /// Every single fault, where there are some.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) faults: Vec<SwapFault>,
}

impl Error {
    pub(super) fn new(status: StatusCode, reason_code: Reason, detail: impl Into<String>) -> Self {
        Self { status, reason_code, detail: detail.into(), faults: Vec::new() }
    }

    pub(super) fn invalid(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, Reason::ApiRequestInvalid, detail)
    }
}

/// What a response was refused for, for the counting on its way out.
#[derive(Clone, Debug)]
pub(super) struct Refusal {
    pub(super) reason: Reason,
    pub(super) detail: String,
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let refusal = Refusal { reason: self.reason_code, detail: self.detail.clone() };
        let mut response = (self.status, Json(self)).into_response();
        response.extensions_mut().insert(refusal);
        response
    }
}

impl From<Refused> for Error {
    fn from(Refused { reason_code, detail, faults }: Refused) -> Self {
        let status = match reason_code {
            Reason::PolicySwapBusy | Reason::PolicyRollbackUnavailable => StatusCode::CONFLICT,
            Reason::InternalError => StatusCode::INTERNAL_SERVER_ERROR,
            Reason::ShutdownDrain => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::UNPROCESSABLE_ENTITY,
        };
        Self { status, reason_code, detail, faults }
    }
}

/// A page of records that are JSON already: `{ "records": […], "next": … }`.
pub(super) fn records(records: &[(u64, Arc<str>)], next: Option<u64>) -> Response {
    let list: Vec<&str> = records.iter().map(|(_, json)| &**json).collect();
    let next = next.map_or_else(|| "null".to_owned(), |next| next.to_string());
    let body = format!("{{\"records\":[{}],\"next\":{next}}}", list.join(","));
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}
