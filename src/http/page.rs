//! The status page: one document, its style and its script inside.

use base64::Engine;
use hyper::header::HeaderValue;
use sha2::{Digest, Sha256};

/// The page. It asks `/status.json` each second and draws what it gets.
pub(super) const HTML: &str = concat!(
    "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n",
    "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>pgyard</title>\n",
    "<link rel=\"icon\" href=\"data:,\">\n<style>",
    include_str!("page/status.css"),
    "</style>\n</head>\n<body>\n",
    include_str!("page/body.html"),
    "<script>",
    include_str!("page/status.js"),
    "</script>\n</body>\n</html>\n"
);

/// Allows the page its own style and script, by their hashes, and requests to where it comes from: nothing else, so that a
/// name in the fleet that were mistaken for markup could still do nothing.
pub(super) fn content_security_policy() -> HeaderValue {
    let policy = format!(
        "default-src 'none'; style-src '{}'; script-src '{}'; connect-src 'self'; img-src data:; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'",
        hash_of(include_str!("page/status.css")),
        hash_of(include_str!("page/status.js"))
    );
    // Base64 and the fixed text above are plain ASCII; were they not, nothing would be allowed.
    HeaderValue::from_str(&policy).unwrap_or(HeaderValue::from_static("default-src 'none'"))
}

/// The hash source of an inline element's content.
fn hash_of(content: &str) -> String {
    format!("sha256-{}", base64::engine::general_purpose::STANDARD.encode(Sha256::digest(content)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_needs_nothing_from_outside() {
        for element in ["style", "script"] {
            assert_eq!(HTML.matches(&format!("<{element}>")).count(), 1, "{element}");
            assert_eq!(HTML.matches(&format!("</{element}>")).count(), 1, "{element}");
        }
        // The namespace of SVG is a name that nobody fetches.
        let without_namespace = HTML.replace("http://www.w3.org/2000/svg", "");
        for outside in ["http://", "https://", "src=", "@import", "innerHTML", " style=", " onclick", "eval("] {
            assert!(!without_namespace.contains(outside), "{outside}");
        }
    }

    #[test]
    fn the_policy_names_the_hashes() {
        let policy = content_security_policy();
        let policy = policy.to_str().unwrap();
        assert!(policy.contains("script-src 'sha256-") && policy.contains("style-src 'sha256-"), "{policy}");
        for (element, content) in [("style", include_str!("page/status.css")), ("script", include_str!("page/status.js"))] {
            assert!(HTML.contains(&format!("<{element}>{content}</{element}>")), "{element} is not what was hashed");
        }
    }
}
