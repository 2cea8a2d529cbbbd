//! Every address of the HTTP surface, once: who may ask, what it takes and gives, who answers. The router
//! and the OpenAPI description (3.1, whose schemas are JSON Schema) are made from this list.

use super::{
    MAX_BODY, Surface,
    access::May,
    answer, change,
    guard::{allowed, noted},
    look, page, stream,
};
use crate::{
    event::Numbered,
    swap::{GateView, ModeReport, RollbackReport, Status, SwapReport},
    view::{LedgerView, Overview, Readiness, Sample, sources::SourcesView},
};
use axum::{
    Json, Router,
    extract::DefaultBodyLimit,
    middleware::from_fn_with_state,
    routing::{MethodRouter, get, post},
};
use schemars::{JsonSchema, Schema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// What an address answers with.
enum Answer {
    /// JSON of this type.
    Json(fn(&mut SchemaGenerator) -> Schema),
    /// Text of this content type.
    Text(&'static str),
}

struct Route {
    method: &'static str,
    path: &'static str,
    may: May,
    summary: &'static str,
    /// Names and meanings.
    query: &'static [(&'static str, &'static str)],
    body: Option<fn(&mut SchemaGenerator) -> Schema>,
    answer: Answer,
    handler: MethodRouter<Arc<Surface>>,
}

impl Route {
    fn look(
        path: &'static str,
        summary: &'static str,
        answer: Answer,
        handler: MethodRouter<Arc<Surface>>,
    ) -> Self {
        Self { method: "get", path, may: May::Look, summary, query: &[], body: None, answer, handler }
    }

    fn change(
        path: &'static str,
        summary: &'static str,
        answer: Answer,
        handler: MethodRouter<Arc<Surface>>,
    ) -> Self {
        Self { method: "post", may: May::Change, ..Self::look(path, summary, answer, handler) }
    }
}

fn of<T: JsonSchema>() -> Answer {
    Answer::Json(SchemaGenerator::subschema_for::<T>)
}

const LIMIT: (&str, &str) = ("limit", "records on a page, 1 to 500; 50 without it");
const DRY_RUN: [(&str, &str); 1] = [("dry_run", "true: only say what would be different")];
const BEFORE: [(&str, &str); 2] = [("before", "the `next` of the page before"), LIMIT];

fn routes() -> Vec<Route> {
    vec![
        Route {
            may: May::Anybody,
            ..Route::look("/v1/health", "The process answers", of::<look::Health>(), get(look::health))
        },
        Route::look(
            "/v1/ready",
            "Whether the gateway does its work, and if not, why; 503 when it does not",
            of::<Readiness>(),
            get(look::ready),
        ),
        Route::look("/v1/overview", "The gateway in one look", of::<Overview>(), get(look::overview)),
        Route::look(
            "/v1/history",
            "Miners and shares over the last hour",
            of::<Vec<Sample>>(),
            get(look::history),
        ),
        Route::look(
            "/v1/gate",
            "Mode, phase, tip, and the job that miners have",
            of::<GateView>(),
            get(look::gate),
        ),
        Route {
            query: &BEFORE,
            ..Route::look(
                "/v1/templates",
                "The last judged templates with their verdicts, newest first",
                of::<look::Templates>(),
                get(look::templates),
            )
        },
        Route {
            query: &BEFORE,
            ..Route::look(
                "/v1/timeline",
                "The last steps of gate, source, policies and forwarding, newest first",
                of::<look::Timeline>(),
                get(look::timeline),
            )
        },
        Route {
            query: &[("after", "the `next` of the page before"), LIMIT],
            ..Route::look(
                "/v1/miners",
                "Connections and their channels, oldest first",
                of::<look::Miners>(),
                get(look::miners),
            )
        },
        Route::look(
            "/v1/sources",
            "The template sources: who leads, who is well, and on which tips they are",
            of::<SourcesView>(),
            get(look::sources),
        ),
        Route::look(
            "/v1/ledger",
            "The ledger and the forwarding of shares",
            of::<LedgerView>(),
            get(look::ledger),
        ),
        Route::look(
            "/v1/policies",
            "The running policy set, policy by policy, and the set before",
            of::<Status>(),
            get(look::policies),
        ),
        Route {
            query: &DRY_RUN,
            ..Route::change(
                "/v1/reload",
                "Read the configuration file again: policies, mode, and every key that can change",
                of::<SwapReport>(),
                post(change::swap),
            )
        },
        Route {
            query: &DRY_RUN,
            ..Route::change(
                "/v1/policies/swap",
                "The same, by its older name",
                of::<SwapReport>(),
                post(change::swap),
            )
        },
        Route::change(
            "/v1/policies/rollback",
            "Bring the policy set before back",
            of::<RollbackReport>(),
            post(change::rollback),
        ),
        Route {
            body: Some(SchemaGenerator::subschema_for::<change::WantedMode>),
            ..Route::change("/v1/mode", "Change the mode", of::<ModeReport>(), post(change::mode))
        },
        Route::look(
            "/v1/reasons",
            "Every reason code of the gateway",
            of::<Vec<look::ReasonView>>(),
            get(look::reasons),
        ),
        Route {
            query: &[
                ("event", "names of events, with commas"),
                ("room", "names of rooms, with commas"),
                ("severity", "at least this: info, warning, error"),
                ("after", "go on after this id, or `start` for the oldest; Last-Event-ID goes before it"),
            ],
            ..Route::look(
                "/v1/events",
                "Events as they happen (server-sent events)",
                Answer::Text("text/event-stream"),
                get(stream::events),
            )
        },
        Route {
            may: May::Anybody,
            ..Route::look(
                "/v1/events/schema.json",
                "JSON Schema of all events",
                Answer::Text("application/schema+json"),
                get(async || Json(event_schema())),
            )
        },
        Route {
            may: May::Anybody,
            ..Route::look(
                "/v1/openapi.json",
                "This description",
                Answer::Text("application/json"),
                get(async || Json(description())),
            )
        },
        Route::look(
            "/metrics",
            "Metrics for Prometheus",
            Answer::Text(crate::metrics::CONTENT_TYPE),
            get(look::text_metrics),
        ),
    ]
}

pub(super) fn router(surface: Arc<Surface>) -> Router {
    let guarded = |may| from_fn_with_state((surface.clone(), may), allowed);
    let mut router = page::router().layer(guarded(May::Anybody));
    for route in routes() {
        router = router.merge(
            Router::new()
                .route(route.path, route.handler)
                .method_not_allowed_fallback(look::wrong_method)
                .layer(guarded(route.may)),
        );
    }
    let unknown = Router::new().fallback(look::unknown).layer(guarded(May::Look));
    router
        .fallback_service(unknown.with_state(surface.clone()))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(from_fn_with_state(surface.clone(), noted))
        .with_state(surface)
}

/// JSON Schema of an event as it is written.
pub fn event_schema() -> Value {
    SchemaSettings::draft2020_12()
        .for_serialize()
        .into_generator()
        .into_root_schema_for::<Numbered<'_>>()
        .into()
}

/// The OpenAPI description of the HTTP surface.
pub fn description() -> Value {
    let settings = SchemaSettings::draft2020_12().for_serialize().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut schemas = settings.into_generator();
    let error = schemas.subschema_for::<answer::Error>();
    let mut paths = Map::new();
    for route in routes() {
        let path = paths.entry(route.path).or_insert_with(|| Value::Object(Map::new()));
        if let Some(methods) = path.as_object_mut() {
            methods.insert(route.method.into(), operation(&route, &mut schemas, &error));
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "ReserveGrid",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "What operators can look at and change in a running gateway.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas.take_definitions(true),
            "securitySchemes": {
                "look": { "type": "http", "scheme": "bearer", "description": "[api] read_token or token" },
                "change": { "type": "http", "scheme": "bearer", "description": "[api] token" },
            },
        },
    })
}

fn operation(route: &Route, schemas: &mut SchemaGenerator, error: &Schema) -> Value {
    let content = match &route.answer {
        Answer::Json(schema) => json!({ "application/json": { "schema": schema(schemas) } }),
        Answer::Text(kind) => json!({ *kind: { "schema": { "type": "string" } } }),
    };
    let parameters: Vec<_> = route
        .query
        .iter()
        .map(|(name, meaning)| {
            json!({ "name": name, "in": "query", "description": meaning, "schema": { "type": "string" } })
        })
        .collect();
    let security = match route.may {
        May::Anybody => json!([]),
        May::Look => json!([{ "look": [] }]),
        May::Change => json!([{ "change": [] }]),
    };
    let mut operation = json!({
        "summary": route.summary,
        "operationId": format!("{}{}", route.method, route.path.replace(['/', '.'], "_")),
        "parameters": parameters,
        "security": security,
        "responses": {
            "200": { "description": "As asked.", "content": content },
            "default": {
                "description": "Refused, with the reason.",
                "content": { "application/json": { "schema": error } },
            },
        },
    });
    if let Some(body) = route.body {
        operation["requestBody"] =
            json!({ "required": true, "content": { "application/json": { "schema": body(schemas) } } });
    }
    operation
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn references(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                found.extend(map.get("$ref").and_then(Value::as_str).map(str::to_owned));
                map.values().for_each(|value| references(value, found));
            }
            Value::Array(list) => list.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }

    #[test]
    fn the_description_names_every_address_and_all_its_references_lead_somewhere() {
        let description = description();
        assert_eq!(description["paths"].as_object().unwrap().len(), routes().len());
        let mut found = Vec::new();
        references(&description, &mut found);
        assert!(found.len() > 20);
        for reference in found {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(description.pointer(pointer).is_some(), "{reference} leads nowhere");
        }
    }

    #[test]
    fn only_what_shows_nothing_is_open_and_only_posts_change() {
        for route in routes() {
            let open = ["/v1/health", "/v1/events/schema.json", "/v1/openapi.json"].contains(&route.path);
            assert_eq!(route.may == May::Anybody, open, "{}", route.path);
            assert_eq!(route.may == May::Change, route.method == "post", "{}", route.path);
        }
    }
}
