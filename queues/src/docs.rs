//! The guides of the folder `docs`, as pages of this documentation, so that their code is compiled and run. They hold no
//! code of the library.

#[cfg(feature = "testing")]
#[doc = include_str!("../docs/add-a-job-kind.md")]
pub mod add_a_job_kind {}

#[doc = include_str!("../docs/what-can-still-happen.md")]
pub mod what_can_still_happen {}

#[doc = include_str!("../docs/comparison.md")]
pub mod comparison {}
