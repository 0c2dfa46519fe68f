//! Restores of random histories, compared with the images that they were made from.

mod damage;
mod history;
pub(crate) mod large;
mod litestream;
pub(crate) mod memory;
mod output;
mod planning;
mod real;
pub(crate) mod world;
