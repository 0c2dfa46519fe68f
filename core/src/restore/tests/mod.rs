//! Restores of random histories, compared with the images that they were made from.

mod damage;
mod history;
mod large;
mod litestream;
mod memory;
mod output;
mod planning;
mod real;
pub(crate) mod world;
