mod checkpoints;
mod copies;
mod fuzz;
mod names;
mod page_writes;
mod refusals;
mod turns;
mod writers;
