mod checkpoints;
mod copies;
mod fuzz;
mod names;
mod refusals;
mod turns;
mod writers;
