//! The dashboard: a page, its style and its script, all inside the binary. It asks the HTTP surface like
//! anybody else; the files themselves show nothing of the gateway and are open.

use super::{Surface, look::wrong_method};
use axum::{Router, http::header, response::IntoResponse, routing::get};
use std::sync::Arc;

/// Nothing from anywhere else, no inline script or style, in no frame.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    connect-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Address, content type and content.
const FILES: [(&str, &str, &str); 6] = [
    ("/", "text/html; charset=utf-8", include_str!("page/index.html")),
    ("/page/style.css", "text/css; charset=utf-8", include_str!("page/style.css")),
    ("/page/app.js", "text/javascript; charset=utf-8", include_str!("page/app.js")),
    ("/page/charts.js", "text/javascript; charset=utf-8", include_str!("page/charts.js")),
    ("/page/gateway.js", "text/javascript; charset=utf-8", include_str!("page/gateway.js")),
    ("/page/icon.svg", "image/svg+xml", include_str!("page/icon.svg")),
];

pub(super) fn router() -> Router<Arc<Surface>> {
    let mut router = Router::new();
    for (path, kind, content) in FILES {
        let headers = [
            (header::CONTENT_TYPE, kind),
            (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
            (header::CACHE_CONTROL, "no-cache"),
        ];
        router = router.route(path, get(async move || (headers, content).into_response()));
    }
    router.method_not_allowed_fallback(wrong_method)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_needs_nothing_from_outside_and_nothing_inline() {
        for (path, _, content) in FILES {
            let outside = content.replace("http://www.w3.org/2000/svg", "");
            for bad in
                ["http://", "https://", "//cdn", "@import", " style=\"", "onclick=", "<script>", "innerHTML"]
            {
                assert!(!outside.contains(bad), "{path} has {bad}");
            }
        }
        let names = FILES.map(|(path, ..)| path);
        let html = FILES[0].2;
        for link in html.split("=\"/").skip(1).filter_map(|rest| rest.split('"').next()) {
            // The HTTP surface itself.
            if link.starts_with("v1/") {
                continue;
            }
            assert!(names.contains(&format!("/{link}").as_str()), "/{link} is not there");
        }
    }
}
