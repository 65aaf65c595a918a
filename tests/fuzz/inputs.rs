//! The corpus: inputs as they really come, and those that once did harm.

use std::path::Path;

use serde_json::json;

/// The files of one kind, in the order of their names.
pub(super) fn corpus(kind: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(kind);
    let mut files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{} has no files", folder.display());
    files.iter().map(|file| std::fs::read(file).unwrap()).collect()
}

/// Bodies of `POST /v1/payments`, for the refunds of the corpus.
pub(super) fn payments() -> Vec<Vec<u8>> {
    let payment = |payment_ref: &str| {
        let transfers = json!([
            {"seller_id": "s1", "stripe_transfer_id": format!("tr_{payment_ref}_1"), "destination": "acct_1", "amount": 6000, "currency": "eur"},
            {"seller_id": "s2", "stripe_transfer_id": format!("tr_{payment_ref}_2"), "destination": "acct_2", "amount": 3000, "currency": "eur"},
        ]);
        json!({"payment_ref": payment_ref, "amount": 10000, "currency": "eur", "transfers": transfers})
    };
    ["pi_1", "pay_1"].iter().map(|payment_ref| serde_json::to_vec(&payment(payment_ref)).unwrap()).collect()
}
