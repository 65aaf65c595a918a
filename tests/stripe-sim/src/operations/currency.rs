//! The currencies that Stripe knows.

use crate::shapes::ApiError;

const CURRENCIES: &str = "usd, aed, afn, all, amd, ang, aoa, ars, aud, awg, azn, bam, bbd, bdt, bgn, bhd, bif, bmd, \
    bnd, bob, brl, bsd, bwp, byn, bzd, cad, cdf, chf, clp, cny, cop, crc, cve, czk, djf, dkk, dop, dzd, egp, etb, eur, \
    fjd, fkp, gbp, gel, gip, gmd, gnf, gtq, gyd, hkd, hnl, hrk, htg, huf, idr, ils, inr, isk, jmd, jod, jpy, kes, kgs, \
    khr, kmf, krw, kwd, kyd, kzt, lak, lbp, lkr, lrd, lsl, mad, mdl, mga, mkd, mmk, mnt, mop, mro, mur, mvr, mwk, mxn, \
    myr, mzn, nad, ngn, nio, nok, npr, nzd, omr, pab, pen, pgk, php, pkr, pln, pyg, qar, ron, rsd, rub, rwf, sar, sbd, \
    scr, sek, sgd, shp, sll, sos, srd, std, szl, thb, tjs, tnd, top, try, ttd, twd, tzs, uah, ugx, uyu, uzs, vnd, vuv, \
    wst, xaf, xcd, xof, xpf, yer, zar, zmw, usdc, ghs, eek, lvl, svc, vef, ltl";

/// The currency in lower case.
pub(crate) fn check(given: &str) -> Result<String, ApiError> {
    let currency = given.to_ascii_lowercase();
    if CURRENCIES.split(", ").any(|known| known == currency) {
        return Ok(currency);
    }
    let message = format!("Invalid currency: {currency}. Stripe currently supports these currencies: {CURRENCIES}");
    Err(ApiError::invalid(message).param("currency"))
}
