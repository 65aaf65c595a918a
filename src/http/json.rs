//! Says in our words why JSON is not what a route takes, for every field at once.

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::openapi::component;
use crate::ledger::FieldProblem;
use crate::ledger::input::shown;

/// Checks `value` against a schema of the OpenAPI document: types, required fields, unknown fields, and words of an enum.
/// Repairs what is wrong, so the values of the other fields can be checked too.
pub(super) fn repair(schema: &Value, value: &mut Value, path: &str, problems: &mut Vec<FieldProblem>) {
    if let Some(name) = schema["$ref"].as_str().and_then(|reference| reference.rsplit('/').next()) {
        return repair(component(name), value, path, problems);
    }
    if let Some(words) = schema["enum"].as_array() {
        if !words.contains(value) {
            let words = words.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", ");
            problems.push(wrong(path, &format!("one of {words}"), value));
            *value = schema["enum"][0].clone();
        }
        return;
    }
    let types: Vec<&str> = match &schema["type"] {
        Value::Array(types) => types.iter().filter_map(Value::as_str).collect(),
        one => one.as_str().into_iter().collect(),
    };
    let nullable = types.contains(&"null");
    if nullable && value.is_null() {
        return;
    }
    let Some(expected) = types.into_iter().find(|name| *name != "null") else { return };
    let (is_it, name, default) = match expected {
        "object" => (value.is_object(), "an object", Value::Object(Default::default())),
        "array" => (value.is_array(), "a list", Value::Array(Vec::new())),
        "string" => (value.is_string(), "a string", Value::from("")),
        "integer" => (value.is_i64(), "an integer", Value::from(0)),
        "boolean" => (value.is_boolean(), "true or false", Value::from(false)),
        _ => return,
    };
    if !is_it {
        problems.push(wrong(path, name, value));
        *value = if nullable { Value::Null } else { default };
    }
    match value {
        Value::Array(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                repair(&schema["items"], item, &format!("{path}[{index}]"), problems);
            }
        }
        Value::Object(fields) => {
            let at = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
            let known: Vec<&String> =
                schema["properties"].as_object().into_iter().flat_map(|known| known.keys()).collect();
            for name in fields.keys().filter(|name| !known.contains(name)) {
                let names: Vec<&str> = known.iter().map(|name| name.as_str()).collect();
                problems.push(FieldProblem::new(at(name), unknown_field(name, &names)));
            }
            fields.retain(|name, _| known.contains(&name));
            for name in known {
                let required =
                    schema["required"].as_array().is_some_and(|required| required.iter().any(|one| one == name));
                match fields.get_mut(name) {
                    Some(field) => repair(&schema["properties"][name], field, &at(name), problems),
                    None if required => {
                        problems.push(FieldProblem::new(at(name), "is required"));
                        let field = fields.entry(name.clone()).or_insert(Value::Null);
                        repair(&schema["properties"][name], field, "", &mut Vec::new());
                    }
                    None => {}
                }
            }
        }
        _ => {}
    }
}

fn wrong(path: &str, must: &str, got: &Value) -> FieldProblem {
    let got = match got {
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
        Value::String(text) => format!("{:?}", shown(text)),
        other => other.to_string(),
    };
    FieldProblem::new(path, format!("must be {must} (got {got})"))
}

fn unknown_field(name: &str, known: &[&str]) -> String {
    let similarity = |known: &&str| strsim::jaro_winkler(known, name);
    let nearest = known.iter().copied().max_by(|a, b| similarity(a).total_cmp(&similarity(b)));
    match nearest.filter(|nearest| similarity(nearest) > 0.8) {
        Some(nearest) => format!("unknown field {:?}; did you mean {nearest:?}?", shown(name)),
        None => format!("unknown field {:?}; known: {}", shown(name), known.join(", ")),
    }
}

/// Reads the whole text as a `T`.
pub(super) fn read<T: DeserializeOwned>(text: &[u8]) -> Result<T, (Option<String>, String)> {
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| locate(&error, ""))?;
    deserializer.end().map_err(|error| (None, error.to_string()))?;
    Ok(value)
}

/// Where serde found an error, as a path below `root`, and what is wrong there, in our words. No path: the text is not JSON,
/// or the error concerns all of it.
pub(crate) fn locate(error: &serde_path_to_error::Error<serde_json::Error>, root: &str) -> (Option<String>, String) {
    let problem = error.inner().to_string();
    if !error.inner().is_data() {
        return (None, problem);
    }
    // serde reports these at the object that has the field.
    let named = ["missing field `", "duplicate field `"].iter().find_map(|start| problem.strip_prefix(start));
    let named = named.and_then(|rest| rest.split('`').next());
    let inside = Some(error.path().to_string()).filter(|path| path != ".");
    let steps = [root, inside.as_deref().unwrap_or(""), named.unwrap_or("")];
    let path = steps.into_iter().filter(|step| !step.is_empty()).collect::<Vec<_>>().join(".");
    if path.is_empty() {
        return (None, in_our_words(&problem));
    }
    (Some(path), in_our_words(without_position(&problem)))
}

fn without_position(problem: &str) -> &str {
    problem.rsplit_once(" at line ").map_or(problem, |(problem, _)| problem)
}

/// A message of serde's, as it reads behind the name of its field. Others (from `Error::custom`) stay.
pub(super) fn in_our_words(problem: &str) -> String {
    if problem.starts_with("missing field") {
        return "is required".to_owned();
    }
    if problem.starts_with("duplicate field") {
        return "is given twice".to_owned();
    }
    if problem.starts_with("UUID parsing failed") {
        return "must be Clawback's id, a UUID".to_owned();
    }
    let quoted: Vec<&str> = problem.split('`').skip(1).step_by(2).collect();
    if let (true, [name, known @ ..]) = (problem.starts_with("unknown field"), quoted.as_slice()) {
        return unknown_field(name, known);
    }
    if let (true, [word, known @ ..]) = (problem.starts_with("unknown variant"), quoted.as_slice()) {
        return format!("must be one of {} (got {:?})", known.join(", "), shown(word));
    }
    let invalid = problem.strip_prefix("invalid type: ").or_else(|| problem.strip_prefix("invalid value: "));
    let Some((got, expected)) = invalid.and_then(|rest| rest.rsplit_once(", expected ")) else {
        return problem.to_owned();
    };
    let (expected, position) = expected.split_once(" at line ").map_or((expected, None), |(what, at)| (what, Some(at)));
    let must = match expected {
        "i64" | "u64" => "an integer",
        "i32" => "an integer up to 2147483647",
        "u32" => "an integer from 0 to 4294967295",
        "a sequence" => "a list",
        other if other.starts_with("struct ") => "an object",
        other => other,
    };
    let got = match got {
        "map" => "an object",
        "sequence" => "a list",
        got => got.strip_prefix("string ").unwrap_or(got.split('`').nth(1).unwrap_or(got)),
    };
    let position = position.map(|at| format!(" at line {at}")).unwrap_or_default();
    format!("must be {must} (got {}){position}", shown(got))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail loudly")]

    use serde_json::json;

    use super::*;
    use crate::ledger::NewPayment;

    fn located(body: &str, root: &str) -> (Option<String>, String) {
        let mut deserializer = serde_json::Deserializer::from_str(body);
        locate(&serde_path_to_error::deserialize::<_, NewPayment>(&mut deserializer).unwrap_err(), root)
    }

    #[test]
    fn serdes_errors_are_told_in_our_words_at_their_path() {
        let start = r#"{"payment_ref":"pi_1","amount":1,"currency":"eur""#;
        for (body, field, problem) in [
            (r#"{"amount":"12"}"#.to_owned(), "amount", "must be an integer (got \"12\")"),
            (r#"{"amount":1.5}"#.to_owned(), "amount", "must be an integer (got 1.5)"),
            (r#"{"amount":9223372036854775808}"#.to_owned(), "amount", "must be an integer (got 9223372036854775808)"),
            (r#"{"currency":null}"#.to_owned(), "currency", "must be a string (got null)"),
            (r#"{"currency":{}}"#.to_owned(), "currency", "must be a string (got an object)"),
            (r#"{"currency":true}"#.to_owned(), "currency", "must be a string (got true)"),
            (r#"{"transfers":"x"}"#.to_owned(), "transfers", "must be a list (got \"x\")"),
            (r#"{"amount":1,"amount":1}"#.to_owned(), "amount", "is given twice"),
            (r#"{"amout":1}"#.to_owned(), "amout", "unknown field \"amout\"; did you mean \"amount\"?"),
            (format!("{start}}}"), "transfers", "is required"),
            (format!("{start},\"transfers\":[{{}}]}}"), "transfers[0].seller_id", "is required"),
        ] {
            assert_eq!(located(&body, ""), (Some(field.to_owned()), problem.to_owned()), "{body}");
            assert_eq!(located(&body, "data").0, Some(format!("data.{field}")), "{body}");
        }
    }

    #[test]
    fn an_error_of_the_whole_text_keeps_its_position() {
        for body in ["7", "", "{", r#"{"transfers":[{"amount":"#, r#"{"amount":1,}"#, r#"{"amount":1}"#] {
            let (field, problem) = located(body, "");
            assert!(field.is_none() == (body != r#"{"amount":1}"#), "{body}");
            assert!(field.is_some() || problem.contains("line 1"), "{body}: {problem}");
        }
        assert_eq!(located("7", "").1, "must be an object (got 7) at line 1 column 1");
    }

    #[test]
    fn every_wrong_field_is_found_at_once_and_repaired() {
        let mut body = json!({
            "amount": "12", "currencey": "eur", "transfers": [{"seller_id": 1, "destination": "a"}, 7],
        });
        let mut problems = Vec::new();
        repair(component("NewPayment"), &mut body, "", &mut problems);
        let mut told: Vec<String> = problems.iter().map(ToString::to_string).collect();
        told.sort();
        assert_eq!(
            told,
            [
                "amount must be an integer (got \"12\")",
                "currency is required",
                "payment_ref is required",
                "transfers[0].amount is required",
                "transfers[0].currency is required",
                "transfers[0].seller_id must be a string (got 1)",
                "transfers[1] must be an object (got 7)",
                "transfers[1].amount is required",
                "transfers[1].currency is required",
                "transfers[1].destination is required",
                "transfers[1].seller_id is required",
                "unknown field \"currencey\"; did you mean \"currency\"?",
            ]
        );
        serde_json::from_value::<NewPayment>(body).unwrap();
    }

    #[test]
    fn words_of_an_enum_and_optional_fields_are_checked() {
        let mut body = json!({
            "source": "paypal", "refund_ref": "re_1", "payment_ref": "pi_1", "amount": 1, "currency": "eur", "transfers": 5,
        });
        let mut problems = Vec::new();
        repair(component("NewRefund"), &mut body, "", &mut problems);
        let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
        let source = "source must be one of stripe, hyperswitch (got \"paypal\")".to_owned();
        assert!(told.len() == 2 && told.contains(&source), "{told:?}");
        assert_eq!(body["transfers"], Value::Null);
    }
}
