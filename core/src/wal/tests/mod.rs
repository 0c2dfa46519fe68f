mod bytes;
mod sealed;
mod wakes;
