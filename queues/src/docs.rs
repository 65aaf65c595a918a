//! The guides in `docs/`, compiled and run as part of this documentation.

#[cfg(feature = "testing")]
#[doc = include_str!("../docs/add-a-job-kind.md")]
pub mod add_a_job_kind {}

#[doc = include_str!("../docs/from-other-libraries.md")]
pub mod from_other_libraries {}

#[doc = include_str!("../docs/what-can-still-happen.md")]
pub mod what_can_still_happen {}

#[doc = include_str!("../docs/comparison.md")]
pub mod comparison {}

#[doc = include_str!("../docs/order-and-limits.md")]
pub mod order_and_limits {}

#[doc = include_str!("../docs/versions.md")]
pub mod versions {}
