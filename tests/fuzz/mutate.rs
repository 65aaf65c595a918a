//! Small changes, each of which some program will make some day.

use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use serde_json::{Map, Value, json};

/// Changes one place of a document: another type, a number out of range, a field less, more or elsewhere, an object in place of
/// its id, or deep nesting.
pub(super) fn json(value: &mut Value, rng: &mut StdRng) {
    match value {
        Value::Object(fields) if !fields.is_empty() && rng.random_ratio(5, 6) => {
            let names: Vec<String> = fields.keys().cloned().collect();
            let name = names.choose(rng).unwrap();
            match rng.random_range(0..10) {
                0 => drop(fields.remove(name)),
                1 => {
                    let moved = fields.remove(name).unwrap();
                    fields.insert(text(rng), moved);
                }
                2 => {
                    let copy = fields[name].clone();
                    fields.insert(names.choose(rng).unwrap().clone(), copy);
                }
                _ => json(&mut fields[name], rng),
            }
        }
        Value::Array(items) if !items.is_empty() && rng.random_ratio(5, 6) => {
            let index = rng.random_range(0..items.len());
            match rng.random_range(0..6) {
                0 => drop(items.remove(index)),
                1 => items.push(items[index].clone()),
                2 => *items = vec![items[index].clone(); 50],
                _ => json(&mut items[index], rng),
            }
        }
        _ => *value = other(value, rng),
    }
}

fn other(value: &Value, rng: &mut StdRng) -> Value {
    match rng.random_range(0..12) {
        0 => Value::Null,
        1 => json!(rng.random_bool(0.5)),
        2 => json!([0, 1, -1, i64::MAX, i64::MIN, 253_402_300_800_i64].choose(rng).unwrap()),
        3 => json!([u64::MAX, 1 << 53].choose(rng).unwrap()),
        4 => json!([0.5, -0.0, 1e308, 1e-320].choose(rng).unwrap()),
        5 => json!([value]),
        // As where an id is expanded, or an object is not.
        6 => json!({"id": value, "object": "charge"}),
        7 => value.get("id").cloned().unwrap_or_else(|| json!({})),
        8 => (0..rng.random_range(1..200)).fold(value.clone(), |inner, _| json!([inner])),
        9 => Value::Object((0..60).map(|_| (text(rng), json!(1))).collect::<Map<_, _>>()),
        10 => json!(value.to_string()),
        _ => json!(text(rng)),
    }
}

fn text(rng: &mut StdRng) -> String {
    let words = [
        "",
        " ",
        "\0",
        "\u{202e}",
        "é",
        "💶",
        "'",
        "\"",
        "%00",
        "../",
        "pi_1",
        "re_1",
        "tr_pi_1_1",
        "eur",
        "EUR",
        "xxx",
        "failed",
        "succeeded",
        "pending",
        "refund.created",
        "charge.refunded",
        "charge.dispute.closed",
        "v1.refund.created",
        "clawback_",
        "clawback_tr_pi_1_1",
        "2026-11-24T10:00:00Z",
        "9999999999999999999",
        "-1",
        "1e3",
        "null",
    ];
    match rng.random_range(0..8) {
        0 => words.choose(rng).unwrap().repeat(rng.random_range(1..300)),
        1 => (0..rng.random_range(0..20)).map(|_| rng.random::<char>()).collect(),
        _ => (*words.choose(rng).unwrap()).to_owned(),
    }
}

/// Changes some bytes: flipped, inserted, removed, repeated, cut off, or no UTF-8.
pub(super) fn bytes(input: &mut Vec<u8>, rng: &mut StdRng) {
    if input.is_empty() {
        return input.push(rng.random());
    }
    let from = rng.random_range(0..input.len());
    let to = (from + rng.random_range(1..9)).min(input.len());
    match rng.random_range(0..8) {
        0 => input[from] ^= 1 << rng.random_range(0..8),
        1 => input.insert(from, rng.random()),
        2 => drop(input.drain(from..to)),
        3 => input.extend_from_within(from..),
        4 => input.truncate(from),
        5 => drop(input.splice(from..to, [0xff, 0xfe, 0xc3, 0x28])),
        6 => drop(input.splice(from..from, text(rng).into_bytes())),
        _ => {
            let special = *b",;\"'\n\r\0={}[]:t v1".choose(rng).unwrap();
            input[from] = special;
        }
    }
}
