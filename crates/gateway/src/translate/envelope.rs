//! A request for Anthropic's messages as clouds take it: the model stands in the path, and the version in the body.

use bytes::Bytes;
use http::HeaderMap;

use crate::{
    config::Dialect,
    request::{Fields, fields::quoted},
};

const VERTEX: &str = "vertex-2023-10-16";
const BEDROCK: &str = "bedrock-2023-05-31";

/// The body in the envelope of its cloud; all that is within stays as it is. `headers`: the client's betas, which Bedrock takes in the
/// body.
pub(crate) fn enveloped(dialect: Dialect, body: Bytes, headers: &mut HeaderMap) -> Bytes {
    let (version, left_out): (_, &[&str]) = match dialect {
        Dialect::Vertex => (VERTEX, &["model"]),
        // Whether it is a stream is said in the path.
        Dialect::Bedrock => (BEDROCK, &["model", "stream"]),
        _ => return body,
    };
    let Ok(fields) = serde_json::from_slice::<Fields<'_>>(&body) else {
        // It is always an object.
        return body;
    };
    headers.remove("anthropic-version");
    let own = |name: &str| fields.fields.iter().any(|(field, _)| field == name);
    let mut pieces = Vec::new();
    if !own("anthropic_version") {
        pieces.push(format!(r#""anthropic_version":{}"#, quoted(version)));
    }
    if dialect == Dialect::Bedrock {
        let values = headers.get_all("anthropic-beta").into_iter();
        let values = values.filter_map(|value| value.to_str().ok());
        let betas: Vec<&str> = values
            .flat_map(|list| list.split(','))
            .map(str::trim)
            .filter(|beta| !beta.is_empty())
            .collect();
        if !betas.is_empty() && !own("anthropic_beta") {
            let betas = serde_json::Value::from(betas);
            pieces.push(format!(r#""anthropic_beta":{betas}"#));
        }
        headers.remove("anthropic-beta");
    }
    let rest = fields.fields.iter();
    let rest = rest.filter(|(name, _)| !left_out.contains(&name.as_ref()));
    pieces.extend(rest.map(|(name, json)| format!("{}:{json}", quoted(name))));
    Bytes::from(format!("{{{}}}", pieces.join(",")))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn clouds_get_the_version_in_the_body_and_no_model() {
        let body =
            Bytes::from_static(br#"{"model":"m","stream":true,"max_tokens":1.0,"messages":[ ]}"#);
        let mut headers = HeaderMap::new();
        headers.insert("anthropic-version", HeaderValue::from_static("2023-06-01"));
        headers.append("anthropic-beta", HeaderValue::from_static("a, b"));
        headers.append("anthropic-beta", HeaderValue::from_static("c"));
        let mut of_vertex = headers.clone();
        assert_eq!(
            enveloped(Dialect::Vertex, body.clone(), &mut of_vertex),
            r#"{"anthropic_version":"vertex-2023-10-16","stream":true,"max_tokens":1.0,"messages":[ ]}"#
        );
        assert_eq!(of_vertex.get_all("anthropic-beta").iter().count(), 2);
        assert_eq!(
            enveloped(Dialect::Bedrock, body.clone(), &mut headers),
            r#"{"anthropic_version":"bedrock-2023-05-31","anthropic_beta":["a","b","c"],"max_tokens":1.0,"messages":[ ]}"#
        );
        assert!(headers.is_empty());
        assert_eq!(
            enveloped(Dialect::Anthropic, body.clone(), &mut headers),
            body
        );
    }
}
